"""The recipes of docs/store-format.md run as printed, and say what they claim to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.clips.grid import TokenGrid
from pipeline.errors import ClipStatus
from tests.stores import make_store

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "store-format.md"


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the recipes leave behind, run one after the other where `runs/ssv2` is a store."""
    pytest.importorskip("duckdb")
    pytest.importorskip("xarray")
    folder = tmp_path_factory.mktemp("recipes")
    make_store(
        folder / "runs" / "ssv2",
        30,
        grid=TokenGrid(3, 5, 5),
        failed={7: ClipStatus.DECODE_ERROR},
        degenerate=(4,),
    )
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.S)
    assert len(blocks) > 6
    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in blocks:
            exec(compile(block, str(DOCS), "exec"), found)
        found["maps"].load()
    return found


def test_quantiles_per_class(names: dict[str, Any]) -> None:
    store = names["store"]
    assert names["quantiles"].shape == (3, 4)
    for label, row in names["quantiles"].iterrows():
        clips = store.clips(status="ok")
        scores = store.scores[:][clips.loc[clips["label"] == label, "clip_id"]]
        np.testing.assert_allclose(
            row, np.quantile(scores.astype(np.float64), [0.5, 0.9, 0.99, 0.999]), rtol=1e-6
        )


def test_top10_share_is_the_same_both_ways(names: dict[str, Any]) -> None:
    assert len(names["share_per_video"]) == 29
    assert names["share_per_video"].isna().sum() == 1  # the degenerate one
    stored = names["ok"].set_index("clip_id")["top10_share"].dropna()
    pd.testing.assert_series_equal(
        names["share_per_clip"], stored, check_names=False, rtol=1e-5, check_dtype=False
    )


def test_lorenz_curve(names: dict[str, Any]) -> None:
    lorenz, x = names["lorenz"], names["share_of_tokens"]
    assert lorenz[0] == 0
    assert lorenz[-1] == pytest.approx(1)
    assert (np.diff(lorenz, 2) >= -1e-12).all()  # convex
    assert (lorenz <= x + 1e-12).all()


def test_mean_excess_of_the_unscaled_values(names: dict[str, Any]) -> None:
    store = names["store"]
    values = np.concatenate([store.read_shard(shard).cam.ravel() for shard in store.shards()])
    positive = values[values > 0]
    expected = []
    for threshold in np.quantile(positive, [0.9, 0.95, 0.98]):
        expected.append((positive[positive > threshold] - threshold).mean())
    np.testing.assert_allclose(names["mean_excess"], expected, rtol=1e-4)


def test_joined_to_correctness(names: dict[str, Any]) -> None:
    assert names["by_correct"].index.tolist() == [False, True]
    sql = names["tails_sql"].set_index("correct")
    np.testing.assert_allclose(sql["q99"], names["tails"].xs(0.99, level=1), rtol=1e-6)
    assert sql["share_above_half"].between(0, 1).all()


def test_arrays_and_the_reader(names: dict[str, Any]) -> None:
    assert names["over_time"].dims == ("clip", "t")
    assert np.flatnonzero(np.isnan(names["over_time"]).all("t")).tolist() == [7]
    assert names["failures"]["video_id"].tolist() == ["video0007"]
    assert set(names["strong"]["label"]) == {0, 2}
    assert names["named"]["label_name"].iloc[0] == "pushing"
    assert names["shard"].scores.shape == (4, 3, 5, 5)


def test_the_readmes_recipes_run_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("duckdb")
    store = make_store(tmp_path / "demo" / "store", 30)
    _, section = (ROOT / "README.md").read_text().split("## Read a store with pandas")
    blocks = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], flags=re.S)
    assert len(blocks) == 2
    found: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, "README.md", "exec"), found)
    scores = np.asarray(store.scores[:], np.float64)
    assert found["quantiles"].loc[0, 0.9] == pytest.approx(np.quantile(scores[::3], 0.9))
    assert found["share"].mean() == pytest.approx(store.clips().top10_share.mean(), rel=1e-6)
    assert found["lorenz"].iloc[-1] == pytest.approx(1)
    assert found["lorenz"].is_monotonic_increasing
    clips = store.clips()
    correct = (clips.prediction == clips.label).to_numpy()
    tails = found["tails"].set_index("correct").q99
    assert tails[True] == pytest.approx(np.quantile(scores[correct], 0.99), rel=1e-6)
    assert tails[False] == pytest.approx(np.quantile(scores[~correct], 0.99), rel=1e-6)
