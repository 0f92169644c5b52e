"""How far to spread the kept tokens: top-1 of one selector at several spreads and keep ratios.

On the rendered benchmark's validation videos that `evaluate --limit N` does *not* take, so that a
spread chosen here is judged there on other videos.

    python benchmarks/spread.py --data-root DATA --selector SELECTOR
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from datasets_spec import load_spec, read_videos
from pipeline.backbones import load_backbone
from pipeline.backbones.tokens import reduce
from pipeline.clips.plan import build_plan
from pipeline.standin.clips import load_clips
from pipeline.standin.config import BackboneConfig
from selector.methods.keep import best_tokens, num_kept
from selector.methods.spread import spread_offsets
from selector.training.files import load_selector

_BATCH = 64


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--selector", required=True)
    parser.add_argument("--limit", type=int, default=2000, help="the evaluation's")
    parser.add_argument("--spreads", default="0,1,1.5,2,3,4,6")
    parser.add_argument("--keep-ratios", default=".9,.7,.5,.3,.2,.1")
    args = parser.parse_args()
    spreads = [float(text) for text in args.spreads.split(",")]
    ratios = [float(text) for text in args.keep_ratios.split(",")]

    videos = read_videos(load_spec("synthetic"), args.data_root, "validation")
    taken = set(build_plan(videos, (1, 1), 64, args.limit)["video_id"].to_pylist())
    rows = [i for i, video in enumerate(videos) if video.video_id not in taken]
    backbone = load_backbone("synthetic")
    selector = load_selector(args.selector, backbone)
    grid = backbone.grid
    offsets = [spread_offsets(grid, spread) for spread in spreads]
    right = np.zeros((len(spreads), len(ratios)))
    with TemporaryDirectory() as cache, torch.inference_mode():
        clips = load_clips(
            args.data_root, "validation", Path(cache), BackboneConfig(), 2, lambda *_: None
        )
        if len(clips) != len(videos):
            raise SystemExit("some videos could not be decoded: rows and videos no longer agree")
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            tokens = backbone.embed(backbone.pixel_values(clips.frames[batch]))
            logits, labels = selector(tokens.on_grid), torch.from_numpy(clips.labels[batch])
            for i, offset in enumerate(offsets):
                ranking = logits + offset
                for j, ratio in enumerate(ratios):
                    best = best_tokens(tokens, ranking, num_kept(grid.num_tokens, ratio))
                    found = backbone.run(reduce(tokens, best)).argmax(1)
                    right[i, j] += int((found == labels).sum())
    table = pd.DataFrame(100 * right / len(rows), spreads, ratios).round(1)
    print(f"top-1 in percent on {len(rows)} videos, spread by keep ratio\n{table.to_string()}")


if __name__ == "__main__":
    main()
