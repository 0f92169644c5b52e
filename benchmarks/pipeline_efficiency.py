"""How much of the possible a build reaches: end to end over the smaller of decoding and model.

    python benchmarks/pipeline_efficiency.py                        # two models, this process
    python benchmarks/pipeline_efficiency.py --workers 1            # the same on a Ray worker
    python benchmarks/pipeline_efficiency.py --sizes B --device cuda --precision bf16 \
        --workers 1 --gpus-per-worker 1 --decode-workers 12 --clips 4096 --batch-size 64
    python benchmarks/pipeline_efficiency.py --memory               # peak memory of n and 4n clips
    python benchmarks/pipeline_efficiency.py --sizes tiny --clips 96 --rounds 1   # a smoke test

(Not called `pipeline.py`: a script's folder comes first in the import path, and it would hide the
package of that name from every benchmark.)

In each round, on the same videos (VP9 webm, 240 lines, 36 frames, as SSv2 stores its own):

    decode      the decoder processes alone, results thrown away
    model       the oracle alone, on clips that are already there
    end to end  a build, from its first committed shard to its last, so without the start-up

`reached` is end to end over the smaller of the two; medians over the rounds. `foreseen` is what the
simulation of `lite-pipeline estimate` makes of the two rates, without the time to write. It says
something only where decoders and model do not share cores: leave at least one core per decoder and
model thread, or run the model on a GPU. The videos are links to a few files, so they come from the
page cache.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import av
import numpy as np
import torch
from oracle_cost import SIZES
from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessor
from transformers.utils.logging import disable_progress_bar

from pipeline.config import OracleConfig, RunConfig
from pipeline.decode.pool import DecodePool
from pipeline.estimate.simulate import Cluster, simulate
from pipeline.estimate.worker import Rates, WorkerSetup
from pipeline.oracle.build import prepare
from pipeline.oracle.scorer import Scorer
from pipeline.oracle.worker import OracleWorker
from pipeline.shards.loader import group_by_video
from pipeline.shards.run import SHARDS_IN_FLIGHT, run_shards
from pipeline.shards.worker import ShardReport
from pipeline.store.root import Root
from pipeline.store.writer import create_store

NUM_CLASSES = 174
NUM_FILES = 16  # different videos; the rest are links to them
HEIGHT, WIDTH, NUM_FRAMES = 240, 320, 36


def write_videos(folder: Path, num_clips: int) -> Path:
    """A `csv` dataset of moving noise: as hard to decode as camera footage of that bit rate."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(NUM_FILES):
        canvas = rng.integers(0, 256, (HEIGHT // 4 + 40, WIDTH // 4 + 40, 3), dtype=np.uint8)
        canvas = canvas.repeat(4, 0).repeat(4, 1)
        with av.open(str(folder / f"source{number:02d}.webm"), "w") as container:
            stream = container.add_stream("libvpx-vp9", rate=12, options={"cpu-used": "8"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.bit_rate = 600_000
            for t in range(NUM_FRAMES):
                image = np.ascontiguousarray(canvas[3 * t : 3 * t + HEIGHT, 2 * t : 2 * t + WIDTH])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
    lines = ["path,label"]
    for clip in range(num_clips):
        name = f"v{clip:06d}.webm"
        (folder / name).symlink_to(f"source{clip % NUM_FILES:02d}.webm")
        lines.append(f"{name},LABEL_{clip % NUM_CLASSES}")
    (folder / "videos.csv").write_text("\n".join(lines) + "\n")
    names = json.dumps([f"LABEL_{i}" for i in range(NUM_CLASSES)])
    (folder / "bench.yaml").write_text(f"name: bench\nformat: csv\nlabels:\n  names: {names}\n")
    return folder


def save_backbone(folder: Path, size: str) -> Path:
    """A VideoMAE with random weights: cost does not depend on them."""
    disable_progress_bar()
    torch.manual_seed(0)
    config = VideoMAEConfig(**SIZES[size], num_labels=NUM_CLASSES)
    VideoMAEForVideoClassification(config).save_pretrained(folder)
    side = config.image_size
    VideoMAEImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    ).save_pretrained(folder)
    return folder


def decode_rate(config: OracleConfig, run: RunConfig, plan: dict, scorer: Scorer) -> float:
    """Clips per second of all decoder processes, after they have started."""
    backbone = scorer.backbone
    template = {
        "num_frames": backbone.num_frames,
        "size": backbone.image_size,
        "short_side": backbone.short_side,
        "sampling": config.sampling,
    }
    groups = group_by_video(plan, range(len(plan["path"])), run.data_root, (1, 1), template)
    num_workers = run.decode_workers * max(1, run.workers)
    with DecodePool(num_workers) as pool:
        warm = 2 * num_workers
        results = pool.imap((group.request for group in groups), look_ahead=2 * num_workers)
        for _ in range(warm):
            next(results)
        began = time.perf_counter()
        count = sum(1 for _ in results)
        return count / (time.perf_counter() - began)


def model_rate(run: RunConfig, num_clips: int, scorer: Scorer) -> float:
    """Clips per second of the oracle on clips in memory."""
    backbone = scorer.backbone
    side = backbone.image_size
    shape = (run.batch_size, backbone.num_frames, side, side, 3)
    clips = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    labels = np.arange(run.batch_size)
    scorer(clips, labels, labels)
    steps = max(1, num_clips // run.batch_size)
    began = time.perf_counter()
    for _ in range(steps):
        scorer(clips, labels, labels)  # its results are on the CPU: nothing is left in a queue
    return steps * run.batch_size / (time.perf_counter() - began)


def build_rate(
    asked: OracleConfig, run: RunConfig, folder: Path, decode_bound: bool
) -> tuple[float, dict]:
    """Clips per second from the first committed shard to the last, and seconds per phase."""
    prepared = prepare(asked, run)
    root = Root(str(folder))
    arrived: list[tuple[float, ShardReport]] = []
    with create_store(
        root,
        prepared.config,
        prepared.plan,
        prepared.grid,
        prepared.hidden_size,
        prepared.label_names,
    ) as writer:
        lost = run_shards(
            functools.partial(OracleWorker, prepared.config, run, root),
            writer.pending(),
            run,
            lambda report: arrived.append((time.perf_counter(), report)),
            in_flight=SHARDS_IN_FLIGHT,
        )
    if lost:
        raise SystemExit(f"shards were lost: {lost}")
    (first, _), *rest = arrived
    clips = sum(report.num_clips for _, report in rest)
    if run.workers and decode_bound:
        # By then the next shard was being decoded: not this window's decoding. (Its scoring is.)
        clips -= run.workers * max(2 * run.batch_size, 2 * run.decode_workers)
    phases = {
        phase: sum(report.seconds[phase] for _, report in rest)
        for phase in ("decode", "compute", "write")
    }
    return clips / (rest[-1][0] - first), phases


def foreseen_rate(
    run: RunConfig, clips: int, shard_size: int, decode: float, model: float
) -> float:
    """Clips per second that a simulated build makes of the rates of all decoders and models."""
    workers = max(1, run.workers)
    rates = Rates(decode_s=(run.decode_workers * workers / decode,), model_s=workers / model)
    setup = WorkerSetup(
        decoders=run.decode_workers,
        batch_size=run.batch_size,
        on_gpu=run.gpus_per_worker > 0,
        threads=run.threads_per_worker,
    )
    cluster = Cluster(workers=run.workers, cores_per_node=float(os.cpu_count() or 1))
    return simulate(clips, shard_size, setup, cluster, rates).steady_clips_per_s


def measure(size: str, args: argparse.Namespace, data: Path, folder: Path) -> dict:
    """All rounds of one model."""
    backbone = save_backbone(folder / f"backbone-{size}", size)
    run = RunConfig(
        data_root=str(data),
        workers=args.workers,
        gpus_per_worker=args.gpus_per_worker,
        decode_workers=args.decode_workers,
        threads_per_worker=args.threads,
        batch_size=args.batch_size,
        device=args.device,
    )
    clips = (
        args.clips if size == "tiny" else max(args.clips // args.big_fraction, 4 * args.shard_size)
    )
    asked = OracleConfig(
        dataset=str(data / "bench.yaml"),
        split="all",
        limit=clips,
        backbone=str(backbone),
        precision=args.precision,
        shard_size=args.shard_size,
    )
    prepared = prepare(asked, run)
    rounds = []
    for number in range(args.rounds):
        scorer = Scorer(prepared.config, run)
        plan = prepared.plan.to_pydict()
        decode = decode_rate(prepared.config, run, plan, scorer)
        model = model_rate(run, clips, scorer) * max(1, args.workers)
        del scorer
        whole, phases = build_rate(asked, run, folder / f"store-{size}-{number}", decode < model)
        foreseen = foreseen_rate(run, clips, args.shard_size, decode, model)
        rounds.append((decode, model, whole, whole / min(decode, model), foreseen))
        print(
            f"  {size}: decode {decode:.1f}, model {model:.1f}, end to end {whole:.1f} clips/s, "
            f"reached {whole / min(decode, model):.2f}, foreseen {foreseen:.1f}  "
            + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in phases.items()),
            flush=True,
        )
    names = ("decode", "model", "end_to_end", "reached", "foreseen")
    medians = {
        n: statistics.median(column)
        for n, column in zip(names, zip(*rounds, strict=True), strict=True)
    }
    return {"size": size, "clips": clips, **medians}


def peak_memory(num_clips: int, args: argparse.Namespace) -> dict:
    """Peak resident MiB of a whole build in a fresh process, and of its largest decoder."""
    command = [sys.executable, __file__, "--memory-of", str(num_clips), "--sizes", "tiny"]
    for name in ("batch_size", "decode_workers", "shard_size", "threads"):
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def memory_here(num_clips: int, args: argparse.Namespace) -> None:
    """In the fresh process: build and print the peaks."""
    from pipeline.oracle.build import build

    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        data = write_videos(folder / "data", num_clips)
        asked = OracleConfig(
            dataset=str(data / "bench.yaml"),
            split="all",
            backbone=str(save_backbone(folder / "backbone", "tiny")),
            shard_size=args.shard_size,
        )
        run = RunConfig(
            data_root=str(data),
            decode_workers=args.decode_workers,
            threads_per_worker=args.threads,
            batch_size=args.batch_size,
        )
        decoders: list[float] = []
        stop = threading.Event()
        watcher = threading.Thread(target=watch_children, args=(decoders, stop))
        watcher.start()
        build(asked, str(folder / "store"), run)
        stop.set()
        watcher.join()
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    peaks = {"process_mib": round(own), "largest_decoder_mib": round(max(decoders))}
    print(json.dumps({"clips": num_clips, **peaks}))


def watch_children(peaks: list[float], stop: threading.Event) -> None:
    """Note the peak resident MiB of the child processes twice a second (Linux).

    Not `RUSAGE_CHILDREN`: it counts what a child shared with its parent before it was itself.
    """
    while not stop.wait(0.5):
        for path in Path("/proc/self/task").glob("*/children"):
            for pid in path.read_text().split():
                with contextlib.suppress(OSError, IndexError):
                    status = Path(f"/proc/{pid}/status").read_text()
                    peaks.append(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def main() -> None:
    """Parse, measure, print a table and one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["tiny", "S"], choices=list(SIZES))
    parser.add_argument("--clips", type=int, default=1024, help="clips of the tiny model")
    parser.add_argument("--big-fraction", type=int, default=8, help="other models get 1/N of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--gpus-per-worker", type=float, default=0.0)
    parser.add_argument("--decode-workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--shard-size", type=int, default=32)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--memory", action="store_true", help="peak memory of n and 4n clips")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        memory_here(args.memory_of, args)
        return
    about = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load": round(os.getloadavg()[0], 1),
        "args": vars(args),
    }
    print(json.dumps(about))
    if args.memory:
        for num_clips in (args.clips, 4 * args.clips):
            print(json.dumps(peak_memory(num_clips, args)), flush=True)
        return
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        data = write_videos(folder / "data", args.clips)
        rows = [measure(size, args, data, folder) for size in args.sizes]
    print(f"{'model':<6}{'clips':>7}{'decode/s':>10}{'model/s':>10}{'build/s':>10}{'reached':>9}")
    for row in rows:
        print(
            f"{row['size']:<6}{row['clips']:>7}{row['decode']:>10.1f}{row['model']:>10.1f}"
            f"{row['end_to_end']:>10.1f}{row['reached']:>9.2f}"
        )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
