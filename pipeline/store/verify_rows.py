"""What must hold within a shard, whatever wrote it: rows against plan, arrays, tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import ClipStatus
from pipeline.store import layout
from pipeline.store.info import StoreInfo
from pipeline.store.result import concentration
from pipeline.store.tables import tokens_table

_F16 = 2.0**-11  # relative rounding error of float16
_SHOWN = 5
_VALUES_AT_ONCE = 1 << 20


def clips_faults(
    info: StoreInfo, rows: slice, clips: pa.Table, plan: pa.Table | None
) -> Iterator[str]:
    """What is wrong with the rows of a commit record, by themselves and against the plan."""
    if not clips.schema.equals(info.clips_schema):
        yield "its columns are not those of a clips table"
        return
    if not np.array_equal(clips["clip_id"].to_numpy(), np.arange(rows.start, rows.stop)):
        yield f"clip_id is not {rows.start} to {rows.stop - 1}, each once"
        return
    if plan is not None:
        planned = plan.slice(rows.start, rows.stop - rows.start)
        for name in info.plan_schema.names:
            if not clips[name].equals(planned[name]):
                yield f"{name} is not what the plan says"
    statuses = clips["status"].to_pylist()
    unknown = sorted({str(status) for status in statuses} - {str(s) for s in ClipStatus})
    if unknown:
        yield f"unknown status {', '.join(unknown)}"
        return
    frame = clips.to_pandas()
    ok = (frame["status"] == ClipStatus.OK.value).to_numpy()
    if (frame["error"].notna().to_numpy() == ok).any():
        yield "error must be there exactly where a clip failed"
    good = frame[ok]
    prediction = good["prediction"].to_numpy()
    if any(len(top) == 0 or top[0] != p for top, p in zip(good["top5"], prediction, strict=True)):
        yield "the first of top5 is not the prediction"
    if info.label_names and not ((prediction >= 0) & (prediction < len(info.label_names))).all():
        yield f"a prediction is not one of {len(info.label_names)} classes"
    if not good["confidence"].between(0, 1 + 1e-5).all():
        yield "a confidence is not in [0, 1]"
    known = good[good["true_prob"].notna()]
    if not np.allclose(np.exp(-known["loss"]), known["true_prob"], atol=1e-3):
        yield "loss is not -log(true_prob)"
    used = set(good["decoder"]) - {info.config.decoder}
    if used:
        yield f"decoded by {', '.join(sorted(used))}, store.json says {info.config.decoder}"


def array_faults(
    info: StoreInfo,
    rows: slice,
    spec: layout.ArraySpec,
    values: dict[str, npt.NDArray[Any]],
    ok: npt.NDArray[np.bool_],
    clips: pa.Table,
) -> Iterator[str]:
    """What is wrong with one array's rows of a shard."""
    array, kind, suffix = values[spec.name], spec.kind, spec.suffix
    flat = array.reshape(len(array), -1)

    def clip_ids(bad: npt.NDArray[np.bool_]) -> str:
        ids = rows.start + np.flatnonzero(bad)
        more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
        return f"clip {', '.join(map(str, ids[:_SHOWN]))}{more}"

    if kind == "embedding_index":
        ascending = (np.diff(flat.astype(np.int32), axis=1) > 0).all(axis=1)
        inside = ((flat >= 0) & (flat < info.grid.num_tokens)).all(axis=1)
        if (bad := ok & ~(ascending & inside)).any():
            yield f"not ascending token numbers at {clip_ids(bad)}"
        if (bad := ~ok & (flat != -1).any(axis=1)).any():
            yield f"not -1, though it failed, at {clip_ids(bad)}"
        return
    finite = _finite(flat)
    if (bad := ok & ~finite).any():
        yield f"NaN or infinite, though it is ok, at {clip_ids(bad)}"
    not_nan = np.zeros(len(flat), bool)
    not_nan[~ok] = ~np.isnan(flat[~ok]).all(axis=1)
    if not_nan.any():
        yield f"not NaN, though it failed, at {clip_ids(not_nan)}"
    sound = ok & finite
    flat32 = np.where(sound[:, None], flat, 0).astype(np.float32) if kind != "embeddings" else flat
    if kind == "scores":
        if (bad := ok & ((flat32 < 0) | (flat32 > 1)).any(axis=1)).any():
            yield f"outside [0, 1] at {clip_ids(bad)}"
        degenerate = clips["degenerate" + suffix].to_numpy()
        # Min-max scaling reaches both ends exactly, unless there was nothing to scale.
        ends = (flat32.min(axis=1) == 0) & (flat32.max(axis=1) == np.where(degenerate, 0, 1))
        if (bad := sound & ~ends).any():
            yield f"not scaled from 0 to 1 (or all 0, if degenerate) at {clip_ids(bad)}"
        if (bad := sound & ~_same_concentration(flat, sound, clips, suffix)).any():
            where = clip_ids(bad)
            yield f"top10_share{suffix} or gini{suffix} of the clips table is another at {where}"
    if kind == "cam":
        scale = clips["cam_scale" + suffix].to_numpy(zero_copy_only=False)
        largest = np.abs(flat32).max(axis=1)
        if (bad := sound & ~((largest == 1) | ((largest == 0) & (scale == 0)))).any():
            yield f"its largest magnitude is not 1 at {clip_ids(bad)}"
        if "scores" + suffix in values:
            scores = values["scores" + suffix].reshape(len(flat), -1)
            if (bad := sound & ~_scores_fit(scores, flat32)).any():
                yield f"the scores are not its positive part scaled to [0, 1] at {clip_ids(bad)}"


