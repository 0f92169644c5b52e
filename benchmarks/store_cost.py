"""What a store costs beside its bytes: a failed clip, checking all of it, memory of a shard.

    python benchmarks/store_cost.py --clips 2048

The store has a real one's shape (VideoMAE-B: 8x14x14 tokens of 768 channels) and random numbers.
`verify` is compared with reading every byte of the store once, both with a warm page cache, so that
the ratio is the worst one: a disk or a network makes the bytes dearer and the rest no cheaper.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

from pipeline.clips.grid import TokenGrid
from pipeline.errors import ClipStatus
from pipeline.store.reader import Store, open_store
from pipeline.store.shard_writer import ShardWriter
from pipeline.store.verify import verify_store

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `tests` is, which is not installed
from tests.stores import begin_store, make_result

GRID = TokenGrid(8, 14, 14)
HIDDEN_SIZE = 768
SHARD_SIZE = 256


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=2048)
    parser.add_argument("--embeddings-per-clip", type=int, default=128, help="-1 keeps all")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sound = write_store(Path(folder) / "sound", args.clips, args.embeddings_per_clip, every=0)
        print_checking(sound)
        one_shard = min(args.clips, SHARD_SIZE)
        half = write_store(Path(folder) / "half", one_shard, args.embeddings_per_clip, every=2)
        whole = write_store(Path(folder) / "whole", one_shard, args.embeddings_per_clip, every=0)
        print_failures(whole, half, one_shard)
        print_memory(whole)


def write_store(path: Path, num_clips: int, embeddings_per_clip: int, every: int) -> Store:
    """A finished store in which each `every`-th clip failed."""
    shape = {"grid": GRID, "hidden_size": HIDDEN_SIZE, "embeddings_per_clip": embeddings_per_clip}
    failed = dict.fromkeys(range(0, num_clips, every), ClipStatus.DECODE_ERROR) if every else {}
    with begin_store(path, num_clips, shard_size=SHARD_SIZE, **shape) as writer:  # type: ignore[arg-type]
        shards = ShardWriter(writer.root)
        for shard in writer.pending():
            shards.write(shard, make_result(writer, shard, failed))
    return open_store(path)


def print_checking(store: Store) -> None:
    """Seconds to read all bytes once, and to verify."""
    paths = [path for path in Path(store.root.path).rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in paths)
    ratios = []
    for _ in range(3):
        began = time.perf_counter()
        for path in paths:
            path.read_bytes()
        read = time.perf_counter() - began
        began = time.perf_counter()
        assert verify_store(store.root) == []
        ratios.append((time.perf_counter() - began, read))
    verify, read = min(v for v, _ in ratios), min(r for _, r in ratios)
    print(
        f"verify: {size / 2**20:,.0f} MiB in {verify:.2f} s ({size / verify / 2**20:,.0f} MiB/s), "
        f"{verify / read:.1f} times as long as reading the bytes ({read:.2f} s)"
    )


def print_failures(whole: Store, half: Store, num_clips: int) -> None:
    """Bytes of a clip that is ok, and of one that failed."""
    for name in ("embeddings", "scores", "cam"):
        a, b = (array_bytes(store, name) for store in (whole, half))
        ok = a / num_clips
        failed = (b - ok * (num_clips // 2)) / (num_clips // 2)
        print(f"failed clip: {failed:,.0f} bytes of {name}; one that is ok {ok:,.0f}")


def array_bytes(store: Store, name: str) -> int:
    """Size of an array's files."""
    return sum(f.stat().st_size for f in Path(store.root.path, "oracle.zarr", name).glob("c.*"))


def print_memory(store: Store) -> None:
    """What writing a shard allocates beside the shard itself."""
    writer = ShardWriter(store.root)
    result = make_result(store, 0)
    size = sum(np.asarray(getattr(result, spec.name)).nbytes for spec in store.info.arrays)
    tracemalloc.start()
    writer.write(0, result)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(
        f"writing a shard of {size / 2**20:,.0f} MiB allocates up to {peak / size:.2f} times that"
    )


if __name__ == "__main__":
    main()
