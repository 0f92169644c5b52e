"""What 8-bit weights cost in accuracy, with all tokens and with half of them, on rendered videos.

    python benchmarks/int8_accuracy.py --data-root VIDEOS --selector SELECTOR --videos 300

VIDEOS is what `lite-pipeline datasets make synthetic` wrote, SELECTOR a selector of the shipped
backbone. Differences are over the same videos, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from lite_speed import int8_of

from datasets_spec import load_spec
from datasets_spec.read import read_videos
from pipeline.decode import decode_video
from selector.deploy.model import LiteModel
from selector.deploy.predict import clip_request


def main() -> None:
    """Classify every video four times, and print top-1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--selector", required=True)
    parser.add_argument("--videos", type=int, default=300)
    args = parser.parse_args()
    videos = read_videos(load_spec("synthetic"), args.data_root, "validation")
    videos = random.Random(0).sample(videos, min(args.videos, len(videos)))
    plain = LiteModel.from_pretrained(args.selector, backbone="synthetic", spread=2.0)
    models = {"fp32": plain, "int8": int8_of(plain)}
    hits: dict[tuple[str, float], list[bool]] = {(name, p): [] for name in models for p in (1, 0.5)}
    for video in videos:
        path = str(Path(args.data_root) / video.path)
        clips = decode_video(clip_request(plain, path, plain.sampling, "pyav")).clips
        with torch.inference_mode():
            for (name, ratio), found in hits.items():
                logits = models[name](plain.backbone.pixel_values(clips), keep_ratio=ratio).logits
                found.append(int(logits.argmax()) == video.label)
    for ratio in (1, 0.5):
        one, eight = (100.0 * np.array(hits[name, ratio]) for name in models)
        gap = eight - one
        half = 1.96 * gap.std(ddof=1) / len(gap) ** 0.5
        print(
            f"keep ratio {ratio:g}, {len(gap)} videos: fp32 {one.mean():.1f} %, int8 "
            f"{eight.mean():.1f} %, {gap.mean():+.1f} [{gap.mean() - half:+.1f}, "
            f"{gap.mean() + half:+.1f}]"
        )


if __name__ == "__main__":
    main()
