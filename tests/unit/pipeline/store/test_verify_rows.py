"""What `verify_store` says of files that are as they were written, by a writer that was wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import zarr

from pipeline.errors import ClipStatus
from pipeline.store import layout
from pipeline.store.commits import Commits, commit_bytes
from pipeline.store.reader import open_store
from pipeline.store.root import Root
from pipeline.store.seal import digest
from pipeline.store.verify import verify_store
from tests.stores import make_store


def commit_again(store: Path, clips: pa.Table | None = None) -> None:
    """Puts the digests of shard 1's files, as they are now, into its commit record."""
    root, info = Root(store), open_store(store).info
    commit = Commits(root, info).read(1)
    assert commit is not None
    files = {rel: digest(root.get(rel)) for rel in commit.files}
    table = commit.table() if clips is None else clips
    root.put(info.commit_path(1), commit_bytes(table, info, 1, files))


def edit_array(name: str, change: Callable[[np.ndarray], None]) -> Callable[[Path], None]:
    """Changes shard 1 (clips 4 to 7; 5 degenerate, 6 failed) of an array."""

    def edit(store: Path) -> None:
        array = zarr.open_array(store / "oracle.zarr" / name, mode="r+")
        rows = np.asarray(array[4:8])
        change(rows)
        array[4:8] = rows
        commit_again(store)

    return edit


def edit_clips(column: str, row: int, value: object) -> Callable[[Path], None]:
    def edit(store: Path) -> None:
        rows = pq.read_table(store / layout.clips_path(1)).to_pylist()
        rows[row][column] = value
        commit_again(store, pa.Table.from_pylist(rows, layout.CLIPS_SCHEMA))

    return edit


