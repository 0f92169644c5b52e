"""The analysis of a store equals a direct computation on all its tokens at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ClipStatus, StoreError
from selector.analysis import analyze_store
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
