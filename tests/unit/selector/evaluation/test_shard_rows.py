"""From logits to rows."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ClipStatus
from pipeline.store.tables import parquet_bytes
from selector.evaluation.layout import results_schema
from selector.evaluation.shard_rows import ShardRows
from tests.evaluations import make_info, make_plan

# Conditions: full, and random at 0.5 with seeds 0 and 1.
NUM_CONDITIONS = 3


def make_rows(labels=(0, 1), num_classes=7, views=(1, 1)):
    plan = make_plan(labels, views, shard_size=64)
    info = make_info(plan, num_classes, num_segments=views[0], num_crops=views[1], shard_size=64)
    return ShardRows(info, plan.to_pydict())


def test_a_row_says_what_its_logits_say():
    rows = make_rows()
    logits = np.log(np.array([[0.1, 0.5, 0.2, 0.1, 0.05, 0.03, 0.02]] * 2, np.float32))
    for condition in range(NUM_CONDITIONS):
        rows.set([0, 1], condition, logits)
    got = rows.to_table().to_pylist()
    assert len(got) == 2 * NUM_CONDITIONS
    first, last = got[0], got[-1]
    assert (first["clip_id"], first["video_id"], first["label"]) == (0, "v00000", 0)
    assert (first["method"], first["keep_ratio"], first["num_kept"]) == ("full", 1.0, 10)
    assert (last["method"], last["seed"], last["keep_ratio"]) == ("random", 1, 0.5)
    assert (last["gmacs"], last["gmacs_backbone"]) == (5, 5)
    assert first["top5"] == [1, 2, 0, 3, 4]  # 0 and 3 tie: the lower class id first
    assert [row["prediction"] for row in got] == [1] * 6
    assert (first["label_rank"], last["label_rank"]) == (2, 0)
    assert first["confidence"] == pytest.approx(0.5)
    assert first["second_prob"] == pytest.approx(0.2)
    assert (first["true_prob"], last["true_prob"]) == pytest.approx((0.1, 0.5))
    assert (first["status"], first["error"]) == ("ok", None)


def test_many_equal_logits_rank_by_class_id():
    logits = np.random.default_rng(0).integers(0, 2, 174).astype(np.float32)
    order = sorted(range(174), key=lambda number: (-logits[number], number))
    rows = make_rows(labels=(order[50],), num_classes=174)
    for condition in range(NUM_CONDITIONS):
        rows.set([0], condition, logits[None])
    table = rows.to_table()
    assert table["top5"][0].as_py() == order[:5]
    assert table["label_rank"][0].as_py() == 50


def test_a_label_beyond_the_top_five_has_its_rank():
    rows = make_rows(labels=(6,))
    for condition in range(NUM_CONDITIONS):
        rows.set([0], condition, -np.arange(7, dtype=np.float32)[None])
    assert rows.to_table()["label_rank"].to_pylist() == [6] * 3


def test_logits_that_are_not_finite_fail_their_own_row_only():
    rows = make_rows()
    good = np.zeros((2, 7), np.float32)
    for condition in range(NUM_CONDITIONS):
        rows.set([0, 1], condition, good)
    bad = good.copy()
    bad[1, 3] = np.nan
    rows.set([0, 1], 2, bad)
    got = rows.to_table().to_pylist()
    assert [row["status"] for row in got] == ["ok"] * 5 + ["model_error"]
    failed = got[-1]
    assert (failed["prediction"], failed["label_rank"], failed["top5"]) == (-1, -1, [])
    assert failed["confidence"] is None
    assert failed["true_prob"] is None
    assert rows.counts() == {"model_error": 1, "ok": 1}


def test_a_clip_that_failed_fails_under_every_condition():
    rows = make_rows()
    for condition in range(NUM_CONDITIONS):
        rows.set([1], condition, np.zeros((1, 7), np.float32))
    rows.fail(0, ClipStatus.MISSING_FILE, "no file: a\udcff\n.mp4")
    got = rows.to_table().to_pylist()
    assert [row["status"] for row in got] == ["missing_file"] * 3 + ["ok"] * 3
    assert got[0]["error"] == "no file: a\\udcff\\n.mp4"


def test_fewer_than_five_classes_are_all_listed():
    rows = make_rows(num_classes=3)
    for condition in range(NUM_CONDITIONS):
        rows.set([0, 1], condition, np.array([[0, 2, 1]] * 2, np.float32))
    assert rows.to_table()["top5"][0].as_py() == [1, 2, 0]


def test_several_views_keep_log_probabilities_that_float16_can_hold(tmp_path):
    rows = make_rows(labels=(0,), num_classes=4, views=(1, 2))
    logits = np.array([[20, 0, -20, 10]] * 2, np.float32)
    for condition in range(NUM_CONDITIONS):
        rows.set([0, 1], condition, logits)
    rows.fail(1, ClipStatus.DECODE_ERROR, "bad", 1)
    (tmp_path / "rows.parquet").write_bytes(_file(rows))
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.schema.equals(results_schema(2))
    got = table["log_probs"].to_pylist()
    assert got[4] == []  # clip 1, condition 1
    exact = logits[0] - np.log(np.exp(logits[0].astype(np.float64)).sum())
    np.testing.assert_allclose(got[0], exact, rtol=2**-11)
    assert np.array_equal(np.float32(got[0]), np.float16(got[0]).astype(np.float32))


def test_one_view_keeps_no_probabilities_per_class():
    assert "log_probs" not in results_schema(1).names


def test_the_mass_stands_in_its_own_cells_and_nowhere_else():
    rows = make_rows()
    for condition in range(NUM_CONDITIONS):
        rows.set([0, 1], condition, np.zeros((2, 7), np.float32))
    rows.set_mass([1, 0], [2, 1], np.array([[0.25, 0.5], [0.75, 1.0]]))
    rows.fail(0, ClipStatus.MODEL_ERROR, "bad", 1)
    assert rows.to_table()["mass"].to_pylist() == [None, None, 0.75, None, 0.5, 0.25]


def _file(rows):
    return parquet_bytes(rows.to_table())


def test_equal_rows_are_equal_bytes():
    def made():
        rows = make_rows()
        for condition in range(NUM_CONDITIONS):
            rows.set([0, 1], condition, np.ones((2, 7), np.float32))
        return _file(rows)

    assert made() == made()
