"""The recipes of docs/recipes.md run as printed, and say what they claim to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from pipeline.clips.grid import TokenGrid
from pipeline.errors import ClipStatus, StoreError
from tests.evaluations import make_evaluation
from tests.stores import make_store

ROOT = Path(__file__).parents[2]
NUM_VIDEOS = 24
DOCS = ROOT / "docs" / "recipes.md"


@pytest.fixture(scope="module", params=["runs", "label=7"])
def names(tmp_path_factory: pytest.TempPathFactory, request: Any) -> dict[str, Any]:
    """What the recipes leave behind, run one after the other where `runs/ssv2` is a store.

    Or a store in a folder whose name a reader takes for a column.
    """
    pytest.importorskip("duckdb")
    pytest.importorskip("xarray")
    pytest.importorskip("polars")
    folder = tmp_path_factory.mktemp("recipes")
    make_store(
        folder / "runs" / "ssv2",
        30,
        grid=TokenGrid(3, 5, 5),
        failed={7: ClipStatus.DECODE_ERROR},
        degenerate=(4,),
        further_oracles=("hirescam@embeddings",),
    )
    made_up = np.random.default_rng(0).normal(size=(NUM_VIDEOS, 5, 3))
    make_evaluation(
        folder / "runs" / "ssv2-eval",
        made_up,
        [i % 3 for i in range(NUM_VIDEOS)],
        methods=("random", "lite"),
        keep_ratios=(1.0, 0.5, 0.3),
        num_seeds=1,
        selector_digests={"lite": "a"},
        failed=[(4, 2)],
    )
    (folder / "runs").rename(folder / request.param)
    text = DOCS.read_text().replace("runs/ssv2", f"{request.param}/ssv2")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    assert len(blocks) > 6
    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in blocks:
            exec(compile(block, str(DOCS), "exec"), found)
        found["maps"].load()
    return found


def test_the_agreement_of_two_oracles(names: dict[str, Any]) -> None:
    store = names["store"]
    ok = store.clips(status="ok")["clip_id"].to_numpy()
    scores = [store.scores(name)[:][ok].reshape(len(ok), -1) for name in store.oracles]
    ranks = [rankdata(values, axis=1).ravel() for values in scores]
    assert names["agreement"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    np.testing.assert_array_equal(names["second"][ok], store.scores(store.oracles[1])[:][ok])


def test_quantiles_per_class(names: dict[str, Any]) -> None:
    store = names["store"]
    assert names["quantiles"].shape == (3, 4)
    for label, row in names["quantiles"].iterrows():
        clips = store.clips(status="ok")
        scores = store.scores()[:][clips.loc[clips["label"] == label, "clip_id"]]
        np.testing.assert_allclose(
            row, np.quantile(scores.astype(np.float64), [0.5, 0.9, 0.99, 0.999]), rtol=1e-6
        )


def test_polars_reads_what_pandas_reads(names: dict[str, Any]) -> None:
    by_class = names["by_class"].to_pandas().set_index("label")
    np.testing.assert_allclose(by_class["q99"], names["quantiles"][0.99], rtol=1e-6)
    assert by_class["tokens"].sum() == len(names["tokens"])


def test_lost_and_mended_clips(names: dict[str, Any]) -> None:
    rows = names["results"]
    right = set(rows.loc[(rows["method"] == "full") & rows["correct"], "clip_id"])
    at_half = rows[(rows["method"] == "lite") & (rows["keep_ratio"] == 0.5)]
    kept_right = set(at_half.loc[at_half["correct"], "clip_id"])
    assert names["lost_clips"] == sorted(right - kept_right)
    assert names["mended_clips"] == sorted(kept_right - right)
    assert names["lost_clips"]
    assert names["mended_clips"]


def test_top10_share_is_the_same_both_ways(names: dict[str, Any]) -> None:
    assert len(names["share_per_video"]) == 29
    assert names["share_per_video"].isna().sum() == 1  # the degenerate one
    stored = names["ok"].set_index("clip_id")["top10_share"].dropna()
    pd.testing.assert_series_equal(
        names["share_per_clip"], stored, check_names=False, rtol=1e-5, check_dtype=False
    )


def test_the_folders_name_is_no_column(names: dict[str, Any]) -> None:
    store, planned = names["store"], names["store"].plan()["label"]
    assert names["clips"]["label"].tolist() == planned.tolist()
    assert list(names["clips"].columns) == store.clips().columns.tolist()
    assert set(names["tokens"]["label"]) == {0, 1, 2}


def test_a_folder_that_duckdb_takes_for_a_column_is_refused(tmp_path: Path) -> None:
    """Without the recipe's option DuckDB does."""
    duckdb = pytest.importorskip("duckdb")
    make_store(tmp_path / "s", 10)
    (tmp_path / "s").rename(tmp_path / "label=7")
    whole = f"{tmp_path}/label=7/clips"
    assert set(pd.read_parquet(whole)["label"]) == {0, 1, 2}
    assert set(duckdb.sql(f"SELECT label FROM '{whole}/*.parquet'").df()["label"]) == {7}
    for name in ("label=8/s", "score=1", "x/split=train/y"):
        with pytest.raises(StoreError, match="DuckDB takes for the value of the column"):
            make_store(tmp_path / name, 10)
        assert not (tmp_path / name).exists()
    make_store(tmp_path / "seed=1" / "s", 10)  # no column of ours


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


