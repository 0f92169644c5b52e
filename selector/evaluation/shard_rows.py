"""The rows of one shard, filled in batch by batch and then written as one table.

Axes: n clips of the shard, m conditions, B clips of a batch, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.special import log_softmax

from pipeline.errors import ClipStatus, printable
from pipeline.store.layout import MAX_ERROR_CHARS
from selector.evaluation.files import EvaluationInfo
from selector.evaluation.layout import PADDED, TOP, results_schema

NOT_FINITE = "logits are not finite"


class ShardRows:
    """An (n, m) rectangle of outcomes; every cell must be set or failed.

    Args:
        info: the evaluation.
        plan: columns of the shard's rows of the plan.
    """

    def __init__(self, info: EvaluationInfo, plan: Mapping[str, Sequence[Any]]) -> None:
        self._info, self._plan = info, plan
        self.labels = np.array(plan["label"], np.int64)
        shape = (len(self.labels), len(info.config.conditions))
        num_classes = len(info.label_names)
        self._failure = np.full(shape, None, dtype=object)
        self._top = np.full((*shape, min(TOP, num_classes)), -1, np.int16)
        self._label_rank = np.full(shape, -1, np.int16)
        self._confidence = np.full(shape, np.nan, np.float32)
        self._second_prob = np.full(shape, np.nan, np.float32)
        self._true_prob = np.full(shape, np.nan, np.float32)
        self._mass = np.full(shape, np.nan, np.float32)
        self._padded = np.zeros(shape[0], np.bool_)
        self._num_kept = _filled(info.num_kept, shape, 0)
        self._gmacs = _filled(info.gmacs, shape, np.nan)
        self._gmacs_backbone = _filled(info.gmacs_backbone, shape, np.nan)
        self._log_probs = (
            np.zeros((*shape, num_classes), np.float32) if info.config.num_views > 1 else None
        )

    def fail(
        self, clip: int, status: ClipStatus, message: str, condition: int | None = None
    ) -> None:
        """Records a failure of one clip, under one condition or under all."""
        clean = printable(message)[:MAX_ERROR_CHARS]
        for column in range(self._failure.shape[1]) if condition is None else [condition]:
            self._failure[clip, column] = (status.value, clean)

    def set(self, clips: Sequence[int], condition: int, logits: npt.NDArray[np.float32]) -> None:
        """Records what some clips' logits say.

        Args:
            clips: positions in the shard, (B,).
            condition: position in the configuration's conditions.
            logits: float32 (B, C); a row that is not finite becomes a `MODEL_ERROR`.
        """
        finite = np.isfinite(logits).all(axis=1)
        for clip in np.asarray(clips)[~finite]:
            self.fail(int(clip), ClipStatus.MODEL_ERROR, NOT_FINITE, condition)
        good = np.asarray(clips)[finite]
        # In float64, so that they are the same on every device.
        log_probs = log_softmax(logits[finite].astype(np.float64), axis=1)
        # Equal logits rank by class id, so that every machine gives the same order.
        order = np.argsort(-log_probs, axis=1, kind="stable")
        labels = self.labels[good]
        self._top[good, condition] = order[:, : self._top.shape[2]]
        self._label_rank[good, condition] = np.argmax(order == labels[:, None], axis=1)
        self._confidence[good, condition] = np.exp(log_probs.max(axis=1, initial=-np.inf))
        second = log_probs[np.arange(len(good)), order[:, min(1, order.shape[1] - 1)]]
        self._second_prob[good, condition] = np.exp(second)
        self._true_prob[good, condition] = np.exp(log_probs[np.arange(len(good)), labels])
        if self._log_probs is not None:
            self._log_probs[good, condition] = log_probs.astype(np.float16)

    def set_padded(self, clip: int, padded: bool) -> None:
        """Records whether a clip repeats frames."""
        self._padded[clip] = padded

    def set_mass(
        self, clips: Sequence[int], conditions: Sequence[int], mass: npt.NDArray[np.float64]
    ) -> None:
        """Records the share of predicted mass that some clips keep under some conditions.

        Args:
            clips: positions in the shard, (B,).
            conditions: positions in the configuration's conditions, (L,).
            mass: (B, L).
        """
        self._mass[np.ix_(clips, conditions)] = mass

    def set_cost(self, clip: int, condition: int, num_kept: int, gmacs: float) -> None:
        """Records what one clip cost under a condition where its content decides.

        Args:
            clip: position in the shard.
            condition: position in the configuration's conditions.
            num_kept: tokens that reached the head.
            gmacs: of the view; deciding costs nothing beyond.
        """
        self._num_kept[clip, condition] = num_kept
        self._gmacs[clip, condition] = self._gmacs_backbone[clip, condition] = gmacs

    def counts(self) -> dict[str, int]:
        """Clips per status; a clip counts as its first failure."""
        statuses = [next((f[0] for f in row if f), ClipStatus.OK.value) for row in self._failure]
        return {status: statuses.count(status) for status in sorted(set(statuses))}

    def num_worked(self) -> int:
        """Clips that have an outcome under one condition at least."""
        return sum(any(failure is None for failure in row) for row in self._failure)

    def to_table(self) -> pa.Table:
        """All cells as rows, clip-major."""
        info, (n, m) = self._info, self._failure.shape
        conditions = info.config.conditions
        failed = np.array([f is not None for f in self._failure.ravel()])
        columns: dict[str, Any] = {
            name: pa.array(self._plan[name]).take(pa.array(np.repeat(np.arange(n), m)))
            for name in ("clip_id", "video_id", "label", "segment", "crop")
        }
        columns |= {
            "method": [c.method for c in conditions] * n,
            "seed": [c.seed for c in conditions] * n,
            "keep_ratio": [c.keep_ratio for c in conditions] * n,
            "num_kept": pa.array(self._num_kept.ravel(), mask=self._num_kept.ravel() == 0),
            "gmacs": pa.array(self._gmacs.ravel(), from_pandas=True),
            "gmacs_backbone": pa.array(self._gmacs_backbone.ravel(), from_pandas=True),
            "status": [f[0] if f else ClipStatus.OK.value for f in self._failure.ravel()],
            "error": [f[1] if f else None for f in self._failure.ravel()],
            "prediction": np.where(failed, -1, self._top[:, :, 0].ravel()),
            "top5": _lists(self._top, failed),
            "label_rank": np.where(failed, -1, self._label_rank.ravel()),
            "confidence": pa.array(self._confidence.ravel(), mask=failed),
            "second_prob": pa.array(self._second_prob.ravel(), mask=failed),
            "true_prob": pa.array(self._true_prob.ravel(), mask=failed),
            "mass": pa.array(self._mass.ravel(), mask=failed | np.isnan(self._mass.ravel())),
            PADDED: np.repeat(self._padded, m),
        }
        if self._log_probs is not None:
            columns["log_probs"] = _lists(self._log_probs, failed)
        schema = results_schema(info.config.num_views)
        arrays = [
            column.cast(field.type)
            if isinstance(column, pa.Array)
            else pa.array(column, field.type)
            for field in schema
            for column in [columns[field.name]]
        ]
        return pa.Table.from_arrays(arrays, schema=schema)


def _filled(
    values: Sequence[float | None], shape: tuple[int, int], unknown: float
) -> npt.NDArray[Any]:
    """The same for all clips, (n, m); what no condition says is `unknown` until a clip says it."""
    row = np.array([unknown if value is None else value for value in values])
    return np.broadcast_to(row, shape).copy()


def _lists(values: npt.NDArray[Any], failed: npt.NDArray[np.bool_]) -> pa.Array:
    """(n, m, k) -> n * m lists of k values, empty where the cell failed."""
    k = values.shape[2]
    offsets = np.concatenate([[0], np.cumsum(np.where(failed, 0, k))]).astype(np.int32)
    kept = values.reshape(-1, k)[~failed].ravel()
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(kept))
