"""How far `lite-pipeline estimate` is off: rates measured, the run foreseen, the run done.

    python benchmarks/estimate_error.py                             # this process, 1 and 2 workers
    python benchmarks/estimate_error.py --sizes S --clips 96 --workers 0 1 --rounds 3
    python benchmarks/estimate_error.py --driver                    # the driver's seconds per shard
    python benchmarks/estimate_error.py --commit                    # a worker's, to write a shard

Each round measures, builds and measures again, all within a minute or two, on the videos of
`pipeline_efficiency.py`. `foreseen` is the mean of the forecasts before and after, `between` how
far the two lie apart: what the machine itself does meanwhile. All rates are clips per second from
the first commit to the last, so without the start.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from oracle_cost import SIZES
from pipeline_efficiency import save_backbone, write_videos

from datasets_spec import Video
from pipeline.clips.grid import TokenGrid
from pipeline.clips.plan import build_plan
from pipeline.config import OracleConfig, RunConfig
from pipeline.estimate.estimate import Place, estimate
from pipeline.oracle.build import BuildPlan, prepare
from pipeline.oracle.worker import OracleWorker
from pipeline.shards.executor import Attempt
from pipeline.shards.progress import Progress
from pipeline.shards.run import SHARDS_IN_FLIGHT, run_job, run_shards
from pipeline.shards.worker import ShardReport
from pipeline.store.root import Root
from pipeline.store.shard_writer import ShardWriter
from pipeline.store.writer import create_store


def build_rate(prepared: BuildPlan, run: RunConfig, folder: Path) -> float:
    """Clips per second of a real build, from its first commit to its last."""
    root = Root(str(folder))
    arrived: list[tuple[float, int]] = []
    with create_store(
        root,
        prepared.config,
        prepared.plan,
        prepared.grid,
        prepared.hidden_size,
        prepared.label_names,
    ) as writer:
        run_shards(
            functools.partial(OracleWorker, prepared.config, run, root),
            writer.pending(),
            run,
            lambda report: arrived.append((time.perf_counter(), report.num_clips)),
            in_flight=SHARDS_IN_FLIGHT,
        )
    (first, _), *rest = arrived
    return sum(clips for _, clips in rest) / (rest[-1][0] - first)


def compare(size: str, workers: int, args: argparse.Namespace, data: Path, folder: Path) -> dict:
    """All rounds of one model and number of workers."""
    run = RunConfig(
        data_root=str(data),
        workers=workers,
        decode_workers=args.decode_workers,
        batch_size=args.batch_size,
    )
    asked = OracleConfig(
        dataset=str(data / "bench.yaml"),
        split="all",
        limit=args.clips if size == "tiny" else args.clips // args.big_fraction,
        backbone=str(folder / size),
        shard_size=args.shard_size,
    )
    rounds = []
    for number in range(args.rounds):
        before = estimate(asked, run, Place(), seconds=args.seconds)
        real = build_rate(prepare(asked, run), run, folder / f"{size}-{workers}-{number}")
        after = estimate(asked, run, Place(), seconds=args.seconds)
        pair = [found.forecast.steady_clips_per_s for found in (before, after)]
        foreseen = statistics.fmean(pair)
        row = {
            "decode": statistics.fmean([before.decode_rate, after.decode_rate]),
            "model": statistics.fmean([before.model_rate, after.model_rate]),
            "foreseen": foreseen,
            "real": real,
            "error": foreseen / real - 1,
            "between": abs(pair[0] - pair[1]) / foreseen,
        }
        rounds.append(row)
        print(f"  {size}, {workers} worker(s): " + _line(row) + f", load {_load()}", flush=True)
    medians = {name: statistics.median(row[name] for row in rounds) for name in rounds[0]}
    return {"size": size, "workers": workers} | medians


def _line(row: dict[str, float]) -> str:
    return (
        f"decode {row['decode']:.1f}, model {row['model']:.1f}, foreseen {row['foreseen']:.1f}, "
        f"real {row['real']:.1f}, error {row['error']:+.0%}, between {row['between']:.0%}"
    )


def _load() -> float:
    return round(os.getloadavg()[0], 1)


@dataclass
class Idle:
    """A worker that does nothing, so that only the driver takes time."""

    facts: dict[str, Any] = field(default_factory=dict)

    def run(self, shard: int, attempt: Attempt) -> ShardReport:
        """At once."""
        seconds = {"decode": 0.0, "compute": 0.0, "write": 0.0}
        return ShardReport(
            shard=shard, counts={"ok": 256}, seconds=seconds, num_worked=256, batch_size=32
        )

    def close(self) -> None:
        """Nothing is held."""


@dataclass(kw_only=True)
class Clocked(Progress):
    """Notes this process's CPU seconds at every report."""

    at: list[float] = field(default_factory=list)

    def add(self, *args: Any, **kwargs: Any) -> None:
        """Count, and note."""
        super().add(*args, **kwargs)
        self.at.append(time.process_time())


