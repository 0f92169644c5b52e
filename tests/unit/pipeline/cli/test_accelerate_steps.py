"""The steps of `accelerate` that decide something: splits, class order, keep ratios, candidates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from datasets_spec import load_spec
from datasets_spec.read import read_label_names, read_videos
from pipeline.backbones import load_backbone
from pipeline.cli import accelerate_inputs as inputs
from pipeline.cli import accelerate_steps as steps
from pipeline.config import RunConfig
from pipeline.errors import ConfigError
from selector.deploy.choosing import Wanted
from selector.methods.cost import CostModel
from selector.training.files import save_selector
from selector.training.split import is_held_out
from tests.lite_models import make_selector


def make_task(data: Path, work: Path, backbone: object, **changes) -> inputs.Task:
    fields = {
        "backbone": str(backbone),
        "revision": None,
        "dataset": "folder",
        "split": "all",
        "judge_split": "all",
        "limit": None,
        "precision": "fp32",
        "sampling": "",
        "unlabelled": False,
        "run": RunConfig(data_root=str(data)),
        "work": work,
    }
    return inputs.Task(**(fields | changes))


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    ("there", "asked", "expected"),
    [
        (("a/1.mp4",), (None, None), ["all", "all"]),
        (("train/a/1.mp4", "val/a/2.mp4", "test/a/3.mp4"), (None, None), ["train", "validation"]),
        (("train/a/1.mp4", "test/a/3.mp4"), (None, None), ["train", "test"]),
        (("train/a/1.mp4", "val/a/2.mp4"), (None, "train"), ["train", "train"]),
        (("train/a/1.mp4", "val/a/2.mp4"), ("val", None), ["validation", "validation"]),
    ],
)
def test_what_is_judged_by_was_not_learnt_from(tmp_path, there, asked, expected):
    touch(tmp_path, *there)
    assert inputs.settle_splits("folder", str(tmp_path), *asked) == expected
    held_out = inputs.SHARED_HELD_OUT if expected[0] == expected[1] else 0.1
    task = make_task(tmp_path, tmp_path, "x", split=expected[0], judge_split=expected[1])
    assert task.held_out == held_out


def test_a_model_among_the_classes_would_be_one(tmp_path):
    (tmp_path / "videos").mkdir()
    with pytest.raises(ConfigError, match="folders are read as classes"):
        inputs.check_apart(
            "folder", str(tmp_path / "videos"), tmp_path / "videos" / "new" / "model"
        )
    inputs.check_apart("folder", str(tmp_path / "videos"), tmp_path / "videos-model")
    inputs.check_apart("ssv2", str(tmp_path / "videos"), tmp_path / "videos" / "model")


@pytest.mark.parametrize(("judge_split", "judges_all"), [("all", False), ("validation", True)])
def test_nobody_is_told_of_learnt_videos_that_do_not_judge(
    monkeypatch, tmp_path, judge_split, judges_all
):
    seen = {}

    def evaluate(*asked, **options):
        seen.update(options)
        return SimpleNamespace(given_up=[], evaluation=None)

    monkeypatch.setattr("selector.evaluation.run.evaluate", evaluate)
    task = make_task(tmp_path, tmp_path / "work", "b", judge_split=judge_split)
    steps.evaluate(task, tmp_path, ("uniform",), (1.0, 0.5), "evaluation")
    assert seen["judges_all"] == judges_all


def test_a_group_is_not_learnt_from_and_judged_by(tiny_backbone, tmp_path):
    rows = [f"{i}.mp4,class {i % 5},g{i // 2}" for i in range(200)]
    (tmp_path / "videos.csv").write_text("\n".join(["path,label,group", *rows]))
    task = make_task(tmp_path, tmp_path / "work", tiny_backbone, dataset="csv", unlabelled=True)
    task = replace(task, run=replace(task.run, accept_classes=True))
    ready = inputs.check(task)
    judged = 2 * sum(is_held_out(f"g{group}", task.held_out) for group in range(100))
    assert ready == inputs.Ready(200 - judged, judged, num_copies=0)


def test_a_sorted_order_gives_way_to_the_checkpoints(tiny_backbone, tmp_path):
    backbone = load_backbone(str(tiny_backbone))
    backbone.label_names = ["run", "jump", "Arm wrestling", "dive", "walk"]
    data = touch(tmp_path / "data", "Arm_Wrestling/1.mp4", "jump/2.mp4", "run/3.mp4")
    task = make_task(data, tmp_path / "work", tiny_backbone)
    changed = inputs.in_checkpoint_order(task, backbone)
    spec = load_spec(changed.dataset)
    assert read_label_names(spec, data) == ["run", "jump", "Arm_Wrestling", "dive", "walk"]
    labels = {video.video_id: video.label for video in read_videos(spec, data, "all")}
    assert {name.split("/")[-1]: label for name, label in labels.items()} == {
        "1": 2, "2": 1, "3": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("names", "theirs"),
    [
        (["jump", "swim"], ["run", "jump", "walk", "dive", "sit"]),  # one that it does not know
        (["0", "1"], ["1", "0", "2", "3", "4"]),  # ids, whose order means something
        (["jump", "run"], None),  # it names none
        (["jump", "run"], ["jump", "run"]),  # the same already
        (["a_b", "ab"], ["ab", "a_b"]),  # told apart only by what folding drops
    ],
)
def test_another_order_is_not_invented(tiny_backbone, tmp_path, names, theirs):
    backbone = load_backbone(str(tiny_backbone))
    backbone.label_names = theirs
    data = touch(tmp_path / "data", *(f"{name}/1.mp4" for name in names))
    task = make_task(data, tmp_path / "work", tiny_backbone)
    assert inputs.in_checkpoint_order(task, backbone) is task
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("speedup", [1.05, 1.3, 2.0])
def test_the_ratio_of_a_speed_up_is_the_largest_that_reaches_it(tiny_backbone, tmp_path, speedup):
    backbone = load_backbone(str(tiny_backbone))
    selector = make_selector(backbone, str(tiny_backbone))
    save_selector(selector, tmp_path)
    costs, num = CostModel(backbone, selector), backbone.grid.num_tokens
    cheap = [n for n in range(1, num) if costs.at(n).total <= costs.at(num).total / speedup]
    if not cheap:
        with pytest.raises(ConfigError, match="out of reach: with one token"):
            steps.keep_ratios(backbone, tmp_path, Wanted(speedup=speedup))
        return
    ratios = steps.keep_ratios(backbone, tmp_path, Wanted(speedup=speedup))
    assert max(cheap) / num in ratios
    assert ratios[0] == 1
    assert min(ratios) <= max(cheap) / num
    assert list(ratios) == sorted(set(ratios), reverse=True)


def test_methods_that_do_not_fit_are_left_out(tiny_backbone, tmp_path):
    backbone = load_backbone(str(tiny_backbone))
    save_selector(make_selector(backbone, str(tiny_backbone)), tmp_path)
    found = steps.usable("lite,uniform,sta,motion-vectors,lite-spread+tome", backbone, tmp_path)
    assert "lite" in found
    assert "lite-spread+tome" in found
    # More tubelets than there are, and the file that a model in use does not see.
    assert not {"sta", "motion-vectors"} & {*found}
    with pytest.raises(ConfigError, match="none of sta serves this backbone"):
        steps.usable("sta", backbone, tmp_path)
