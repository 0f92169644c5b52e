"""The paper's questions on real footage, each clip judged by a backbone that never saw its source.

    python benchmarks/real_videos.py --data-root DIR --clips clips.csv --folds 2 --out OUT

`clips.csv` has the columns `path`, `label` and `group` (a group is one source video), and
docs/datasets.md makes it of UCF101's official files. The groups are dealt into folds. For each fold
a small VideoMAE is fine-tuned from the shipped one on the other folds' clips, its oracle teaches
selectors there, and every method is evaluated on the fold's own clips. Then all folds' rows are put
together and `real_videos_table.py` prints what they say, with intervals over the groups.

`--rendered-selector` adds transfer: that selector, taught on the rendered benchmark, and selectors
that learnt half of the classes; `--rendered-data` the first fold's selector on rendered videos.

Each step is a `lite-pipeline` command, printed as it runs. What is finished is not done again, so
an interrupted run goes on, and `--table-only` prints what is there.

A clip is a window of 64 frames, every fourth of them, wherever the video is longer: neither the
length of a clip nor its frame rate is shown, both of which give its class away in UCF101. Clips
that are shorter are left out and counted; none is padded.
"""

from __future__ import annotations

import argparse
import csv
import functools
import hashlib
import json
import shlex
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from real_videos_table import print_tables

from pipeline.backbones import load_backbone
from pipeline.cli import app
from pipeline.decode import DecodePool, DecodeRequest
from pipeline.errors import DecodeError
from selector.training.files import load_selector, save_selector

SAMPLING = "stride:4"
VALIDATION = 8
"""One in so many of a fold's training groups validates."""
BACKBONE = "synthetic"
HIRESCAM, RENDERED, HALVES = "hirescam", "rendered", ("classes-a", "classes-b")
"""Names of the further selectors."""
ORACLES = ("gradcam", "hirescam@embeddings", "gradcam:predicted", "hirescam@embeddings:predicted")
METHODS = (
    "random,uniform,attention,motion,motion-pixels,rlt,tome,sta,vid-tldr,"
    "oracle,oracle[embeddings,hirescam],oracle-predicted,oracle-predicted[embeddings,hirescam],"
    "oracle-second,lite,lite-spread,lite[hirescam],lite-spread[hirescam],prior-spread[hirescam]"
)
BACK = ("random", "lite[real]", "lite-spread[real]", "lite[rendered]", "lite-spread[rendered]")
"""Methods on rendered videos."""
KEEP_RATIOS = "1,.7,.5,.3,.2,.1"
SPEC = """\
name: {name}
format: csv
labels: {{names: [{classes}]}}
sampling: {sampling}
flip: true
"""


@dataclass(frozen=True)
class Clip:
    """One line of the list; `path` is below the data root."""

    path: str
    label: str
    group: str