def driver_cost(num_shards: int, workers: int) -> None:
    """Print what a shard costs the driver, in CPU time, with everything a build's driver does."""
    run = RunConfig(data_root="", workers=workers, decode_workers=0)
    config = OracleConfig(
        dataset="d", plan_digest="p", split="s", backbone="b", backbone_digest="b",
        sampling="uniform", num_segments=1, num_crops=1, layer="embeddings", embeddings_per_clip=0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        progress = Clocked(total=256 * num_shards)
        make, shards = Idle, list(range(num_shards))
        run_job(
            Root(folder), config, run, make, shards, progress=progress, committed=lambda shard: None
        )
    spent = 1e3 * (progress.at[-1] - progress.at[0]) / (num_shards - 1)
    print(json.dumps({"shards": num_shards, "workers": workers, "driver_ms_per_shard": spent}))


def commit_cost(num_clips: int = 256, rounds: int = 5) -> None:
    """Print what filling in and writing a clip of VideoMAE-B costs a worker, in CPU time."""
    grid, hidden_size, kept = TokenGrid(8, 14, 14), 768, 128
    rng = np.random.default_rng(0)
    config = OracleConfig(
        dataset="d", plan_digest="p", split="s", backbone="b", backbone_digest="b",
        sampling="uniform", num_segments=1, num_crops=1, layer="blocks.11.output",
        embeddings_per_clip=kept, shard_size=num_clips,
    )  # fmt: skip
    videos = [Video(f"v{n:05d}", f"v{n}.webm", n % 174, "train") for n in range(num_clips)]
    plan = build_plan(videos, (1, 1), num_clips)
    maps = rng.random((num_clips, grid.num_tokens), np.float32)
    embeddings = rng.standard_normal((num_clips, kept, hidden_size), np.float32).astype(np.float16)
    index = np.sort(
        rng.permuted(np.tile(np.arange(grid.num_tokens), (num_clips, 1)), axis=1)[:, :kept]
    )
    spent = []
    with tempfile.TemporaryDirectory() as folder:
        with create_store(Root(folder), config, plan, grid, hidden_size, []):
            store = ShardWriter(Root(folder))
        for _ in range(rounds):
            began = time.process_time()
            result = store.new_result(0)
            for row in range(num_clips):
                result.set_ok(
                    row, scores=maps[row], cam=maps[row] - 0.5, prediction=1, top5=[1, 2, 3, 4, 5],
                    confidence=0.5, true_prob=0.5, loss=0.7, num_frames_total=36, padded=False,
                    damaged=False, decoder="pyav", decoder_version="", embeddings=embeddings[row],
                    embedding_index=index[row],
                )  # fmt: skip
            store.write(0, result)
            spent.append(1e3 * (time.process_time() - began) / num_clips)
    print(json.dumps({"clips": num_clips, "write_ms_per_clip": [round(ms, 2) for ms in spent]}))


def main() -> None:
    """Parse, compare, print a table and one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["tiny"], choices=list(SIZES))
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--clips", type=int, default=768, help="clips of the tiny model")
    parser.add_argument("--big-fraction", type=int, default=8, help="other models get 1/N of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--decode-workers", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--shard-size", type=int, default=32)
    parser.add_argument("--driver", type=int, nargs="?", const=2000, help="shards of nothing")
    parser.add_argument("--commit", action="store_true", help="the cost of a commit")
    args = parser.parse_args()
    if args.commit:
        commit_cost()
        return
    if args.driver:
        driver_cost(args.driver, workers=1)
        return
    print(json.dumps({"cores": os.cpu_count(), "load": _load(), "args": vars(args)}))
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        data = write_videos(folder / "data", args.clips)
        for size in args.sizes:
            save_backbone(folder / size, size)
        rows = [
            compare(size, workers, args, data, folder)
            for size in args.sizes
            for workers in args.workers
        ]
    print(f"{'model':<6}{'workers':>8}{'foreseen':>10}{'real':>8}{'error':>8}{'between':>9}")
    for row in rows:
        print(
            f"{row['size']:<6}{row['workers']:>8}{row['foreseen']:>10.1f}{row['real']:>8.1f}"
            f"{row['error']:>+8.0%}{row['between']:>9.0%}"
        )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
