"""What 8-bit weights cost in accuracy, with all tokens and with half of them.

    python benchmarks/int8_accuracy.py --data-root VIDEOS --selector SELECTOR --videos 300
    python benchmarks/int8_accuracy.py --size B --videos 8

The first is on rendered videos: VIDEOS is what `lite-pipeline datasets make synthetic` wrote,
SELECTOR a selector of the shipped backbone. Differences are over the same videos, with 95 %
intervals. The second is on random weights of a published size and random clips, which have no
accuracy: it says how far rounding moves the logits, and whether fewer tokens make it worse. Weights
that were trained have larger outliers, so it is no promise for them.

`--torchao` also quantises by torchao, which must be there.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from lite_speed import int8_of, make_model, torchao_of
from oracle_cost import SIZES, make_backbone, make_inputs

from datasets_spec import load_spec
from datasets_spec.read import read_videos
from pipeline.decode import decode_video
from selector.deploy.model import LiteModel
from selector.deploy.predict import clip_request

RATIOS = (1, 0.5)


def models_of(plain: LiteModel, with_torchao: bool) -> dict[str, LiteModel]:
    """The model as it is, and in 8 bits."""
    models = {"fp32": plain, "int8": int8_of(plain)}
    return models | ({"torchao": torchao_of(plain)} if with_torchao else {})


def on_videos(args: argparse.Namespace) -> None:
    """Classify every video by every model and ratio, and print top-1."""
    videos = read_videos(load_spec("synthetic"), args.data_root, "validation")
    videos = random.Random(0).sample(videos, min(args.videos, len(videos)))
    plain = LiteModel.from_pretrained(args.selector, backbone="synthetic", spread=2.0)
    models = models_of(plain, args.torchao)
    hits: dict[tuple[str, float], list[bool]] = {(n, p): [] for n in models for p in RATIOS}
    for video in videos:
        path = str(Path(args.data_root) / video.path)
        clips = decode_video(clip_request(plain, path, plain.sampling, "pyav")).clips
        with torch.inference_mode():
            for (name, ratio), found in hits.items():
                logits = models[name](plain.backbone.pixel_values(clips), keep_ratio=ratio).logits
                found.append(int(logits.argmax()) == video.label)
    for ratio in RATIOS:
        right = {name: 100.0 * np.array(hits[name, ratio]) for name in models}
        for name in list(models)[1:]:
            gap = right[name] - right["fp32"]
            half = 1.96 * gap.std(ddof=1) / len(gap) ** 0.5
            print(
                f"keep ratio {ratio:g}, {len(gap)} videos: fp32 {right['fp32'].mean():.1f} %, "
                f"{name} {right[name].mean():.1f} %, {gap.mean():+.1f} [{gap.mean() - half:+.1f}, "
                f"{gap.mean() + half:+.1f}]"
            )


def on_random_weights(args: argparse.Namespace) -> None:
    """Print how far the logits of random clips move, of their deviation between classes."""
    plain = make_model(make_backbone(args.size, "cpu", "fp32"))
    models = models_of(plain, args.torchao)
    moved: dict[tuple[str, float], list[float]] = {(n, p): [] for n in models for p in RATIOS}
    same = dict.fromkeys(moved, 0)
    for _ in range(args.videos):
        pixels, _ = make_inputs(plain.backbone, 1)
        for ratio in RATIOS:
            with torch.inference_mode():
                logits = {
                    name: model(pixels, keep_ratio=ratio).logits for name, model in models.items()
                }
            exact = logits["fp32"]
            for name, found in logits.items():
                moved[name, ratio].append(float((found - exact).std() / exact.std()))
                same[name, ratio] += int(found.argmax() == exact.argmax())
    for ratio in RATIOS:
        for name in list(models)[1:]:
            share = np.mean(moved[name, ratio])
            print(
                f"keep ratio {ratio:g}, {args.size}, {args.videos} clips: {name} moves the logits "
                f"by {share:.1%} of their deviation; the first class is the same of "
                f"{same[name, ratio]}"
            )


def main() -> None:
    """One of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-root")
    parser.add_argument("--selector")
    parser.add_argument("--size", choices=SIZES, help="random weights in place of videos")
    parser.add_argument("--videos", type=int, default=300)
    parser.add_argument("--torchao", action="store_true")
    args = parser.parse_args()
    if args.size is not None:
        on_random_weights(args)
    elif args.data_root is not None and args.selector is not None:
        on_videos(args)
    else:
        parser.error("give --data-root and --selector, or --size")


if __name__ == "__main__":
    main()
