"""Where value sits and whether oracles agree: over groups, copies of a video say nothing new."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import ClipStatus
from pipeline.store.reader import Store
from selector.analysis.places import agreement, places
from selector.report.contents import sections
from tests.stores import make_store

NUM_GROUPS, NUM_COPIES = 8, 5
ORACLES = {"further_oracles": ("hirescam@embeddings",)}


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> Store:
    """One video a group."""
    return make_store(tmp_path_factory.mktemp("single") / "s", NUM_GROUPS, **ORACLES)


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Store:
    """The same videos, each five times under other names, its copies in one group."""
    like = [clip // NUM_COPIES for clip in range(NUM_GROUPS * NUM_COPIES)]
    place = tmp_path_factory.mktemp("copied") / "s"
    groups = [f"recording {clip}" for clip in like]
    return make_store(place, len(like), like=like, groups=groups, **ORACLES)


def test_value_over_time_by_hand(single):
    scores = np.asarray(single.scores()[:], np.float64)
    found = places(single).over_time
    assert found["mean"].to_numpy() == pytest.approx(scores.mean(axis=(0, 2, 3)))
    half = 1.96 * scores.mean(axis=(2, 3)).std(axis=0) / np.sqrt(NUM_GROUPS)
    assert (found["high"] - found["low"]).to_numpy() == pytest.approx(2 * half, rel=0.15)


def test_intervals_of_value_over_time_are_over_groups(single, copied):
    found, expected = places(copied), places(single)
    assert found.over_time.to_numpy() == pytest.approx(expected.over_time.to_numpy())
    assert found.over_space == pytest.approx(expected.over_space)
    assert found.edge_value == pytest.approx(expected.edge_value)


def test_intervals_of_agreement_are_over_groups(single, copied):
    [row], [expected] = (agreement(s).to_dict("records") for s in (copied, single))
    assert (row.pop("num_clips"), expected.pop("num_clips")) == (NUM_GROUPS * NUM_COPIES, 8)
    names = [expected.pop(name) for name in ("first", "second")]
    assert [row.pop(name) for name in ("first", "second")] == names
    assert row == pytest.approx(expected)
    maps = [np.asarray(single.cam(name)[:], np.float64).reshape(8, -1) for name in names]
    each = [stats.spearmanr(a, b).statistic for a, b in zip(*maps, strict=True)]
    assert row["spearman"] == pytest.approx(np.mean(each), abs=1e-4)
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * np.std(each) / 8**0.5, rel=0.15)


def test_a_failed_clip_and_a_video_without_a_group_are_no_trouble(tmp_path: Path):
    like, groups = [0, 0, 1, 2, 3, 4], ["a", "a", None, "b", "c", None]
    failed = {3: ClipStatus.MISSING_FILE}
    store = make_store(tmp_path / "s", 6, like=like, groups=groups, failed=failed, **ORACLES)
    alone = make_store(tmp_path / "t", 5, failed={2: ClipStatus.MISSING_FILE}, **ORACLES)
    found = places(store).over_time
    values = np.asarray(alone.scores()[:], np.float64).mean(axis=(2, 3))
    expected = (2 * values[0] + values[1] + values[3] + values[4]) / 5
    assert found["mean"].to_numpy() == pytest.approx(expected)
    assert (found["low"] < found["high"]).all()
    assert agreement(store).loc[0, "num_clips"] == 5


@pytest.mark.parametrize("which", ["single", "copied"])
def test_the_words_say_what_intervals_are_over(which: str, request):
    store = request.getfixturevalue(which)
    over, other = ("videos", "groups of") if which == "single" else ("groups of the videos", "vid")
    shown = CliRunner().invoke(app, ["analyze", "--store", str(store.root)])
    said = " ".join(shown.stdout.split())
    assert f"[95 % over {over}: jackknife" in said
    assert f"[95 % bootstrap over {over}]" in said
    assert f"over {other}" not in said
    parts = {part.title: part for part in sections(store)}
    assert parts["Agreement of oracles"].text[0].endswith(f"95 % interval over {over}.")
    assert parts["Where value sits"].plots[1].alt.endswith(f"interval over {over}")


def test_a_shard_that_is_committed_meanwhile_is_left_out(tmp_path: Path, monkeypatch):
    store = make_store(tmp_path / "s", 12, shards=[0, 1], **ORACLES)
    expected = places(store)
    read = Store.clips

    def read_then_commit(self, *arguments, **options):
        found = read(self, *arguments, **options)
        make_store(tmp_path / "s", 12, shards=[2], **ORACLES)
        return found

    monkeypatch.setattr(Store, "clips", read_then_commit)
    found = places(store)
    assert len(store.shards()) == 3
    assert found.over_time.equals(expected.over_time)