def test_worst_clips_reasons_and_confusion(names: dict[str, Any]) -> None:
    ok = names["store"].clips(status="ok")
    expected = sorted(zip(ok["true_prob"], ok["clip_id"], strict=True))[:10]
    assert names["worst"]["clip_id"].tolist() == [clip for _, clip in expected]
    assert names["reasons"].to_dict("index") == {"decode_error": {"size": 1, "min": "video0007"}}
    for label, row in names["confusion"].iterrows():
        said = [p for p, own in zip(ok["prediction"], ok["label"], strict=True) if own == label]
        for prediction, share in row.items():
            assert share == pytest.approx(said.count(prediction) / len(said))


def test_the_share_of_the_edge(names: dict[str, Any]) -> None:
    scores = np.asarray(names["store"].scores()[:], np.float64)
    scores = scores[~np.isnan(scores).any(axis=(1, 2, 3))]
    inside = sum(clip[:, y, x].sum() for clip in scores for y in (1, 2, 3) for x in (1, 2, 3))
    assert names["edge_share"] == pytest.approx(1 - inside / scores.sum(), rel=1e-5)


def test_the_recipes_of_an_evaluation(names: dict[str, Any]) -> None:
    """Against its logits: columns full, random 0.5 and 0.3, lite 0.5 and 0.3."""
    logits = np.random.default_rng(0).normal(size=(NUM_VIDEOS, 5, 3))
    labels = np.arange(NUM_VIDEOS) % 3
    right = logits.argmax(axis=2) == labels[:, None]
    good = np.arange(NUM_VIDEOS) != 4  # failed under one line, and so left out of all
    shares = right[good].mean(axis=0)
    table = names["accuracy"]
    lines = [("full", 1.0), ("random", 0.5), ("random", 0.3), ("lite", 0.5), ("lite", 0.3)]
    for line, share in zip(lines, shares, strict=True):
        assert table.loc[line] == pytest.approx(share)
    gap = right[good, 3].astype(float) - right[good, 1]
    assert names["difference"] == pytest.approx(gap.mean())
    assert names["standard_error"] == pytest.approx(np.std(gap, ddof=1) / np.sqrt(len(gap)))
    for label, lost in names["lost"].items():
        own = good & (labels == label)
        assert lost == pytest.approx(right[own, 0].mean() - right[own, 3].mean())
    assert names["lost"].is_monotonic_decreasing
    costs = names["costs"].set_index(["method", "keep_ratio"])
    assert {line: costs.loc[line, "top1"] for line in lines} == pytest.approx(
        dict(zip(lines, shares, strict=True))
    )
    assert costs.loc[("lite", 0.5), "gmacs"] == 6  # five tokens, and one for the ranking
    probability = np.exp(logits[good, 0])
    probability = (probability / probability.sum(axis=1, keepdims=True)).max(axis=1)
    parts = np.array_split(np.argsort(probability), 5)
    assert sum(map(len, parts)) == good.sum() == 23
    calibration = names["calibration"]
    assert calibration["confidence"].is_monotonic_increasing
    lowest = np.sort(probability)[: int(23 / 5)]
    assert calibration["confidence"].iloc[0] == pytest.approx(lowest.mean(), rel=1e-5)


@pytest.mark.parametrize("page", ["README.md", "docs/recipes.md"])
def test_the_lorenz_curve_of_many_tokens_ends_at_one(page: str) -> None:
    """In float32 the sum of these ends at 0.5, as every addition rounds to nothing from 2^24 on."""
    text = (ROOT / page).read_text()
    [block] = [b for b in re.findall(r"```python\n(.*?)```", text, flags=re.S) if "lorenz" in b]
    lines = block[block.index("value = ") :]
    n = 2**25
    tokens = pd.DataFrame({"score": np.ones(n, np.float32)})
    found: dict[str, Any] = {"np": np, "pd": pd, "tokens": tokens}
    exec(compile(lines, page, "exec"), found)
    lorenz = np.asarray(found["lorenz"])
    assert lorenz[-1] == pytest.approx(1, rel=1e-12)
    assert lorenz[len(lorenz) // 2] == pytest.approx(0.5, rel=1e-6)
    assert tokens["score"].to_numpy().cumsum()[-1] == n // 2  # the test can fail


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
    scores = np.asarray(store.scores()[:], np.float64)
    assert found["quantiles"].loc[0, 0.9] == pytest.approx(np.quantile(scores[::3], 0.9))
    assert found["share"].mean() == pytest.approx(store.clips().top10_share.mean(), rel=1e-6)
    assert found["lorenz"].iloc[-1] == pytest.approx(1)
    assert found["lorenz"].is_monotonic_increasing
    clips = store.clips()
    correct = (clips.prediction == clips.label).to_numpy()
    tails = found["tails"].set_index("correct").q99
    assert tails[True] == pytest.approx(np.quantile(scores[correct], 0.99), rel=1e-6)
    assert tails[False] == pytest.approx(np.quantile(scores[~correct], 0.99), rel=1e-6)