def tokens_faults(
    tokens: pa.Table, clips: pa.Table, scores: Mapping[str, npt.NDArray[Any]]
) -> Iterator[str]:
    """What is wrong with a token table, against the commit record and the scores by suffix."""
    expected = tokens_table(clips, scores)
    if not tokens.schema.equals(expected.schema):
        yield "its columns are not those of a token table"
        return
    if tokens.num_rows != expected.num_rows:
        yield f"{tokens.num_rows} rows instead of {expected.num_rows}"
        return
    different = [name for name in expected.schema.names if not tokens[name].equals(expected[name])]
    if different:
        yield f"{', '.join(different)} not the same as in the clips table and the scores array"


def _finite(values: npt.NDArray[np.float16]) -> npt.NDArray[np.bool_]:
    """Whether all of a row (n, m) is finite, (n,); a part at a time, as embeddings are large."""
    step = max(1, _VALUES_AT_ONCE // values.shape[1])
    parts = [values[i : i + step].view(np.uint16) for i in range(0, len(values), step)]
    # The exponent bits say "not finite"; 10x faster than isfinite on float16.
    return np.concatenate([((part & 0x7C00) != 0x7C00).all(axis=1) for part in parts])


def _same_concentration(
    scores: npt.NDArray[Any], of: npt.NDArray[np.bool_], clips: pa.Table, suffix: str
) -> npt.NDArray[np.bool_]:
    result = np.zeros(len(scores), bool)
    columns = (clips[name + suffix].to_pylist() for name in ("top10_share", "gini"))
    stored = zip(*columns, strict=True)
    for row, pair in enumerate(stored):
        if of[row]:
            result[row] = all(
                (a is None) == (b is None) and (a is None or math.isclose(a, b, abs_tol=1e-4))
                for a, b in zip(concentration(scores[row]), pair, strict=True)
            )
    return result


def _scores_fit(scores: npt.NDArray[Any], cam: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Whether scores (n, N) are min-max of relu(cam) (n, N), as far as float16 can tell.

    Rounding moves a cam value by up to 2^-11 of itself, and min-max scaling blows that up by the
    ratio of the largest value to the range.
    """
    positive = np.maximum(cam, 0)
    low, high = positive.min(axis=1, keepdims=True), positive.max(axis=1, keepdims=True)
    span = high - low
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.where(span > 0, (positive - low) / span, 0)
        slack = np.where(span > 0, 4 * (_F16 * high + 2.0**-24) / span, 0) + 2 * _F16
    difference = np.abs(expected - scores.astype(np.float32))
    # A cam that is constant once rounded says nothing about its scores.
    unknown = ((span == 0) & (high > 0)).ravel()
    fits: npt.NDArray[np.bool_] = (difference <= slack).all(axis=1) | unknown
    return fits
