"""`lite-pipeline calibrate`: from a store's labelled videos to a model that adapts."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.backbones import load_backbone
from pipeline.cli import app
from pipeline.errors import ClipStatus, ConfigError
from selector.budgets.calibrate import Calibrated, calibrate_mass_budget, calibrate_threshold_budget
from selector.budgets.pick import Goal
from selector.budgets.validation import LabelledClips, choose_clips, measure
from selector.deploy.model import LiteModel
from selector.training.files import load_selector, save_selector
from selector.training.split import halves, is_held_out
from tests.lite_models import make_model
from tests.stores import make_store
from tests.videos import write_video

NUM_CLIPS = 12


def noise(seed: int):
    def frame(number: int, height: int, width: int) -> np.ndarray:
        rng = np.random.default_rng([seed, number])
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)

    return frame


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    (root / "videos").mkdir()
    for i in range(NUM_CLIPS - 1):  # the last one is missing
        write_video(root / "videos" / f"video{i:04d}.mp4", 6, 32, 32, frame=noise(i))
    return root


def build(folder, backbone, **changes):
    digest = changes.pop("digest", backbone.digest)
    return make_store(
        folder,
        NUM_CLIPS,
        failed={2: ClipStatus.DECODE_ERROR},
        grid=backbone.grid,
        hidden_size=backbone.hidden_size,
        label_names=[f"class {i}" for i in range(5)],
        backbone_digest=digest,
        **changes,
    )


@pytest.fixture(scope="module")
def backbone(tiny_backbone):
    return load_backbone(str(tiny_backbone))


@pytest.fixture(scope="module")
def store(backbone, tmp_path_factory):
    return build(tmp_path_factory.mktemp("store") / "s", backbone)


@pytest.fixture
def model(tiny_backbone, tmp_path):
    save_selector(make_model(tiny_backbone).selector, tmp_path / "model")
    return tmp_path / "model"


def run(store, data_root, model, *options):
    command = ["calibrate", "--store", store.root, "--data-root", data_root, "--model", model]
    return CliRunner().invoke(app, [str(a) for a in [*command, "--device", "cpu", *options]])


def test_the_model_gets_a_budget_it_can_use(store, data_root, model):
    lite = LiteModel.from_pretrained(model)
    target = lite.cost(3).total + lite.cost(1).blocks
    options = ["--small-ratio", "0.25", "--confidence", "backbone:0.2", "--json"]
    result = run(store, data_root, model, "--target-gflops", target, *options)
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    # One clip failed in the store, one video is missing now.
    assert (shown["num_rows"], shown["num_failed"]) == (10, 1)
    assert shown["gmacs"] <= target < lite.cost(4).total + lite.cost(1).blocks
    assert set(shown["shares"]) <= {"2", "4"}
    assert shown["held_out"]["num_rows"] == 10
    calibrated = LiteModel.from_pretrained(model)
    assert calibrated.config.budget.base_ratio == 0.5
    video = data_root / "videos" / "video0000.mp4"
    answer = CliRunner().invoke(
        app, ["predict", str(video), "--model", str(model), "--adaptive", "--json"]
    )
    assert json.loads(answer.stdout)[0]["kept_tokens"][0] in (2, 4)


def test_a_mass_budget_reports_what_it_does(store, data_root, model):
    result = run(store, data_root, model, "--budget", "mass", "--max-loss", "99")
    assert result.exit_code == 0, result.output
    assert "mass=0.01" in result.stdout
    assert "100 % get 1 tokens" in result.stdout
    assert "on the clips it was chosen on" in result.stdout
    assert "chosen on the other half" in result.stdout
    assert "saved in" in result.stdout


def labelled(model: LiteModel, num: int, seed: int = 0) -> list[LabelledClips]:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (num, 4, 16, 16, 3), dtype=np.uint8)
    return [
        LabelledClips(
            frames=frames[i : i + 7],
            labels=rng.integers(0, 5, 7),
            video_ids=[f"video {j}" for j in range(i, i + 7)],
            num_failed=0,
        )
        for i in range(0, num, 7)
    ]


def half_of(batches: list[LabelledClips], second: bool) -> list[LabelledClips]:
    chosen = []
    for batch in batches:
        mine = halves(batch.video_ids) == second
        ids = [video for video, wanted in zip(batch.video_ids, mine, strict=True) if wanted]
        frames, labels = batch.frames[mine], batch.labels[mine]
        chosen.append(LabelledClips(frames=frames, labels=labels, video_ids=ids, num_failed=0))
    return chosen


@pytest.mark.parametrize("kind", ["threshold", "mass"])
def test_the_held_out_result_is_that_of_each_half_under_the_others_budget(tiny_backbone, kind):
    model = make_model(tiny_backbone)
    batches = labelled(model, 42)

    def find(clips: list[LabelledClips]) -> Calibrated:
        goal = Goal(max_loss=0.02)
        if kind == "mass":
            levels = (0.25, 0.4, 0.5, 0.8)
            return calibrate_mass_budget(model, clips, goal, base_ratio=0.7, levels=levels)
        return calibrate_threshold_budget(model, clips, goal, base_ratio=0.5, small=0.25)

    correct, gmacs = [], []
    for judged in (False, True):
        config = find(half_of(batches, not judged)).config
        adaptive = LiteModel(model.backbone, model.selector, config)
        for batch in half_of(batches, judged):
            output = adaptive(model.backbone.pixel_values(batch.frames), adaptive=True)
            correct += (output.logits.argmax(1).numpy() == batch.labels).tolist()
            gmacs += [adaptive.cost(n, adaptive=True).total for n in output.budget.tolist()]
    found = find(batches)
    assert found.held_out.num_rows == 42
    assert found.held_out.accuracy == pytest.approx(np.mean(correct))
    assert found.held_out.gmacs == pytest.approx(np.mean(gmacs))
    assert found.held_out.base_accuracy == found.outcome.base_accuracy
    assert found.config.calibration["held_out"]["gmacs"] == found.held_out.gmacs
    assert found.held_out != found.outcome


def test_one_video_has_no_held_out_half(tiny_backbone):
    model = make_model(tiny_backbone)
    (batch,) = labelled(model, 7)
    one = replace(batch, video_ids=["video 0"] * 7)
    found = calibrate_threshold_budget(model, [one], Goal(max_loss=0.5), base_ratio=0.5)
    assert found.held_out is None
    assert found.to_dict()["held_out"] is None


@pytest.mark.parametrize("kind", ["threshold", "cascade", "mass"])
def test_what_is_reported_is_what_the_model_then_does(tiny_backbone, kind):
    model = make_model(tiny_backbone)
    batches = labelled(model, 42)
    if kind == "cascade":
        goal = Goal(target_gmacs=model.cost(2).total + 0.5 * model.cost(4).blocks)
        found = calibrate_threshold_budget(
            model, batches, goal, base_ratio=0.5, small=0.25, confidence="backbone:0.25"
        )
        assert found.shares[4] == pytest.approx(0.5, abs=0.05)  # those in between pay for both
    elif kind == "threshold":
        goal = Goal(target_gmacs=model.cost(3).total + model.cost(1).blocks)
        found = calibrate_threshold_budget(
            model, batches, goal, base_ratio=0.5, small=0.25, confidence="backbone:0.2"
        )
    else:
        goal = Goal(target_gmacs=model.cost(4).total)
        found = calibrate_mass_budget(model, batches, goal, base_ratio=0.7, levels=(0.25, 0.5, 0.8))
    adaptive = LiteModel(model.backbone, model.selector, found.config)
    correct, gmacs, counts = [], [], []
    for batch in batches:
        output = adaptive(model.backbone.pixel_values(batch.frames), adaptive=True)
        correct += (output.logits.argmax(1).numpy() == batch.labels).tolist()
        counts += output.budget.tolist()
    gmacs = [adaptive.cost(num, adaptive=True).total for num in counts]
    assert found.outcome.accuracy == pytest.approx(np.mean(correct))
    assert found.outcome.gmacs == pytest.approx(np.mean(gmacs))
    assert found.shares == {n: counts.count(n) / 42 for n in sorted(set(counts))}


def test_clips_whose_output_is_not_finite_are_left_out_and_counted(tiny_backbone):
    model = make_model(tiny_backbone)
    batches = labelled(model, 7)
    with pytest.MonkeyPatch.context() as patch:
        whole = model.backbone.embed

        def embed(pixels):
            tokens = whole(pixels)
            tokens.values[3] = float("nan")
            return tokens

        patch.setattr(model.backbone, "embed", embed)
        rows = measure(model, batches, [4])
    assert rows.num_failed == 1
    assert rows.correct.shape == (6, 1)


def test_the_selectors_own_training_store_lends_only_its_held_out_videos(
    store, backbone, tiny_backbone, model, tmp_path
):
    selector = load_selector(model)
    own = make_model(tiny_backbone)
    assert len(choose_clips(store, own, 0.5)) == 11
    object.__setattr__(selector.config, "store_fingerprint", store.config.fingerprint())
    own.selector = selector
    chosen = choose_clips(store, own, 0.5)["video_id"].tolist()
    assert 0 < len(chosen) < 11
    assert all(is_held_out(video, 0.5) for video in chosen)
    with pytest.raises(ConfigError, match="held-out"):
        choose_clips(store, own, 0.0)
    assert len(choose_clips(store, make_model(tiny_backbone), 0.5, limit=4)) == 4


def test_a_store_of_another_backbone_is_refused(backbone, data_root, model, tmp_path):
    other = build(tmp_path / "s", backbone, digest="2" * 64)
    result = run(other, data_root, model, "--max-loss", 1)
    assert result.exit_code == 1
    assert "another backbone" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "either a target cost or"),
        (["--max-loss", "1", "--target-gflops", "1"], "either a target cost or"),
        (["--max-loss", "1", "--budget", "mood"], "budget must be one of"),
        (["--max-loss", "1", "--keep-ratio", "0.3", "--small-ratio", "0.5"], "below the base"),
        (["--max-loss", "1", "--budget", "mass", "--confidence", "x"], "belong to"),
        (["--max-loss", "1", "--confidence", "mood"], "a confidence is"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_1(store, data_root, model, options, message):
    result = run(store, data_root, model, *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (model / "lite.json").exists()


def test_a_wrong_data_root_is_named(store, model, tmp_path):
    result = run(store, tmp_path, model, "--max-loss", 1)
    assert result.exit_code == 1
    assert "none of the 11 clips could be used; is --data-root right?" in result.stderr
