"""Many SIGKILLs to everything that can be killed, over many small stores; then counts.

    python -m tests.faults.kill_campaign --minutes 8

Each store is built while its driver, its workers (Ray actors, or the children of a serial run), its
decoders and its raylet are killed, at random times or at one and the same point again and again. It
is then finished by the same command, and must have the bytes of a store that was left alone.
"""

from __future__ import annotations

import argparse
import faulthandler
import functools
import itertools
import os
import random
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.oracle.worker import OracleWorker
from pipeline.store.reader import open_store
from pipeline.store.verify import verify_store
from tests.builds import file_hashes, make_dataset, run_build
from tests.checkpoints import save_videomae
from tests.faults.chaos import Order, chaos, count

MARK = "LITE_KILL_CAMPAIGN"
MAX_RUNS = 40
"""On average a store, before it is left as it is; then its bytes are not equal."""
NUM_VIDEOS = 24  # 6 shards of 4
MISSING = (5,)
LIMIT_S = 240.0
"""Seconds after which a run counts as one that hangs, and says where."""
POINTS = (
    "score",
    "commit",
    "rename:cam/c.2",
    "rename:tokens/shard-00002",
    "rename:clips/shard-00002",
)


@dataclass(frozen=True)
class Plan:
    """How one store is built and disturbed."""

    name: str
    run: dict[str, Any]
    seconds: float
    """Slept in every step of the model, so that there is something to interrupt."""
    pauses: tuple[float, float]
    """Seconds between two kills, from and to."""
    max_kills: int
    victims: dict[str, float]
    """Kinds of processes, with their weights."""
    begins_with: str = "driver"
    """Kind of process that must be there before the first kill."""


KINDS = {
    "decoder": "pipeline.decode.child",
    "worker": "pipeline.shards.isolated",
    "actor": "ray::_Actor",
    "raylet": "raylet/raylet",
}
"""What is in the command line of a process."""

PLANS = (
    Plan("serial", {}, 0.05, (0.05, 1.2), 12, {"driver": 2, "worker": 2}),
    Plan(
        "serial, decoders apart",
        {"decode_workers": 2},
        0.05,
        (0.5, 3.0),
        10,
        {"driver": 1, "worker": 2, "decoder": 5},
        "decoder",
    ),
    Plan(
        "ray",
        {"workers": 2, "decode_workers": 1},
        0.3,
        (0.5, 4.0),
        12,
        {"driver": 1, "actor": 6, "decoder": 6, "worker": 3, "raylet": 1},
        "actor",
    ),
)


class SlowWorker(OracleWorker):
    """Takes its time, and changes nothing."""

    def __init__(self, seconds: float, *args: Any) -> None:
        super().__init__(*args)
        self._seconds = seconds

    def compute(self, job: Any, batch: Any) -> None:
        time.sleep(self._seconds)
        super().compute(job, batch)


@dataclass
class Counts:
    """What was done, and what came of it."""

    kills: Counter[str] = field(default_factory=Counter)
    stores: int = 0
    equal: int = 0
    sound: int = 0
    runs: int = 0