def edit_plan(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def edit(store: Path) -> None:
        path = store / layout.PLAN
        pq.write_table(change(pq.read_table(path)), path)
        info = open_store(store).info
        files = dict(info.files) | {layout.PLAN: digest(path.read_bytes())}
        Root(store).put(layout.STORE_JSON, replace(info, files=files).to_json())

    return edit


def set_item(where: object, value: float) -> Callable[[np.ndarray], None]:
    def change(rows: np.ndarray) -> None:
        rows[where] = value  # type: ignore[index]

    return change


def add(where: object, value: float) -> Callable[[np.ndarray], None]:
    def change(rows: np.ndarray) -> None:
        rows[where] += value  # type: ignore[index]

    return change


def swap_clips(rows: np.ndarray) -> None:
    rows[[0, 3]] = rows[[3, 0]]


def edit_tokens(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def edit(store: Path) -> None:
        path = store / layout.tokens_path(1)
        pq.write_table(change(pq.read_table(path)), path)
        commit_again(store)

    return edit


def halve_scores(table: pa.Table) -> pa.Table:
    half = pc.multiply(table["score"], pa.scalar(0.5, pa.float32()))
    return table.set_column(5, "score", half).cast(layout.TOKENS_SCHEMA)


PLAN = "plan.parquet"
CLIPS = "clips/shard-00001.parquet"
TOKENS = "tokens/shard-00001.parquet"
SCORES = "oracle.zarr/scores/c.1.0.0.0"
CAM = "oracle.zarr/cam/c.1.0.0.0"
EMBEDDINGS = "oracle.zarr/embeddings/c.1.0.0"
INDEX = "oracle.zarr/embedding_index/c.1.0"

FAULTS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    # what is done: (how, where it must be reported, words of what); shard 1 is clips 4 to 7, of
    # which 5 is degenerate and 6 failed
    "plan short": (edit_plan(lambda t: t.slice(0, 9)), PLAN, "9 clips, store.json says 10"),
    "plan relabelled": (
        edit_plan(lambda t: t.set_column(4, "label", pa.array([0] * 10, pa.int16()))),
        PLAN,
        "its digest is",
    ),
    "plan renumbered": (
        edit_plan(lambda t: t.set_column(0, "clip_id", pa.array(range(1, 11), pa.int32()))),
        PLAN,
        "does not count 0, 1, 2",
    ),
    "clip id twice": (edit_clips("clip_id", 1, 4), CLIPS, "clip_id is not 4 to 7"),
    "label changed": (edit_clips("label", 1, 0), CLIPS, "label is not what the plan"),
    "status unknown": (edit_clips("status", 0, "fine"), CLIPS, "unknown status fine"),
    "error on ok": (edit_clips("error", 0, "oops"), CLIPS, "exactly where a clip"),
    "top5": (edit_clips("top5", 0, []), CLIPS, "first of top5"),
    "class": (edit_clips("prediction", 0, 77), CLIPS, "not one of 3 classes"),
    "confidence": (edit_clips("confidence", 0, 1.5), CLIPS, "confidence"),
    "loss": (edit_clips("loss", 0, 9.0), CLIPS, "loss is not -log"),
    "decoder": (edit_clips("decoder", 0, "decord"), CLIPS, "decoded by decord"),
    "ok made failed": (edit_clips("status", 0, "too_short"), CLIPS, "error must be there"),
    "gini": (
        edit_clips("gini", 0, 0.1),
        SCORES,
        "top10_share or gini of the clips table is another at clip 4",
    ),
    "score NaN": (
        edit_array("scores", set_item((0, 0, 0, 0), np.nan)),
        SCORES,
        "NaN or infinite, though it is ok, at clip 4",
    ),
    "failed clip has scores": (
        edit_array("scores", set_item(2, 0.5)),
        SCORES,
        "not NaN, though it failed, at clip 6",
    ),
    "score above 1": (
        edit_array("scores", set_item((3, 0, 0, 0), 1.5)),
        SCORES,
        "outside [0, 1] at clip 7",
    ),
    "degenerate clip has scores": (
        edit_array("scores", set_item((1, 0, 0, 0), 1)),
        SCORES,
        "not scaled from 0 to 1 (or all 0, if degenerate) at clip 5",
    ),
    "scores swapped": (
        edit_array("scores", swap_clips),
        CAM,
        "the scores are not its positive part scaled to [0, 1] at clip 4, 7",
    ),
    "cam moved by 0.5 %": (
        edit_array("cam", add((0, slice(None)), 0.005)),
        CAM,
        "the scores are not its positive part",
    ),
    "cam beyond its scale": (
        edit_array("cam", set_item((0, 0, 0, 0), -2)),
        CAM,
        "its largest magnitude is not 1 at clip 4",
    ),
    "cam infinite": (edit_array("cam", set_item((0, 0, 0, 0), np.inf)), CAM, "NaN or infinite"),
    "embedding of a failed clip": (
        edit_array("embeddings", set_item(2, 0)),
        EMBEDDINGS,
        "not NaN, though it failed, at clip 6",
    ),
    "index repeats": (
        edit_array("embedding_index", set_item((0, 1), 0)),
        INDEX,
        "not ascending token numbers at clip 4",
    ),
    "index out of the grid": (
        edit_array("embedding_index", set_item((0, -1), 24)),
        INDEX,
        "not ascending token numbers at clip 4",
    ),
    "index of a failed clip": (
        edit_array("embedding_index", set_item((2, 0), 3)),
        INDEX,
        "not -1, though it failed, at clip 6",
    ),
    "tokens short": (edit_tokens(lambda t: t.slice(0, 30)), TOKENS, "30 rows instead of 72"),
    "tokens differ": (edit_tokens(halve_scores), TOKENS, "score not the same as"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "s"
    make_store(folder, 10, failed={6: ClipStatus.DECODE_ERROR}, degenerate=(5,))
    commit_again(folder)
    assert verify_store(str(folder)) == []
    return folder


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_of_the_writer_is_found_and_named(tmp_path: Path, sound: Path, kind: str) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "s"))
    make_fault, where, what = FAULTS[kind]
    make_fault(folder)
    problems = verify_store(str(folder))
    found = [p for p in problems if p.where == where and what in p.what]
    assert found, "\n".join(map(str, problems)) or "nothing found"
