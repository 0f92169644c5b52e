"""`verify_store`: silent on sound stores, and one clear line for every kind of damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import zarr

from pipeline.errors import ClipStatus, StoreNotFoundError
from pipeline.store import layout
from pipeline.store.reader import Store
from pipeline.store.verify import verify_store
from pipeline.store.writer import load_result, write_shard
from tests.stores import GRID, make_store

REDO = "remove clips/shard-00001.parquet and run the same `lite-pipeline build-oracle` again"


def edit_array(name: str, change: Callable[[np.ndarray], None]) -> Callable[[Path], None]:
    """Changes shard 1 (clips 4 to 7; 5 degenerate, 6 failed) of an array."""

    def edit(store: Path) -> None:
        array = zarr.open_array(store / "oracle.zarr" / name, mode="r+")
        rows = np.asarray(array[4:8])
        change(rows)
        array[4:8] = rows

    return edit


def edit_clips(column: str, row: int, value: object) -> Callable[[Path], None]:
    def edit(store: Path) -> None:
        path = store / layout.clips_path(1)
        rows = pq.read_table(path).to_pylist()
        rows[row][column] = value
        pq.write_table(pa.Table.from_pylist(rows, layout.CLIPS_SCHEMA), path)

    return edit


def edit_plan(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def edit(store: Path) -> None:
        path = store / layout.PLAN
        pq.write_table(change(pq.read_table(path)), path)

    return edit


def flip_bit(rel: str, offset: int = 20) -> Callable[[Path], None]:
    def edit(store: Path) -> None:
        data = bytearray((store / rel).read_bytes())
        data[offset] ^= 16
        (store / rel).write_bytes(data)

    return edit


def write(rel: str, data: bytes) -> Callable[[Path], None]:
    return lambda store: (store / rel).write_bytes(data) and None


def remove(rel: str) -> Callable[[Path], None]:
    return lambda store: (store / rel).unlink()


def replace_in(rel: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(store: Path) -> None:
        text = (store / rel).read_text()
        assert old in text
        (store / rel).write_text(text.replace(old, new))

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


def second_half_of_tokens(store: Path) -> None:
    path = store / layout.tokens_path(1)
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 30), path)


def double_scores_in_tokens(store: Path) -> None:
    path = store / layout.tokens_path(1)
    table = pq.read_table(path)
    table = table.set_column(5, "score", pc.multiply(table["score"], pa.scalar(0.5, pa.float32())))
    pq.write_table(table.cast(layout.TOKENS_SCHEMA), path)


CLIPS_1 = "clips/shard-00001.parquet"
TOKENS_1 = "tokens/shard-00001.parquet"

DAMAGE: dict[str, tuple[Callable[[Path], None], str, str, str]] = {
    # what is done: (how, where it must be reported, words of what, words of the remedy)
    "store.json gone": (remove("store.json"), "store.json", "without store.json", "put it back"),
    "store.json cut": (write("store.json", b"{"), "store.json", "is damaged", "put it back"),
    "plan gone": (remove("plan.parquet"), "plan.parquet", "is missing", "put it back"),
    "plan cut": (write("plan.parquet", b"PAR1"), "plan.parquet", "cannot be read", "put it back"),
    "plan short": (
        edit_plan(lambda t: t.slice(0, 9)),
        "plan.parquet",
        "9 clips, store.json says 10",
        "put it back",
    ),
    "plan relabelled": (
        edit_plan(lambda t: t.set_column(4, "label", pa.array([0] * 10, pa.int16()))),
        "plan.parquet",
        "its digest is",
        "put it back",
    ),
    "plan renumbered": (
        edit_plan(lambda t: t.set_column(0, "clip_id", pa.array(range(1, 11), pa.int32()))),
        "plan.parquet",
        "does not count 0, 1, 2",
        "put it back",
    ),
    "shard missing": (remove(CLIPS_1), "clips", "1 of 3 shards (4 clips) are missing: 1", "run"),
    "clips cut": (write(CLIPS_1, b"PAR1PAR1"), CLIPS_1, "cannot be read", REDO),
    "clip id twice": (edit_clips("clip_id", 1, 4), CLIPS_1, "clip_id is not 4 to 7", REDO),
    "label changed": (edit_clips("label", 1, 0), CLIPS_1, "label is not what the plan", REDO),
    "status unknown": (edit_clips("status", 0, "fine"), CLIPS_1, "unknown status fine", REDO),
    "error on ok": (edit_clips("error", 0, "oops"), CLIPS_1, "exactly where a clip", REDO),
    "top5": (edit_clips("top5", 0, []), CLIPS_1, "first of top5", REDO),
    "class": (edit_clips("prediction", 0, 77), CLIPS_1, "not one of 3 classes", REDO),
    "confidence": (edit_clips("confidence", 0, 1.5), CLIPS_1, "confidence", REDO),
    "loss": (edit_clips("loss", 0, 9.0), CLIPS_1, "loss is not -log", REDO),
    "decoder": (edit_clips("decoder", 0, "decord"), CLIPS_1, "decoded by decord", REDO),
    "ok made failed": (
        edit_clips("status", 0, "too_short"),
        CLIPS_1,
        "error must be there",
        REDO,
    ),
    "gini": (
        edit_clips("gini", 0, 0.1),
        "oracle.zarr/scores/c.1.0.0.0",
        "top10_share or gini of the clips table is another at clip 4",
        REDO,
    ),
    "array gone": (
        remove("oracle.zarr/cam/c.1.0.0.0"),
        "oracle.zarr/cam/c.1.0.0.0",
        "missing, though the shard is committed",
        REDO,
    ),
    "array metadata gone": (
        remove("oracle.zarr/cam/zarr.json"),
        "oracle.zarr/cam/zarr.json",
        "cannot be opened",
        "put it back",
    ),
    "array metadata changed": (
        replace_in("oracle.zarr/cam/zarr.json", '"y"', '"height"'),
        "oracle.zarr/cam/zarr.json",
        "dimensions are",
        "put it back",
    ),
    "scores flipped": (
        flip_bit("oracle.zarr/scores/c.1.0.0.0"),
        "oracle.zarr/scores/c.1.0.0.0",
        "cannot be decoded",
        REDO,
    ),
    "embeddings flipped": (
        flip_bit("oracle.zarr/embeddings/c.1.0.0"),
        "oracle.zarr/embeddings/c.1.0.0",
        "cannot be decoded",
        REDO,
    ),
    "array cut": (
        write("oracle.zarr/embeddings/c.1.0.0", b"xyz"),
        "oracle.zarr/embeddings/c.1.0.0",
        "cannot be decoded",
        REDO,
    ),
    "score NaN": (
        edit_array("scores", set_item((0, 0, 0, 0), np.nan)),
        "oracle.zarr/scores/c.1.0.0.0",
        "NaN or infinite, though it is ok, at clip 4",
        REDO,
    ),
    "failed clip has scores": (
        edit_array("scores", set_item(2, 0.5)),
        "oracle.zarr/scores/c.1.0.0.0",
        "not NaN, though it failed, at clip 6",
        REDO,
    ),
    "score above 1": (
        edit_array("scores", set_item((3, 0, 0, 0), 1.5)),
        "oracle.zarr/scores/c.1.0.0.0",
        "outside [0, 1] at clip 7",
        REDO,
    ),
    "degenerate clip has scores": (
        edit_array("scores", set_item((1, 0, 0, 0), 1)),
        "oracle.zarr/scores/c.1.0.0.0",
        "not scaled from 0 to 1 (or all 0, if degenerate) at clip 5",
        REDO,
    ),
    "scores swapped": (
        edit_array("scores", swap_clips),
        "oracle.zarr/cam/c.1.0.0.0",
        "the scores are not its positive part scaled to [0, 1] at clip 4, 7",
        REDO,
    ),
    "cam moved by 0.5 %": (
        edit_array("cam", add((0, slice(None)), 0.005)),
        "oracle.zarr/cam/c.1.0.0.0",
        "the scores are not its positive part",
        REDO,
    ),
    "cam beyond its scale": (
        edit_array("cam", set_item((0, 0, 0, 0), -2)),
        "oracle.zarr/cam/c.1.0.0.0",
        "its largest magnitude is not 1 at clip 4",
        REDO,
    ),
    "cam infinite": (
        edit_array("cam", set_item((0, 0, 0, 0), np.inf)),
        "oracle.zarr/cam/c.1.0.0.0",
        "NaN or infinite",
        REDO,
    ),
    "embedding of a failed clip": (
        edit_array("embeddings", set_item(2, 0)),
        "oracle.zarr/embeddings/c.1.0.0",
        "not NaN, though it failed, at clip 6",
        REDO,
    ),
    "index repeats": (
        edit_array("embedding_index", set_item((0, 1), 0)),
        "oracle.zarr/embedding_index/c.1.0",
        "not ascending token numbers at clip 4",
        REDO,
    ),
    "index out of the grid": (
        edit_array("embedding_index", set_item((0, -1), 24)),
        "oracle.zarr/embedding_index/c.1.0",
        "not ascending token numbers at clip 4",
        REDO,
    ),
    "index of a failed clip": (
        edit_array("embedding_index", set_item((2, 0), 3)),
        "oracle.zarr/embedding_index/c.1.0",
        "not -1, though it failed, at clip 6",
        REDO,
    ),
    "tokens gone": (remove(TOKENS_1), TOKENS_1, "is missing", REDO),
    "tokens cut": (write(TOKENS_1, b"PAR1"), TOKENS_1, "cannot be read", REDO),
    "tokens short": (second_half_of_tokens, TOKENS_1, "30 rows instead of 72", REDO),
    "tokens differ": (double_scores_in_tokens, TOKENS_1, "score not the same as", REDO),
    "temporary file": (
        write("clips/.shard-00001.parquet.01.tmp", b"x"),
        "clips/.shard-00001.parquet.01.tmp",
        "does not belong",
        "the next run removes it",
    ),
    "foreign file": (
        write("clips/notes.txt", b"x"),
        "clips/notes.txt",
        "does not belong",
        "remove it",
    ),
    "shard beyond the plan": (
        write("clips/shard-00009.parquet", b"x"),
        "clips/shard-00009.parquet",
        "does not belong",
        "remove it",
    ),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "s"
    make_store(folder, 10, failed={6: ClipStatus.DECODE_ERROR}, degenerate=(5,))
    assert verify_store(str(folder)) == []
    return folder


@pytest.fixture
def folder(tmp_path: Path, sound: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "s"))


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_named(folder: Path, kind: str) -> None:
    damage, where, what, remedy = DAMAGE[kind]
    damage(folder)
    problems = verify_store(str(folder))
    found = [p for p in problems if p.where == where and what in p.what and remedy in p.remedy]
    assert found, "\n".join(map(str, problems)) or "nothing found"


def test_one_broken_shard_does_not_hide_the_next(folder: Path) -> None:
    (folder / layout.clips_path(0)).write_bytes(b"")
    (folder / layout.tokens_path(2)).write_bytes(b"")
    assert [p.where for p in verify_store(str(folder))] == [
        layout.clips_path(0),
        layout.tokens_path(2),
    ]


def test_the_remedy_works(folder: Path) -> None:
    DAMAGE["scores flipped"][0](folder)
    (folder / layout.clips_path(1)).unlink()
    make_store(folder, 10, failed={6: ClipStatus.DECODE_ERROR}, degenerate=(5,))
    assert verify_store(str(folder)) == []


def test_an_interrupted_store_is_unfinished_and_not_damaged(tmp_path: Path) -> None:
    make_store(tmp_path / "s", 10, shards=[1])
    problems = verify_store(str(tmp_path / "s"))
    assert [str(p) for p in problems] == [
        "clips: 2 of 3 shards (6 clips) are missing: 0, 2; run the same `lite-pipeline "
        "build-oracle` again to complete it"
    ]


def test_progress_is_reported(tiny_store: Store) -> None:
    seen: list[tuple[int, int]] = []
    verify_store(tiny_store.root, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError):
        verify_store(str(tmp_path / "nowhere"))


def test_side_logs_are_nobodys_business(tiny_store: Store) -> None:
    tiny_store.root.put("runs/log.jsonl", b"anything")
    assert verify_store(tiny_store.root) == []


_DERIVED = ("status", "error", "cam_scale", "top10_share", "gini")


@pytest.mark.parametrize("offset", [1e-3, 1, 100])
def test_nearly_constant_maps_are_no_false_alarm(tmp_path: Path, offset: float) -> None:
    """Float16 keeps little of a map whose range is small beside its values."""
    store = make_store(tmp_path / "s", 4, tokens_per_clip=0)
    result = load_result(store.root, 0)
    rng = np.random.default_rng(0)
    for row in range(4):
        cam = (offset + 10.0**-row * rng.random(GRID)).astype(np.float32)
        clip = result.clips[row]
        assert clip is not None
        keep = {k: v for k, v in clip.items() if k not in _DERIVED}
        scores = (cam - cam.min()) / (cam.max() - cam.min())
        result.set_ok(row, scores=scores, cam=cam, **keep)
    write_shard(store.root, 0, result)
    assert verify_store(store.root) == []
