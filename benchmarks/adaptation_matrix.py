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
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import t as student

from datasets_spec import load_spec
from pipeline.backbones import load_backbone
from pipeline.backbones.base import Backbone
from pipeline.clips.inputs import read_inputs
from pipeline.config import RunConfig
from pipeline.errors import UnreachableBudgetError
from pipeline.standin.loop import Schedule, advance
from selector.adaptation.clips import Clips, load_clips
from selector.adaptation.config import AdaptConfig
from selector.adaptation.train import Adaptation
from selector.deploy.model import LiteModel
from selector.methods.base import Method
from selector.methods.cost import CostModel
from selector.methods.names import LITE
from selector.methods.registry import Parts, make_method, parse_method
from selector.statistics import LEVEL, NORMAL
from selector.training.files import claimed, load_selector, selector_digest

Bools = npt.NDArray[np.bool_]

NONE, ALL = "none", "all"
BATCH = 64
LOOKS = 2
"""At the held-out videos while training; more cost time, and a cosine ends at its best."""


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
            patience=LOOKS + 1,  # equal steps for all
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
        found = self._tested(backbone)
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
            half = -(-training.num_steps // LOOKS)
            schedule = Schedule(validate_every=half, save_every=20)
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
    def _tested(self, backbone: Backbone) -> dict[str, np.ndarray]:
        """Which test videos are right, bool (n,), by `method@ratio`."""
        costs = CostModel(backbone)
        methods, settings = {}, {}
        for name in self.asked.test:
            methods[name] = self._method(backbone, name)
            for ratio in self.asked.keep_ratios:
                try:
                    settings[name, ratio] = methods[name].setting(ratio, costs)
                except UnreachableBudgetError:
                    continue
        right: dict[str, list[np.ndarray]] = {}
        for batch in self.test.batches(backbone, BATCH):
            reducers = {"full@1": None}
            prepared = {name: method.prepare(batch) for name, method in methods.items()}
            for (name, ratio), setting in settings.items():
                reducers[f"{name}@{ratio:g}"] = methods[name].reducer(prepared[name], setting)
            for cell, reducer in reducers.items():
                predicted = backbone.run(batch.tokens, reducer).argmax(1)
                right.setdefault(cell, []).append((predicted == batch.labels).cpu().numpy())
        return {cell: np.concatenate(parts) for cell, parts in right.items()}


def report(rows: Path) -> None:
    """Top-1 in percent with 95 % intervals over videos and seeds, and the paired differences."""
    found: dict[str, list[dict[str, Bools]]] = {}
    for path in sorted(rows.glob("*.json"), key=lambda path: path.stat().st_mtime):
        row = json.loads(path.read_text())
        found.setdefault(row["train"], []).append(_unpacked(row))
    cells = {law: _stacked(seeds) for law, seeds in found.items()}
    columns = list(dict.fromkeys(name for law in cells.values() for name in law))
    for ratio in dict.fromkeys(name.partition("@")[2] for name in columns):
        shown = [name for name in columns if name.partition("@")[2] == ratio]
        print(f"\nkeep ratio {ratio}; rows: adapted with (seeds), columns: tested with")
        print(" " * 18 + "".join(f"{name.partition('@')[0]:>15}" for name in shown))
        for law, tested in cells.items():
            texts = [_shown(tested[name]) if name in tested else "-" for name in shown]
            print(f"{law + f' ({len(found[law])})':<18}" + "".join(f"{t:>15}" for t in texts))
        _report_gains(cells, ratio)


def _report_gains(cells: dict[str, dict[str, Bools]], ratio: str) -> None:
    """Each law with its own masks: what adapting gained, and what `lite` has more on its own."""
    plain, lite = cells.get(NONE, {}), cells.get(LITE, {})
    for law, tested in cells.items():
        own, none = tested.get(f"{law}@{ratio}"), plain.get(f"{law}@{ratio}")
        if ratio == "1" or law == ALL:
            own, none = tested.get(f"full@{ratio}"), plain.get(f"full@{ratio}")
        if law == NONE or own is None or none is None:
            continue
        text = f"{law} on its own: adapting gains {_shown(_difference(own, none), sign='+')}"
        best = lite.get(f"{LITE}@{ratio}")
        if best is not None and law != LITE:
            text += f"; {LITE} on its own has {_shown(_difference(best, own), sign='+')} more"
        print(text)


def interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Mean over seeds and videos, and the half-width of its 95 % interval.

    Two sources of chance add up: which videos were drawn (normal), and how the trainings fell out
    (Student's t on their means; none with one seed).

    Args:
        values: (S, V), each seed on the same videos.
    """
    num_seeds, num_videos = values.shape
    by_video = values.mean(axis=0)
    half = (NORMAL * by_video.std(ddof=1)) ** 2 / num_videos
    if num_seeds > 1:
        t = float(student.ppf((1 + LEVEL) / 2, num_seeds - 1))
        half += (t * values.mean(axis=1).std(ddof=1)) ** 2 / num_seeds
    return float(values.mean()), float(np.sqrt(half))


def _difference(left: Bools, right: Bools) -> npt.NDArray[np.float64]:
    """Of two cells, seed by seed where both have as many, else against the mean of the second."""
    ours, theirs = left.astype(float), right.astype(float)
    if len(ours) != len(theirs):
        theirs = theirs.mean(axis=0, keepdims=True)
    return ours - theirs


def _unpacked(row: dict[str, Any]) -> dict[str, Bools]:
    num = row["videos"]
    return {
        cell: np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:num].astype(np.bool_)
        for cell, text in row["right"].items()
    }


def _stacked(seeds: list[dict[str, Bools]]) -> dict[str, Bools]:
    return {cell: np.stack([seed[cell] for seed in seeds]) for cell in seeds[0]}


def _shown(values: npt.NDArray[Any], sign: str = "") -> str:
    mean, half = interval(100.0 * values)
    return f"{mean:{sign}.1f} ±{half:.1f}"


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
        default=[0.5, 0.3, 0.2, 0.1],
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
