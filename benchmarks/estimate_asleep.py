"""The simulated run against real ones whose decoders and models sleep: no need of free cores.

    python benchmarks/estimate_asleep.py                        # this process, and 1 to 4 workers
    python benchmarks/estimate_asleep.py --workers 4 --cases decode

Everything but the two is real: Ray, the scheduler, the decoders' queues, batches, the model's turn,
commits. So the difference is what the simulation does not know of how a run goes, and not what else
the machine does. Sleeping takes the place of a GPU (the host waits) and of cores for each decoder.
Rates are clips per second from the first commit to the last.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pipeline_efficiency import save_backbone, write_videos

from pipeline.config import OracleConfig, RunConfig
from pipeline.decode.pool import Decoded, DecodePool
from pipeline.decode.request import DecodedVideo, DecodeRequest
from pipeline.estimate.simulate import Cluster, simulate
from pipeline.estimate.worker import Rates, WorkerSetup
from pipeline.oracle.build import prepare
from pipeline.oracle.worker import OracleWorker
from pipeline.shards.loader import Batch
from pipeline.shards.run import SHARDS_IN_FLIGHT, run_shards
from pipeline.shards.worker import ShardReport
from pipeline.store.root import Root
from pipeline.store.writer import create_store

CASES = {
    # decoders of a worker, seconds of a video (mean), seconds of a clip in the model
    "decode": (3, 0.30, 0.05),
    "even": (2, 0.20, 0.10),
    "model": (3, 0.12, 0.10),
}


def seconds_of_videos(mean: float) -> tuple[float, ...]:
    """Of a hundred videos whose lengths differ as those of a dataset do."""
    spread = random.Random(0)
    times = [spread.lognormvariate(0.0, 0.5) for _ in range(100)]
    return tuple(mean * t / statistics.fmean(times) for t in times)


def seconds_of(path: str, times: tuple[float, ...]) -> float:
    """Of one video, whoever decodes it."""
    return random.Random(Path(path).name).choice(times)


class SleepyPool(DecodePool):
    """The queue and the threads of a real one; the children are not started."""

    def __init__(self, num_workers: int, times: tuple[float, ...]) -> None:
        super().__init__(num_workers)
        self._times = times

    def _decode(self, request: DecodeRequest) -> Decoded:
        time.sleep(seconds_of(request.path, self._times))
        shape = (len(request.views), request.num_frames, request.size, request.size, 3)
        return DecodedVideo(
            clips=np.zeros(shape, np.uint8), num_frames_total=36, padded=False, damaged=False,
            decoder="pyav", decoder_version="",
        )  # fmt: skip


class SleepyWorker(OracleWorker):
    """Computes one batch; for every other it sleeps and says the same."""

    def __init__(
        self, config: OracleConfig, run: RunConfig, root: Root, times: Any, model_s: float
    ) -> None:
        super().__init__(config, run, root)
        self._loader._pool = SleepyPool(run.decode_workers, times)
        self._model_s, self._said = model_s, None

    def compute(self, job: Any, batch: Batch) -> None:
        """Sleep, and say what was said of the first batch."""
        if self._said is None:
            super().compute(job, batch)
            self._said = job.scored[-1]
            return
        time.sleep(len(batch.clips) * self._model_s)
        job.scored.append(replace(self._said, start=batch.start, facts=batch.facts))


def compare(case: str, workers: int, args: argparse.Namespace, data: Path, folder: Path) -> dict:
    """A real run and a simulated one."""
    decoders, decode_s, model_s = CASES[case]
    times = seconds_of_videos(decode_s)
    run = RunConfig(
        data_root=str(data), workers=workers, decode_workers=decoders, batch_size=args.batch_size
    )
    clips = args.clips * max(1, workers)
    asked = OracleConfig(
        dataset=str(data / "bench.yaml"), split="all", limit=clips,
        backbone=str(folder / "tiny"), shard_size=args.shard_size,
    )  # fmt: skip
    prepared = prepare(asked, run)
    root = Root(str(folder / f"{case}-{workers}"))
    arrived: list[tuple[float, ShardReport]] = []
    with create_store(
        root, prepared.config, prepared.plan, prepared.grid, prepared.hidden_size,
        prepared.label_names,
    ) as writer:  # fmt: skip
        run_shards(
            functools.partial(SleepyWorker, prepared.config, run, root, times, model_s),
            writer.pending(),
            run,
            lambda report: arrived.append((time.perf_counter(), report)),
            in_flight=SHARDS_IN_FLIGHT,
        )
    (first, _), *rest = arrived
    real = sum(report.num_clips for _, report in rest) / (arrived[-1][0] - first)
    # To write takes real time, which is measured where it is spent.
    write_s = statistics.median(r.seconds["write"] / r.num_clips for _, r in arrived)
    slept = tuple(seconds_of(path, times) for path in prepared.plan["path"].to_pylist())
    found = simulate(
        clips,
        args.shard_size,
        WorkerSetup(decoders=decoders, batch_size=args.batch_size, on_gpu=True),
        Cluster(workers=workers),
        Rates(decode_s=slept, model_s=model_s, write_s=write_s, driver_s=0.001),
    )
    foreseen = found.steady_clips_per_s
    row = {
        "case": case, "workers": workers, "write_ms": 1e3 * write_s,
        "foreseen": foreseen, "real": real, "error": foreseen / real - 1,
        "smaller": max(1, workers) * min(decoders / statistics.fmean(slept), 1 / model_s),
    }  # fmt: skip
    print(
        f"{case:<8}{workers:>8}{row['smaller']:>10.1f}{foreseen:>10.1f}{real:>8.1f}"
        f"{row['error']:>+9.1%}",
        flush=True,
    )
    return row


def main() -> None:
    """Parse, compare, print a line each and all as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2, 4])
    parser.add_argument("--clips", type=int, default=224, help="per worker")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--shard-size", type=int, default=32)
    args = parser.parse_args()
    print(json.dumps({"cores": os.cpu_count(), "load": os.getloadavg()[0], "args": vars(args)}))
    print(f"{'case':<8}{'workers':>8}{'smaller':>10}{'foreseen':>10}{'real':>8}{'error':>9}")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        data = write_videos(folder / "data", args.clips * max(1, *args.workers))
        save_backbone(folder / "tiny", "tiny")
        rows = [
            compare(case, workers, args, data, folder)
            for case in args.cases
            for workers in args.workers
        ]
    errors = [abs(row["error"]) for row in rows]
    print(f"error: median {statistics.median(errors):.1%}, largest {max(errors):.1%}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
