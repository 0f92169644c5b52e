"""Accuracy as a matrix: masks a backbone was adapted with x masks it is tested with x keep ratio.

    lite-pipeline datasets make synthetic --out DATA --videos 8000
    lite-pipeline build-oracle --data-root DATA --split train --limit 2800 --store STORE
    lite-pipeline train-selector --store STORE --out SELECTOR
    python benchmarks/adaptation_matrix.py --data-root DATA --selector SELECTOR --out MATRIX

A row (one training and seed) is one file in MATRIX/rows; the same command goes on after a kill,
also within a row, and one with more tests or keep ratios adds them to the rows that are there.
Rows of `none` are the backbone as it is, those of `all` are trained on all tokens alone: what
further training gives without any mask; `lite:distilled` learns the full model's answers in place
of labels. A law that cannot get down to the range's low end trains from where it can. `--report`
prints what is there.
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
from pipeline.errors import ConfigError, UnreachableBudgetError
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
DISTILLED = ":distilled"
DECISIVE = (
    *("dataset", "backbone", "keep_ratio_range", "full_share", "steps", "lr"),
    *("train_videos", "test_videos"),
)
"""Arguments that all rows of one table must share."""
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
                if law != NONE or seed == 0:
                    matrix.complete(rows / f"{law}-{seed}.json", law, seed)
    report(rows)


class Matrix:
    """What all rows share: the clips in memory, decoded once."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.selector = load_selector(asked.selector)
        self.train = self._clips("train", asked.train_videos)
        self.test = self._clips("validation", asked.test_videos)
        self.settings = {name: vars(asked)[name] for name in DECISIVE} | {
            "backbone_digest": self.config.backbone_digest,
            "selector_digest": self.config.selector_digest,
        }

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

    def complete(self, path: Path, law: str, seed: int) -> None:
        """Writes a row's file, or adds to it what was not tested yet.

        Raises:
            ConfigError: the file is of another matrix.
        """
        row: dict[str, Any] = {"settings": self.settings, "right": {}, "top1": {}}
        if path.is_file():
            row = json.loads(path.read_text())
            if row["settings"] != self.settings:
                raise ConfigError(
                    f"{path} is of another matrix, {row['settings']} and not {self.settings}: name "
                    "another --out"
                )
        began = time.process_time()
        backbone = load_backbone(self.asked.backbone)
        tests = self._tests(backbone)
        tests = {cell: test for cell, test in tests.items() if cell not in row["right"]}
        if not tests:
            return
        if law != NONE:
            row.update(self._adapt(backbone, law, seed))
        found = self._tested(backbone, tests)
        row.update(train=law, seed=seed, videos=len(self.test))
        row["top1"].update({cell: round(float(right.mean()), 5) for cell, right in found.items()})
        row["right"].update(
            {cell: np.packbits(right).tobytes().hex() for cell, right in found.items()}
        )
        path.with_suffix(".tmp").write_text(json.dumps(row))
        path.with_suffix(".tmp").replace(path)
        print(f"{law} seed {seed}: {time.process_time() - began:.0f} CPU s", flush=True)

    def _adapt(self, backbone: Backbone, law: str, seed: int) -> dict[str, object]:
        """Trains, or takes the weights of a training that ended; what a row says of it."""
        config = replace(self.config, seed=seed, method=masks_of(law))
        if law == ALL:
            config = replace(config, full_share=1.0, keep_low=1.0, keep_high=1.0)
        needs_selector = parse_method(config.method).selected_by is not None
        selector = self.selector if needs_selector else None
        low = self._reachable(backbone, config)
        config = replace(config, keep_low=low, distill=law.endswith(DISTILLED))
        model = LiteModel(backbone, selector, config.lite_config(), config.backbone)
        clips, judge = self.train.split(config.held_out)
        with claimed(self.asked.out / "work" / f"{law}-{seed}", config.identity()) as files:
            training = Adaptation(config, model, clips, judge, files)
            half = -(-training.num_steps // LOOKS)
            schedule = Schedule(validate_every=half, save_every=20)
            advance(training, schedule, lambda done, loss: None)
            return {"best_step": training.finish().best_step, "keep_low": low}

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

    def _tests(self, backbone: Backbone) -> dict[str, tuple[Method, Any] | None]:
        """Method and setting of each cell that can be reached, by `method@ratio`; None: neither."""
        costs = CostModel(backbone)
        tests: dict[str, tuple[Method, Any] | None] = {"full@1": None}
        for name in self.asked.test:
            method = self._method(backbone, name)
            for ratio in self.asked.keep_ratios:
                try:
                    tests[f"{name}@{ratio:g}"] = method, method.setting(ratio, costs)
                except UnreachableBudgetError:
                    continue
        return tests

    @torch.no_grad()
    def _tested(
        self, backbone: Backbone, tests: dict[str, tuple[Method, Any] | None]
    ) -> dict[str, Bools]:
        """Which test videos are right, bool (n,), by cell."""
        right: dict[str, list[Bools]] = {}
        for batch in self.test.batches(backbone, BATCH):
            prepared: dict[Method, Any] = {}
            for cell, test in tests.items():
                reducer = None
                if test is not None:
                    method, setting = test
                    if method not in prepared:
                        prepared[method] = method.prepare(batch)
                    reducer = method.reducer(prepared[method], setting)
                predicted = backbone.run(batch.tokens, reducer).argmax(1)
                right.setdefault(cell, []).append((predicted == batch.labels).cpu().numpy())
        return {cell: np.concatenate(parts) for cell, parts in right.items()}


def masks_of(law: str) -> str:
    """The method whose masks a training law is; with all tokens kept, any."""
    return "uniform" if law == ALL else law.removesuffix(DISTILLED)


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
        column = f"{masks_of(law)}@{ratio}"
        own, none = tested.get(column), plain.get(column)
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
    shared = [cell for cell in seeds[0] if all(cell in seed for seed in seeds)]
    return {cell: np.stack([seed[cell] for seed in seeds]) for cell in shared}


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
    laws = "random,uniform,prior,lite,lite-spread,tome,vid-tldr"
    parser.add_argument(
        "--train",
        type=names,
        default=names(f"{NONE},lite,prior,random,uniform,lite-spread,tome,vid-tldr,{ALL}"),
    )
    parser.add_argument("--test", type=names, default=names(laws))
    parser.add_argument(
        "--keep-ratios",
        type=lambda text: list(map(float, text.split(","))),
        default=[0.5, 0.3, 0.2, 0.1],
    )
    parser.add_argument("--keep-ratio-range", default="0.1,0.6")
    parser.add_argument("--full-share", type=float, default=0.1)
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
