"""Choosing an epoch by the backbone's accuracy with the selector's tokens."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline import open_store
from pipeline.backbones import load_backbone
from pipeline.decode import DecodeRequest, decode_video
from pipeline.errors import ConfigError
from selector.training import train as train_module
from selector.training.accuracy import AccuracyJudge
from selector.training.config import TrainConfig
from selector.training.files import load_selector, read_config
from selector.training.split import HELD_OUT, split_store
from selector.training.train import train_selector
from tests.builds import make_dataset, run_build
from tests.checkpoints import save_vivit, save_vjepa2
from tests.learnable import make_learnable_store
from tests.lite_models import make_selector

CONFIG = TrainConfig(
    epochs=4, batch_tokens=32, width=16, held_out=0.4, select_by="accuracy", select_ratio=0.5
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), 24)


def test_accuracy_and_not_the_loss_chooses_where_they_disagree(tmp_path, monkeypatch):
    """The loss falls in every epoch; the second is the most accurate, and the third equals it."""
    store = make_learnable_store(tmp_path / "s")
    by_loss = train_selector(store, tmp_path / "loss", replace(CONFIG, select_by="loss"))
    losses = [epoch["held_out_loss"] for epoch in by_loss.history]
    assert losses == sorted(losses, reverse=True)
    assert by_loss.best_epoch == 4
    seen = []

    class Judge:
        def __init__(self, *_):
            self.answers = iter([0.25, 0.75, 0.75, 0.5])

        def __call__(self, model):
            seen.append({name: value.clone() for name, value in model.state_dict().items()})
            return next(self.answers)

    monkeypatch.setattr(train_module, "AccuracyJudge", Judge)
    result = train_selector(store, tmp_path / "accuracy", CONFIG)
    assert result.best_epoch == 3  # of equal accuracy, and of lower loss
    kept = load_selector(tmp_path / "accuracy").state_dict()
    assert all(torch.equal(kept[name], seen[2][name]) for name in kept)
    assert read_config(tmp_path / "accuracy").chosen_by == "accuracy at 0.5"
    assert "chosen_by" not in json.loads((tmp_path / "loss" / "config.json").read_text())


@pytest.mark.parametrize("family", ["videomae", "vivit", "vjepa2"])
def test_what_is_measured_is_the_backbone_on_the_best_tokens(family, data, tmp_path, tiny_backbone):
    """From the embeddings in the store, also where tokens off the grid or positions are added."""
    make = {"vivit": save_vivit, "vjepa2": save_vjepa2}.get(family)
    folder = tiny_backbone if make is None else make(tmp_path / family)
    backbone = load_backbone(str(folder))
    num = backbone.grid.num_tokens
    run_build(tmp_path / "s", data, folder, asked={"embeddings_per_clip": -1})
    store = open_store(str(tmp_path / "s"))
    split = split_store(store, 0.4)
    judge = AccuracyJudge(store, split, 0.5, torch.device("cpu"))
    found, real = [], judge._backbone.run
    judge._backbone.run = lambda x, reducer: found.append(real(x, reducer)) or found[-1]
    selector = make_selector(backbone, str(folder))
    measured = judge(selector)
    held_out = [
        store.config.shard_size * shard + row
        for shard, roles in split.roles.items()
        for row in np.flatnonzero(roles == HELD_OUT)
    ]
    clips = store.clips(["path", "label"]).iloc[held_out]
    expected = []
    for path in clips["path"]:
        tokens = backbone.embed(backbone.pixel_values(_frames(backbone, data / path)))
        with torch.no_grad():
            scores = selector(backbone.selector_input(tokens))
            best = scores.argsort(descending=True)[0, : num // 2].sort().values
            keep = torch.cat([torch.arange(tokens.off_grid), best + tokens.off_grid])
            left = replace(tokens, values=tokens.values[:, keep], place=tokens.place[:, keep])
            expected.append(backbone.run(left)[0])
    torch.testing.assert_close(torch.cat(found), torch.stack(expected), atol=2e-2, rtol=0)
    assert judge.num_clips == len(held_out) > 5
    right = torch.cat(found).argmax(1).numpy() == clips["label"].to_numpy()
    assert measured == pytest.approx(right.mean())


def _frames(backbone, path):
    request = DecodeRequest(path=str(path), **backbone.clip_format)
    return decode_video(request).clips[:1]


def test_a_sample_of_the_tokens_is_not_enough(data, tmp_path, tiny_backbone):
    run_build(tmp_path / "s", data, tiny_backbone)
    with pytest.raises(ConfigError, match="needs all 8 tokens.*--embeddings-per-clip all"):
        train_selector(open_store(str(tmp_path / "s")), tmp_path / "out", CONFIG)
