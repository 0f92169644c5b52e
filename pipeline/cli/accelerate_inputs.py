"""What `lite-pipeline accelerate` works on: its videos, splits and classes, checked first."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

import datasets_spec
from pipeline.config import OracleConfig, RunConfig
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.backbones import Backbone

MIN_TRAIN = 30
"""Videos to learn from, at the least."""
SHARED_HELD_OUT = 0.5
"""Share of the videos that judge where no other split does."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What was asked for, with the splits settled."""

    backbone: str
    revision: str | None
    dataset: str
    """Name, or a YAML."""
    split: str
    """Learnt from."""
    judge_split: str
    """Judged on; the same split where there is no other, of which a part is then not learnt."""
    limit: int | None
    precision: str
    sampling: str
    unlabelled: bool
    run: RunConfig
    work: Path

    @property
    def held_out(self) -> float:
        """Share of the split's videos that the selector is not trained on."""
        from selector.training.config import TrainConfig

        return SHARED_HELD_OUT if self.judge_split == self.split else TrainConfig.held_out

    def clips(self, split: str) -> dict[str, Any]:
        """Fields of a configuration: which clips through which backbone."""
        return {
            "dataset": self.dataset,
            "backbone": self.backbone,
            "revision": self.revision,
            "split": split,
            "limit": self.limit,
            "num_segments": 1,
            "num_crops": 1,
            "precision": self.precision,
            "sampling": self.sampling,
        }


class Ready(NamedTuple):
    """What the checks found."""

    num_train: int
    num_judged: int
    num_copies: int
    """Videos whose file has the same content as another's."""


def settle_splits(dataset: str, data_root: str, split: str | None, judge: str | None) -> list[str]:
    """The split to learn from, and the one to judge on; the same where there is but one.

    Raises:
        DatasetSpecError: the dataset, or no such split.
    """
    from datasets_spec import default_split, load_spec
    from datasets_spec.read import canonical_split, list_splits

    spec = load_spec(dataset)
    learnt = canonical_split(spec, split or default_split(spec, data_root, "train"))
    if judge is not None:
        return [learnt, canonical_split(spec, judge)]
    there = list_splits(spec, data_root)
    # `all` would hold the videos that were learnt from.
    others = [
        name for name in ("validation", spec.eval_split, "test") if name not in (learnt, "all")
    ]
    return [learnt, next((name for name in others if name in there), learnt)]


def check_apart(dataset: str, data_root: str, out: Path) -> None:
    """Refuse a place for the model among folders that are classes: it would be one the next time.

    Raises:
        ConfigError: it lies there.
        DatasetSpecError: no such dataset.
    """
    from datasets_spec import load_spec

    inside = out.resolve().is_relative_to(Path(data_root).resolve())
    if load_spec(dataset).format == "folder" and inside:
        raise ConfigError(
            f"--out {out} lies in --data-root {data_root}, where folders are read as classes and "
            "searched for videos: name one outside of it"
        )


def in_checkpoint_order(task: Task, backbone: Backbone) -> Task:
    """The task with the classes in the checkpoint's order, where the dataset's own is only sorted.

    Nobody chose a sorted order, and the names say which class is which; some may have no video. A
    dataset that has an order of its own, or other names, stays as it is.
    """
    from datasets_spec import load_spec
    from datasets_spec.names import are_ids, fold, folds_apart
    from datasets_spec.read import read_label_names
    from pipeline.store.root import Root

    spec, theirs = load_spec(task.dataset), backbone.label_names
    if spec.labels.source != "sorted" or theirs is None:
        return task
    ours = read_label_names(spec, task.run.data_root)
    spelled = {fold(name): name for name in ours}
    known = spelled.keys() <= {fold(name) for name in theirs}
    if ours == theirs or are_ids(ours) or not (known and folds_apart(ours) and folds_apart(theirs)):
        return task
    values = yaml.safe_load(spec.source.read_text())
    values["name"] = f"{spec.name}-by-class-name"  # a shipped one is not another's
    values["labels"] = {"names": [spelled.get(fold(name), name) for name in theirs]}
    task.work.mkdir(parents=True, exist_ok=True)
    Root(task.work).put("dataset.yaml", yaml.safe_dump(values, sort_keys=False).encode())
    return replace(task, dataset=str(task.work / "dataset.yaml"))


