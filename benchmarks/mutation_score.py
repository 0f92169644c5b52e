"""How many small faults in the code that decides results its tests notice.

    python -m venv mutation && mutation/bin/pip install -e '.[test]' mutmut
    mutation/bin/python benchmarks/mutation_score.py --group keep

mutmut changes one operator, number, name or argument at a time in a copy of the tree and runs the
tests that reach the changed function: a mutant that all of them pass has survived, and is a fault
that nobody would see, or no fault at all. Text of messages is no result: `--show` prints the
survivors, to be read.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
UNIT = "tests/unit/"
GROUPS = {
    "oracle": (
        [f"pipeline/oracle/{name}.py" for name in ("base", "cam", "names", "occlusion", "scorer")],
        [UNIT + "pipeline/oracle"],
    ),
    "shards": (
        [f"pipeline/shards/{name}.py" for name in ("worker", "isolated")],
        [UNIT + f"pipeline/shards/test_{name}.py" for name in ("batches", "isolated", "worker")],
    ),
    "budgets": (
        [
            f"selector/budgets/{name}.py"
            for name in (
                "adaptive",
                "calibrate",
                "candidates",
                "clip_budget",
                "levels",
                "pick",
                "rows",
            )
        ],
        [UNIT + "selector/budgets"],
    ),
    "keep": (
        [f"selector/methods/{name}.py" for name in ("cost", "keep", "spread")],
        [
            UNIT + "selector/methods/test_cost.py",
            UNIT + "selector/methods/test_keep.py",
            UNIT + "selector/methods/test_spread.py",
            UNIT + "selector/training/test_metrics.py",
        ],
    ),
    "predict": (
        ["selector/deploy/predict.py"],
        [UNIT + "selector/deploy/test_predict.py"],
    ),
}
"""Name to the files that are changed and the tests that shall notice."""

CONFIGURATION = """
[tool.mutmut]
source_paths = ["selector", "pipeline", "datasets_spec"]
only_mutate = {files}
pytest_add_cli_args = ["-p", "no:cacheprovider", "-q", "-x", "-o", "faulthandler_timeout=0"]
pytest_add_cli_args_test_selection = {tests}
process_isolation = "forkserver"
use_git_change_detection = false
"""


def main() -> None:
    """Prints a line per group."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--group", choices=GROUPS, action="append", help="by default all")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="print the survivors' changes")
    args = parser.parse_args()
    for group in args.group or GROUPS:
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder) / "tree"
            copy_tree(tree, group)
            subprocess.run(
                [sys.executable, "-m", "mutmut", "run", "--max-children", str(args.processes)],
                cwd=tree,
                stdout=subprocess.DEVNULL,
                check=False,  # its exit status says whether mutants survived
            )
            results = read_results(tree)
            counts = Counter(results.values())
            judged = counts["killed"] + counts["timeout"] + counts["survived"]
            noticed = counts["killed"] + counts["timeout"]
            share = f"{100 * noticed / judged:.1f} %" if judged else "nothing was judged"
            print(f"{group:8} {noticed:5} of {judged:5} noticed ({share})  {dict(counts)}")
            if args.show:
                for name in sorted(name for name, status in results.items() if status != "killed"):
                    mutmut = [sys.executable, "-m", "mutmut", "show", name]
                    shown = subprocess.run(mutmut, cwd=tree, capture_output=True, text=True)
                    print(f"\n# {name}: {results[name]}\n{shown.stdout}", flush=True)


def copy_tree(tree: Path, group: str) -> None:
    """What git tracks and the tests need, with the configuration of a group."""
    for name in ("pipeline", "selector", "datasets_spec", "tests"):
        shutil.copytree(REPO / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    files, tests = GROUPS[group]
    tests = [test for test in tests if (tree / test).exists()]
    settings = (REPO / "pyproject.toml").read_text()
    settings += CONFIGURATION.format(files=json.dumps(files), tests=json.dumps(tests))
    (tree / "pyproject.toml").write_text(settings)


def read_results(tree: Path) -> dict[str, str]:
    """Mutant to what became of it."""
    command = [sys.executable, "-m", "mutmut", "results", "--all", "true"]
    text = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True).stdout
    lines = (line.strip().partition(": ") for line in text.splitlines() if ": " in line)
    results = {name: status for name, _, status in lines}
    for path in (tree / "mutants").rglob("*.meta"):
        # mutmut takes tests that could not start (a test's id that pytest does not find a second
        # time in one process) for tests that never ended, and so for mutants that were noticed.
        codes = json.loads(path.read_text())["exit_code_by_key"]
        results |= {name: "its tests did not start" for name, code in codes.items() if code == 255}
    return results


if __name__ == "__main__":
    main()
