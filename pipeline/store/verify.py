"""Recounts and re-checks everything in a store, one shard in memory at a time.

Damage is reported and never raised, so that one broken file does not hide the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zarr

from pipeline.clips.plan import plan_digest
from pipeline.errors import ClipStatus, StoreError, StoreNotFoundError
from pipeline.store import layout
from pipeline.store.info import StoreInfo, read_info
from pipeline.store.result import concentration
from pipeline.store.root import Root
from pipeline.store.tables import committed_shards, read_parquet, read_plan, tokens_table

_RERUN = "run the same `lite-pipeline build-oracle` again to complete it"
_LOST = "put it back from a copy, or build into another folder"
_F16 = 2.0**-11  # relative rounding error of float16
_SHOWN = 5


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        where: path inside the store.
        what: what is wrong with it, with the values.
        remedy: what to do about it.
    """

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


def verify_store(
    url: str | Root, on_shard: Callable[[int, int], None] | None = None
) -> list[Problem]:
    """Checks a store from `store.json` to the last token.

    Args:
        url: folder or fsspec URL.
        on_shard: called with (shards checked, shards to check) after each.

    Returns:
        What is wrong, in the order of the layout; empty for a sound and complete store.

    Raises:
        StoreNotFoundError: there is nothing at all at that place.
    """
    root = url if isinstance(url, Root) else Root(url)
    try:
        info = read_info(root)
    except StoreNotFoundError as error:
        if not root.names():
            raise
        return [Problem(layout.STORE_JSON, str(error), _LOST)]
    except StoreError as error:
        return [Problem(layout.STORE_JSON, str(error), _LOST)]
    plan, problems = _check_plan(root, info)
    arrays, found = _check_arrays(root, info)
    problems += found
    committed = committed_shards(root) & set(range(info.num_shards))
    files = set(root.walk())
    for done, shard in enumerate(sorted(committed), start=1):
        where = f"shard {shard}"
        try:
            problems += _check_shard(root, info, shard, plan, arrays, files)
        except Exception as error:
            problems.append(_damaged(where, shard, f"cannot be checked ({_one_line(error)})"))
        if on_shard is not None:
            on_shard(done, len(committed))
    problems += _check_complete(info, committed)
    problems += _check_files(info, committed, files)
    return problems


