"""The page: what it says of small or failed stores, its statistics by value."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import ClipStatus
from selector.analysis import distribution as dist
from selector.analysis.places import places
from selector.evaluation.report.summary import summarise
from selector.report.accuracy import accuracy_frame, chosen_methods, pareto
from selector.report.beside_published import published_points, relative
from selector.report.contents import sections
from selector.report.draw import looks
from selector.report.page import render
from selector.report.svg import inline_svg
from tests.evaluations import make_evaluation, make_lite_evaluation
from tests.stores import make_store

FAILED = dict.fromkeys(range(4), ClipStatus.MISSING_FILE)


class Page(HTMLParser):
    """Counts plots, and collects what a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.plots, self.fetched = 0, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.plots += tag == "svg" and bool(attrs.get("aria-label"))
        for name in ("src", "href", "xlink:href", "srcset"):
            value = attrs.get(name)
            if value and not value.startswith(("#", "data:")):
                self.fetched.append(value)


def test_a_store_of_failures_says_so(tmp_path: Path):
    store = make_store(tmp_path / "store", 4, failed=FAILED)
    parts = sections(store)
    assert "No clip of this store has a map" in parts[0].text[0]
    assert any("No evaluation was given" in line for line in parts[0].text)
    failures = next(part for part in parts if part.title == "Failures")
    assert failures.text == ["4 of 4 committed clips failed."]
    assert Page(render("x", parts)).plots == 0


def test_one_clip_is_a_page(tmp_path: Path):
    parts = sections(make_store(tmp_path / "store", 1))
    text = render("<one>", parts)
    assert "&lt;one&gt;" in text
    assert "Too few classes with a label" in text
    assert Page(text).plots == 5
    assert "[unknown]" in text
    assert "nan" not in text


def test_flat_maps_are_a_page(tmp_path: Path):
    text = render("x", sections(make_store(tmp_path / "store", 3, degenerate=(0, 1, 2))))
    assert "No token has any value" in text
    assert text.count("cannot be said") == 5


def test_one_class_is_a_page(tmp_path: Path):
    store = make_store(tmp_path / "store", 6, label_names=["all"])
    text = render("x", sections(store))
    assert "Too few classes with a label" in text
    assert text.count("cannot be said") == 4  # of the five principles, all but the fourth


def test_an_evaluation_on_the_page(tmp_path: Path):
    store = make_store(tmp_path / "store", 12, failed={3: FAILED[0]})
    evaluation, _ = make_lite_evaluation(tmp_path / "e", num_videos=100)
    parts = sections(store, [evaluation])
    text = render("x", parts)
    assert Page(text).fetched == []
    assert Page(text).plots >= 10
    assert "different backbones" in text
    assert text.count("lite-pipeline evaluate \\\n") == 1
    assert "--selector DIR" not in text
    budgets = next(part for part in parts if part.title == "Budgets of LITE++")
    by_rule = budgets.tables[0].frame.groupby(["method", "base_ratio"])["share"].sum()
    np.testing.assert_allclose(by_rule, 1)


def test_an_evaluation_without_usable_videos_is_a_page_that_says_so(tmp_path: Path):
    store = make_store(tmp_path / "store", 6)
    logits = np.zeros((3, 3, 5))
    nothing = make_evaluation(
        tmp_path / "none", logits, [0, 1, 2], failed=[(clip, 0) for clip in range(3)]
    )
    begun = make_evaluation(tmp_path / "begun", logits, [0, 1, 2], shards=[])
    parts = sections(store, [nothing, begun])
    text = render("x", parts)
    assert "none of the 3 evaluated videos worked under every method" in text
    assert "has no committed results yet" in text
    assert sum(part.title.startswith("The five principles") for part in parts) == 2
    assert text.count("lite-pipeline evaluate \\\n") == 2
    assert Page(text).plots == Page(render("x", sections(store))).plots == 6


def test_intervals_are_over_groups_where_the_evaluation_has_some(tmp_path: Path):
    store = make_store(tmp_path / "store", 6)
    logits = np.random.default_rng(0).normal(size=(12, 3, 5)).astype(np.float32)
    groups = [f"g{i // 3}" for i in range(12)]
    grouped = make_evaluation(tmp_path / "e", logits, [0, 1, 2] * 4, groups=groups)
    accuracy = next(p for p in sections(store, [grouped]) if p.title == "Accuracy against cost")
    assert "95 % intervals over 4 groups of the videos" in accuracy.text[0]
    assert "intervals of 4 are rough" in accuracy.text[0]


def test_a_method_has_one_colour_in_all_pictures():
    found = looks(["full", "random", "lite"])
    assert len({colour for colour, _ in found.values()}) == 3
    many = looks(map(str, range(50)))
    assert len(set(many.values())) == 50


def test_published_points_are_the_papers_and_off_at_first(tmp_path: Path):
    points = published_points().set_index(["dataset", "model"])
    half = points.loc["K400", "LITE, P = 0.5"]
    assert half["cost"] == pytest.approx(80 / 181)
    assert half["change"] == pytest.approx(80.36 - 81.25)
    assert points.loc["SSv2", "Oracle, true label"]["change"] == pytest.approx(8.02)
    evaluation, _ = make_lite_evaluation(tmp_path / "e", num_videos=40)
    frame = accuracy_frame(summarise(evaluation))
    svg = inline_svg(relative(frame, ["full", "lite"]), "x", 0)
    assert svg.count('class="tip over"') == len(points)


def test_the_methods_of_a_full_diagram():
    names = ["full", "random", "tome", "lite", *(f"other{i}" for i in range(9)), "lite++"]
    frame = pd.DataFrame({"method": names, "best_by_gflops": False, "best_by_speed": False})
    frame.loc[frame["method"].isin(["other3", "lite++"]), "best_by_gflops"] = True
    chosen = chosen_methods(frame, ["lite"], ["lite++"])
    assert chosen == ["full", "random", "lite", "other3"]
    assert len(chosen_methods(frame.head(5), ["lite"])) == 5


def test_pareto_front_by_hand():
    cost = np.array([1.0, 2.0, 2.0, 3.0, 1.0])
    value = np.array([0.5, 0.7, 0.6, 0.7, 0.5])
    assert pareto(cost, value).tolist() == [True, True, False, False, True]


def test_value_by_place_is_that_of_the_arrays(tmp_path: Path):
    store = make_store(tmp_path / "store", 10, failed={3: ClipStatus.DECODE_ERROR})
    scores = np.delete(store.scores()[:].astype(np.float64), 3, axis=0)
    found = places(store)
    np.testing.assert_allclose(found.over_space, scores.mean(axis=(0, 1)))
    inner = scores[:, :, 1:-1, 1:-1].sum()
    assert found.edge_value == pytest.approx(1 - inner / scores.sum())


def test_histogram_and_distance_of_known_samples():
    low = dist.count_scores(np.array([[0.0, 0.25, 0.25, 1.0]], np.float32))
    edges, _, share = dist.histogram(low)
    assert share.sum() == pytest.approx(1)
    assert share[0] == share[-1] == 0.25
    assert share[np.searchsorted(edges, 0.25, side="right") - 1] == 0.5
    high = dist.count_scores(np.array([[0.5, 0.5, 1.0, 1.0]], np.float32))
    assert dist.ks_distance(low, high) == pytest.approx(0.75)  # just below 0.5
    assert np.isnan(dist.ks_distance(low, np.zeros_like(low)))
