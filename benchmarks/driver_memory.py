"""Peak memory of a build's driver: what it reads of dataset and checkpoint before workers start.

    python benchmarks/driver_memory.py              # a VideoMAE-B of random weights
    python benchmarks/driver_memory.py --size L

Each line is a fresh process: one that only imports, one that opens the checkpoint as a driver does
(names and shapes), and one that loads the weights, as every worker does and drivers once did.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline_efficiency import SIZES, save_backbone, write_videos

from pipeline.clips import inputs
from pipeline.config import OracleConfig, RunConfig
from pipeline.oracle.build import prepare

WAYS = ("imports", "driver", "with weights")


def here(way: str, data: str, backbone: str) -> None:
    """In the fresh process: prepare a build, and print what it took."""
    began = time.perf_counter()
    if way == "with weights":
        load = inputs.load_backbone
        inputs.load_backbone = lambda name, revision, device: load(name, revision)
    if way != "imports":
        asked = OracleConfig(dataset=f"{data}/bench.yaml", split="all", backbone=backbone)
        prepare(asked, RunConfig(data_root=data))
    # Not `ru_maxrss`: it begins with what the process that started this one held.
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps({"peak_mib": round(peak), "seconds": round(time.perf_counter() - began, 1)}))


def main() -> None:
    """Parse, measure each way, print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="B", choices=list(SIZES))
    parser.add_argument("--here", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        here(*args.here)
        return
    with tempfile.TemporaryDirectory() as folder:
        data = write_videos(Path(folder) / "data", 64)
        backbone = save_backbone(Path(folder) / "backbone", args.size)
        weights = sum(path.stat().st_size for path in backbone.glob("*.safetensors")) / 2**20
        print(f"weights {weights:.0f} MiB")
        for way in WAYS:
            command = [sys.executable, __file__, "--here", way, str(data), str(backbone)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            print(f"{way:<14}{output.splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    main()