def read_clips(path: Path) -> list[Clip]:
    """The list, sorted by path."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lacking = {"path", "label", "group"} - set(rows[0] if rows else ())
    if lacking:
        raise SystemExit(f"{path}: no column {', '.join(sorted(lacking))}")
    return sorted((Clip(r["path"], r["label"], r["group"]) for r in rows), key=lambda c: c.path)


def short_clips(clips: list[Clip], data_root: Path, cache: Path) -> set[str]:
    """Paths of those that do not decode or are shorter than the window; decoded once."""
    source = [[clip.path, (data_root / clip.path).stat().st_size] for clip in clips]
    found = json.loads(cache.read_text()) if cache.is_file() else {}
    if found.get("source") != source:
        requests = [
            DecodeRequest(path=str(data_root / c.path), size=48, short_side=48, sampling=SAMPLING)
            for c in clips
        ]
        short = []
        with DecodePool(0) as pool:
            for clip, decoded in zip(clips, pool.imap(requests), strict=True):
                if isinstance(decoded, DecodeError) or decoded.padded:
                    short.append(clip.path)
        found = {"source": source, "short": short}
        cache.write_text(json.dumps(found))
    return set(found["short"])


def deal(clips: list[Clip], folds: int) -> dict[str, tuple[int, int]]:
    """Each group's fold, and its place among the groups of its class and fold."""
    groups = defaultdict(set)
    for clip in clips:
        groups[clip.label].add(clip.group)
    crossing = [g for g in {c.group for c in clips} if sum(g in own for own in groups.values()) > 1]
    if crossing:
        raise SystemExit(f"groups of several classes: {', '.join(sorted(crossing)[:5])}")
    dealt = {}
    for own in groups.values():
        order = sorted(own, key=lambda g: hashlib.sha256(f"fold:{g}".encode()).digest())
        dealt |= {group: (i % folds, i // folds) for i, group in enumerate(order)}
    return dealt


class Run:
    """One run's folder and its finished steps."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def step(self, fold: str, name: str, *words: object) -> None:
        """Runs one command, unless it is finished."""
        said = [str(word) for word in words]
        done = self.out / fold / f"{name}.done"
        if done.is_file():
            if done.read_text() != shlex.join(said):
                raise SystemExit(f"{done} is of another command: name another --out\n{said}")
            return
        print("$ lite-pipeline", shlex.join(said), flush=True)
        # In this process: importing torch costs more than many a step.
        if code := app(said, standalone_mode=False):
            raise SystemExit(code)
        done.write_text(shlex.join(said))


def write_fold(
    out: Path, fold: int, clips: list[Clip], dealt: dict[str, tuple[int, int]], data_root: Path
) -> Path:
    """The fold as a dataset: `real.yaml`, and one with half of the classes for training each."""
    root = out / f"fold-{fold}" / "data"
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "clips").is_symlink():
        (root / "clips").symlink_to(data_root.resolve())
    classes = sorted({clip.label for clip in clips})
    half = {label: HALVES[i % 2] for i, label in enumerate(classes)}
    for name in ("real", *HALVES):
        with (root / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "split", "group"])
            for clip in clips:
                own, place = dealt[clip.group]
                split = "test" if own == fold else "train"
                if split == "train" and place % VALIDATION == 0:
                    split = "validation"
                if name == "real" or (split == "train" and half[clip.label] == name):
                    writer.writerow([f"clips/{clip.path}", clip.label, split, clip.group])
        spec = SPEC.format(name=name, classes=json.dumps(classes)[1:-1], sampling=SAMPLING)
        splits = ", ".join(f"{s}: [{name}.csv]" for s in ("all", "train", "validation", "test"))
        (root / f"{name}.yaml").write_text(f"{spec}splits: {{{splits}}}\neval_split: test\n")
    return root


def carry_over(selector: Path, taught_on: str, backbone: str, out: Path) -> None:
    """Signs a selector of one backbone over to another of the same shape.

    The files are checked against the backbone that the selector was taught on; what changes is
    whose selector it says it is. Whether it serves that one, nothing checks: that is measured.
    """
    if not out.exists():
        model = load_selector(selector, load_backbone(taught_on, device="meta"))
        digest = load_backbone(backbone, device="meta").digest
        model.config = replace(model.config, backbone_digest=digest)
        save_selector(model, out)


def do_fold(run: Run, data: Path, options: argparse.Namespace) -> None:
    """One fold: its backbone, oracle, selectors and evaluation."""
    at, step = data.parent, functools.partial(run.step, data.parent.name)
    real = ("--dataset", data / "real.yaml", "--data-root", data)
    step(
        *("backbone", "train-backbone", *real, "--out", at / "backbone", "--init", BACKBONE),
        *("--steps", options.steps, "--batch-size", 48, "--lr", "8e-4", "--device", "cpu"),
        *("--keep-ratio-range", "0.2,0.6", "--precision", options.precision, "--threads", 1),
        *("--validate-every", max(1, options.steps // 4)),
    )
    asked = [word for name in ORACLES for word in ("--oracle", name)]
    model = ("--backbone", at / "backbone", "--views", "1x1", "--batch-size", 32)
    step(
        "build", "build-oracle", *real, "--split", "train", "--store", at / "store", *model, *asked
    )
    step("selector", "train-selector", "--store", at / "store", "--out", at / "selector")
    step(
        *("selector-hirescam", "train-selector", "--store", at / "store"),
        *("--oracle", "hirescam@embeddings", "--out", at / HIRESCAM),
    )
    step(
        *("evaluation", "evaluate", *real, "--split", "test", "--out", at / "evaluation"),
        *("--selector", at / "selector", "--selector", f"{HIRESCAM}={at / HIRESCAM}"),
        *("--methods", METHODS, "--keep-ratios", KEEP_RATIOS, *model, "--brief"),
    )


def do_values(run: Run, data: Path) -> None:
    """One fold: the token values of the clips that its backbone never saw."""
    at, asked = data.parent, [word for name in ORACLES for word in ("--oracle", name)]
    run.step(
        *(at.name, "build-test", "build-oracle", "--dataset", data / "real.yaml"),
        *("--data-root", data, "--split", "test", "--store", at / "store-test"),
        *("--backbone", at / "backbone", "--views", "1x1", "--batch-size", 32, *asked),
        *("--embeddings-per-clip", 0),
    )


def do_transfer(run: Run, data: Path, rendered: Path) -> None:
    """One fold: selectors that learnt elsewhere, beside its own."""
    at, step = data.parent, functools.partial(run.step, data.parent.name)
    model = ("--backbone", at / "backbone", "--views", "1x1", "--batch-size", 32)
    for half in HALVES:
        of_half = ("--dataset", data / f"{half}.yaml", "--data-root", data, "--split", "train")
        store = at / f"store-{half}"
        oracle = ("--oracle", "hirescam@embeddings")
        step(f"build-{half}", "build-oracle", *of_half, "--store", store, *model, *oracle)
        step(f"selector-{half}", "train-selector", "--store", store, "--out", at / half)
    carry_over(rendered, BACKBONE, str(at / "backbone"), at / RENDERED)
    names = (HIRESCAM, RENDERED, *HALVES)
    selectors = [word for name in names for word in ("--selector", f"{name}={at / name}")]
    methods = [f"{method}[{name}]" for name in names for method in ("lite", "lite-spread")]
    step(
        *("transfer", "evaluate", "--dataset", data / "real.yaml", "--data-root", data),
        *("--split", "test", "--out", at / "transfer", *selectors, *model, "--brief"),
        *("--methods", ",".join(["random", *methods]), "--keep-ratios", KEEP_RATIOS),
    )


def do_back(run: Run, data: Path, options: argparse.Namespace) -> None:
    """One fold: its selector on rendered videos and the shipped backbone."""
    at = data.parent
    carry_over(at / HIRESCAM, str(at / "backbone"), BACKBONE, at / "real-for-rendered")
    selectors = ("--selector", f"real={at / 'real-for-rendered'}")
    run.step(
        *(at.name, "back", "evaluate", "--data-root", options.rendered_data, "--limit", 1000),
        *(
            "--out",
            at / "back",
            *selectors,
            "--selector",
            f"{RENDERED}={options.rendered_selector}",
        ),
        *("--methods", ",".join(BACK), "--keep-ratios", KEEP_RATIOS, "--batch-size", 32, "--brief"),
    )


def main() -> None:
    """Runs what is missing, then prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=400, help="of each backbone")
    parser.add_argument("--precision", default="bf16", help="of the trainings")
    parser.add_argument("--rendered-selector", type=Path, help="of the shipped backbone")
    parser.add_argument("--rendered-data", type=Path, help="to carry the selectors back to")
    parser.add_argument("--table-only", action="store_true", help="print what is there")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    listed = read_clips(options.clips)
    short = short_clips(listed, options.data_root, options.out / "short.json")
    clips = [clip for clip in listed if clip.path not in short]
    groups = {clip.group for clip in clips}
    print(f"{len(clips)} clips of {len(groups)} groups; {len(short)} shorter than the window")
    dealt = deal(listed, options.folds)
    run = Run(options.out)
    folds = [
        write_fold(options.out, fold, clips, dealt, options.data_root)
        for fold in range(options.folds)
    ]
    torch.set_num_threads(1)
    if not options.table_only:
        for data in folds:
            do_fold(run, data, options)
        for data in folds:
            do_values(run, data)
        for data in folds if options.rendered_selector else ():
            do_transfer(run, data, options.rendered_selector)
        for data in folds[:1] if options.rendered_data and options.rendered_selector else ():
            do_back(run, data, options)
    print_tables([data.parent for data in folds], HALVES)


if __name__ == "__main__":
    main()