class Campaign:
    """Stores are built one after another, each by forks of this process."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.counts: dict[str, Counts] = {}
        self.data = make_dataset(folder / "data", NUM_VIDEOS, missing=MISSING)
        self.backbone = save_videomae(folder / "backbone")
        run_build(folder / "undisturbed", self.data, self.backbone)
        self.wanted = file_hashes(folder / "undisturbed")

    def at_random(self, plan: Plan) -> None:
        """One store, killed at random times."""
        counts, store = self.counts.setdefault(plan.name, Counts()), self._new_store()
        worker = functools.partial(SlowWorker, plan.seconds)
        left = plan.max_kills
        while not _complete(store) and counts.runs < MAX_RUNS * (counts.stores + 1):
            left -= self._disturbed_run(plan, counts, store, worker, left)
        self._judge(counts, store)

    def at_one_point(self) -> None:
        """One store, killed nine times at the same point of a shard, or over the same clip."""
        counts = self.counts.setdefault("serial, nine times at one point", Counts())
        store, folder = self._new_store(), self.folder / uuid.uuid4().hex
        kind, victim = self.random.choice([("driver", "kill driver"), ("worker", "kill")])
        point = self.random.choice([*POINTS, "clip:9", "clip:21"])
        shard = None if point.startswith("clip") else 2
        worker = chaos(folder, Order(point, shard=shard, act=victim, times=9))
        while not _complete(store) and counts.runs < MAX_RUNS * (counts.stores + 1):
            counts.runs += 1
            pid = self._start(
                lambda: run_build(store, self.data, self.backbone, worker_class=worker)
            )
            os.waitpid(pid, 0)
        counts.kills[kind] += count(folder)
        self._judge(counts, store)

    def _disturbed_run(
        self, plan: Plan, counts: Counts, store: Path, worker: Callable[..., Any], left: int
    ) -> int:
        """One run, disturbed until it ends or nothing is `left`; the kills."""
        counts.runs += 1
        mark = uuid.uuid4().hex
        kills = 0

        def body() -> None:
            os.environ[MARK] = mark
            run_build(store, self.data, self.backbone, run=plan.run, worker_class=worker)

        driver = self._start(body)
        until = time.monotonic() + self.random.uniform(*plan.pauses)
        while not _ended(driver):
            time.sleep(0.05)
            if kills == left or time.monotonic() < until:
                continue
            alive = {"driver": [driver], **_descendants(mark)}
            if not kills and plan.begins_with not in alive:
                continue
            until = time.monotonic() + self.random.uniform(*plan.pauses)
            kinds = [kind for kind in plan.victims if alive.get(kind)]
            [kind] = self.random.choices(kinds, [plan.victims[kind] for kind in kinds])
            with suppress(ProcessLookupError):
                os.kill(self.random.choice(alive[kind]), signal.SIGKILL)
                kills += 1
                counts.kills[kind] += 1
            if kind == "raylet":  # the driver may wait for it for a minute
                time.sleep(1.0)
                os.kill(driver, signal.SIGKILL)
                os.waitpid(driver, 0)
                break
        for pid in itertools.chain(*_descendants(mark).values()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return kills

    def _start(self, body: Callable[[], object]) -> int:
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            quiet = os.open(self.folder / "output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            faulthandler.dump_traceback_later(LIMIT_S, exit=True)
            try:
                body()
                os._exit(0)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
        return pid

    def _new_store(self) -> Path:
        return self.folder / f"store-{uuid.uuid4().hex}"

    def _judge(self, counts: Counts, store: Path) -> None:
        counts.stores += 1
        counts.equal += file_hashes(store) == self.wanted
        counts.sound += verify_store(str(store)) == []


def _complete(store: Path) -> bool:
    return (store / "store.json").exists() and not open_store(store).summary()["pending"]


def _ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid


def _descendants(mark: str) -> dict[str, list[int]]:
    """Process ids by kind, of those that were started with a mark in their environment."""
    found: dict[str, list[int]] = {}
    for pid, line in _marked(mark):
        kind = next((kind for kind, text in KINDS.items() if text in line), "other")
        found.setdefault(kind, []).append(pid)
    return found


def _marked(mark: str) -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if line.strip():  # a zombie has none
                    yield int(folder.name), line


def main() -> None:
    """Run for some minutes and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plans", help="names of plans, with commas; all by default")
    args = parser.parse_args()
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 starves workers on a busy machine
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), args.seed)
        names = args.plans.split(";") if args.plans else None
        rounds: list[Callable[[], None]] = [campaign.at_one_point]
        rounds += [functools.partial(campaign.at_random, plan) for plan in PLANS]
        if names is not None:
            rounds = [
                functools.partial(campaign.at_random, plan) for plan in PLANS if plan.name in names
            ]
        for disturb in itertools.cycle(rounds):
            if time.monotonic() - began > 60 * args.minutes:
                break
            disturb()
    _show(campaign.counts, time.monotonic() - began)
    if any(counts.equal < counts.stores for counts in campaign.counts.values()):
        sys.exit(1)


def _show(counts: dict[str, Counts], seconds: float) -> None:
    kinds = ("driver", *KINDS)
    lines = [
        f"{seconds / 60:.1f} minutes",
        f"| how | stores | runs | kills | {' | '.join(kinds)} | bytes equal | sound |",
        "|---" * (len(kinds) + 6) + "|",
    ]
    total = Counts()
    for name, part in counts.items():
        lines.append(_row(name, part, kinds))
        total.kills += part.kills
        for key in ("stores", "runs", "equal", "sound"):
            setattr(total, key, getattr(total, key) + getattr(part, key))
    lines.append(_row("all", total, kinds))
    sys.stdout.write("\n".join(lines) + "\n")


def _row(name: str, counts: Counts, kinds: tuple[str, ...]) -> str:
    by_kind = " | ".join(str(counts.kills[kind]) for kind in kinds)
    return (
        f"| {name} | {counts.stores} | {counts.runs} | {counts.kills.total()} | {by_kind} "
        f"| {counts.equal} | {counts.sound} |"
    )


if __name__ == "__main__":
    from tests.faults import kill_campaign  # by the name under which its children find it

    kill_campaign.main()
