"""The analysis of a store equals a direct computation on all its tokens at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cli.analyze import TABLES
from pipeline.clips.grid import TokenGrid
from pipeline.errors import ClipStatus, StoreError
from selector.analysis import tails
from selector.analysis.classes import TREND_MEASURES, class_trends
from selector.analysis.jackknife import NUM_GROUPS, video_groups
from selector.analysis.store import analyze_store
from tests.stores import make_store

FAILED = {3: ClipStatus.MISSING_FILE, 9: ClipStatus.DECODE_ERROR}


@pytest.fixture
def store(tmp_path: Path):
    return make_store(tmp_path / "store", 30, failed=FAILED, degenerate=(5,))


def test_counts_clips_tokens_and_accuracy(store):
    result = analyze_store(store)
    clips = store.clips(status="ok")
    assert (result.num_clips, result.num_failed, result.num_degenerate) == (28, 2, 1)
    assert result.pooled["num_tokens"] == 28 * store.grid.num_tokens
    assert result.top1 == pytest.approx((clips.label == clips.prediction).mean())
    assert result.classes["num_clips"].tolist() == clips.groupby("label").size().tolist()


def test_pooled_and_per_class_values_are_those_of_the_token_table(store):
    result = analyze_store(store)
    tokens = store.tokens()
    assert result.pooled["mean"] == pytest.approx(tokens.score.mean(), rel=1e-6)
    by_class = tokens.groupby("label").score
    np.testing.assert_allclose(result.classes["mean"], by_class.mean(), rtol=1e-6)
    np.testing.assert_allclose(
        result.classes["q50"], by_class.quantile(0.5, interpolation="lower"), rtol=1e-3, atol=1e-3
    )
    ordered = np.sort(tokens.score)[::-1]
    share = ordered[: len(ordered) // 10].sum() / ordered.sum()
    assert result.pooled["top10_share"] == pytest.approx(share, abs=5e-3)


@pytest.fixture(scope="module")
def large_store(tmp_path_factory: pytest.TempPathFactory):
    """Enough tokens for tails: 60 clips of 400, one failed and one without positive values."""
    path = tmp_path_factory.mktemp("large") / "store"
    failed = {8: ClipStatus.DECODE_ERROR}
    return make_store(path, 60, failed=failed, degenerate=(5,), grid=TokenGrid(4, 10, 10))


def positive_values(store) -> list[np.ndarray]:
    """Of each clip that has some, in the map's own units."""
    shards = [store.read_shard(shard) for shard in store.shards()]
    maps = [cam[cam > 0] for shard in shards for cam in shard.cam]
    return [values for values in maps if len(values)]


@pytest.mark.parametrize("relative", [False, True])
def test_tails_are_those_of_the_unscaled_positive_values(large_store, relative: bool):
    result = analyze_store(large_store, tail=0.2)
    parts = [x / x.mean() if relative else x for x in positive_values(large_store)]
    assert len(parts) == 58
    values = np.concatenate(parts).astype(np.float64)
    rows = result.tails[result.tails["values"] == ("relative" if relative else "raw")]
    np.testing.assert_allclose(rows["share"], [0.2, 0.1, 0.04])
    for row in rows.itertuples():
        excess = values[values >= row.threshold] - row.threshold
        direct = tails.fit_excesses(excess, np.ones(len(excess)), row.threshold)
        assert abs(row.num_tokens - len(excess)) <= 1  # float32 against float64 at the edge
        assert 0.93 * row.share < row.num_tokens / len(values) <= row.share
        assert row.shape == pytest.approx(direct.shape, abs=0.005)
        assert row.shape_low < row.shape < row.shape_high


def test_the_shape_of_a_class_is_that_of_its_own_clips(large_store):
    result = analyze_store(large_store, tail=0.2)
    for row in result.classes.itertuples():
        labels = large_store.clips(status="ok").set_index("clip_id")["label"].drop(5)
        parts = [x / x.mean() for x in positive_values(large_store)]
        own = [x for x, label in zip(parts, labels, strict=True) if label == row.label]
        histogram = tails.count_values(np.concatenate(own)[None], np.zeros(1, int), 1)[0]
        fit = tails.fit_tail(histogram, 0.2)
        assert fit is not None
        assert row.tail_shape == pytest.approx(fit.shape, abs=1e-4)


