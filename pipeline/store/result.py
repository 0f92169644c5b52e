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
        arrays: each array of `layout.array_specs` by its name, n rows; its fill value unless ok.
        suffixes: of the oracles; the first one's is empty.
        clips: `layout.outcome_fields` of each row by name; None while unset.
    """

    def __init__(
        self,
        num_clips: int,
        grid: TokenGrid,
        embeddings_per_clip: int | None,
        hidden_size: int,
        suffixes: tuple[str, ...] = ("",),
    ) -> None:
        specs = layout.array_specs(
            num_clips, grid, embeddings_per_clip, hidden_size, max(1, num_clips), suffixes[1:]
        )
        self.grid, self.suffixes = grid, suffixes
        self.arrays: dict[str, npt.NDArray[Any]] = {
            s.name: np.zeros(s.shape, s.dtype) for s in specs
        }
        self._fill = {spec.name: spec.fill_value for spec in specs}
        self.clips: list[dict[str, Any] | None] = [None] * num_clips

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def scores(self) -> npt.NDArray[np.float16]:
        """(n, t, y, x), of the first oracle."""
        return self.arrays["scores"]

    @property
    def cam(self) -> npt.NDArray[np.float16]:
        """(n, t, y, x), of the first oracle, over `cam_scale`."""
        return self.arrays["cam"]

    @property
    def embeddings(self) -> npt.NDArray[np.float16] | None:
        """(n, k, d), or None where none are kept."""
        return self.arrays.get("embeddings")

    @property
    def embedding_index(self) -> npt.NDArray[np.int16] | None:
        """(n, k), or None where none are kept."""
        return self.arrays.get("embedding_index")

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
            scores: float32, of each oracle (N,) or (t, y, x), the paper's score in [0, 1].
            cam: float32, the same shape, signed.
            prediction: top-1 class id.
            top5: up to five class ids, best first.
            confidence: probability of `prediction`.
            true_prob: probability of the label, None where the label is unknown.
            loss: cross-entropy in nats, None where the label is unknown.
            num_frames_total: frames of the video.
            padded: some frames of the clip repeat.
            damaged: decoded with errors that the decoder concealed.
            decoder: backend that decoded it.
            decoder_version: its release.
            embeddings: float (k, d), those kept; None where the store keeps none.
            embedding_index: int (k,), their token numbers, ascending.
        """
        shape = (len(self.suffixes), *self.grid)
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
            **{"scores" + s: np.isfinite(rounded[i]).all() for i, s in enumerate(self.suffixes)},
            **{"cam" + s: np.isfinite(signed[i]).all() for i, s in enumerate(self.suffixes)},
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
            self.arrays["embeddings"][row] = kept
            self.arrays["embedding_index"][row] = np.asarray(embedding_index, np.int16)
        facts: dict[str, Any] = {}
        for suffix, score, own in zip(self.suffixes, rounded, signed, strict=True):
            cam_scale = np.abs(own).max()
            self.arrays["scores" + suffix][row] = score
            self.arrays["cam" + suffix][row] = own / (cam_scale if cam_scale > 0 else np.float32(1))
            top10_share, gini = concentration(score)
            facts |= {
                "cam_scale" + suffix: float(cam_scale),
                "degenerate" + suffix: not score.any(),
                "top10_share" + suffix: top10_share,
                "gini" + suffix: gini,
            }
        self.clips[row] = {
            "status": ClipStatus.OK.value,
            "error": None,
            "prediction": prediction,
            "top5": [int(label) for label in top5],
            "confidence": confidence,
            "true_prob": true_prob,
            "loss": loss,
            **facts,
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
        for name, array in self.arrays.items():
            array[row] = self._fill[name]
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
            **{
                name + suffix: False if name == "degenerate" else None
                for suffix in self.suffixes
                for name in layout.MAP_COLUMNS
            },
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
