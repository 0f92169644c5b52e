"""What `lite-pipeline accelerate` does, step by step; each step is an ordinary command's function.

Every step resumes by itself, in a folder of its own below MODEL/work.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

import datasets_spec
from pipeline.cli import output
from pipeline.config import OracleConfig, RunConfig
from pipeline.errors import ConfigError, LiteError

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.backbones import Backbone
    from selector.deploy.choosing import Choice, Wanted
    from selector.deploy.config import LiteConfig
    from selector.evaluation.files import Evaluation

LOSS_RATIOS = (0.9, 0.8, 0.65, 0.5, 0.4, 0.3, 0.2)
"""Keep ratios tried where a loss is allowed; a speed-up has its own."""
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

    backbone: Backbone
    num_train: int
    num_judged: int


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
    from pipeline.clips.inputs import read_inputs
    from selector.statistics import FEW
    from selector.training.split import is_held_out

    spec = load_spec(task.dataset)
    plans: dict[str, pa.Table] = {}
    backbone = None
    needed = "have no label: name splits that do, or go without labels by --unlabelled"
    for split in dict.fromkeys([task.split, task.judge_split]):
        asked = OracleConfig(**task.clips(split))
        without_label = None if task.unlabelled else needed
        found = read_inputs(asked, task.run, spec, split, views=(1, 1), without_label=without_label)
        plans[split], backbone = found.plan, found.backbone
    assert backbone is not None
    learnt = plans[task.split]["video_id"].to_pylist()
    trains = [not is_held_out(video, task.held_out) for video in learnt]
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
    return Ready(backbone, num_train, num_judged)


def build_oracle(task: Task) -> Path:
    """The oracle of the videos to learn from.

    Raises:
        ConfigError: shards were given up, or the predictions hardly know the labels.
        LiteError: see `pipeline.oracle.build.build`.
    """
    from pipeline.oracle.build import build

    store = task.work / "store"
    target = "predicted" if task.unlabelled else OracleConfig.target
    asked = OracleConfig(**task.clips(task.split), target=target, shard_size=64)
    result = build(asked, str(store), task.run, progress_stream=output.progress_stream())
    if not result.complete:
        raise ConfigError(
            f"the oracle is not complete: {len(result.given_up)} shards were given up; the same "
            f"command tries again, and `lite-pipeline failures --store {store}` says why"
        )
    accuracy = result.accuracy
    if accuracy is not None and accuracy.near_chance and not task.unlabelled:
        raise ConfigError(
            f"the backbone is right about {accuracy.top1:.1%} of {accuracy.num_clips} clips, no "
            f"more than chance ({accuracy.chance:.1%}): are the labels this checkpoint's?"
        )
    return store


def train(task: Task, store: Path) -> Path:
    """The selector.

    Raises:
        LiteError: see `selector.training.train.train_selector`.
    """
    from pipeline import open_store
    from selector.training.config import TrainConfig
    from selector.training.train import train_selector

    out = task.work / "selector"
    config = TrainConfig(held_out=task.held_out)
    train_selector(open_store(str(store)), out, config, device=task.run.device)
    return out


def keep_ratios(backbone: Backbone, selector: Path | None, wanted: Wanted) -> tuple[float, ...]:
    """What is evaluated: for a speed-up the ratio that reaches it, and two for adaptive budgets.

    Args:
        backbone: whose cost counts.
        selector: what ranks the tokens, which costs too; None counts no such thing.
        wanted: the goal.

    Raises:
        ConfigError: one token costs more than the speed-up leaves.
    """
    if wanted.speedup is None:
        return (1.0, *LOSS_RATIOS)
    from selector.methods.cost import CostModel
    from selector.training.files import load_selector

    ranks = None if selector is None else load_selector(selector)
    costs, num_tokens = CostModel(backbone, ranks), backbone.grid.num_tokens
    most = costs.at(num_tokens).total / wanted.speedup
    if costs.at(1).total > most:
        raise ConfigError(
            f"{wanted.speedup:g} times cheaper is out of reach: with one token a view still costs "
            f"1/{costs.at(num_tokens).total / costs.at(1).total:.1f} of the full model"
        )
    low, high = 1, num_tokens  # of tokens: one that is cheap enough, one that is not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if costs.at(middle).total <= most else (low, middle)
    nums = sorted({num_tokens, min(num_tokens, round(1.4 * low)), low, max(1, round(0.6 * low))})
    return tuple(num / num_tokens for num in reversed(nums))


def usable(names: str, backbone: Backbone, selector: Path) -> tuple[str, ...]:
    """Those of the methods that serve this backbone; the others are named in a note.

    Raises:
        ConfigError: none does, or a name is unknown.
    """
    from selector.methods.names import LITE, split_names
    from selector.methods.registry import Parts, make_method, parse_method

    parts, found = Parts(backbone, selectors={LITE: str(selector)}), []
    for name in split_names(names):
        parsed = parse_method(name)
        try:
            method = make_method(parsed, parts)
        except ConfigError as error:
            output.note(f"left out: {error}")
            continue
        if method.unseen is not None:
            output.note(f"left out: a model in use does not see what {name} needs")
            continue
        if method.by_content:
            output.note(f"left out: {name} takes no budget, each clip's content decides")
            continue
        found.append(str(parsed))
    if not found:
        raise ConfigError(f"none of {names} serves this backbone")
    return tuple(found)


def evaluate(
    task: Task, selector: Path, methods: tuple[str, ...], ratios: tuple[float, ...], name: str
) -> Evaluation:
    """All candidates on the videos to judge by.

    Raises:
        ConfigError: shards were given up.
        LiteError: see `selector.evaluation.run.evaluate`.
    """
    from selector.evaluation.config import EvalConfig
    from selector.evaluation.run import evaluate as run_evaluation
    from selector.methods.names import LITE
    from selector.methods.registry import parse_method

    needs = any(parse_method(method).selected_by is not None for method in methods)
    asked = EvalConfig(
        **task.clips(task.judge_split),
        methods=methods,
        selectors={LITE: str(selector)} if needs else {},
        keep_ratios=ratios,
        num_seeds=1,
    )
    result = run_evaluation(
        asked, str(task.work / name), task.run, progress_stream=output.progress_stream()
    )
    if result.given_up:
        raise ConfigError(
            f"the evaluation is not complete: {len(result.given_up)} shards were given up "
            f"({result.given_up[0].reason}); the same command tries again"
        )
    return result.evaluation


def decide(task: Task, evaluation: Evaluation, wanted: Wanted) -> Choice:
    """The choice, over videos that nothing was learnt from.

    Raises:
        ConfigError: see `choose`.
    """
    from selector.deploy.choosing import choose
    from selector.evaluation.config import FULL
    from selector.evaluation.report.table import entries
    from selector.evaluation.results import read_outcomes
    from selector.training.split import halves, is_held_out

    outcomes, config = read_outcomes(evaluation), evaluation.config
    rates = evaluation.timing().clips_per_s(config)
    lines = entries(outcomes, evaluation.info, rates)
    videos = outcomes.video_ids.tolist()
    if task.judge_split == task.split:
        kept = [i for i, video in enumerate(videos) if is_held_out(video, task.held_out)]
        lines = [replace(line, top1=line.top1[kept], top5=line.top5[kept]) for line in lines]
        videos = [videos[i] for i in kept]
    full = next(line for line in lines if line.method == FULL)
    others = [line for line in lines if line is not full]
    return choose(others, full, wanted, halves(videos))


def adaptive(
    choice: Choice, wanted: Wanted, config: LiteConfig, selector: Path, evaluation: Evaluation
) -> LiteConfig | None:
    """The model with a budget for each clip, where that is shown to beat a fixed one of its cost.

    Args:
        choice: a fixed budget of the selector alone.
        wanted: the goal, which the adaptive budget must meet too.
        config: the model's with that.
        selector: folder of the selector, whose `lite.json` is written.
        evaluation: what it was chosen on.
    """
    from selector.budgets.calibrate import BudgetRequest, calibrate
    from selector.budgets.pick import Goal
    from selector.budgets.rows import calibration_rows

    ratios = [ratio for ratio in evaluation.config.keep_ratios if ratio < 1]
    assert choice.line.keep_ratio is not None
    at = ratios.index(choice.line.keep_ratio)
    smaller = ratios[at + 1 :]
    if not smaller:
        return None
    assert choice.full.gmacs is not None
    if wanted.speedup is not None:
        base, goal = ratios[max(0, at - 1)], Goal(target_gmacs=choice.full.gmacs / wanted.speedup)
    else:
        assert wanted.max_loss is not None
        left = wanted.max_loss + choice.against_full.mean
        base, goal = ratios[at], Goal(max_loss=max(0.0, left))
    config.save(selector)
    small = smaller[0]
    for asked in (
        BudgetRequest(
            goal=goal, base_ratio=base, small_ratio=small, confidence=f"backbone:{small}"
        ),
        BudgetRequest(goal=goal, base_ratio=base, kind="mass"),
    ):
        try:
            found = calibrate(calibration_rows(selector, evaluation), asked)
        except LiteError as error:
            output.note(f"no adaptive budget ({asked.kind}): {error}")
            continue
        if found.held_out.gain_low > 0 and not found.warnings:
            return replace(found.config, adaptive=True)
        output.note(
            f"no adaptive budget ({asked.kind}): on the other half "
            f"{100 * found.held_out.gain:+.2f} points "
            f"[{100 * found.held_out.gain_low:+.2f}, {100 * found.held_out.gain_high:+.2f}] "
            "against fixed budgets of its cost"
        )
    return None


def chosen_config(task: Task, choice: Choice, selector: Path) -> LiteConfig:
    """How a model must be configured to do what was chosen.

    The comparison's `lite-spread` is `lite` with a spread.
    """
    from selector.deploy.config import LiteConfig
    from selector.methods.names import LITE, LITE_SPREAD
    from selector.methods.registry import parse_method
    from selector.methods.spread import DEFAULT_SPREAD
    from selector.training.files import read_config

    assert choice.line.keep_ratio is not None
    parsed = parse_method(choice.line.method)
    is_spread = parsed.name == LITE_SPREAD
    learnt = read_config(selector).trained_on
    assert learnt is not None
    return LiteConfig(
        method=str(replace(parsed, name=LITE) if is_spread else parsed),
        spread=DEFAULT_SPREAD if is_spread else 0.0,
        keep_ratio=choice.line.keep_ratio,
        precision=task.precision,
        sampling=learnt.sampling,
    )


def export(task: Task, config: LiteConfig, selector: Path, out: Path) -> None:
    """Write the model; `out` is then one, or as it was.

    Raises:
        LiteError: see `LiteModel.save_pretrained`.
    """
    from pipeline.backbones import load_backbone
    from selector.deploy.model import LiteModel
    from selector.training.files import load_selector

    backbone = load_backbone(task.backbone, task.revision, precision=task.precision)
    trained = load_selector(selector) if config.needs_selector else None
    model = LiteModel(backbone, trained, config, task.backbone, task.revision)
    model.save_pretrained(out)


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
