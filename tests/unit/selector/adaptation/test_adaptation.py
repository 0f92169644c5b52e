"""Adapting a tiny backbone: what learns and what must not, resuming, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from typer.testing import CliRunner

from pipeline.backbones import load_backbone
from pipeline.cli import app
from pipeline.config import RunConfig
from pipeline.errors import ConfigError
from selector.adaptation import train
from selector.adaptation.clips import Clips
from selector.adaptation.config import AdaptConfig, parse_range
from selector.adaptation.run import adapt
from selector.adaptation.train import Adaptation, Pace, trained_parameters
from selector.deploy.model import LiteModel
from selector.methods.cost import CostModel
from selector.methods.keep import num_kept
from selector.methods.registry import Parts, make_method, parse_method
from selector.training.files import save_selector
from selector.training.split import is_held_out
from tests.builds import file_hashes, make_dataset
from tests.checkpoints import save_timesformer, save_videomae
from tests.lite_models import make_selector
from tests.plain import plain_logits

NUM_VIDEOS = 24


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), NUM_VIDEOS)


@pytest.fixture(scope="module")
def selector(tmp_path_factory, tiny_backbone):
    folder = tmp_path_factory.mktemp("selector")
    save_selector(make_selector(load_backbone(str(tiny_backbone)), str(tiny_backbone)), folder)
    return folder


def ask(backbone, selector=None, **changes):
    fields = {
        "dataset": "csv",
        "split": "all",
        "backbone": str(backbone),
        "num_segments": 1,
        "num_crops": 1,
        "method": "lite" if selector else "uniform",
        "selector": None if selector is None else str(selector),
        "keep_low": 0.25,
        "keep_high": 0.5,
        "held_out": 0.3,
        "batch_size": 4,
        "steps": 6,
        "learning_rate": 1e-2,
    }
    return AdaptConfig(**(fields | changes))


def run(asked, out, data, **options):
    return adapt(asked, out, RunConfig(data_root=str(data), decode_workers=0, device="cpu"))


def weights(out):
    return load_file(out / "backbone" / "model.safetensors")


def test_blocks_and_head_learn_and_nothing_else(tmp_path, data, tiny_backbone, selector):
    result = run(ask(tiny_backbone, selector), tmp_path / "m", data)
    before, after = load_file(tiny_backbone / "model.safetensors"), weights(tmp_path / "m")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert not any("patch_embeddings" in name for name in changed)
    assert {"classifier.weight", "videomae.encoder.layer.0.output.dense.weight"} <= changed
    assert result.best_step > 0
    assert result.after[0.25].loss < result.before[0.25].loss
    assert (result.num_train, result.num_held_out) == (17, 7)
    assert not (tmp_path / "m" / "cache").exists()


def test_the_model_is_whole_and_answers_with_the_best_weights(
    tmp_path, data, tiny_backbone, selector
):
    asked = ask(tiny_backbone, selector, method="lite-spread")
    result = run(asked, tmp_path / "m", data)
    model = LiteModel.from_pretrained(tmp_path / "m")
    assert (model.config.method, model.config.spread) == ("lite", 2.0)
    assert model.config.keep_ratio == 0.375
    assert model.selector.config.backbone_digest == model.backbone.digest
    assert model.backbone.digest != load_backbone(str(tiny_backbone)).digest
    best = min(result.history, key=lambda entry: entry["held_out"])
    assert result.best_step == best["step"]
    assert result.after[1.0].loss == best["judged"]["1.0"]["loss"]


def test_videos_set_aside_neither_train_nor_judge(tmp_path, data, tiny_backbone, monkeypatch):
    seen = {}
    real = Adaptation.__init__

    def spied(self, config, model, clips, judge, files):
        seen.update(train=set(clips.video_ids), judge=set(judge.video_ids))
        real(self, config, model, clips, judge, files)

    monkeypatch.setattr(Adaptation, "__init__", spied)
    run(ask(tiny_backbone, steps=1, set_aside=0.4), tmp_path / "m", data)
    names = {f"v{i:03d}" for i in range(NUM_VIDEOS)}
    aside = {name for name in names if is_held_out(name, 0.4)}
    assert aside
    assert seen["train"] | seen["judge"] == names - aside
    # 0.3 of the 0.6 that are left
    assert seen["judge"] == {name for name in names - aside if is_held_out(name, 0.58)}


def test_videos_of_a_group_are_on_one_side(tmp_path, tiny_backbone, monkeypatch):
    data = make_dataset(tmp_path / "data", NUM_VIDEOS)
    table = data / "videos.csv"
    head, *lines = table.read_text().splitlines()
    grouped = [f"{line},scene{number // 3}" for number, line in enumerate(lines)]
    table.write_text("\n".join([f"{head},group", *grouped]) + "\n")
    seen = {}
    real = Adaptation.__init__

    def spied(self, config, model, clips, judge, files):
        seen.update(train=clips, judge=judge)
        real(self, config, model, clips, judge, files)

    monkeypatch.setattr(Adaptation, "__init__", spied)
    run(ask(tiny_backbone, steps=1, set_aside=0.4, held_out=0.4), tmp_path / "m", data)
    groups = [f"scene{i}" for i in range(NUM_VIDEOS // 3)]
    aside = {group for group in groups if is_held_out(group, 0.4)}
    judged = {group for group in groups if is_held_out(group, 0.64)} - aside
    assert aside
    assert judged
    for side, whole in (("judge", judged), ("train", set(groups) - aside - judged)):
        found = [f"scene{int(video[1:]) // 3}" for video in seen[side].video_ids]
        assert sorted(found) == sorted(3 * list(whole))


def test_a_zero_learning_rate_changes_no_byte(tmp_path, data, tiny_backbone):
    result = run(ask(tiny_backbone, learning_rate=0.0), tmp_path / "m", data)
    assert result.best_step == 0
    assert result.after == result.before
    copied = file_hashes(tmp_path / "m" / "backbone")
    assert copied == {name: h for name, h in file_hashes(tiny_backbone).items() if name in copied}
    assert "model.safetensors" in copied


@pytest.mark.parametrize("method", ["lite", "random"])
def test_a_resumed_training_equals_an_undisturbed_one(
    method, tmp_path, data, tiny_backbone, selector, monkeypatch
):
    given = selector if method == "lite" else None
    asked = ask(tiny_backbone, given, method=method, full_share=0.3, patience=9)
    whole = run(asked, tmp_path / "whole", data)
    real = Adaptation.train_step

    def stop_at_the_fifth(self):
        if self.step == 4:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr("selector.adaptation.run.SAVE_EVERY", 3)
    monkeypatch.setattr(Adaptation, "train_step", stop_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        run(asked, tmp_path / "cut", data)
    monkeypatch.setattr(Adaptation, "train_step", real)
    assert not (tmp_path / "cut" / "backbone").exists()
    resumed = run(asked, tmp_path / "cut", data)
    left, right = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(left[name], right[name]) for name in left)
    looks = [
        [{**entry, "loss": None, "seconds": None} for entry in result.history]
        for result in (whole, resumed)
    ]
    assert looks[0] == looks[1]
    assert [entry["step"] for entry in resumed.history] == list(range(7))
    again = run(asked, tmp_path / "cut", data)  # ended: nothing is done again
    assert again == resumed


def test_the_number_of_steps_that_minutes_buy_is_settled_once(
    tmp_path, data, tiny_backbone, monkeypatch
):
    asked = ask(tiny_backbone, steps=None, minutes=0.5)
    monkeypatch.setattr(Pace, "plan", lambda self, minutes: (5, 2))
    monkeypatch.setattr(Adaptation, "train_step", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(asked, tmp_path / "m", data)
    monkeypatch.undo()
    monkeypatch.setattr(Pace, "plan", lambda self, minutes: pytest.fail("measured again"))
    assert run(asked, tmp_path / "m", data).num_steps == 5


def _interrupt(self):
    raise KeyboardInterrupt


def test_time_buys_looks_and_steps():
    # 60 s: at most 0.3 of it in looks, one of which comes before the first step
    assert Pace(step=0.5, look=3.0).plan(1.0) == (int((60 - 6 * 3.0) / 0.5), 5)
    assert Pace(step=1.0, look=0.1).plan(1.0) == (59, 8)
    assert Pace(step=1.0, look=29.0).plan(1.0) == (2, 1)
    with pytest.raises(ConfigError, match=r"too short.*more than 1\.1 minutes"):
        Pace(step=1.5, look=31.0).plan(1.0)


def test_the_loss_is_that_of_the_masked_model(tmp_path, data, tiny_backbone, selector):
    """Written out: the selector's best tokens of each clip, through Hugging Face's modules."""
    result = run(ask(tiny_backbone, selector, learning_rate=0.0), tmp_path / "m", data)
    backbone = load_backbone(str(tiny_backbone))
    clips = _clips_of(backbone, data).split(0.3)[1]
    trained = make_selector(backbone, str(tiny_backbone))
    losses, agreed = [], []
    for batch in clips.batches(backbone, 1):
        values = batch.tokens.values
        with torch.no_grad():
            best = trained(values)[0].argsort(descending=True)[: num_kept(8, 0.25)]
            logits = plain_logits(backbone, values[:, best.sort().values])
            full = plain_logits(backbone, values)
        losses.append(F.cross_entropy(logits, batch.labels).item())
        agreed.append((logits.argmax() == full.argmax()).item())
    assert result.before[0.25].loss == pytest.approx(np.mean(losses), rel=1e-4)
    assert result.before[0.25].agreement == pytest.approx(np.mean(agreed))


def test_distillation_needs_no_labels(tmp_path, tiny_backbone):
    data = make_dataset(tmp_path / "data", NUM_VIDEOS)
    lines = (data / "videos.csv").read_text().splitlines()
    # five are labelled still, or there were no class names; nobody may read them
    unlabelled = [line.partition(",")[0] + "," for line in lines[6:]]
    (data / "videos.csv").write_text("\n".join([*lines[:6], *unlabelled]) + "\n")
    with pytest.raises(ConfigError, match="have no label to learn.*--distill"):
        run(ask(tiny_backbone), tmp_path / "labels", data)
    result = run(
        ask(tiny_backbone, distill=True, learning_rate=1e-3, steps=16), tmp_path / "m", data
    )
    assert result.before[1.0] == replace(result.before[1.0], top1=None, agreement=1.0)
    assert result.before[1.0].loss == pytest.approx(0, abs=1e-6)
    assert result.after[0.25].loss < result.before[0.25].loss


@pytest.mark.parametrize("method", ["tome", "evit", "prior", "uniform+vid-tldr[blocks=2]"])
def test_any_method_of_the_registry_trains(method, tmp_path, data, tiny_backbone, selector):
    given = selector if method == "prior" else None
    asked = ask(tiny_backbone, given, method=method, steps=2, keep_low=0.5, keep_high=0.75)
    run(asked, tmp_path / "m", data)
    assert LiteModel.from_pretrained(tmp_path / "m").config.method == method


@pytest.mark.parametrize("method", ["tome", "pitome", "vid-tldr[blocks=3]", "lite-spread"])
def test_gradients_flow_through_what_drops_and_merges(method, data, tiny_backbone, selector):
    """Against finite differences, in double precision: which tokens merge stays as it is."""
    backbone = load_backbone(str(tiny_backbone))
    trained = make_selector(backbone, str(tiny_backbone))
    backbone.double()
    batch = _clips_of(backbone, data).batch(backbone, np.arange(3))
    made = make_method(parse_method(method), Parts(backbone, 0, {"lite": trained.double()}))
    setting = made.setting(0.6, CostModel(backbone))
    reducer = made.reducer(made.prepare(batch), setting)

    def answers(values):
        return backbone.encode(replace(batch.tokens, values=values), reducer).values

    values = batch.tokens.values.requires_grad_()
    assert torch.autograd.gradcheck(answers, values, fast_mode=True)
    names = trained_parameters(backbone)
    inside = [p.requires_grad_() for n, p in backbone.named_parameters() if n in names]
    loss = backbone.run(batch.tokens, reducer).square().sum()
    assert all(grad.any() for grad in torch.autograd.grad(loss, inside))


def test_half_precision_trains_and_leaves_whole_weights(tmp_path, data, tiny_backbone):
    run(ask(tiny_backbone, steps=3), tmp_path / "whole", data)
    run(ask(tiny_backbone, steps=3, precision="bf16"), tmp_path / "half", data)
    name = "classifier.weight"
    whole, half = weights(tmp_path / "whole")[name], weights(tmp_path / "half")[name]
    assert half.dtype == torch.float32
    assert not torch.equal(whole, half)
    torch.testing.assert_close(whole, half, atol=0.05, rtol=0)


def test_another_family_trains(tmp_path, data):
    folder = save_timesformer(tmp_path / "timesformer")
    result = run(ask(folder, steps=2), tmp_path / "m", data)
    assert result.num_steps == 2
    LiteModel.from_pretrained(tmp_path / "m")


def test_what_has_a_part_in_embedding_is_not_trained(tiny_backbone, tmp_path):
    names = trained_parameters(load_backbone(str(tiny_backbone)))
    assert not any("embeddings" in name for name in names)
    assert sum(".layer.0." in name for name in names) == sum(".layer.2." in name for name in names)
    backbone = load_backbone(str(save_timesformer(tmp_path / "t")))
    left = {name for name, _ in backbone.named_parameters()} - trained_parameters(backbone)
    assert all("embeddings" in name for name in left)
    assert any("cls_token" in name for name in left)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_patience_ends_a_training(tmp_path, data, tiny_backbone):
    asked = ask(tiny_backbone, learning_rate=30.0, patience=2, steps=16)
    result = run(asked, tmp_path / "m", data)
    assert (result.stopped, result.num_steps, result.best_step) == ("patience", 4, 0)


def test_a_training_slower_than_measured_is_stopped(tmp_path, data, tiny_backbone, monkeypatch):
    monkeypatch.setattr(Pace, "plan", lambda self, minutes: (8, 8))
    monkeypatch.setattr(train, "_OVERRUN", 0.0)
    result = run(ask(tiny_backbone, steps=None), tmp_path / "m", data)
    assert (result.stopped, result.num_steps) == ("time", 1)


def test_what_cannot_be_done_is_said_at_once(tmp_path, data, tiny_backbone, selector):
    other = save_videomae(tmp_path / "other", seed=1)
    for asked, message in (
        (ask(other, selector), "trained for another backbone"),
        (ask(tiny_backbone, method="lite"), "needs its trained selector"),
        (ask(tiny_backbone, method="oracle[embeddings,hirescam]"), "can be evaluated only"),
        (ask(tiny_backbone, method="rlt"), "method rlt takes no keep ratio"),
        (ask(tiny_backbone, held_out=1e-9), "24 to train on and 0 to judge by"),
        (ask(tiny_backbone, steps=None, minutes=1e-9), "minutes are too short"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(asked, tmp_path / "m", data)
    with pytest.raises(ConfigError, match="own folder"):
        run(ask(tiny_backbone, selector), selector, data)


def test_no_video_that_decodes_is_an_error(tmp_path, tiny_backbone):
    data = make_dataset(tmp_path / "data", NUM_VIDEOS, missing=tuple(range(NUM_VIDEOS)))
    with pytest.raises(ConfigError, match="not one of the 24 videos"):
        run(ask(tiny_backbone), tmp_path / "m", data)


def test_a_folder_of_something_else_is_left_alone(tmp_path, data, tiny_backbone, selector):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "selector.safetensors").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds selector\.safetensors"):
        run(ask(tiny_backbone), tmp_path / "m", data)
    run(ask(tiny_backbone, steps=1), tmp_path / "n", data)
    with pytest.raises(ConfigError, match="steps 1 -> 2"):
        run(ask(tiny_backbone, steps=2), tmp_path / "n", data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep_low": 0.0}, "0 < low <= high <= 1"),
        ({"keep_high": 1.2}, "0 < low <= high <= 1"),
        ({"keep_low": 0.6}, "0 < low <= high <= 1"),
        ({"precision": "fp16"}, "fp32, bf16"),
        ({"minutes": 0.0}, "above 0"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"method": "nonsense"}, "unknown method"),
    ],
)
def test_fields_out_of_range(changes, message):
    with pytest.raises(ConfigError, match=message):
        ask("b", **changes)


@pytest.mark.parametrize(
    ("low", "high", "judged"),
    [(0.1, 0.7, (1, 0.7, 0.4, 0.1)), (2 / 7, 2 / 7, (1, 2 / 7)), (0.3, 0.3, (1, 0.3))],
)
def test_a_model_is_judged_over_its_range_and_keeps_the_middle(low, high, judged):
    asked = ask("b", keep_low=low, keep_high=high)
    assert asked.judged_ratios == judged
    assert asked.lite_config().keep_ratio == judged[-2 if low < high else -1]


def test_ranges_are_read():
    assert parse_range("0.1,0.7") == (0.1, 0.7)
    assert parse_range("0.3") == (0.3, 0.3)
    for text in ("", "a,b", "1,2,3"):
        with pytest.raises(ConfigError, match="LOW,HIGH"):
            parse_range(text)


def test_the_command_says_what_it_costs(tmp_path, data, tiny_backbone, selector):
    out = tmp_path / "m"
    command = ["adapt-backbone", "--data-root", str(data), "--dataset", "csv", "--out", str(out)]
    command += ["--split", "all", "--selector", str(selector), "--steps", "2", "--held-out", ".3"]
    command += ["--decode-workers", "0", "--threads", "1", "--device", "cpu", "--lr", "0.01"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "2 steps on 17 videos" in result.stdout
    assert "With all tokens, where nothing is dropped, adapting" in result.stdout
    as_json = CliRunner().invoke(app, [*command, "--json"])
    assert json.loads(as_json.stdout)["num_steps"] == 2
    wrong = CliRunner().invoke(app, [*command[:-8], "--keep-ratio-range", "0,0.5"])
    assert (wrong.exit_code, len(wrong.stderr.splitlines())) == (1, 1)


def _clips_of(backbone, data) -> Clips:
    from pipeline.decode import DecodeRequest, decode_video

    side = backbone.image_size
    frames = [
        decode_video(
            DecodeRequest(
                path=str(data / f"v{i:03d}.mp4"),
                num_frames=backbone.num_frames,
                size=side,
                short_side=backbone.short_side,
            )
        ).clips[0]
        for i in range(NUM_VIDEOS)
    ]
    ids = tuple(f"v{i:03d}" for i in range(NUM_VIDEOS))
    labels = np.arange(NUM_VIDEOS) % 5
    return Clips(np.stack(frames), np.arange(NUM_VIDEOS), labels, ids, ids, ids)
