"""`verify_store`: silent on sound stores, and one clear line for every damaged file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ClipStatus, StoreNotFoundError
from pipeline.store import layout
from pipeline.store.inventory import remove_leftovers
from pipeline.store.reader import Store, open_store
from pipeline.store.shard_writer import ShardWriter
from pipeline.store.verify import verify_store
from tests.stores import GRID, file_hashes, make_store

REDO = (
    "remove clips/shard-00001.parquet and run the same `lite-pipeline build-oracle --store` again"
)
AGAIN = "run the same `lite-pipeline build-oracle --store` again, which writes it anew"

Damage = Callable[[Path], None]


def flip_bit(rel: str, offset: int = 20) -> Damage:
    def edit(store: Path) -> None:
        data = bytearray((store / rel).read_bytes())
        data[offset] ^= 16
        (store / rel).write_bytes(data)

    return edit


def write(rel: str, data: bytes = b"x") -> Damage:
    def edit(store: Path) -> None:
        (store / rel).parent.mkdir(parents=True, exist_ok=True)
        (store / rel).write_bytes(data)

    return edit


def remove(rel: str) -> Damage:
    return lambda store: (store / rel).unlink()


def copy(rel: str, to: str) -> Damage:
    return lambda store: shutil.copyfile(store / rel, store / to) and None


CLIPS_1 = "clips/shard-00001.parquet"
TOKENS_1 = "tokens/shard-00001.parquet"
CAM_1 = "oracle.zarr/cam/c.1.0.0.0"

DAMAGE: dict[str, tuple[Damage, str, str, str]] = {
    # what is done: (how, where it must be reported, words of what, words of the remedy)
    "store.json gone": (remove("store.json"), "store.json", "without store.json", "put it back"),
    "store.json cut": (write("store.json", b"{"), "store.json", "is damaged", "put it back"),
    "store.json flipped": (flip_bit("store.json", 400), "store.json", "is damaged", "put it back"),
    "plan gone": (remove("plan.parquet"), "plan.parquet", "missing", AGAIN),
    "plan flipped": (flip_bit("plan.parquet", -20), "plan.parquet", "damaged", AGAIN),
    "group metadata flipped": (
        flip_bit("oracle.zarr/zarr.json"),
        "oracle.zarr/zarr.json",
        "damaged",
        AGAIN,
    ),
    "group metadata gone": (
        remove("oracle.zarr/zarr.json"),
        "oracle.zarr/zarr.json",
        "missing",
        AGAIN,
    ),
    "array metadata gone": (
        remove("oracle.zarr/cam/zarr.json"),
        "oracle.zarr/cam/zarr.json",
        "missing",
        AGAIN,
    ),
    "shard missing": (remove(CLIPS_1), "clips", "1 of 3 shards (4 clips) are missing: 1", "run"),
    "clips cut": (write(CLIPS_1, b"PAR1PAR1"), CLIPS_1, "is damaged", REDO),
    "clips flipped": (flip_bit(CLIPS_1, -40), CLIPS_1, "is damaged", REDO),
    "clips of another shard": (
        copy("clips/shard-00000.parquet", CLIPS_1),
        CLIPS_1,
        "is the file of another shard",
        REDO,
    ),
    "array gone": (remove(CAM_1), CAM_1, "is missing, though its shard is committed", REDO),
    "array flipped": (flip_bit(CAM_1), CAM_1, "not the file that was committed", REDO),
    "array of another shard": (
        copy("oracle.zarr/cam/c.0.0.0.0", CAM_1),
        CAM_1,
        "not the file that was committed",
        REDO,
    ),
    "embeddings flipped": (
        flip_bit("oracle.zarr/embeddings/c.1.0.0"),
        "oracle.zarr/embeddings/c.1.0.0",
        "not the file that was committed",
        REDO,
    ),
    "array cut": (write(CAM_1, b""), CAM_1, "not the file that was committed", REDO),
    "tokens gone": (remove(TOKENS_1), TOKENS_1, "is missing", REDO),
    "tokens flipped": (flip_bit(TOKENS_1, -60), TOKENS_1, "not the file that was committed", REDO),
    "foreign file": (write("clips/notes.txt"), "clips/notes.txt", "does not belong", "move it"),
    "foreign array": (
        write("oracle.zarr/extra/zarr.json"),
        "oracle.zarr/extra/zarr.json",
        "does not belong",
        "move it",
    ),
    "shard beyond the plan": (
        write("clips/shard-00009.parquet"),
        "clips/shard-00009.parquet",
        "does not belong",
        "move it",
    ),
}

COPIES = {
    "clips/shard-00001 (1).parquet": CLIPS_1,
    "clips/shard-00001 (Ann's conflicted copy 2026-01-31).parquet": CLIPS_1,
    "tokens/shard-00001.sync-conflict-20260131-101112-ABCDEFG.parquet": TOKENS_1,
    "clips/shard-00001_conflict-20260131-101112.parquet": CLIPS_1,
    "clips/shard-00001 copy 2.parquet": CLIPS_1,
    "clips/shard-00001 2.parquet": CLIPS_1,
    "clips/shard-00001 - Copy.parquet": CLIPS_1,
    "clips/shard-00001.parquet~": CLIPS_1,
    "clips (1)/shard-00001.parquet": CLIPS_1,
    "oracle.zarr/cam/c.1.0.0.sync-conflict-20260131-101112-ABCDEFG.0": CAM_1,
    "store (conflicted copy 2026-01-31 101112).json": "store.json",
    "plan.parquet.orig": "plan.parquet",
}

OUTSIDERS = (
    ".git/HEAD",
    ".git/objects/ab/cd",
    ".gitattributes",
    "README.md",
    ".cache/huggingface/CACHEDIR.TAG",
    ".DS_Store",
    "clips/.DS_Store",
    "clips/._shard-00001.parquet",
    "oracle.zarr/.DS_Store",
    "figures/tail.png",
)


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


def test_copies_by_programs_that_share_folders_are_named(folder: Path) -> None:
    for path, original in COPIES.items():
        copy(original, path)(folder) if (folder / path).parent.is_dir() else write(path)(folder)
    problems = verify_store(str(folder))
    assert {p.where for p in problems} == set(COPIES)
    for problem in problems:
        assert f"a copy of {COPIES[problem.where]} " in problem.what
        assert not problem.harmless


def test_what_sharing_a_folder_leaves_beside_the_data_is_a_note(folder: Path) -> None:
    for path in OUTSIDERS:
        write(path)(folder)
    problems = verify_store(str(folder))
    assert all(problem.harmless for problem in problems)
    assert {p.where: p.what for p in problems} == {
        ".git/": "not part of the store (2 files)",
        ".cache/": "not part of the store",
        "figures/": "not part of the store",
        **{
            path: "not part of the store"
            for path in OUTSIDERS
            if not path.startswith((".git/", ".cache/", "figures/"))
        },
    }
    make_store(folder, 10, failed={6: ClipStatus.DECODE_ERROR}, degenerate=(5,))
    assert all((folder / path).is_file() for path in OUTSIDERS), "a run removes what is not its own"


def test_what_the_next_run_removes_is_what_it_is_said_to_remove(folder: Path) -> None:
    temporary = f"clips/.shard-00001.parquet.{'0f' * 16}.tmp"
    others = ["clips/.shard-00001.parquet.01.tmp", ".vim.swp.tmp", "tokens/notes.csv"]
    for path in [temporary, *others]:
        write(path)(folder)
    (folder / layout.clips_path(2)).unlink()
    store = open_store(folder)
    promised = {p.where for p in verify_store(str(folder)) if "next run removes it" in p.remedy}
    assert promised == {temporary, *store.info.shard_files(2)}
    assert set(remove_leftovers(store.root, store.info)) == promised
    assert all((folder / path).is_file() for path in others)


def test_files_of_the_beginning_are_written_anew(folder: Path, sound: Path) -> None:
    for rel in open_store(folder).info.files:
        flip_bit(rel)(folder)
    (folder / "oracle.zarr/zarr.json").unlink()
    make_store(folder, 10, failed={6: ClipStatus.DECODE_ERROR}, degenerate=(5,))
    assert file_hashes(folder) == file_hashes(sound)


def test_one_broken_shard_does_not_hide_the_next(folder: Path) -> None:
    (folder / layout.clips_path(0)).write_bytes(b"")
    (folder / layout.tokens_path(2)).write_bytes(b"")
    assert [p.where for p in verify_store(str(folder))] == [
        layout.clips_path(0),
        layout.tokens_path(2),
    ]


def test_the_remedy_works(folder: Path) -> None:
    DAMAGE["array flipped"][0](folder)
    (folder / layout.clips_path(1)).unlink()
    make_store(folder, 10, failed={6: ClipStatus.DECODE_ERROR}, degenerate=(5,))
    assert verify_store(str(folder)) == []


def test_an_interrupted_store_is_unfinished_and_not_damaged(tmp_path: Path) -> None:
    make_store(tmp_path / "s", 10, shards=[1])
    problems = verify_store(str(tmp_path / "s"))
    assert [str(p) for p in problems] == [
        "clips: 2 of 3 shards (6 clips) are missing: 0, 2; run the same `lite-pipeline "
        "build-oracle --store` again to complete it"
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


_DERIVED = ("status", "error", "cam_scale", "degenerate", "top10_share", "gini")


@pytest.mark.parametrize("offset", [1e-3, 1, 100])
def test_nearly_constant_maps_are_no_false_alarm(tmp_path: Path, offset: float) -> None:
    """Float16 keeps little of a map whose range is small beside its values."""
    store = make_store(tmp_path / "s", 4, embeddings_per_clip=0)
    result = ShardWriter(store.root).load(0)
    rng = np.random.default_rng(0)
    for row in range(4):
        cam = (offset + 10.0**-row * rng.random(GRID)).astype(np.float32)
        clip = result.clips[row]
        assert clip is not None
        keep = {k: v for k, v in clip.items() if k not in _DERIVED}
        scores = (cam - cam.min()) / (cam.max() - cam.min())
        result.set_ok(row, scores=scores, cam=cam, **keep)
    ShardWriter(store.root).write(0, result)
    assert verify_store(store.root) == []
