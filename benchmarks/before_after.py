"""Whether a change made the models slower: a benchmark of two checkouts, in turn.

    git worktree add ../before COMMIT
    python benchmarks/before_after.py --before ../before lite_speed.py \
        --sizes S --batches 1 --rounds 2 --clock cpu

Each turn starts both in processes of their own, the other one first every second time, so what the
machine does meanwhile meets both alike. A line per row that both print with `--json`, and one
for all of them: the median of after / before in clips per second over the turns, and the ends.
`lockstep.py` does the same call by call, which is sharper, for what `oracle_cost.py` measures.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
NAMES = ("size", "batch", "keep_ratio")


def rates(checkout: Path, script: str, options: list[str]) -> dict[str, float]:
    """Clips per second by row, of one run in `checkout`."""
    command = [sys.executable, f"benchmarks/{script}", *options, "--json"]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(
        command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    found = {}
    for row in json.loads(done.stdout):
        name = ", ".join(f"{key} {row[key]}" for key in NAMES if key in row)
        cells = {key: cell for key, cell in row.items() if isinstance(cell, dict)}
        for variant, cell in ({"": row} | cells).items():
            if "clips_per_s" in cell:
                found[f"{name}, {variant}".strip(", ")] = cell["clips_per_s"]
    return found


def main() -> None:
    """Parse, take turns, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--before", type=Path, required=True, help="the other checkout")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("script", help="a benchmark that knows --json, and then its options")
    args, options = parser.parse_known_args()
    ratios: dict[str, list[float]] = {}
    for turn in range(args.turns):
        order = [HERE, args.before.resolve()]
        found = {c: rates(c, args.script, options) for c in order[:: -1 if turn % 2 else 1]}
        after, before = found[HERE], found[args.before.resolve()]
        for name in after.keys() & before.keys():
            ratios.setdefault(name, []).append(after[name] / before[name])
        print(f"turn {turn + 1} of {args.turns} done", file=sys.stderr, flush=True)
    if not ratios:
        sys.exit("no row is in both: do the two name their rows differently?")
    ratios["all rows"] = [value for values in ratios.values() for value in values]
    print("| row | after / before | lowest | highest |\n|---|---|---|---|")
    for name, values in sorted(ratios.items()):
        middle = statistics.median(values)
        print(f"| {name} | {middle:.3f} | {min(values):.3f} | {max(values):.3f} |")


if __name__ == "__main__":
    main()
