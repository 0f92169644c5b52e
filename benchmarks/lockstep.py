"""Whether a change made a forward pass or an oracle slower: two checkouts, call by call.

    git worktree add ../before COMMIT
    python benchmarks/lockstep.py --before ../before
    python benchmarks/lockstep.py --before ../before --size B --rounds 5

Each checkout is opened in a process of its own, the one at hand in two, and they make the same call
of `oracle_cost.py` in turn, in an order drawn anew each round, so a busy machine slows all alike. A
call takes a second at size S, and its CPU clock is read in the process itself. The second process
of the same code says what the measurement cannot tell apart. A turn starts all processes again:
where memory lies is drawn at a process's start, and moves a time by about as much as is looked for.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
CALLS = {"forward": ("forward",), "1 oracle": ("1 oracle", "oracle"), "grad-cam": ("grad-cam",)}
"""What is called, and its names in `oracle_cost.VARIANTS`, older ones last."""
WORKER = """
import sys, time, torch
sys.path.insert(0, "benchmarks")
import oracle_cost
torch.set_num_threads(1)
backbone = oracle_cost.make_backbone(sys.argv[1], "cpu", "fp32")
pixels, labels = oracle_cost.make_inputs(backbone, 1)
print("ready", flush=True)
for line in sys.stdin:
    names = line.strip().split(",")
    call = next(oracle_cost.VARIANTS[name] for name in names if name in oracle_cost.VARIANTS)
    start = time.process_time()
    call(backbone, pixels, labels)
    print(time.process_time() - start, flush=True)
"""


def start(checkout: Path, size: str) -> subprocess.Popen[str]:
    """A process that makes calls in `checkout`, of a loaded backbone."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, size],
        cwd=checkout,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    answer(process)
    return process


def answer(process: subprocess.Popen[str]) -> str:
    """Its next line; where there is none it has died, and has said why."""
    assert process.stdout is not None
    return process.stdout.readline() or sys.exit("a process ended: see above")


def seconds(process: subprocess.Popen[str], call: str) -> float:
    """CPU seconds of one call."""
    assert process.stdin is not None
    process.stdin.write(",".join(CALLS[call]) + "\n")
    process.stdin.flush()
    return float(answer(process))


def turn(checkouts: dict[str, Path], size: str, rounds: int) -> dict[tuple[str, str], float]:
    """(call, checkout) to the median of now's speed over it, of one start of all processes."""
    processes = {name: start(path, size) for name, path in checkouts.items()}
    ratios: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds + 1):
        for call in CALLS:
            order = random.sample(list(processes), len(processes))
            taken = {name: seconds(processes[name], call) for name in order}
            if number:  # the first round warms up
                for name in taken.keys() - {"now"}:
                    ratios.setdefault((call, name), []).append(taken[name] / taken["now"])
    for process in processes.values():
        process.communicate()
    return {key: statistics.median(values) for key, values in ratios.items()}


def main() -> None:
    """Parse, take turns, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--before", type=Path, required=True, help="the other checkout")
    parser.add_argument("--size", default="S", help="of oracle_cost.py")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=12)
    args = parser.parse_args()
    checkouts = {"before": args.before.resolve(), "now": HERE, "now again": HERE}
    turns = []
    for number in range(args.turns):
        turns.append(turn(checkouts, args.size, args.rounds))
        print(f"turn {number + 1} of {args.turns} done", file=sys.stderr, flush=True)
    print("| speed of now over | call | median | lowest | highest |\n|---|---|---|---|---|")
    for call, name in sorted(turns[0], key=lambda key: key[::-1]):
        values = [found[call, name] for found in turns]
        middle = statistics.median(values)
        print(f"| {name} | {call} | {middle:.3f} | {min(values):.3f} | {max(values):.3f} |")


if __name__ == "__main__":
    main()
