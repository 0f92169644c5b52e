"""How much faster LITE is than the full model, beside what its FLOPs promise.

    python benchmarks/lite_speed.py                       # VideoMAE-B, batch 1 and 8, CPU or CUDA
    python benchmarks/lite_speed.py --sizes tiny          # seconds, to see that it runs
    python benchmarks/lite_speed.py --precision bf16 --compile
    python benchmarks/lite_speed.py --exported            # transformers' classes, ours and theirs
    python benchmarks/lite_speed.py --onnx --int8         # beside ONNX Runtime and 8-bit weights
    python benchmarks/lite_speed.py --torchao             # 8 bits by torchao, which must be there

Weights are random: neither cost nor speed depends on them, and the published selector has no public
width (ours: half the embedding's, as `train-selector` makes it). All keep ratios and the full model
take turns on the same clips in one process, so a busy machine slows all of them alike; rates are
medians over the rounds, speed-ups medians of the round-by-round ratios. `ideal` is the ratio of the
counted GMACs, selector included; `reached` is the speed-up over it. Decoding is not in it.

`--onnx` runs the same models in ONNX Runtime, `--int8` with the linear layers of the backbone in 8
bits (PyTorch's dynamic quantisation: weights ahead, activations at every call; CPU only),
`--torchao` with torchao's (int8 weights by channel, int8 activations by token), compiled, as it is
meant to be run. Each has its own full model to be faster than, and `over plain` is the speed-up
over the full model as PyTorch runs it in fp32. The stages are timed where none of the four is asked
for.

`--clock cpu` counts the processor's seconds in place of the wall's: on a machine that others use,
it still tells what the work costs. With several threads it is the sum over them.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from oracle_cost import SIZES, make_backbone, make_inputs
from torch import nn

from pipeline.backbones import Backbone
from pipeline.backbones.tokens import Tokens, reduce
from selector.deploy.auto import LiteForVideoClassification
from selector.deploy.model import LiteModel
from selector.deploy.onnx_export import export_onnx
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


Call = Callable[[], Any]


def int8_of(model: LiteModel) -> LiteModel:
    """The same model with the linear layers of its backbone in 8 bits; the selector's stay."""
    quantised = copy.deepcopy(model)
    torch.ao.quantization.quantize_dynamic(
        quantised.backbone, {nn.Linear}, torch.qint8, inplace=True
    )
    return quantised


