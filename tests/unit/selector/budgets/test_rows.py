"""Which rows of an evaluation a model may be calibrated on."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.clips.grid import TokenGrid
from pipeline.errors import ConfigError, StoreError
from selector.budgets.levels import SecondOpinion
from selector.budgets.rows import calibration_rows
from selector.deploy.config import LiteConfig
from selector.evaluation.files import Evaluation
from selector.evaluation.results import read_outcomes
from selector.training.config import SelectorConfig, TrainedOn
from selector.training.files import save_selector, selector_digest
from selector.training.model import TokenSelector
from selector.training.split import is_held_out
from tests.evaluations import make_evaluation, make_lite_evaluation

TRAINED_ON = TrainedOn(
    dataset="csv",
    split="train",
    plan_digest="d" * 64,
    sampling="uniform",
    num_segments=1,
    num_crops=1,
    held_out=0.4,
)


def save_model(folder: Path, seed: int = 0, trained_on: TrainedOn | None = TRAINED_ON) -> Path:
    """An untrained selector's folder."""
    torch.manual_seed(seed)
    config = SelectorConfig(
        num_layers=1,
        width=1,
        hidden_size=4,
        grid=TokenGrid(1, 2, 5),
        backbone="some/checkpoint",
        backbone_digest="b" * 64,
        store_fingerprint="f" * 64,
        oracle="none",
        trained_on=trained_on,
    )
    save_selector(TokenSelector(config), folder)
    return folder


def evaluate(folder: Path, model: Path, methods=("lite",), **changes) -> Evaluation:
    """Made-up rows under the model's own digest."""
    digests = {method.replace("-spread", ""): selector_digest(model) for method in methods}
    evaluation, _ = make_lite_evaluation(folder, methods, selector_digests=digests, **changes)
    return evaluation


@pytest.fixture
def model(tmp_path):
    return save_model(tmp_path / "model")


def test_every_clip_of_another_split_is_a_row(model, tmp_path):
    rows = calibration_rows(model, evaluate(tmp_path / "e", model))
    assert (len(rows.video_ids), rows.num_failed, rows.num_trained_on) == (400, 0, 0)
    assert rows.levels.method == "lite"
    assert rows.levels.keep_ratios == (0.1, 0.3, 0.5, 1.0)
    assert rows.clip_ids.tolist() == list(range(400))


def test_views_are_counted_and_clips_of_one_group_belong_together(model, tmp_path, monkeypatch):
    def grouped(*arguments, **options):
        outcomes = read_outcomes(*arguments, **options)
        ends = [f"group {video[-1]}" for video in outcomes.video_ids]
        return replace(outcomes, groups=np.array(ends, object))

    evaluation = evaluate(tmp_path / "e", model, num_videos=120, views=(2, 3))
    rows = calibration_rows(model, evaluation)
    assert rows.levels.views == 6
    assert rows.units.tolist() == rows.video_ids.tolist()
    monkeypatch.setattr("selector.budgets.rows.read_outcomes", grouped)
    rows = calibration_rows(model, evaluation)
    assert rows.units.tolist() == [f"group {video[-1]}" for video in rows.video_ids]


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"split": "train"}, True),
        ({"split": "validation"}, False),
        ({"split": "train", "dataset": "ssv2"}, False),
    ],
)
def test_videos_that_trained_the_selector_are_left_out_by_their_id(model, tmp_path, changes, same):
    rows = calibration_rows(model, evaluate(tmp_path / "e", model, **changes))
    videos = [f"v{i:05d}" for i in range(400)]
    held_out = [i for i, video in enumerate(videos) if is_held_out(video, 0.4) or not same]
    assert rows.clip_ids.tolist() == held_out
    assert rows.video_ids.tolist() == [videos[i] for i in held_out]
    assert rows.num_trained_on == 400 - len(held_out)
    assert len(rows.levels.label_rank) == len(held_out)
    if same:
        assert 110 < len(held_out) < 210


def test_a_selector_that_no_store_trained_has_seen_nothing(tmp_path):
    model = save_model(tmp_path / "model", trained_on=None)
    rows = calibration_rows(model, evaluate(tmp_path / "e", model, split="train"))
    assert rows.num_trained_on == 0


def test_too_few_videos_are_refused_with_the_reason(tmp_path):
    model = save_model(tmp_path / "model", trained_on=replace(TRAINED_ON, held_out=0.1))
    with pytest.raises(ConfigError, match=r"has \d\d videos .*3\d\d clips are left out: .*train"):
        calibration_rows(model, evaluate(tmp_path / "e", model, split="train"))
    for num, few in ((99, True), (100, False)):
        evaluation = evaluate(tmp_path / str(num), model, num_videos=num)
        if few:
            with pytest.raises(ConfigError, match="has 99 videos to calibrate on, and what"):
                calibration_rows(model, evaluation)
        else:
            assert len(calibration_rows(model, evaluation).video_ids) == 100


def test_views_are_rows_and_do_not_make_videos(model, tmp_path):
    """A model sets a budget per clip; but the views of 50 videos are no more than 50 videos."""
    with pytest.raises(ConfigError, match="has 50 videos to calibrate on"):
        calibration_rows(model, evaluate(tmp_path / "few", model, num_videos=50, views=(2, 2)))
    evaluation, easy = make_lite_evaluation(
        tmp_path / "e",
        num_videos=120,
        views=(1, 2),
        selector_digests={"lite": selector_digest(model)},
    )
    rows = calibration_rows(model, evaluation)
    assert rows.clip_ids.tolist() == list(range(240))
    assert rows.video_ids.tolist() == [f"v{i // 2:05d}" for i in range(240)]
    assert rows.levels.is_right[:, 1].tolist() == easy.tolist()  # of each view, not of their mean