def check(task: Task) -> Ready:
    """Everything that can be known to be wrong before the first video is opened.

    Raises:
        ConfigError: one class, or too few videos.
        LiteError: the dataset and the checkpoint do not go together; see `read_inputs`.
    """
    from datasets_spec import load_spec
    from datasets_spec.alike import file_sizes, same_content
    from pipeline.clips.inputs import read_inputs
    from pipeline.clips.plan import units
    from selector.statistics import FEW
    from selector.training.split import is_held_out

    spec = load_spec(task.dataset)
    plans: dict[str, pa.Table] = {}
    needed = "have no label: name splits that do, or go without labels by --unlabelled"
    for split in dict.fromkeys([task.split, task.judge_split]):
        asked = OracleConfig(**task.clips(split))
        without_label = None if task.unlabelled else needed
        found = read_inputs(asked, task.run, spec, split, views=(1, 1), without_label=without_label)
        plans[split] = found.plan
    trains = [not is_held_out(unit, task.held_out) for unit in units(plans[task.split])]
    judged = plans[task.judge_split]
    num_judged = judged.num_rows if task.judge_split != task.split else trains.count(False)
    num_train = sum(trains)
    if num_train < MIN_TRAIN or num_judged < FEW:
        raise ConfigError(
            f"{num_train} videos to learn from and {num_judged} to judge by are too few, "
            f"{MIN_TRAIN} and {FEW} the least (a few hundred tell more): give more videos, or a "
            "method that needs none (`lite-pipeline export-lite --backbone CHECKPOINT --method "
            "uniform`)"
        )
    for split, plan in plans.items():
        classes = set(plan["label"].to_pylist())
        if len(classes) < 2 and not task.unlabelled:
            raise ConfigError(
                f"all {plan.num_rows} videos of {task.dataset}/{split} are of one class, and any "
                "model is right about those: give videos of several classes"
            )
    root = Path(task.run.data_root)
    paths = {path for plan in plans.values() for path in plan["path"].to_pylist()}
    copies = same_content(root, file_sizes(root, paths))
    return Ready(num_train, num_judged, sum(map(len, copies)))


def list_unlabelled(task: Task, backbone: Backbone) -> Task:
    """The task on a table of all videos below its data root, with the labels left empty.

    Raises:
        ConfigError: there are too few, or `work` belongs to another folder of videos.
    """
    from selector.deploy.predict import list_videos
    from selector.statistics import FEW

    root = Path(task.run.data_root).absolute()
    if not root.is_dir():
        raise ConfigError(f"{root} is no folder of videos")
    paths = [Path(path).relative_to(root).as_posix() for path in list_videos([str(root)])]
    if len(paths) < MIN_TRAIN + FEW:
        raise ConfigError(
            f"{root} holds {len(paths)} videos, and {MIN_TRAIN + FEW} are the least (a few hundred "
            "tell more)"
        )
    folder = task.work / "unlabelled"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "videos"
    if not link.is_symlink():
        link.symlink_to(root, target_is_directory=True)
    if link.resolve() != root.resolve():
        raise ConfigError(
            f"{task.work} was begun on the videos in {link.resolve()}: choose another --out, or "
            "remove that folder"
        )
    task = replace(task, run=replace(task.run, data_root=str(folder)))
    return _with_table(task, backbone, "videos", [(f"videos/{path}", "") for path in paths])


def label_by_prediction(task: Task, backbone: Backbone, store: Path) -> Task:
    """The task on the same videos with the full model's predictions for labels.

    Top-1 is then the agreement with the full model.
    """
    from pipeline import open_store
    from pipeline.errors import ClipStatus

    clips = open_store(str(store)).clips(["path", "status", "prediction"])
    clips, names = clips[clips["status"] == ClipStatus.OK], _class_names(backbone)
    rows = zip(clips["path"], clips["prediction"], strict=True)
    return _with_table(task, backbone, "predicted", [(path, names[k]) for path, k in rows])


def _class_names(backbone: Backbone) -> list[str]:
    return backbone.label_names or [f"LABEL_{i}" for i in range(backbone.num_classes)]


def _with_table(task: Task, backbone: Backbone, name: str, rows: Iterable[tuple[str, str]]) -> Task:
    """The task on a table in its data root, with a specification of its own."""
    from pipeline.store.root import Root

    table = io.StringIO()
    csv.writer(table).writerows([("path", "label"), *rows])
    spec = yaml.safe_load((Path(datasets_spec.__file__).parent / "csv.yaml").read_text())
    spec |= {
        "name": "unlabelled",
        "labels": {"names": _class_names(backbone)},
        "splits": {"all": [f"{name}.csv"]},
    }
    root = Root(task.run.data_root)
    root.put(f"{name}.csv", table.getvalue().encode())
    root.put(f"{name}.yaml", yaml.safe_dump(spec, sort_keys=False).encode())
    place = str(Path(task.run.data_root) / f"{name}.yaml")
    return replace(task, dataset=place, split="all", judge_split="all")
