"""Trains a selector from stores of n and 4n clips: tokens per second, and memory that stays put.

    python benchmarks/selector_scale.py --clips 102400 --tokens 2000000

The stores have a real one's shape (VideoMAE-B: 8x14x14 tokens of 768 channels, 128 kept per clip)
and every clip its own row in plan and clips table. The arrays repeat: shard files are hard links
to a few that differ, so that 80 GB of embeddings fit on a small disk. Reading is therefore served
by the page cache; what is measured is the program, not the disk. "per CPU-s" divides by the
process's CPU time and so means something on a busy machine too; "start" is the CPU time until the
first batch (the split, the statistics, the held-out clips).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.clips.grid import TokenGrid
from pipeline.config import OracleConfig
from pipeline.store import layout
from pipeline.store.commits import Commits, commit_bytes
from pipeline.store.reader import open_store
from pipeline.store.result import ShardResult
from pipeline.store.root import Root
from pipeline.store.shard_writer import ShardWriter
from pipeline.store.writer import create_store

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `tests` is, which is not installed
from tests.stores import make_config, make_plan

GRID = TokenGrid(8, 14, 14)
NUM_DISTINCT = 4
"""Shards written in full; the others link to their arrays."""


def main() -> None:
    """Parse, write the stores, train from each in a fresh process, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=102_400, help="n, a multiple of --shard-size")
    parser.add_argument("--tokens", type=int, default=2_000_000, help="trained on per store")
    parser.add_argument("--embeddings-per-clip", type=int, default=128)
    parser.add_argument("--hidden-size", type=int, default=768)
    parser.add_argument("--shard-size", type=int, default=256)
    parser.add_argument("--arch", default="mlp")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--folder", type=Path, help="where the stores go; default a temporary one")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.child, args.tokens, args.arch, args.device)))
        return
    if args.clips % args.shard_size:
        parser.error("--clips must be a multiple of --shard-size")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        print(
            f"{'clips':>8} {'embeddings':>11} {'start':>6} {'tokens/s':>9} {'per CPU-s':>10} "
            f"{'reading only':>13} {'peak':>9}"
        )
        for factor in (1, 4):
            path = Path(folder) / f"store-{factor}"
            num_clips = factor * args.clips
            write_store(path, num_clips, args)
            command = [sys.executable, __file__, *sys.argv[1:], "--child", str(path)]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            size = num_clips * args.embeddings_per_clip * args.hidden_size * 2
            print(
                f"{num_clips:>8} {size / 1e9:>8.1f} GB {found['start_cpu_s']:>4.0f} s "
                f"{found['tokens_per_s']:>9,.0f} "
                f"{found['tokens_per_cpu_s']:>10,.0f} "
                f"{found['read_tokens_per_s']:>13,.0f} {found['peak_bytes'] / 2**20:>5,.0f} MiB"
            )


def write_store(path: Path, num_clips: int, args: argparse.Namespace) -> None:
    """A finished store of `num_clips` clips whose arrays repeat."""
    config = make_config(embeddings_per_clip=args.embeddings_per_clip, shard_size=args.shard_size)
    plan = make_plan(num_clips, args.shard_size, num_classes=174)
    root = Root(path)
    with create_store(root, config, plan, GRID, args.hidden_size, []) as writer:
        shards, info = ShardWriter(root), writer.info
        for shard in range(NUM_DISTINCT):
            shards.write(shard, _random_result(shard, config, args.hidden_size))
        commits = dict(Commits(root, info).read_each(range(NUM_DISTINCT)))
        for shard in range(NUM_DISTINCT, info.num_shards):
            source, files = shard % NUM_DISTINCT, {}
            for array in info.arrays:
                old, new = array.chunk_key(source), array.chunk_key(shard)
                os.link(root.join(old), root.join(new))
                files[new] = commits[source].files[old]
            columns = commits[source].table(layout.OUTCOME_COLUMNS).combine_chunks().columns
            planned = shards.plan(shard).combine_chunks().columns
            table = pa.Table.from_arrays(planned + columns, schema=layout.CLIPS_SCHEMA)
            root.put(info.commit_path(shard), commit_bytes(table, info, shard, files))


def _random_result(shard: int, config: OracleConfig, hidden_size: int) -> ShardResult:
    rng = np.random.default_rng(shard)
    result = ShardResult(config.shard_size, GRID, config.embeddings_per_clip, hidden_size)
    direction = rng.standard_normal(hidden_size) / hidden_size**0.5
    for row in range(config.shard_size):
        tokens = rng.standard_normal((GRID.num_tokens, hidden_size), np.float32)
        cam = tokens @ direction
        index = np.sort(rng.permutation(GRID.num_tokens)[: config.embeddings_per_clip])
        result.set_ok(
            row,
            scores=np.maximum(cam, 0) / cam.max(),
            cam=cam,
            prediction=0,
            top5=[0],
            confidence=0.5,
            true_prob=0.5,
            loss=0.7,
            num_frames_total=48,
            padded=False,
            damaged=False,
            decoder="none",
            decoder_version="0",
            embeddings=tokens[index],
            embedding_index=index,
        )
    return result


def measure(path: Path, num_tokens: int, arch: str, device: str) -> dict[str, float]:
    """Trains on so many tokens, then reads as many; the peak is that of the whole process."""
    from selector.training.config import TrainConfig
    from selector.training.data import TokenStream
    from selector.training.split import split_store
    from selector.training.train import TrainProgress, train_selector

    class Enough(Exception):
        pass

    store = open_store(path)
    config = TrainConfig(arch=arch)
    embeddings_per_clip = store.embedding_index.shape[1]
    started: list[tuple[float, float, int]] = []
    ended = (0.0, 0.0, 0)

    def stop(now: TrainProgress) -> None:
        nonlocal ended
        clips = (now.epoch - 1) * now.clips_total + now.clips_done
        ended = (time.monotonic(), time.process_time(), clips * embeddings_per_clip)
        started.append(ended)
        if ended[2] > num_tokens:
            raise Enough

    cpu_began = time.process_time()
    with contextlib.suppress(Enough):
        train_selector(store, path / "selector", config, device=device, on_progress=stop)
    wall, cpu, tokens = (last - first for first, last in zip(started[0], ended, strict=True))
    found = {
        "start_cpu_s": started[0][1] - cpu_began,
        "tokens_per_s": tokens / wall,
        "tokens_per_cpu_s": tokens / cpu,
    }
    stream, read, began = TokenStream(store, split_store(store)), 0, time.monotonic()
    for batches in stream.blocks(0, config.batch_tokens):
        read += sum(batch.target.numel() for batch in batches)
        if read > num_tokens:
            break
    found["read_tokens_per_s"] = read / (time.monotonic() - began)
    return found | {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


if __name__ == "__main__":
    main()
