"""Accuracy as a matrix: masks a backbone was adapted with x masks it is tested with x keep ratio.

    lite-pipeline datasets make synthetic --out DATA --videos 8000
    lite-pipeline build-oracle --data-root DATA --split train --limit 2800 --store STORE
    lite-pipeline train-selector --store STORE --out SELECTOR
    python benchmarks/adaptation_matrix.py --data-root DATA --selector SELECTOR --out MATRIX

A row (one training and seed) is one file in MATRIX/rows; the same command goes on after a kill,
also within a row. Rows of `none` are the backbone as it is, those of `all` are trained on all
tokens alone: what further training gives without any mask. `--report` prints what is there.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from datasets_spec import load_spec
from pipeline.backbones import load_backbone
from pipeline.backbones.base import Backbone
from pipeline.clips.inputs import read_inputs
from pipeline.config import RunConfig
from pipeline.errors import UnreachableBudgetError
from pipeline.standin.loop import Schedule, advance
from selector.adaptation.clips import Clips, load_clips
from selector.adaptation.config import AdaptConfig
from selector.adaptation.train import MOST_LOOKS, Adaptation
from selector.deploy.model import LiteModel
from selector.methods.base import Method
from selector.methods.cost import CostModel
from selector.methods.names import LITE
from selector.methods.registry import Parts, make_method, parse_method
from selector.training.files import claimed, load_selector, selector_digest

NONE, ALL = "none", "all"
BATCH = 64


def main() -> None:
    """Trains and tests what is missing, and prints the table."""
    asked = _arguments()
    torch.set_num_threads(asked.threads)
    rows = asked.out / "rows"
    rows.mkdir(parents=True, exist_ok=True)
    if not asked.report:
        matrix = Matrix(asked)
        for seed in range(asked.seeds):  # all laws of one seed before the next
            for law in asked.train:
                path = rows / f"{law}-{seed}.json"
                if not path.is_file() and (law != NONE or seed == 0):
                    began = time.process_time()
                    row = matrix.row(law, seed)
                    row["cpu_seconds"] = round(time.process_time() - began, 1)
                    path.with_suffix(".tmp").write_text(json.dumps(row))
                    path.with_suffix(".tmp").replace(path)
                    print(f"{law} seed {seed}: {row['cpu_seconds']:.0f} CPU s", flush=True)
    report(rows)


class Matrix:
    """What all rows share: the clips in memory, decoded once."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.selector = load_selector(asked.selector)
        self.train = self._clips("train", asked.train_videos)
        self.test = self._clips("validation", asked.test_videos)

    def _config(self, split: str, limit: int) -> AdaptConfig:
        asked = self.asked
        low, high = (float(part) for part in asked.keep_ratio_range.split(","))
        return AdaptConfig(
            dataset=asked.dataset,
            split=split,
            limit=limit,
            backbone=asked.backbone,
            num_segments=1,
            num_crops=1,
            selector=str(asked.selector),
            selector_digest=selector_digest(asked.selector),
            keep_low=low,
            keep_high=high,
            full_share=asked.full_share,
            distill=asked.distill,
            steps=asked.steps,
            batch_size=BATCH,
            learning_rate=asked.lr,
            held_out=0.03,
            patience=MOST_LOOKS + 1,  # equal steps for all
        )

    def _clips(self, split: str, limit: int) -> Clips:
        asked = self.asked
        run = RunConfig(data_root=str(asked.data_root), device="cpu")
        spec = load_spec(asked.dataset)
        inputs = read_inputs(
            self._config(split, limit), run, spec, split, views=(1, 1), without_label="have none"
        )
        if split == "train":
            self.config = inputs.config
        cache = asked.out / f"cache-{split}"
        clips = load_clips(
            inputs.plan, inputs.config, inputs.backbone, asked.data_root, cache, 0, lambda *_: None
        )
        return replace(clips, frames=np.array(clips.frames))

    def row(self, law: str, seed: int) -> dict[str, object]:
        """One training, tested with every mask; top-1 as the share that is right."""
        backbone = load_backbone(self.asked.backbone)
        best_step = 0
        if law != NONE:
            best_step = self._adapt(backbone, law, seed)
        found = {"full@1": self._right(backbone, None, 1.0)}
        costs = CostModel(backbone)
        for name in self.asked.test:
            method = self._method(backbone, name)
            for ratio in self.asked.keep_ratios:
                try:
                    method.setting(ratio, costs)
                except UnreachableBudgetError:
                    continue
                right = self._right(backbone, method, ratio, costs)
                found[f"{name}@{ratio:g}"] = right
        means = {name: round(float(right.mean()), 5) for name, right in found.items()}
        packed = {name: np.packbits(right).tobytes().hex() for name, right in found.items()}
        settings = {k: v for k, v in vars(self.asked).items() if not isinstance(v, Path)}
        return {
            "train": law,
            "seed": seed,
            "videos": len(self.test),
            "best_step": best_step,
            "settings": settings,
            "top1": means,
            "right": packed,
        }

    def _adapt(self, backbone: Backbone, law: str, seed: int) -> int:
        config = replace(self.config, seed=seed, method="uniform" if law == ALL else law)
        if law == ALL:
            config = replace(config, full_share=1.0, keep_low=1.0, keep_high=1.0)
        needs_selector = parse_method(config.method).selected_by is not None
        selector = self.selector if needs_selector else None
        config = replace(config, keep_low=self._reachable(backbone, config))
        model = LiteModel(backbone, selector, config.lite_config(), config.backbone)
        clips, judge = self.train.split(config.held_out)
        with claimed(self.asked.out / "work" / f"{law}-{seed}", config.identity()) as files:
            training = Adaptation(config, model, clips, judge, files)
            schedule = Schedule(validate_every=training.look_every, save_every=50)
            advance(training, schedule, lambda done, loss: None)
            return training.finish().best_step

    def _reachable(self, backbone: Backbone, config: AdaptConfig) -> float:
        """The low end of the range, or the lowest above it that the method gets down to."""
        method, costs = self._method(backbone, config.method), CostModel(backbone)
        for ratio in np.arange(config.keep_low, config.keep_high, 0.05):
            try:
                method.setting(float(ratio), costs)
            except UnreachableBudgetError:
                continue
            return round(float(ratio), 4)
        return config.keep_high

    def _method(self, backbone: Backbone, name: str) -> Method:
        return make_method(parse_method(name), Parts(backbone, 0, {LITE: self.selector}))

    @torch.no_grad()
    def _right(
        self,
        backbone: Backbone,
        method: Method | None,
        ratio: float,
        costs: CostModel | None = None,
    ) -> np.ndarray:
        """Which test videos are right, bool (n,)."""
        right = []
        for batch in self.test.batches(backbone, BATCH):
            reducer = None
            if method is not None:
                reducer = method.reducer(method.prepare(batch), method.setting(ratio, costs))
            logits = backbone.run(batch.tokens, reducer)
            right.append((logits.argmax(1) == batch.labels).cpu().numpy())
        return np.concatenate(right)


