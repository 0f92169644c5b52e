"""How much faster LITE is than the full model, beside what its FLOPs promise.

    python benchmarks/lite_speed.py                       # VideoMAE-B, batch 1 and 8, CPU or CUDA
    python benchmarks/lite_speed.py --sizes tiny          # seconds, to see that it runs
    python benchmarks/lite_speed.py --precision bf16 --compile
    python benchmarks/lite_speed.py --exported            # transformers' classes, ours and theirs

Weights are random: neither cost nor speed depends on them, and the published selector has no public
width (ours: half the embedding's, as `train-selector` makes it). All keep ratios and the full model
take turns on the same clips in one process, so a busy machine slows all of them alike; rates are
medians over the rounds, speed-ups medians of the round-by-round ratios. `ideal` is the ratio of the
counted GMACs, selector included; `reached` is the speed-up over it. Decoding is not in it.

`--clock cpu` counts the processor's seconds in place of the wall's: on a machine that others use,
it still tells what the work costs. With several threads it is the sum over them.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from oracle_cost import SIZES, make_backbone, make_inputs

from pipeline.backbones import Backbone
from pipeline.backbones.tokens import Tokens, reduce
from selector.deploy.auto import LiteForVideoClassification
from selector.deploy.model import LiteModel
from selector.methods.keep import best_tokens, num_kept
from selector.training.config import SelectorConfig
from selector.training.model import TokenSelector
from selector.training.train import default_width

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
KEEP_RATIOS = [1.0, 0.9, 0.7, 0.5, 0.3, 0.2, 0.1]


def make_model(backbone: Backbone) -> LiteModel:
    """LITE on `backbone`, with an untrained selector of the default shape."""
    config = SelectorConfig(
        num_layers=3,
        width=default_width(backbone.hidden_size),
        hidden_size=backbone.hidden_size,
        grid=backbone.grid,
        backbone="random",
        backbone_digest=backbone.digest,
        store_fingerprint="",
        oracle="",
    )
    return LiteModel(backbone, TokenSelector(config))


def stages(model: LiteModel, pixels: torch.Tensor, num: int) -> dict[str, Callable[[], Any]]:
    """The parts of one call, each on inputs made before: embed, select, blocks."""
    tokens = model.backbone.embed(pixels)

    def select() -> Tokens:
        return reduce(tokens, best_tokens(tokens, model.rank(tokens)[0], num))

    every = num == tokens.num
    kept = tokens if every else select()
    parts: dict[str, Callable[[], Any]] = {"embed": lambda: model.backbone.embed(pixels)}
    parts |= {} if every else {"select": select}
    return parts | {"blocks": lambda: model.backbone.run(kept)}


def timed(run: Callable[[], Any], device: str, clock: Callable[[], float]) -> float:
    """Seconds of one call, the device's queue emptied before and after."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = clock()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


@torch.inference_mode()
def measure(model: LiteModel, batch: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per keep ratio: clips/s, speed-up, ideal, and seconds of each stage."""
    num_tokens = model.backbone.grid.num_tokens
    pixels, _ = make_inputs(model.backbone, batch)
    clock = CLOCKS[args.clock]
    called = LiteForVideoClassification.of(model) if args.exported else model
    run = torch.compile(called, fullgraph=True, dynamic=False) if args.compile else called
    ratios = sorted({1.0, *args.keep_ratios}, reverse=True)
    parts = {p: stages(model, pixels, num_kept(num_tokens, p)) for p in ratios}
    calls = {p: functools.partial(run, pixels, keep_ratio=p) for p in ratios}
    if args.exported:  # the full model is the plain class, without anything of ours
        calls[1.0] = functools.partial(model.backbone.model, pixels)
    whole: dict[float, list[float]] = {p: [] for p in ratios}
    split: dict[float, dict[str, list[float]]] = {
        p: {name: [] for name in parts[p]} for p in ratios
    }
    for round_index in range(args.rounds + 1):
        for ratio in ratios:
            seconds = timed(calls[ratio], args.device, clock)
            pieces = {name: timed(part, args.device, clock) for name, part in parts[ratio].items()}
            if round_index:  # the first round warms up, and compiles
                whole[ratio].append(seconds)
                for name, value in pieces.items():
                    split[ratio][name].append(value)
    full = model.cost(num_tokens).total
    rows = []
    for ratio in ratios:
        num = num_kept(num_tokens, ratio)
        pairs = zip(whole[1.0], whole[ratio], strict=True)
        speedup = statistics.median(base / lite for base, lite in pairs)
        ideal = full / model.cost(num).total
        rows.append(
            {
                "batch": batch,
                "keep_ratio": ratio,
                "tokens": num,
                "gmacs": model.cost(num).total,
                "clips_per_s": batch / statistics.median(whole[ratio]),
                "speedup": speedup,
                "ideal": ideal,
                "reached": speedup / ideal,
                "ms": {name: 1e3 * statistics.median(v) for name, v in split[ratio].items()},
            }
        )
    return rows


def main() -> None:
    """Parse, measure, print Markdown tables or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", nargs="+", default=["B"], choices=SIZES)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--keep-ratios", nargs="+", type=float, default=KEEP_RATIOS)
    parser.add_argument("--exported", action="store_true", help="as AutoModel loads it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--clock", default="wall", choices=CLOCKS)
    parser.add_argument("--compile", action="store_true", help="the whole call, not the stages")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.clock == "cpu" and args.device != "cpu":
        parser.error("--clock cpu does not see what a GPU does")
    rows = []
    for size in args.sizes:
        model = make_model(make_backbone(size, args.device, args.precision))
        for batch in args.batches:
            rows += [{"size": size} | row for row in measure(model, batch, args)]
    if args.json:
        print(json.dumps(rows))
        return
    hardware = (
        torch.cuda.get_device_name()
        if args.device == "cuda"
        else f"{os.cpu_count()} x {platform.machine()} cores, {torch.get_num_threads()} threads"
    )
    how = f"{'compiled' if args.compile else 'eager'}; {args.clock} clock"
    print(f"{hardware}; {args.precision}; {how}; median of {args.rounds} rounds\n")
    print("| VideoMAE | batch | P | tokens | GMACs | clips/s | speed-up | ideal | reached "
          "| embed ms | select ms | blocks ms |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        ms = row["ms"]
        print(
            f"| {row['size']} | {row['batch']} | {row['keep_ratio']} | {row['tokens']} "
            f"| {row['gmacs']:.4g} | {row['clips_per_s']:.3g} | {row['speedup']:.2f} "
            f"| {row['ideal']:.2f} | {row['reached']:.2f} | {ms['embed']:.1f} "
            f"| {ms.get('select', 0.0):.1f} | {ms['blocks']:.1f} |"
        )


if __name__ == "__main__":
    main()