def _check_plan(root: Root, info: StoreInfo) -> tuple[pa.Table | None, list[Problem]]:
    def bad(what: str) -> tuple[None, list[Problem]]:
        return None, [Problem(layout.PLAN, what, _LOST)]

    try:
        plan = read_plan(root)
    except Exception as error:
        return bad(_one_line(error))
    if not plan.schema.equals(layout.PLAN_SCHEMA):
        return bad("its columns are not those of a plan")
    if plan.num_rows != info.num_clips:
        return bad(f"{plan.num_rows} clips, store.json says {info.num_clips}")
    ids = np.arange(plan.num_rows)
    if not np.array_equal(plan["clip_id"].to_numpy(), ids):
        return bad("clip_id does not count 0, 1, 2, ...")
    if not np.array_equal(plan["shard"].to_numpy(), ids // info.config.shard_size):
        return bad(f"shard is not clip_id // {info.config.shard_size}")
    digest = plan_digest(plan)
    if digest != info.config.plan_digest:
        return bad(f"its digest is {digest[:12]}, store.json has {info.config.plan_digest[:12]}")
    return plan, []


def _check_arrays(root: Root, info: StoreInfo) -> tuple[dict[str, Any], list[Problem]]:
    arrays: dict[str, Any] = {}
    problems = []
    for spec in info.arrays:
        where = f"{layout.ZARR}/{spec.name}/zarr.json"
        try:
            array = zarr.open_array(**root.zarr_location(f"{layout.ZARR}/{spec.name}"), mode="r")
        except Exception as error:
            what = f"the array cannot be opened ({_one_line(error)})"
            problems.append(Problem(where, what, _LOST))
            continue
        inner, outer = (spec.chunk_clips, *spec.shape[1:]), (spec.shard_clips, *spec.shape[1:])
        wanted = (spec.shape, spec.dtype, inner, outer, spec.dims)
        got = (array.shape, str(array.dtype), array.chunks, array.shards)
        names = getattr(array.metadata, "dimension_names", None)
        if (*got, names) != wanted:
            what = f"shape, dtype, chunks, shards, dimensions are {(*got, names)}, not {wanted}"
            problems.append(Problem(where, what, _LOST))
        else:
            arrays[spec.name] = array
    return arrays, problems


def _check_shard(
    root: Root,
    info: StoreInfo,
    shard: int,
    plan: pa.Table | None,
    arrays: dict[str, Any],
    files: set[str],
) -> list[Problem]:
    rows = info.rows(shard)
    where = layout.clips_path(shard)
    try:
        clips = read_parquet(root, where)
    except StoreError as error:
        return [_damaged(where, shard, str(error))]
    problems = [_damaged(where, shard, what) for what in _clips_faults(info, rows, clips, plan)]
    if problems:
        return problems  # without sound rows nothing else of the shard can be judged
    ok = np.array([status == ClipStatus.OK for status in clips["status"].to_pylist()])
    values = {}
    for spec in info.arrays:
        if spec.name not in arrays:
            continue
        key = spec.chunk_key(shard)
        if key not in files:
            problems.append(_damaged(key, shard, "missing, though the shard is committed"))
            continue
        try:
            values[spec.name] = arrays[spec.name][rows]
        except Exception as error:
            problems.append(_damaged(key, shard, f"cannot be decoded ({_one_line(error)})"))
    for spec in info.arrays:
        if spec.name in values:
            problems += [
                _damaged(spec.chunk_key(shard), shard, what)
                for what in _array_faults(info, rows, spec.name, values, ok, clips)
            ]
    if "scores" in values:
        problems += _check_tokens(root, shard, clips, values["scores"])
    return problems


def _clips_faults(
    info: StoreInfo, rows: slice, clips: pa.Table, plan: pa.Table | None
) -> Iterator[str]:
    """What is wrong with the rows of a commit record, by themselves and against the plan."""
    if not clips.schema.equals(layout.CLIPS_SCHEMA):
        yield "its columns are not those of a clips table"
        return
    if not np.array_equal(clips["clip_id"].to_numpy(), np.arange(rows.start, rows.stop)):
        yield f"clip_id is not {rows.start} to {rows.stop - 1}, each once"
        return
    if plan is not None:
        planned = plan.slice(rows.start, rows.stop - rows.start)
        for name in layout.PLAN_SCHEMA.names:
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


def _array_faults(
    info: StoreInfo,
    rows: slice,
    name: str,
    values: dict[str, npt.NDArray[Any]],
    ok: npt.NDArray[np.bool_],
    clips: pa.Table,
) -> Iterator[str]:
    """What is wrong with one array's rows of a shard."""
    array = values[name]
    flat = array.reshape(len(array), -1)

    def clip_ids(bad: npt.NDArray[np.bool_]) -> str:
        ids = rows.start + np.flatnonzero(bad)
        more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
        return f"clip {', '.join(map(str, ids[:_SHOWN]))}{more}"

    if name == "embedding_index":
        ascending = (np.diff(flat.astype(np.int32), axis=1) > 0).all(axis=1)
        inside = ((flat >= 0) & (flat < info.grid.num_tokens)).all(axis=1)
        if (bad := ok & ~(ascending & inside)).any():
            yield f"not ascending token numbers at {clip_ids(bad)}"
        if (bad := ~ok & (flat != -1).any(axis=1)).any():
            yield f"not -1, though it failed, at {clip_ids(bad)}"
        return
    # The exponent bits say "not finite"; 10x faster than isfinite on float16.
    finite: npt.NDArray[np.bool_] = ((flat.view(np.uint16) & 0x7C00) != 0x7C00).all(axis=1)
    if (bad := ok & ~finite).any():
        yield f"NaN or infinite, though it is ok, at {clip_ids(bad)}"
    not_nan = np.zeros(len(flat), bool)
    not_nan[~ok] = ~np.isnan(flat[~ok]).all(axis=1)
    if not_nan.any():
        yield f"not NaN, though it failed, at {clip_ids(not_nan)}"
    sound = ok & finite
    flat32 = np.where(sound[:, None], flat, 0).astype(np.float32) if name != "embeddings" else flat
    if name == "scores":
        if (bad := ok & ((flat32 < 0) | (flat32 > 1)).any(axis=1)).any():
            yield f"outside [0, 1] at {clip_ids(bad)}"
        degenerate = clips["degenerate"].to_numpy()
        # Min-max scaling reaches both ends exactly, unless there was nothing to scale.
        ends = (flat32.min(axis=1) == 0) & (flat32.max(axis=1) == np.where(degenerate, 0, 1))
        if (bad := sound & ~ends).any():
            yield f"not scaled from 0 to 1 (or all 0, if degenerate) at {clip_ids(bad)}"
        if (bad := sound & ~_same_concentration(flat, sound, clips)).any():
            yield f"top10_share or gini of the clips table is another at {clip_ids(bad)}"
    if name == "cam":
        scale = clips["cam_scale"].to_numpy(zero_copy_only=False)
        largest = np.abs(flat32).max(axis=1)
        if (bad := sound & ~((largest == 1) | ((largest == 0) & (scale == 0)))).any():
            yield f"its largest magnitude is not 1 at {clip_ids(bad)}"
        if "scores" in values:
            scores = values["scores"].reshape(len(flat), -1)
            if (bad := sound & ~_scores_fit(scores, flat32)).any():
                yield f"the scores are not its positive part scaled to [0, 1] at {clip_ids(bad)}"


def _same_concentration(
    scores: npt.NDArray[Any], of: npt.NDArray[np.bool_], clips: pa.Table
) -> npt.NDArray[np.bool_]:
    result = np.zeros(len(scores), bool)
    stored = zip(clips["top10_share"].to_pylist(), clips["gini"].to_pylist(), strict=True)
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


def _check_tokens(
    root: Root, shard: int, clips: pa.Table, scores: npt.NDArray[Any]
) -> list[Problem]:
    where = layout.tokens_path(shard)
    try:
        tokens = read_parquet(root, where)
    except StoreError as error:
        return [_damaged(where, shard, str(error))]
    if not tokens.schema.equals(layout.TOKENS_SCHEMA):
        return [_damaged(where, shard, "its columns are not those of a token table")]
    expected = tokens_table(clips, scores)
    if tokens.num_rows != expected.num_rows:
        what = f"{tokens.num_rows} rows instead of {expected.num_rows}"
        return [_damaged(where, shard, what)]
    different = [name for name in expected.schema.names if not tokens[name].equals(expected[name])]
    if different:
        what = f"{', '.join(different)} not the same as in the clips table and the scores array"
        return [_damaged(where, shard, what)]
    return []


def _check_complete(info: StoreInfo, committed: set[int]) -> list[Problem]:
    missing = sorted(set(range(info.num_shards)) - committed)
    if not missing:
        return []
    clips = sum(info.rows(shard).stop - info.rows(shard).start for shard in missing)
    shown = ", ".join(map(str, missing[:_SHOWN])) + (", ..." if len(missing) > _SHOWN else "")
    what = f"{len(missing)} of {info.num_shards} shards ({clips} clips) are missing: {shown}"
    return [Problem(layout.CLIPS, what, _RERUN)]


def _check_files(info: StoreInfo, committed: set[int], files: set[str]) -> list[Problem]:
    """Files that do not belong to the store, or that a killed run left."""
    shards = range(info.num_shards)
    expected = {layout.STORE_JSON, layout.PLAN, f"{layout.ZARR}/zarr.json"}
    expected |= {layout.clips_path(shard) for shard in shards}
    expected |= {layout.tokens_path(shard) for shard in committed}
    for spec in info.arrays:
        expected.add(f"{layout.ZARR}/{spec.name}/zarr.json")
        expected |= {spec.chunk_key(shard) for shard in shards}
    problems = []
    for path in sorted(files - expected):
        folder, _, name = path.rpartition("/")
        if path.startswith(f"{layout.RUNS}/"):
            continue
        if name.startswith(".") or name.endswith(".partial") or folder == layout.TOKENS:
            remedy = "left by a killed run; the next run removes it"
        else:
            remedy = "remove it"
        problems.append(Problem(path, "does not belong to the store", remedy))
    return problems


def _damaged(where: str, shard: int, what: str) -> Problem:
    remedy = f"remove {layout.clips_path(shard)} and {_RERUN}"
    return Problem(where, what, remedy)


def _one_line(error: Exception) -> str:
    name = "" if isinstance(error, StoreError) else f"{type(error).__name__}: "
    return f"{name}{error}".splitlines()[0][:300]
