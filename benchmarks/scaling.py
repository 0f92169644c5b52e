"""A build on 1 to 64 GPUs, simulated: where decoding, the store or the driver stop the scaling.

    python benchmarks/scaling.py                    # the tables of docs/running.md
    python benchmarks/scaling.py --clips 240000 --decode-rate 5 --cpus-per-gpu 16
    python benchmarks/scaling.py --model-rate 970 --decode-rate 25 --shard-size 64

The default numbers are those of VideoMAE-B in bf16 on an H100, of which no measurement exists here,
and of Something-Something V2's webm on one core; every line is `lite-pipeline estimate` with
`--gpus 8` and as many nodes as it takes.
"""

from __future__ import annotations

import argparse

from pipeline.cli.table import Column, echo_table
from pipeline.config import OracleConfig, RunConfig
from pipeline.estimate.estimate import Estimate, Place, estimate

GPUS = (1, 2, 4, 8, 16, 32, 64)
FEWER = (1, 8, 64)
PER_NODE = 8
PARTS = ("start", "decode", "model", "commit", "store", "driver")


def forecast(gpus: int, args: argparse.Namespace, **changes: object) -> Estimate:
    """Of one number of GPUs."""
    fields = vars(args) | changes
    place = Place(
        gpus=min(gpus, PER_NODE),
        nodes=-(-gpus // PER_NODE),
        cpus_per_gpu=fields["cpus_per_gpu"],
        decode_rate=fields["decode_rate"],
        model_rate=fields["model_rate"],
        start_s=fields["start_seconds"],
        commit_s=fields["commit_seconds"],
        store_bytes_s=1e6 * fields["store_mb_s"],
    )
    asked = OracleConfig(
        dataset="ssv2", backbone=fields["backbone"], shard_size=fields["shard_size"]
    )
    run = RunConfig(data_root="", batch_size=32)
    return estimate(asked, run, place, num_clips=fields["clips"])


def main() -> None:
    """Parse and print a table for each number of cores, store and size of shards."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="synthetic", help="for the size of the store")
    parser.add_argument("--clips", type=int, default=168_913)
    parser.add_argument("--decode-rate", type=float, default=25.0)
    parser.add_argument("--model-rate", type=float, default=970.0)
    parser.add_argument("--cpus-per-gpu", type=int, default=12)
    parser.add_argument("--start-seconds", type=float, default=30.0)
    parser.add_argument("--commit-seconds", type=float, default=0.5)
    parser.add_argument("--store-mb-s", type=float, default=2000.0)
    parser.add_argument("--shard-size", type=int, default=256)
    args = parser.parse_args()
    cases: dict[str, tuple[tuple[int, ...], dict[str, object]]] = {
        f"{args.cpus_per_gpu} cores a GPU": (GPUS, {}),
        "48 cores a GPU": (FEWER, {"cpus_per_gpu": 48}),
        "48 cores a GPU, shards of 1024": (FEWER, {"cpus_per_gpu": 48, "shard_size": 1024}),
    }
    columns = [
        Column("GPUs", right=True),
        Column("seconds", right=True),
        Column("clips/s once started", right=True),
        Column("of one GPU's", right=True),
        *(Column(part, right=True) for part in PARTS),
        Column("bound by"),
    ]
    for title, (numbers, changes) in cases.items():
        rows: list[list[str]] = []
        one = 0.0
        for gpus in numbers:
            found = forecast(gpus, args, **changes).forecast
            speed = found.num_clips / (found.seconds * (1 - found.busy["start"]))
            one = one or speed
            row = [f"{gpus}", f"{found.seconds:.0f}", f"{speed:.0f}", f"{speed / one:.1f}"]
            rows.append([*row, *(f"{found.busy[part]:.0%}" for part in PARTS), found.bound_by])
        print(f"\n{title}")
        echo_table(columns, rows)


if __name__ == "__main__":
    main()
