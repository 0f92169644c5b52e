"""What one shard produced, filled in clip by clip and then handed to the writer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.clips.grid import TokenGrid
from pipeline.errors import ClipStatus, printable
from pipeline.store import layout


class ShardResult:
    """The rows of one shard, all unset at first; every row must be set before it is written.

    Row `i` of every member is the `i`-th clip of the shard. A row takes no memory until it is set.

    Attributes:
        scores: float16 (n, t, y, x), in [0, 1]; NaN unless the clip is ok.
        cam: float16 (n, t, y, x), signed cam / cam_scale; NaN unless ok.
        embeddings: float16 (n, k, d) or None where none are kept; NaN unless ok.
        embedding_index: int16 (n, k) or None, ascending; -1 unless ok.
        clips: the outcome columns of `layout.CLIPS_SCHEMA` of each row; None while unset.
    """

    def __init__(
        self, num_clips: int, grid: TokenGrid, embeddings_per_clip: int | None, hidden_size: int
    ) -> None:
        k = layout.num_embeddings(grid, embeddings_per_clip)
        self.scores = np.zeros((num_clips, *grid), np.float16)
        self.cam = np.zeros((num_clips, *grid), np.float16)
        self.embeddings = np.zeros((num_clips, k, hidden_size), np.float16) if k else None
        self.embedding_index = np.zeros((num_clips, k), np.int16) if k else None
        self.clips: list[dict[str, Any] | None] = [None] * num_clips

    def __len__(self) -> int:
        return len(self.clips)

    def set_ok(
        self,
        row: int,
        *,
        scores: npt.ArrayLike,
        cam: npt.ArrayLike,
        prediction: int,
        top5: Sequence[int],
        confidence: float,
        true_prob: float | None,
        loss: float | None,
        degenerate: bool,
        num_frames_total: int,
        padded: bool,
        damaged: bool,
        decoder: str,
        decoder_version: str,
        embeddings: npt.ArrayLike | None = None,
        embedding_index: npt.ArrayLike | None = None,
    ) -> None:
        """Records a clip that worked.

        A value that is not finite, or that float16 cannot hold, makes the clip a `MODEL_ERROR`.

        Args:
            row: position in the shard.
            scores: float32 (N,) or (t, y, x), the paper's score in [0, 1].
            cam: float32, the same shape, signed.
            prediction: top-1 class id.
            top5: up to five class ids, best first.
            confidence: probability of `prediction`.
            true_prob: probability of the label, None where the label is unknown.
            loss: cross-entropy in nats, None where the label is unknown.
            degenerate: relu(cam) is constant, so that all scores are 0.
            num_frames_total: frames of the video.
            padded: some frames of the clip repeat.
            damaged: decoded with errors that the decoder concealed.
            decoder: backend that decoded it.
            decoder_version: its release.
            embeddings: float (k, d), those kept; None where the store keeps none.
            embedding_index: int (k,), their token numbers, ascending.
        """
        shape = self.scores.shape[1:]
        signed = np.asarray(cam, np.float32).reshape(shape)
        rounded = np.asarray(scores, np.float32).reshape(shape).astype(np.float16)
        kept = None
        if embeddings is not None:
            with np.errstate(over="ignore"):
                kept = np.asarray(embeddings, np.float32).astype(np.float16)
        numbers = [confidence, *(x for x in (true_prob, loss) if x is not None)]
        decoded: dict[str, Any] = {
            "num_frames_total": num_frames_total,
            "padded": padded,
            "damaged": damaged,
            "decoder": decoder,
            "decoder_version": decoder_version,
        }
        finite = {
            "scores": np.isfinite(rounded).all(),
            "cam": np.isfinite(signed).all(),
            "logits": all(math.isfinite(number) for number in numbers),
            "embeddings": kept is None or np.isfinite(kept).all(),
        }
        broken = ", ".join(name for name, is_finite in finite.items() if not is_finite)
        if broken:
            message = f"not finite, or beyond float16: {broken}"
            self.set_failed(row, ClipStatus.MODEL_ERROR, message, **decoded)
            return
        if (kept is None) != (self.embeddings is None):
            raise ValueError("embeddings must be given exactly where the store keeps them")
        if kept is not None:
            assert self.embeddings is not None
            assert self.embedding_index is not None
            self.embeddings[row] = kept
            self.embedding_index[row] = np.asarray(embedding_index, np.int16)
        cam_scale = np.abs(signed).max()
        self.scores[row] = rounded
        self.cam[row] = signed / (cam_scale if cam_scale > 0 else np.float32(1))
        top10_share, gini = concentration(rounded)
        self.clips[row] = {
            "status": ClipStatus.OK.value,
            "error": None,
            "prediction": prediction,
            "top5": [int(label) for label in top5],
            "confidence": confidence,
            "true_prob": true_prob,
            "loss": loss,
            "cam_scale": float(cam_scale),
            "degenerate": bool(degenerate),
            "top10_share": top10_share,
            "gini": gini,
            **decoded,
        }

    def set_failed(
        self,
        row: int,
        status: ClipStatus,
        error: str,
        *,
        num_frames_total: int = -1,
        padded: bool = False,
        damaged: bool = False,
        decoder: str = "",
        decoder_version: str = "",
    ) -> None:
        """Records a clip that failed; its row of every array is the fill value.

        Args:
            row: position in the shard.
            status: why, anything but `OK`.
            error: the message. It is committed, so it must be the same on every machine: no
                absolute paths, addresses or times. Cut to `layout.MAX_ERROR_CHARS`.
            num_frames_total: frames of the video where it was decoded, else -1.
            padded: as in `set_ok`.
            damaged: as in `set_ok`.
            decoder: as in `set_ok`; empty where nothing was decoded.
            decoder_version: as in `set_ok`.
        """
        if status == ClipStatus.OK:
            raise ValueError("a clip that is ok has not failed: use set_ok")
        for array in (self.scores, self.cam, self.embeddings):
            if array is not None:
                array[row] = np.nan
        if self.embedding_index is not None:
            self.embedding_index[row] = -1
        # One line for who reads the table, and without lone surrogates, which Arrow refuses.
        clean = printable(error)
        self.clips[row] = {
            "status": ClipStatus(status).value,
            "error": clean[: layout.MAX_ERROR_CHARS],
            "prediction": -1,
            "top5": [],
            "confidence": None,
            "true_prob": None,
            "loss": None,
            "cam_scale": None,
            "degenerate": False,
            "top10_share": None,
            "gini": None,
            "num_frames_total": num_frames_total,
            "padded": bool(padded),
            "damaged": bool(damaged),
            "decoder": decoder,
            "decoder_version": decoder_version,
        }


def concentration(scores: npt.NDArray[Any]) -> tuple[float | None, float | None]:
    """How few tokens carry the score of one clip.

    Args:
        scores: any shape, not negative.

    Returns:
        The share of the total in the top 10 % of the tokens (rounded up), and the Gini
        coefficient (0 = all equal, towards 1 = one token has everything). None where all are 0.
    """
    ascending = np.sort(scores.astype(np.float64), axis=None)
    n, total = ascending.size, ascending.sum()
    if not total > 0:
        return None, None
    top = ascending[-math.ceil(n / 10) :].sum() / total
    return float(top), gini(ascending, np.ones(n, np.int64))


def gini(values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]) -> float:
    """Gini coefficient: 0 when all are equal, towards 1 when one has everything; NaN if all are 0.

    Args:
        values: not negative, ascending.
        counts: how often each occurs.
    """
    last = np.cumsum(counts)
    n, total = int(last[-1]), (values * counts).sum()
    if not total > 0:
        return math.nan
    ranks = (2 * last - counts + 1) / 2  # the mean rank of equal values
    return float(2 * (ranks * values * counts).sum() / (n * total) - (n + 1) / n)
