"""What `lite-pipeline serve` bears: rates, waits, and a kill in the middle, against the full model.

    python benchmarks/serve_load.py                      # VideoMAE-S, keep ratio 0.5 and 1
    python benchmarks/serve_load.py --size tiny          # a minute, to see that it runs
    python benchmarks/serve_load.py --model MODEL        # an exported model, at its own keep ratio

Two servers of the same model run side by side, one that keeps all tokens. They take turns: in each
round a fixed number of requests goes to the one, then as many to the other, by a fixed number of
senders on loopback that each wait for an answer before they send the next. So other processes on
the machine slow both. Ratios are medians over the rounds. At last the cheaper server's model
process is killed by SIGKILL in the middle of a round, and lost answers are counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from lite_speed import make_model
from pipeline_efficiency import SIZES, save_backbone, write_videos

from pipeline.backbones import load_backbone

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `tests` is, which is not installed
from tests.asking import ask, metric


@dataclass(frozen=True)
class Server:
    """A running `lite-pipeline serve`."""

    pid: int
    port: int

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body."""
        return ask(self.port, method, path, body, timeout=600)

    def metric(self, name: str) -> float:
        """One number of /metrics."""
        return metric(self.port, name)

    def model_pid(self) -> int:
        """The process that holds the model."""
        children = Path(f"/proc/{self.pid}/task").glob("*/children")
        for pid in " ".join(file.read_text() for file in children).split():
            if "selector.serving.child" in Path(f"/proc/{pid}/cmdline").read_text():
                return int(pid)
        raise RuntimeError("the server has no model process")


@contextmanager
def serving(model: str, *options: str) -> Iterator[Server]:
    """Start a server, and end it."""
    words = ["serve", "--model", model, "--port", "0", "--deadline", "600", *options]
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *words], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r":(\d+);", process.stdout.readline())
            if found is None:
                sys.exit("the server did not start")
            yield Server(process.pid, int(found[1]))
        finally:
            process.terminate()


def load(
    server: Server, videos: list[bytes], requests: int, senders: int
) -> tuple[float, list[float], int]:
    """Videos a second, the seconds of each request, and how many were not answered by a 200."""

    def send(number: int) -> tuple[float, int]:
        start = time.perf_counter()
        try:
            code = server.ask("POST", "/predict", videos[number % len(videos)])[0]
        except OSError:
            code = 0
        return time.perf_counter() - start, code

    start = time.perf_counter()
    with ThreadPoolExecutor(senders) as pool:
        answers = list(pool.map(send, range(requests)))
    seconds = time.perf_counter() - start
    return requests / seconds, [s for s, _ in answers], sum(code != 200 for _, code in answers)


def percentile(values: list[float], share: float) -> float:
    """The nearest rank."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    """Run and print a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="exported folder; default: random weights of --size")
    parser.add_argument("--size", choices=SIZES, default="S")
    parser.add_argument("--requests", type=int, default=12, help="of a round, to each server")
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = sorted(write_videos(folder / "data", 0).glob("source*.webm"))
        videos = [path.read_bytes() for path in sources]
        if args.model is None:
            checkpoint = save_backbone(folder / "checkpoint", args.size)
            lite = make_model(load_backbone(str(checkpoint)))
            lite.backbone_name = str(checkpoint)
            lite.save_pretrained(folder / "model")
        model = args.model or str(folder / "model")
        with serving(model) as cheap, serving(model, "--keep-ratio", "1") as full:
            servers = {"cheap": cheap, "full": full}
            cost = json.loads(cheap.ask("POST", "/predict", videos[0])[1])
            rates: dict[str, list[float]] = {which: [] for which in servers}
            waits: dict[str, list[float]] = {which: [] for which in servers}
            failed = 0
            for number in range(-1, args.rounds):  # the first one warms up
                for which, server in servers.items():
                    rate, seconds, lost = load(server, videos, args.requests, args.senders)
                    failed += lost
                    if number >= 0:
                        rates[which].append(rate)
                        waits[which] += seconds
            kill = threading.Timer(
                0.4 * args.requests / statistics.median(rates["cheap"]),
                lambda: os.kill(cheap.model_pid(), signal.SIGKILL),
            )
            kill.start()
            _, seconds, lost = load(cheap, videos, args.requests, args.senders)
            kill.join()
            restarts = cheap.metric("lite_model_restarts_total")
            mean_batch = {
                which: round(
                    server.metric("lite_batch_size_sum") / server.metric("lite_batch_size_count"), 2
                )
                for which, server in servers.items()
            }
    ratios = [a / b for a, b in zip(rates["cheap"], rates["full"], strict=True)]
    print(
        json.dumps(
            {
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch "
                f"{torch.__version__}, threads {os.environ.get('OMP_NUM_THREADS', 'all')}",
                "load_1min": os.getloadavg()[0],
                "model": args.model or f"VideoMAE-{args.size}, random weights",
                "gmacs": [cost["gmacs"], cost["full_gmacs"]],
                "ideal": round(cost["full_gmacs"] / cost["gmacs"], 2),
                "throughput_ratio": round(statistics.median(ratios), 2),
                "ratio_of_each_round": [round(ratio, 2) for ratio in ratios],
                "videos_per_s": {
                    which: round(statistics.median(rate), 3) for which, rate in rates.items()
                },
                "p50_s": {which: round(percentile(s, 0.5), 2) for which, s in waits.items()},
                "p99_s": {which: round(percentile(s, 0.99), 2) for which, s in waits.items()},
                "mean_batch": mean_batch,
                "requests": 2 * args.requests * (args.rounds + 1),
                "failed": failed,
                "kill": {
                    "requests": args.requests,
                    "failed": lost,
                    "restarts": restarts,
                    "slowest_s": round(max(seconds), 2),
                },
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