def test_intervals_are_over_what_videos_were_cut_from(tmp_path):
    """Twelve groups of five videos that are alike: 60 videos say hardly more than 12."""

    def of(**more):
        store = make_store(tmp_path / str(len(more)), 60, grid=TokenGrid(4, 10, 10), **more)
        return analyze_store(store, tail=0.2)

    alone = of()
    order = alone.videos["gini"].to_numpy().argsort().argsort()
    names = alone.videos["video_id"].tolist()
    assert names == sorted(names)  # those of the plan, too
    grouped = of(groups=[f"source {place // 5}" for place in order])
    rows = {}
    for name, found in (("alone", alone), ("grouped", grouped)):
        shares = found.shares
        over = (shares["over"] == "videos") & (shares["measure"] == "gini") & shares["label"].isna()
        (rows[name],) = shares[over].itertuples()
    means = np.sort(alone.videos["gini"].to_numpy()).reshape(12, 5).mean(axis=1)
    half = 1.96 * means.std() / np.sqrt(12)
    assert rows["grouped"].value == rows["alone"].value
    assert rows["grouped"].high - rows["grouped"].low == pytest.approx(2 * half, rel=0.15)
    assert rows["alone"].high - rows["alone"].low < 0.7 * 2 * half


def test_the_views_of_a_video_fall_into_one_group_and_groups_are_equally_large():
    video_ids = pd.Series([f"v{i % 130}" for i in range(390)])
    groups = pd.Series(video_groups(video_ids))
    assert groups.groupby(video_ids).nunique().eq(1).all()
    sizes = video_ids.groupby(groups).nunique()
    assert (len(sizes), sizes.min(), sizes.max()) == (NUM_GROUPS, 2, 3)


def test_a_trend_over_classes_is_found_with_its_interval():
    rng = np.random.default_rng(0)
    top1 = rng.random(40)
    classes = pd.DataFrame(
        {
            "top1": top1,
            "half_share": -top1 + rng.normal(0, 0.1, 40),
            "top10_share": rng.random(40),
            "gini": np.where(np.arange(40) < 30, top1, np.nan),
            "tail_shape": np.nan,
        }
    )
    trends = class_trends(classes).set_index("measure")
    assert trends.index.tolist() == ["half_share", "top10_share", "gini"]
    expected = classes[["top1", "half_share"]].rank().corr().iloc[0, 1]
    assert trends.loc["half_share", "spearman"] == pytest.approx(expected)
    assert trends.loc["half_share", "high"] < -0.7
    assert trends.loc["top10_share", "low"] < 0 < trends.loc["top10_share", "high"]
    assert trends.loc["gini", "num_classes"] == 30
    assert trends.loc["gini", "spearman"] == pytest.approx(1)
    # Every resample of a perfect order is perfect, which says nothing of how sure it is.
    assert np.isnan(trends.loc["gini", ["low", "high"]].astype(float)).all()


def test_equal_classes_and_few_have_no_trend():
    classes = pd.DataFrame({key: [0.5, 0.6, 0.7] for key in ("top1", *TREND_MEASURES)})
    assert len(class_trends(classes)) == 4
    assert class_trends(classes.assign(top1=0.5)).empty
    assert class_trends(classes[:2]).empty


def test_the_report_fits_a_terminal_and_the_files_hold_the_rest(large_store, tmp_path: Path):
    run = ["analyze", "--store", str(large_store.root.url), "--out", str(tmp_path / "out")]
    shown = CliRunner().invoke(app, run, catch_exceptions=False).output
    assert max(map(len, shown.splitlines())) <= 80
    assert "generalised Pareto" in shown
    assert "Spearman over 3 classes" in shown
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {f"{name}.csv" for name in (*TABLES, "agreement")}


def test_without_labels_or_enough_values_the_report_says_so(tmp_path: Path):
    store = make_store(tmp_path / "store", 4, label_names=["one"])
    shown = CliRunner().invoke(app, ["analyze", "--store", str(store.root.url)])
    assert "too few positive values" in shown.output
    assert "too few classes" in shown.output


def test_an_unfinished_store_counts_what_is_committed(tmp_path: Path):
    store = make_store(tmp_path / "store", 30, shards=[4, 1])
    assert analyze_store(store).num_clips == 8


def test_progress_and_json(store):
    seen = []
    result = analyze_store(store, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (8, 8)
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["num_clips"] == 28
    assert len(plain["classes"]) == 3


def test_a_store_without_a_good_clip_is_refused(tmp_path: Path):
    everything = dict.fromkeys(range(4), ClipStatus.MISSING_FILE)
    store = make_store(tmp_path / "store", 4, failed=everything)
    with pytest.raises(StoreError, match="holds no clip with status ok"):
        analyze_store(store)


def test_a_damaged_array_is_named(store):
    chunk = next((Path(str(store.root.url)) / "oracle.zarr" / "cam").glob("c.1*"))
    chunk.write_bytes(b"x" * 100)
    with pytest.raises(StoreError, match=r"cam/c\.1\.0\.0\.0 is damaged.*lite-pipeline verify"):
        analyze_store(store)