def report(rows: Path) -> None:
    """Top-1 in percent, mean over seeds, with the largest distance of a seed from it."""
    found: dict[str, list[dict[str, float]]] = {}
    for path in sorted(rows.glob("*.json"), key=lambda path: path.stat().st_mtime):
        row = json.loads(path.read_text())
        found.setdefault(row["train"], []).append(row["top1"])
    columns = list(dict.fromkeys(name for tops in found.values() for name in tops[0]))
    for ratio in dict.fromkeys(name.partition("@")[2] for name in columns):
        shown = [name for name in columns if name.partition("@")[2] == ratio]
        print(f"\nkeep ratio {ratio}; rows: adapted with (seeds), columns: tested with")
        print(" " * 18 + "".join(f"{name.partition('@')[0]:>15}" for name in shown))
        for law, tops in found.items():
            cells = [[100 * top[name] for top in tops if name in top] for name in shown]
            texts = [_cell(values) for values in cells]
            print(f"{law + f' ({len(tops)})':<18}" + "".join(f"{text:>15}" for text in texts))


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    mean = sum(values) / len(values)
    spread = max(abs(value - mean) for value in values)
    return f"{mean:.1f}" + (f" ±{spread:.1f}" if len(values) > 1 else "")


def _arguments() -> argparse.Namespace:
    names = functools.partial(str.split, sep=",")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--backbone", default="synthetic")
    parser.add_argument("--selector", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    laws = "random,uniform,prior,lite,lite-spread,tome"
    parser.add_argument(
        "--train",
        type=names,
        default=names(f"{NONE},lite,prior,random,uniform,lite-spread,{ALL},tome"),
    )
    parser.add_argument("--test", type=names, default=names(laws))
    parser.add_argument(
        "--keep-ratios",
        type=lambda text: list(map(float, text.split(","))),
        default="0.5,0.3,0.2,0.1",
    )
    parser.add_argument("--keep-ratio-range", default="0.1,0.6")
    parser.add_argument("--full-share", type=float, default=0.1)
    parser.add_argument("--distill", action="store_true")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train-videos", type=int, default=4000)
    parser.add_argument("--test-videos", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="train nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
