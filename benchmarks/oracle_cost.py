"""What oracles cost on top of inference: 1, 2 and 4 in one pass, stock pytorch-grad-cam.

    python benchmarks/oracle_cost.py                    # VideoMAE-S and -B, CPU or CUDA
    python benchmarks/oracle_cost.py --sizes tiny       # seconds, to see that it runs
    python benchmarks/oracle_cost.py --builds VIDEOS    # whole builds by the stand-in

Variants take turns on the same clips in one process. Seconds are those of the process's CPU clock
on a CPU, so that other processes hardly matter, and of the wall clock on a GPU. Rates are medians
over the rounds, ratios are medians of the round-by-round ratios. Peak memory is CUDA's own count on
a GPU; on the CPU it is the growth of the resident size to its peak, in a fresh child per variant
(Linux only: the peak is reset through /proc).
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessor
from transformers.utils.logging import disable_progress_bar

from pipeline.backbones import Backbone, load_backbone
from pipeline.config import OracleConfig, OracleName, RunConfig
from pipeline.oracle.build import build
from pipeline.oracle.names import resolve_oracle
from pipeline.oracle.together import values_together

SIZES = {
    "tiny": {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
             "intermediate_size": 384, "image_size": 64},
    "S": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6,
          "intermediate_size": 1536},
    "B": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
          "intermediate_size": 3072},
}  # fmt: skip
LAYER = "blocks.-1.output"
# Two classes at the last block, whose backward is short; the same at the other end of the network.
LAST = (f"gradcam@{LAYER}", f"gradcam@{LAYER}:predicted")
FIRST = ("hirescam@embeddings", "hirescam@embeddings:predicted")


def make_backbone(size: str, device: str, precision: str) -> Backbone:
    """A VideoMAE of the published shape with random weights: cost does not depend on them."""
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        config = VideoMAEConfig(**SIZES[size], num_labels=174)
        VideoMAEForVideoClassification(config).save_pretrained(folder)
        side = config.image_size
        VideoMAEImageProcessor(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        ).save_pretrained(folder)
        return load_backbone(folder, device=device, precision=precision)


def forward_only(backbone: Backbone, pixels: torch.Tensor, labels: torch.Tensor) -> None:
    """(a) Plain inference."""
    with torch.inference_mode():
        backbone(pixels)


def our_oracles(
    names: tuple[str, ...], backbone: Backbone, pixels: torch.Tensor, labels: torch.Tensor
) -> None:
    """(b) Logits and the maps of some oracles in one forward pass."""
    with torch.no_grad():
        tokens = backbone.embed(pixels)
    oracles = [resolve_oracle(backbone, OracleName.parse(name)) for name in names]
    values_together(oracles, backbone, tokens, labels)


def one_by_one(
    names: tuple[str, ...], backbone: Backbone, pixels: torch.Tensor, labels: torch.Tensor
) -> None:
    """(c) The same in a pass each."""
    for name in names:
        our_oracles((name,), backbone, pixels, labels)


def stock_grad_cam(backbone: Backbone, pixels: torch.Tensor, labels: torch.Tensor) -> None:
    """(d) What people do today: the library on the model as loaded, parameters asking for grads."""

    def to_volume(tokens: torch.Tensor) -> torch.Tensor:
        return tokens.transpose(1, 2).reshape(len(tokens), -1, *backbone.grid)

    class Maps(GradCAM):
        """Stops before the up-sampling to pixels, whose axis order does not fit video frames."""

        def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth):  # type: ignore[no-untyped-def]
            seen = self.activations_and_grads
            return [
                self.get_cam_image(
                    input_tensor, None, targets,
                    seen.activations[0].float().numpy(), seen.gradients[0].float().numpy(),
                )
            ]  # fmt: skip

        def aggregate_multi_layers(self, maps):  # type: ignore[no-untyped-def]
            return maps[0]

    backbone.requires_grad_(True)
    with Maps(backbone, [backbone.layer_target(LAYER).module], to_volume) as cam:
        cam(pixels, [ClassifierOutputTarget(int(label)) for label in labels])
    backbone.zero_grad(set_to_none=True)
    backbone.requires_grad_(False)


VARIANTS: dict[str, Callable[[Backbone, torch.Tensor, torch.Tensor], None]] = {
    "forward": forward_only,
    "1 oracle": functools.partial(our_oracles, LAST[:1]),
    "2 oracles": functools.partial(our_oracles, LAST),
    "1 at embeddings": functools.partial(our_oracles, FIRST[:1]),
    "4 oracles": functools.partial(our_oracles, (*LAST, *FIRST)),
    "4 passes": functools.partial(one_by_one, (*LAST, *FIRST)),
    "grad-cam": stock_grad_cam,
}


def make_inputs(backbone: Backbone, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random clips and labels: (B, T, 3, H, W) and (B,)."""
    side = backbone.image_size
    pixels = torch.randn(batch, backbone.num_frames, 3, side, side)
    return pixels.to(backbone.device, backbone.dtype), torch.arange(batch, device=backbone.device)