def torchao_of(model: LiteModel) -> LiteModel:
    """As `int8_of`, by torchao; not compiled."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    quantised = copy.deepcopy(model)
    quantize_(quantised.backbone, Int8DynamicActivationInt8WeightConfig())
    return quantised


def onnx_call(model: LiteModel, ratio: float, pixels: torch.Tensor, folder: Path) -> Call:
    """One call of ONNX Runtime, with as many threads as PyTorch has."""
    import onnxruntime

    path = folder / f"{ratio}.onnx"
    if not path.exists():
        export_onnx(model, path, ratio)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return functools.partial(session.run, ["logits"], {"pixel_values": pixels.numpy()})


def calls_of(
    model: LiteModel,
    pixels: torch.Tensor,
    ratios: list[float],
    args: argparse.Namespace,
    folder: Path,
) -> dict[str, dict[float, Call]]:
    """What is timed: the name of a way to run the model -> keep ratio -> one call."""
    called = LiteForVideoClassification.of(model) if args.exported else model
    run = torch.compile(called, fullgraph=True, dynamic=False) if args.compile else called
    how = "exported" if args.exported else "plain"
    found: dict[str, dict[float, Call]] = {
        how: {p: functools.partial(run, pixels, keep_ratio=p) for p in ratios}
    }
    if args.exported:  # the full model is the plain class, without anything of ours
        found[how][1.0] = functools.partial(model.backbone.model, pixels)
    if args.onnx:
        found["onnx"] = {p: onnx_call(model, p, pixels, folder) for p in ratios}
    if args.int8:
        small = int8_of(model)
        found["int8"] = {p: functools.partial(small, pixels, keep_ratio=p) for p in ratios}
    if args.torchao:
        compiled = torch.compile(torchao_of(model), fullgraph=True, dynamic=False)
        found["torchao"] = {p: functools.partial(compiled, pixels, keep_ratio=p) for p in ratios}
    return found


def measure(
    model: LiteModel, batch: int, args: argparse.Namespace, folder: Path
) -> list[dict[str, Any]]:
    """One row per way and keep ratio: clips/s, speed-up, ideal, and seconds of each stage."""
    num_tokens = model.backbone.grid.num_tokens
    pixels, _ = make_inputs(model.backbone, batch)
    clock = CLOCKS[args.clock]
    ratios = sorted({1.0, *args.keep_ratios}, reverse=True)
    ways = calls_of(model, pixels, ratios, args, folder)
    alone = list(ways) == ["plain"]
    rows = []
    with torch.inference_mode():
        parts = {p: stages(model, pixels, num_kept(num_tokens, p)) if alone else {} for p in ratios}
        whole: dict[tuple[str, float], list[float]] = {(w, p): [] for w in ways for p in ratios}
        split: dict[float, dict[str, list[float]]] = {
            p: {name: [] for name in parts[p]} for p in ratios
        }
        for round_index in range(args.rounds + 1):
            for ratio in ratios:
                for way in ways:
                    seconds = timed(ways[way][ratio], args.device, clock)
                    if round_index:  # the first round warms up, and compiles
                        whole[way, ratio].append(seconds)
                for name, part in parts[ratio].items():
                    seconds = timed(part, args.device, clock)
                    if round_index:
                        split[ratio][name].append(seconds)

    def speedup(base: tuple[str, float], cheap: tuple[str, float]) -> float:
        pairs = zip(whole[base], whole[cheap], strict=True)
        return statistics.median(full / reduced for full, reduced in pairs)

    full = model.cost(num_tokens).total
    plain = next(iter(ways))
    for way, ratio in whole:
        num = num_kept(num_tokens, ratio)
        ideal = full / model.cost(num).total
        gained = speedup((way, 1.0), (way, ratio))
        rows.append(
            {
                "way": way,
                "batch": batch,
                "keep_ratio": ratio,
                "tokens": num,
                "gmacs": model.cost(num).total,
                "clips_per_s": batch / statistics.median(whole[way, ratio]),
                "speedup": gained,
                "ideal": ideal,
                "reached": gained / ideal,
                "over_plain": speedup((plain, 1.0), (way, ratio)),
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
    parser.add_argument("--onnx", action="store_true", help="beside it, in ONNX Runtime")
    parser.add_argument("--int8", action="store_true", help="beside it, with 8-bit weights")
    parser.add_argument("--torchao", action="store_true", help="the same by torchao, compiled")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--clock", default="wall", choices=CLOCKS)
    parser.add_argument("--compile", action="store_true", help="the whole call, not the stages")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.clock == "cpu" and args.device != "cpu":
        parser.error("--clock cpu does not see what a GPU does")
    others = args.onnx or args.int8 or args.torchao
    if others and (args.device != "cpu" or args.precision != "fp32"):
        parser.error("--onnx, --int8 and --torchao are measured on the CPU, from fp32")
    rows = []
    for size in args.sizes:
        model = make_model(make_backbone(size, args.device, args.precision))
        with tempfile.TemporaryDirectory() as folder:
            for batch in args.batches:
                found = measure(model, batch, args, Path(folder))
                rows += [{"size": size} | row for row in found]
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
    head = "| VideoMAE | batch | P | tokens | GMACs | clips/s | speed-up | ideal | reached |"
    alone = all(row["ms"] for row in rows)
    head += " embed ms | select ms | blocks ms |" if alone else " run as | over plain |"
    print(head)
    print("|---" * (head.count("|") - 1) + "|")
    for row in rows:
        ms = row["ms"]
        more = (
            f"{ms['embed']:.1f} | {ms.get('select', 0.0):.1f} | {ms['blocks']:.1f} |"
            if alone
            else f"{row['way']} | {row['over_plain']:.2f} |"
        )
        print(
            f"| {row['size']} | {row['batch']} | {row['keep_ratio']} | {row['tokens']} "
            f"| {row['gmacs']:.4g} | {row['clips_per_s']:.3g} | {row['speedup']:.2f} "
            f"| {row['ideal']:.2f} | {row['reached']:.2f} | {more}"
        )


if __name__ == "__main__":
    main()
