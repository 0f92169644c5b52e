"""No damage to any committed file escapes `verify`, and none changes what a reader is told.

A seeded sample; `-m slow` runs the whole campaign of 3,000.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ClipStatus, StoreError
from pipeline.store.reader import open_store
from pipeline.store.verify import verify_store
from tests.stores import make_store

SAMPLE = 40
CAMPAIGN = range(1, 11), 300

KINDS = {
    # first words of a path: what is counted
    "store.json": "store.json",
    "plan.parquet": "plan",
    "oracle.zarr/zarr.json": "group metadata",
    "clips/": "clips",
    "tokens/": "tokens",
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "s"
    several = {"further_oracles": ("hirescam@embeddings",)}
    make_store(folder, 10, failed={6: ClipStatus.DECODE_ERROR}, degenerate=(5,), **several)
    assert verify_store(str(folder)) == []
    return folder


def kind_of(path: str) -> str:
    for start, kind in KINDS.items():
        if path.startswith(start):
            return kind
    _, array, name = path.split("/")
    return "array metadata" if name == "zarr.json" else array


def damaged(data: bytes, other: bytes, rng: np.random.Generator) -> tuple[str, bytes | None]:
    """The name of some damage, and the file after it; None where it is gone."""
    size = len(data)
    at = int(rng.integers(size))
    choice = rng.choice(
        ["flip", "flips", "zeros", "cut", "empty", "longer", "gone", "other", "swapped"],
        p=[0.5, 0.1, 0.05, 0.1, 0.02, 0.05, 0.08, 0.05, 0.05],
    )
    changed = bytearray(data)
    if choice == "flip":
        changed[at] ^= 1 << int(rng.integers(8))
    elif choice == "flips":
        for where in rng.integers(size, size=5):
            changed[where] ^= int(rng.integers(1, 256))
    elif choice == "zeros":
        changed[at : at + 16] = bytes(len(changed[at : at + 16]))
    elif choice == "cut":
        changed = changed[:at]
    elif choice == "empty":
        changed = bytearray()
    elif choice == "longer":
        changed += rng.bytes(int(rng.integers(1, 100)))
    elif choice == "gone":
        return choice, None
    elif choice == "other":
        changed = bytearray(other)
    else:
        half = size // 2
        changed = changed[half:] + changed[:half]
    return str(choice), bytes(changed)


def everything(folder: Path) -> str | None:
    """A digest of all that readers say; None where one refuses."""
    found = hashlib.sha256()
    try:
        store = open_store(folder)
        found.update(repr((store.info.config, store.label_names, store.shards())).encode())
        for frame in (store.plan(), store.clips(names=True), store.tokens(min_score=0.25)):
            found.update(frame.to_csv().encode())
        for shard, oracle in itertools.product(store.shards(), store.oracles):
            data = store.read_shard(shard, oracle=oracle)
            for array in (data.scores, data.cam, data.embeddings, data.embedding_index):
                found.update(np.ascontiguousarray(array).tobytes())
    except StoreError:
        return None
    return found.hexdigest()


def campaign(sound: Path, folder: Path, number: int, seed: int) -> Counter[tuple[str, str]]:
    """Damages one file at a time, each kind of file as often as the others."""
    rng = np.random.default_rng(seed)
    shutil.copytree(sound, folder)
    kinds: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        rel = path.relative_to(folder).as_posix()
        if path.is_file() and not rel.startswith("runs/"):
            kinds.setdefault(kind_of(rel), []).append(path)
    assert len(kinds) == 12
    said, shards = everything(folder), open_store(folder).shards()
    assert said is not None
    seen: Counter[tuple[str, str]] = Counter()
    for _ in range(number):
        kind = str(rng.choice(sorted(kinds)))
        path, other = (kinds[kind][i] for i in rng.integers(len(kinds[kind]), size=2))
        data = path.read_bytes()
        how, after = damaged(data, other.read_bytes(), rng)
        if after == data:
            continue
        path.unlink() if after is None else path.write_bytes(after)
        where = f"{how} of {path.relative_to(folder)}"
        harm = [problem for problem in verify_store(str(folder)) if not problem.harmless]
        assert harm, f"verify misses: {where}"
        if not (how == "gone" and kind == "clips"):  # then there is one shard less, and no damage
            now = everything(folder)
            assert now in (None, said), f"a reader is told something else after: {where}"
        path.write_bytes(data)
        seen[kind, how] += 1
    assert open_store(folder).shards() == shards
    assert verify_store(str(folder)) == []
    return seen


def test_a_sample_of_damages(sound: Path, tmp_path: Path) -> None:
    seen = campaign(sound, tmp_path / "s", SAMPLE, seed=0)
    assert len({kind for kind, _ in seen}) == 12
    assert sum(seen.values()) > SAMPLE * 0.9


@pytest.mark.slow
@pytest.mark.parametrize("seed", CAMPAIGN[0])
def test_thousands_of_damages(sound: Path, tmp_path: Path, seed: int) -> None:
    seen = campaign(sound, tmp_path / "s", CAMPAIGN[1], seed)
    assert sum(seen.values()) >= 0.9 * CAMPAIGN[1]