def timed(run: Callable[[], None], device: str) -> float:
    """Seconds of one call: the CPU's, or on a GPU from an empty queue to an empty queue."""
    if device != "cuda":
        start = time.process_time()
        run()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_mib(variant: str, size: str, batch: int, device: str, precision: str) -> float:
    """Peak memory of one variant above the loaded model, in MiB, in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_here, (variant, size, batch, device, precision))


def _peak_here(variant: str, size: str, batch: int, device: str, precision: str) -> float:
    backbone = make_backbone(size, device, precision)
    pixels, labels = make_inputs(backbone, batch)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        VARIANTS[variant](backbone, pixels, labels)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from the present size
    before = _status_kib("VmRSS")
    VARIANTS[variant](backbone, pixels, labels)
    return (_status_kib("VmHWM") - before) / 2**10


def _status_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def measure(size: str, args: argparse.Namespace) -> dict[str, object]:
    """Run all variants in turn; rates in clips/s, ratios against forward and against 1 oracle."""
    backbone = make_backbone(size, args.device, args.precision)
    pixels, labels = make_inputs(backbone, args.batch)
    seconds: dict[str, list[float]] = {name: [] for name in args.variants}
    for round_index in range(args.rounds + 1):
        for name in args.variants:
            elapsed = timed(lambda v=VARIANTS[name]: v(backbone, pixels, labels), args.device)  # type: ignore[misc]
            if round_index:  # the first round warms up
                seconds[name].append(elapsed)
    row: dict[str, object] = {"size": size}
    for name, values in seconds.items():
        row[name] = {
            "clips_per_s": args.batch / statistics.median(values),
            "time_over_forward": _median_ratio(values, seconds["forward"]),
            "time_over_1_oracle": _median_ratio(values, seconds["1 oracle"]),
            "peak_mib": peak_mib(name, size, args.batch, args.device, args.precision),
        }
    return row


def measure_builds(data_root: str, rounds: int, limit: int) -> None:
    """Whole serial builds of the stand-in, decoding and writing included, of 1 and 2 oracles."""
    run = RunConfig(data_root=data_root, decode_workers=0, batch_size=32, device="cpu")
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for round_index in range(rounds + 1):
        for number in (1, 2) if round_index % 2 else (2, 1):
            asked = OracleConfig(
                dataset="synthetic",
                backbone="synthetic",
                split="train",
                limit=limit,
                further_oracles=LAST[1:number],
            )
            with tempfile.TemporaryDirectory() as folder:
                elapsed = timed(lambda a=asked, to=folder: build(a, f"{to}/store", run), "cpu")  # type: ignore[misc]
            if round_index:  # the first round warms up
                seconds[number].append(elapsed)
    ratios = sorted(b / a for a, b in zip(seconds[1], seconds[2], strict=True))
    print(f"{limit} clips, {rounds} rounds: {statistics.median(seconds[1]):.2f} CPU seconds for 1")
    spread = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
    print(f"2 oracles / 1: median {statistics.median(ratios):.3f}, {spread}")


def _median_ratio(values: list[float], base: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(values, base, strict=True))


def main() -> None:
    """Parse, measure, print a Markdown table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", nargs="+", default=["S", "B"], choices=SIZES)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--builds", metavar="VIDEOS", help="folder of the synthetic benchmark")
    parser.add_argument("--limit", type=int, default=256, help="videos of a build")
    args = parser.parse_args()
    if args.builds:
        measure_builds(args.builds, args.rounds, args.limit)
        return
    args.variants = list(dict.fromkeys(["forward", "1 oracle", *args.variants]))
    rows = [measure(size, args) for size in args.sizes]
    if args.json:
        print(json.dumps(rows))
        return
    hardware = (
        torch.cuda.get_device_name()
        if args.device == "cuda"
        else f"{os.cpu_count()} x {platform.machine()} cores, {torch.get_num_threads()} threads"
    )
    print(f"{hardware}; {args.precision}; batch {args.batch}; median of {args.rounds} rounds\n")
    print("| VideoMAE | variant | clips/s | / forward | / 1 oracle | peak MiB above the model |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        for name in args.variants:
            cell = row[name]
            assert isinstance(cell, dict)
            print(
                f"| {row['size']} | {name} | {cell['clips_per_s']:.2f} "
                f"| {cell['time_over_forward']:.3f} | {cell['time_over_1_oracle']:.3f} "
                f"| {cell['peak_mib']:.0f} |"
            )


if __name__ == "__main__":
    main()
