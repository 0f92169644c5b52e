"""Time and memory of `analyze` as a store grows, beside DuckDB and pandas on the same files.

    python benchmarks/analysis_scale.py --rows 1000000 10000000 100000000

Writes a store of random values through the real writer, then answers, each in a process of its own:

* `analyze`: everything that `lite-pipeline analyze` computes;
* `quantiles`: analyze's counts of all scores, read from the array, and the quantiles that follow;
* `shares`: these, and what the best 10 % of each clip hold, from shards checked by their digests;
* `duckdb-quantiles`, `duckdb`: the same without and with the shares by SQL, over the token tables;
* `pandas`: the same with the token tables in memory (up to 10 million rows).

Times are CPU seconds of the process, imports left out; one thread each (`SET threads = 1`).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.clips.grid import TokenGrid
from pipeline.clips.plan import plan_digest
from pipeline.config import OracleConfig
from pipeline.store import layout
from pipeline.store.reader import open_store
from pipeline.store.shard_writer import ShardWriter
from pipeline.store.writer import create_store

GRID = TokenGrid(8, 14, 14)
NUM_CLASSES = 174
QUANTILES = (0.5, 0.9, 0.99, 0.999)
PANDAS_ROWS = 10_000_000
ENGINES = ("quantiles", "duckdb-quantiles", "shares", "duckdb", "pandas", "analyze")


def write_store(path: Path, num_clips: int) -> None:
    """Scores are exponential over each clip's best; a clip's number is the seed."""
    ids = np.arange(num_clips)
    config = OracleConfig(
        dataset="random", plan_digest="0" * 64, split="train", backbone="none",
        backbone_digest="1" * 64, sampling="uniform", num_segments=1, num_crops=1,
        layer="blocks.-1.output", embeddings_per_clip=0, shard_size=256,
    )  # fmt: skip
    names = [f"video{i:06d}" for i in ids]
    plan = pa.table(
        {
            "clip_id": ids, "shard": ids // config.shard_size, "video_id": names,
            "path": [f"{name}.mp4" for name in names], "label": ids % NUM_CLASSES,
            "split": ["train"] * num_clips, "segment": ids * 0, "crop": ids * 0,
        }
    ).cast(layout.PLAN_SCHEMA)  # fmt: skip
    config = replace(config, plan_digest=plan_digest(plan))
    classes = [f"class {i}" for i in range(NUM_CLASSES)]
    with create_store(str(path), config, plan, GRID, 768, classes) as store:
        writer = ShardWriter(store.root)
        for shard in store.pending():
            result = writer.new_result(shard)
            rows = store.info.rows(shard)
            for row, clip in enumerate(range(rows.start, rows.stop)):
                rng = np.random.default_rng(clip)
                cam = rng.exponential(size=GRID.num_tokens).astype(np.float32) - 0.5
                scores = np.maximum(cam, 0) / cam.max()
                right = int(clip % NUM_CLASSES)
                said = right if rng.random() < right / NUM_CLASSES else (right + 1) % NUM_CLASSES
                result.set_ok(
                    row, scores=[scores], cam=[cam], prediction=said,
                    top5=[(said + i) % NUM_CLASSES for i in range(5)], confidence=0.5,
                    true_prob=0.5, loss=0.7, num_frames_total=60, padded=False, damaged=False,
                    decoder="none", decoder_version="0", embeddings=None, embedding_index=None,
                )  # fmt: skip
            writer.write(shard, result)


def answer(engine: str, path: str) -> dict[str, float]:
    """Run one engine in this process: quantiles, the mean share of the best 10 %, CPU seconds."""
    import duckdb
    import pandas as pd

    from selector.analysis import distribution as dist
    from selector.analysis import shares
    from selector.analysis.store import analyze_store

    files = f"read_parquet('{path}/tokens/*.parquet', hive_partitioning=false)"
    start = time.process_time()
    if engine == "analyze":
        found = analyze_store(open_store(path))
        quantiles = [found.pooled[f"q{100 * q:g}"] for q in QUANTILES]
        share = float(found.videos["top10_share"].mean())
    elif engine == "quantiles":
        store, counts = open_store(path), np.zeros(dist.NUM_VALUES, np.int64)
        array = store.scores()
        for rows in map(store.info.rows, store.shards()):
            counts += dist.count_scores(array[rows])
        quantiles, share = [dist.quantile(counts, q) for q in QUANTILES], float("nan")
    elif engine == "shares":
        store, counts, each = open_store(path), np.zeros(dist.NUM_VALUES, np.int64), []
        for shard in store.shards():
            scores = store.read_shard(shard, embeddings=False).scores.reshape(-1, GRID.num_tokens)
            counts += dist.count_scores(scores)
            each.append(shares.of_clips(scores)[:, list(shares.MEASURES).index("top10_share")])
        quantiles = [dist.quantile(counts, q) for q in QUANTILES]
        share = float(np.concatenate(each).mean())
    elif engine.startswith("duckdb"):
        base = duckdb.connect()
        base.execute("SET threads = 1; SET preserve_insertion_order = false")
        asked = f"SELECT quantile_disc(score, {list(QUANTILES)}) FROM {files}"
        [(quantiles,)] = base.sql(asked).fetchall()
        share = float("nan")
        if engine == "duckdb":
            best = -(-GRID.num_tokens // 10)
            [(share,)] = base.sql(
                "SELECT avg(share) FROM (SELECT list_sum(max(score, "
                f"{best})) / sum(score) AS share FROM {files} GROUP BY clip_id)"
            ).fetchall()
    else:
        tokens = pd.read_parquet(f"{path}/tokens", columns=["clip_id", "score"])
        quantiles = np.quantile(tokens["score"], QUANTILES, method="inverted_cdf").tolist()
        best = -(-GRID.num_tokens // 10)
        by_clip = tokens.groupby("clip_id")["score"]
        share = float((by_clip.nlargest(best).groupby(level=0).sum() / by_clip.sum()).mean())
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    named = {f"q{100 * q:g}": float(v) for q, v in zip(QUANTILES, quantiles, strict=True)}
    return {"cpu_s": seconds, "peak_mib": peak, "top10_share": share, **named}


def main() -> None:
    """Write the stores that are not there, run the engines, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--work", type=Path, default=Path("runs/analysis-scale"))
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=1, help="turns of all engines; least time")
    args = parser.parse_args()
    if args.engine:
        print(json.dumps(answer(args.engine, args.store)))
        return
    print("| token rows | engine | CPU s | peak MiB | q50 | q99.9 | best 10 % hold |")
    print("|---|---|---|---|---|---|---|")
    for rows in args.rows:
        num_clips = -(-rows // GRID.num_tokens)
        path = args.work / f"store-{num_clips}"
        if not (path.exists() and len(open_store(path).shards()) == open_store(path).num_shards):
            write_store(path, num_clips)
        engines = [e for e in ENGINES if e != "pandas" or rows <= PANDAS_ROWS]
        runs: dict[str, list[dict[str, float]]] = {engine: [] for engine in engines}
        for _ in range(args.rounds):
            for engine in engines:
                command = [sys.executable, __file__, "--engine", engine, "--store", str(path)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                runs[engine].append(json.loads(done.stdout))
        for engine, found in runs.items():
            best = min(found, key=lambda run: run["cpu_s"])
            print(
                f"| {num_clips * GRID.num_tokens:,} | {engine} | {best['cpu_s']:.1f} | "
                f"{best['peak_mib']:.0f} | {best['q50']:.4f} | {best['q99.9']:.4f} | "
                f"{best['top10_share']:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