def test_the_rows_are_those_of_the_models_own_selector_and_spread(tmp_path):
    one, other = (save_model(tmp_path / name, seed) for seed, name in enumerate("ab"))
    methods = ("lite", "lite-spread", "lite[x]", "lite-spread[x]")
    digests = {"lite": selector_digest(one), "lite[x]": selector_digest(other)}
    evaluation, _ = make_lite_evaluation(tmp_path / "e", methods, selector_digests=digests)
    for folder, spread, method in [
        (one, 0.0, "lite"),
        (one, 2.0, "lite-spread"),
        (other, 0.0, "lite[x]"),
        (other, 2.0, "lite-spread[x]"),
    ]:
        LiteConfig(spread=spread).save(folder)
        assert calibration_rows(folder, evaluation).levels.method == method
    LiteConfig(method="lite+tome").save(one)
    with pytest.raises(ConfigError, match=r"has method lite\+tome, .* go with lite alone"):
        calibration_rows(one, evaluation)
    LiteConfig(spread=1.5).save(one)
    with pytest.raises(ConfigError, match=r"has spread 1\.5, .* 0 \(lite\) and 2 \(lite-spread\)"):
        calibration_rows(one, evaluation)


def command_in(error: pytest.ExceptionInfo[ConfigError]) -> list[str]:
    return shlex.split(str(error.value).splitlines()[-1])


@pytest.mark.parametrize(
    ("spread", "name", "had"),
    [(0.0, "lite", "lite there is another selector"), (2.0, "lite-spread", "no lite-spread there")],
)
def test_rows_that_are_not_there_are_named_with_the_command_that_makes_them(
    model, tmp_path, spread, name, had
):
    LiteConfig(spread=spread).save(model)
    evaluation, _ = make_lite_evaluation(tmp_path / "e")
    with pytest.raises(ConfigError) as caught:
        calibration_rows(model, evaluation)
    assert had in str(caught.value)
    assert command_in(caught) == [
        *("lite-pipeline", "evaluate", "--data-root", "DATA", "--out", "NEW"),
        *("--dataset", "csv", "--split", "all", "--backbone", "some/checkpoint"),
        *("--sampling", "uniform", "--views", "1x1", "--selector", str(model)),
        *("--methods", name),
        *("--keep-ratios", "1,0.5,0.3,0.1"),
    ]


def test_a_keep_ratio_that_is_not_there_is_named_with_the_command_that_makes_it(model, tmp_path):
    rows = calibration_rows(model, evaluate(tmp_path / "e", model))
    assert [rows.level(ratio) for ratio in (0.1, 0.5, 1.0)] == [0, 2, 3]
    with pytest.raises(ConfigError, match=r"no rows of lite at keep ratio 0\.7\. ") as caught:
        rows.level(0.7)
    assert command_in(caught)[-2:] == ["--keep-ratios", "1,0.7,0.5,0.3,0.1"]


@pytest.mark.parametrize("where", ["trained", "lite.json"])
def test_an_evaluation_of_other_frames_is_refused(tmp_path, where):
    trained_on = replace(TRAINED_ON, sampling="stride:4") if where == "trained" else TRAINED_ON
    model = save_model(tmp_path / "model", trained_on=trained_on)
    if where == "lite.json":
        LiteConfig(sampling="stride:4").save(model)
    with pytest.raises(ConfigError, match="by uniform, and the model is served stride:4"):
        calibration_rows(model, evaluate(tmp_path / "e", model))
    rows = calibration_rows(model, evaluate(tmp_path / "f", model, sampling="stride:4"))
    assert len(rows.video_ids) == 400


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_evaluation_in_another_precision_than_the_models_is_said(
    model, tmp_path, caplog, precision
):
    calibration_rows(model, evaluate(tmp_path / "e", model, precision=precision))
    said = "is in bf16, and the model answers in fp32 unless asked otherwise" in caplog.text
    assert said == (precision == "bf16")


def test_another_methods_failures_cost_no_row_and_ones_own_do(model, tmp_path):
    logits = np.zeros((120, 4, 3))  # full, random (2 seeds), lite
    evaluation = make_evaluation(
        tmp_path / "e",
        logits,
        [0] * 120,
        methods=("random", "lite"),
        failed=[(3, 1), (5, 3), (7, 0)],
        selector_digests={"lite": selector_digest(model)},
        shard_size=64,
    )
    rows = calibration_rows(model, evaluation)
    assert set(range(120)) - set(rows.clip_ids.tolist()) == {5, 7}
    assert rows.num_failed == 2


def test_an_unfinished_evaluation_is_refused(model, tmp_path):
    evaluation = make_evaluation(
        tmp_path / "e",
        np.zeros((300, 2, 3)),
        [0] * 300,
        methods=("lite",),
        shards=[0, 1, 2],
        selector_digests={"lite": selector_digest(model)},
        shard_size=64,
    )
    with pytest.raises(StoreError, match=r"unfinished \(108 clips are missing\)"):
        calibration_rows(model, evaluation)


def test_a_second_opinion_costs_the_rows_that_it_has_none_of(model, tmp_path):
    rows = calibration_rows(model, evaluate(tmp_path / "e", model))
    confidence = np.linspace(0, 1, 400)
    confidence[[5, 9]] = np.nan
    found = rows.with_opinion("hf:x", SecondOpinion(confidence, 3.0))
    assert set(range(400)) - set(found.clip_ids.tolist()) == {5, 9}
    assert found.num_failed == 2
    assert found.levels.opinions["hf:x"].confidence.tolist() == confidence[found.clip_ids].tolist()
    confidence[99:] = np.nan
    with pytest.raises(ConfigError, match="has 97 videos to calibrate on"):
        rows.with_opinion("hf:x", SecondOpinion(confidence, 3.0))
