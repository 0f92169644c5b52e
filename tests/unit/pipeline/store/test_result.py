"""`ShardResult`: one way in for good and for failed clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.clips.grid import TokenGrid
from pipeline.errors import ClipStatus
from pipeline.store.result import ShardResult, concentration

GRID = TokenGrid(1, 2, 2)


def fields(**changes: Any) -> dict[str, Any]:
    return {
        "scores": [0, 0.25, 0.5, 1],
        "cam": [-4.0, 1.0, 2.0, 3.0],
        "prediction": 1,
        "top5": [1, 0],
        "confidence": 0.75,
        "true_prob": 0.25,
        "loss": 1.386,
        "num_frames_total": 30,
        "padded": False,
        "damaged": False,
        "decoder": "pyav",
        "decoder_version": "18",
        "embeddings": [[1.0, 2.0]],
        "embedding_index": [2],
    } | changes


def test_cam_is_stored_over_its_largest_magnitude() -> None:
    result = ShardResult(1, GRID, 1, 2)
    result.set_ok(0, **fields())
    clip = result.clips[0]
    assert clip is not None
    assert clip["cam_scale"] == 4
    assert result.cam[0].ravel().tolist() == [-1, 0.25, 0.5, 0.75]
    assert result.scores[0].ravel().tolist() == [0, 0.25, 0.5, 1]


def test_a_cam_of_zeros_has_scale_zero_and_no_nan() -> None:
    result = ShardResult(1, GRID, 1, 2)
    result.set_ok(0, **fields(cam=np.zeros(4), scores=np.zeros(4)))
    clip = result.clips[0]
    assert clip is not None
    assert (clip["cam_scale"], clip["top10_share"], clip["gini"]) == (0, None, None)
    assert not result.cam.any()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"cam": [0, 1, np.inf, 2]}, "cam"),
        ({"scores": [0, 1, np.nan, 1]}, "scores"),
        ({"loss": float("nan")}, "logits"),
        ({"embeddings": [[1.0, 1e6]]}, "embeddings"),  # beyond float16
    ],
)
def test_numbers_that_cannot_be_stored_fail_the_clip(changes: dict[str, Any], named: str) -> None:
    result = ShardResult(1, GRID, 1, 2)
    result.set_ok(0, **fields(**changes))
    clip = result.clips[0]
    assert clip is not None
    assert clip["status"] == ClipStatus.MODEL_ERROR
    assert named in clip["error"]
    assert clip["num_frames_total"] == 30
    assert np.isnan(result.scores).all()


def test_failing_after_success_leaves_nothing_of_it() -> None:
    result = ShardResult(2, GRID, 1, 2)
    result.set_ok(0, **fields())
    result.set_ok(1, **fields())
    result.set_failed(0, ClipStatus.WORKER_DIED, "died")
    assert result.embeddings is not None
    assert result.embedding_index is not None
    for array in (result.scores, result.cam, result.embeddings):
        assert np.isnan(array[0]).all()
        assert np.isfinite(array[1]).all()
    assert result.embedding_index.tolist() == [[-1], [2]]


def test_messages_are_made_storable() -> None:
    result = ShardResult(1, GRID, 0, 2)
    result.set_failed(0, ClipStatus.MISSING_FILE, "no file caf\udce9.mp4\n\x1b[1m " + "x" * 1000)
    clip = result.clips[0]
    assert clip is not None
    assert clip["error"].startswith("no file caf\\udce9.mp4\\n\\x1b[1m xxx")
    assert len(clip["error"]) == 500


def test_ok_is_not_a_failure_and_embeddings_are_not_forgotten() -> None:
    result = ShardResult(1, GRID, 1, 2)
    with pytest.raises(ValueError, match="use set_ok"):
        result.set_failed(0, ClipStatus.OK, "")
    with pytest.raises(ValueError, match="embeddings must be given"):
        result.set_ok(0, **fields(embeddings=None, embedding_index=None))


@pytest.mark.parametrize(
    ("scores", "share", "gini"),
    [
        (np.ones(20), 0.1, 0.0),
        (np.eye(1, 20, 3)[0], 1.0, 0.95),  # one token has it all: 1 - 1/n
        (np.arange(1, 21), 39 / 210, 19 / 60),  # by hand: (n - 1) / (3 n) for 1 .. n
        (np.zeros(20), None, None),
        (np.array([3.0]), 1.0, 0.0),
    ],
)
def test_concentration(scores: np.ndarray, share: float | None, gini: float | None) -> None:
    got = concentration(scores.astype(np.float16))
    assert got == (pytest.approx(share), pytest.approx(gini, abs=1e-12))
