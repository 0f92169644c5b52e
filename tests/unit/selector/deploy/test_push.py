"""Uploading over HTTP to a stand-in of the hub, and loading what was uploaded from there."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, pipeline
from typer.testing import CliRunner

import selector  # noqa: F401  (registers)
from pipeline.cli import app
from pipeline.decode import decode_video
from pipeline.errors import ConfigError
from selector.deploy.card import model_card
from selector.deploy.config import LiteConfig
from selector.deploy.model import LiteModel
from selector.deploy.predict import clip_request
from tests.hub import running_hub
from tests.lite_models import make_model, make_pixels
from tests.videos import write_video

# The hub's client, of the library that it is built on.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with running_hub(monkeypatch, tmp_path / "cache") as hub:
        yield hub


@pytest.fixture
def waits(monkeypatch):
    found: list[float] = []
    monkeypatch.setattr("time.sleep", found.append)
    return found


def test_what_was_pushed_is_loaded_by_its_revision_with_the_same_logits(hub, tiny_backbone):
    model = make_model(tiny_backbone, LiteConfig(spread=2.0, keep_ratio=0.25))
    address = model.push_to_hub("me/lite", private=True)
    commit = re.fullmatch(rf"{hub.url}/me/lite/commit/(\w{{40}})", address)[1]
    assert hub.created[0]["visibility"] == "private"
    assert hub.blobs, "the weights went by LFS"
    expected = model(make_pixels(3)).logits
    # Later pushes are other revisions; the first one stays what it was.
    model.config = LiteConfig(spread=0.0, keep_ratio=0.75)
    model.push_to_hub("me/lite")
    other = model(make_pixels(3)).logits
    assert (expected - other).abs().max() > 1e-4
    for revision, logits in ((commit, expected), ("main", other)):
        loaded = LiteModel.from_pretrained("me/lite", revision=revision)
        assert torch.equal(loaded(make_pixels(3)).logits, logits)
        auto = AutoModelForVideoClassification.from_pretrained("me/lite", revision=revision)
        assert torch.equal(auto(make_pixels(3)).logits, logits)
        assert auto.config.id2label[4] == "class 4"
    assert AutoVideoProcessor.from_pretrained("me/lite").num_frames == 4


def test_weights_in_several_files_travel_and_a_pipeline_finds_all(hub, tiny_backbone, tmp_path):
    lite = make_model(tiny_backbone)
    lite.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    LiteModel.from_pretrained(tmp_path / "sharded").push_to_hub("me/lite")
    names = hub.repos["me/lite"][-1][1]
    assert sum("backbone/model-0000" in name for name in names) > 1
    classify = pipeline("video-classification", model="me/lite", top_k=5)
    assert torch.equal(classify.model(make_pixels(2)).logits, lite(make_pixels(2)).logits)
    video = write_video(tmp_path / "clip.mp4", 9, 16, 16)
    clips = decode_video(clip_request(lite, str(video), "uniform", "pyav")).clips
    expected = lite(lite.backbone.pixel_values(clips)).logits[0].softmax(-1)
    found = {each["label"]: each["score"] for each in classify(str(video))}
    assert [found[f"class {i}"] for i in range(5)] == pytest.approx(expected.tolist(), abs=1e-6)


def test_files_of_an_earlier_model_go_and_others_stay(hub, tiny_backbone):
    lite = make_model(tiny_backbone)
    lite.push_to_hub("me/lite")
    _, files = hub.repos["me/lite"][-1]
    mine = {"README.md": b"my own card", "notes.txt": b"mine", ".gitattributes": b""}
    stale = {"backbone/model-00001-of-00002.safetensors": b"old", "selector.safetensors": b"old"}
    hub.repos["me/lite"].append(("f" * 40, {**files, **mine, **stale}))
    lite.push_to_hub("me/lite")
    after = hub.repos["me/lite"][-1][1]
    assert after.keys() == files.keys() | mine.keys()
    assert {name: after[name] for name in mine} == mine
    loaded = LiteModel.from_pretrained("me/lite")
    assert torch.equal(loaded(make_pixels(2)).logits, lite(make_pixels(2)).logits)


@pytest.mark.parametrize("how", ["busy", "too slow"])
def test_a_hub_that_stumbles_over_the_card_does_not_cost_a_user_theirs(
    hub, waits, tiny_backbone, monkeypatch, how
):
    lite = make_model(tiny_backbone)
    lite.push_to_hub("me/lite")
    download = HfApi.hf_hub_download
    download(HfApi(), "me/lite", "README.md")  # into the cache: one that may be replaced
    hub.repos["me/lite"].append(
        ("f" * 40, {**hub.repos["me/lite"][-1][1], "README.md": b"my own card"})
    )
    faults = [] if how == "busy" else [LocalEntryNotFoundError("not here, and no network")]
    hub.stumbles = ["resolve/main/README.md"] if how == "busy" else []

    def slow(*arguments, **options):
        if faults:
            raise faults.pop() from TimeoutError("slow")
        return download(*arguments, **options)

    monkeypatch.setattr(HfApi, "hf_hub_download", slow)
    lite.push_to_hub("me/lite")
    assert hub.stumbles == faults == []
    assert hub.repos["me/lite"][-1][1]["README.md"] == b"my own card"


def test_a_hub_that_stays_away_is_one_error_and_nothing_is_uploaded(hub, waits, tiny_backbone):
    hub.stumbles.extend(["api/repos/create"] * 99)
    with pytest.raises(ConfigError, match="cannot upload to 'me/lite'.*out of reach"):
        make_model(tiny_backbone).push_to_hub("me/lite")
    assert hub.repos == {}


@pytest.mark.parametrize("known", [None, "cc-by-nc-4.0", "no"])
def test_the_cards_metadata_is_what_the_hub_reads(tiny_backbone, known):
    lite = make_model(tiny_backbone, LiteConfig(license=known))
    # Where the selector says that it began, in words that YAML would not take unquoted.
    base = "MCG-NJU/videomae-base: #1"
    lite.selector.config = replace(lite.selector.config, backbone=base)
    card = ModelCard(model_card(lite))
    assert card.data.to_dict() == {
        "library_name": "transformers",
        "pipeline_tag": "video-classification",
        "license": known or "unknown",
        "base_model": base,
        "tags": ["lite_video", "video-classification", "token-reduction"],
    }
    assert card.text.lstrip().startswith("<!-- Written by lite-pipeline")
    assert ("not given and is unknown" in card.text) == (known is None)


@pytest.mark.parametrize("place", ["synthetic", "/somewhere/else/checkpoint"])
def test_what_is_not_on_the_hub_is_not_linked_to(tiny_backbone, place):
    lite = make_model(tiny_backbone)
    lite.selector.config = replace(lite.selector.config, backbone=place)
    assert "base_model:" not in model_card(lite)
    assert "/somewhere" not in model_card(lite)


def test_a_backbone_that_was_trained_further_is_not_called_the_base_models(tiny_backbone):
    lite = make_model(tiny_backbone, LiteConfig(measured={"adapted": {"minutes": 3}}))
    assert "was trained further, on the tokens" in model_card(lite)
    lite.config = LiteConfig()
    assert "are those of the base model, unless" in model_card(lite)


def test_a_licence_that_is_given_stays_with_the_model(tiny_backbone, tmp_path):
    make_model(tiny_backbone).save_pretrained(tmp_path / "model")
    words = ["export-lite", "--model", str(tmp_path / "model"), "--out", str(tmp_path / "given")]
    done = CliRunner().invoke(app, [*words, "--license", "mit"])
    assert done.exit_code == 0, done.output
    auto = AutoModelForVideoClassification.from_pretrained(tmp_path / "given")
    auto.save_pretrained(tmp_path / "again")
    assert ModelCard.load(tmp_path / "again" / "README.md").data.license == "mit"
    wrong = CliRunner().invoke(app, [*words, "--license", "MIT License"])
    assert (wrong.exit_code, "such as apache-2.0, got 'MIT License'" in wrong.stderr) == (1, True)
