"""Training a selector: it learns, stops, goes on where it stopped, refuses what is wrong."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import ConfigError, StoreError
from selector.training import train as train_module
from selector.training.config import ARCHS, TrainConfig, TrainedOn, default_width
from selector.training.files import load_selector
from selector.training.split import is_held_out
from selector.training.train import resolve_device, train_selector
from tests.learnable import GRID, HIDDEN_SIZE, make_learnable_store

CONFIG = TrainConfig(epochs=3, batch_tokens=96, learning_rate=0.01, width=16, held_out=0.3)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_learnable_store(tmp_path_factory.mktemp("store") / "s", failed=(3, 17))


def weights(folder):
    return (folder / "selector.safetensors").read_bytes()


class Stop(Exception):
    """Stands in for a kill."""


def train_until(store, out, config, clips):
    """Stops a training once it has seen so many clips."""
    seen = 0

    def stop(progress):
        nonlocal seen
        seen += 1
        if progress.clips_done + (progress.epoch - 1) * progress.clips_total >= clips:
            raise Stop

    with pytest.raises(Stop):
        train_selector(store, out, config, device="cpu", on_progress=stop)


def test_it_learns_what_the_embeddings_tell(store, tmp_path):
    result = train_selector(store, tmp_path, replace(CONFIG, epochs=12), device="cpu")
    selector, random, oracle = (result.methods[n] for n in ("selector", "random", "oracle"))
    assert selector.spearman > 0.8
    assert abs(random.spearman) < 0.3
    assert oracle.spearman == pytest.approx(1)
    assert oracle.recall[0.5] == 1
    assert random.mass[0.5] < selector.mass[0.5] <= oracle.mass[0.5]
    assert oracle.bce < selector.bce < random.bce
    assert (result.num_failed, result.num_train + result.num_held_out) == (2, 58)


def test_the_saved_selector_is_the_one_that_was_judged(store, tmp_path):
    result = train_selector(store, tmp_path, CONFIG, device="cpu")
    model = load_selector(tmp_path)
    assert model.config.store_fingerprint == store.config.fingerprint()
    assert model.config.backbone_digest == store.config.backbone_digest
    assert model.config.grid == GRID
    assert model.macs_per_token() == result.macs_per_token == 8 * 16 + 16 * 16 + 16
    assert model.std.min() > 0.05
    assert model.std.max() > 50  # the badly scaled channels were seen
    assert not (tmp_path / "checkpoint.pt").exists()
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_selector_knows_what_it_was_trained_on(tmp_path):
    changes = {"sampling": "stride:4", "num_segments": 2, "num_crops": 3, "revision": "abc"}
    store = make_learnable_store(tmp_path / "s", 24, **changes)
    train_selector(store, tmp_path / "out", replace(CONFIG, epochs=1), device="cpu")
    config = load_selector(tmp_path / "out").config
    assert config.revision == "abc"
    assert config.trained_on == TrainedOn(
        dataset="tiny",
        split="validation",
        plan_digest="0" * 64,
        sampling="stride:4",
        num_segments=2,
        num_crops=3,
        held_out=0.3,
    )


def test_equal_seeds_give_equal_bytes_and_others_do_not(store, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_selector(store, tmp_path / name, replace(CONFIG, seed=seed), device="cpu")
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")


@pytest.mark.parametrize("clips", [1, 50, 100])
def test_an_interrupted_training_ends_with_the_same_bytes(store, tmp_path, monkeypatch, clips):
    """Wherever it stops: in the first block, between blocks of an epoch, in a later epoch."""
    monkeypatch.setattr(train_module, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr("selector.training.data.BLOCK_BYTES", 1)
    train_selector(store, tmp_path / "whole", CONFIG, device="cpu")
    train_until(store, tmp_path / "halted", CONFIG, clips)
    assert not (tmp_path / "halted" / "selector.safetensors").exists()
    train_selector(store, tmp_path / "halted", CONFIG, device="cpu")
    for name in ("selector.safetensors", "config.json", "metrics.json"):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "halted" / name).read_bytes() == whole


def test_a_training_goes_on_from_its_checkpoint_and_not_from_the_start(store, tmp_path):
    train_until(store, tmp_path, CONFIG, 100)
    epochs = []
    train_selector(
        store, tmp_path, CONFIG, device="cpu", on_progress=lambda p: epochs.append(p.epoch)
    )
    assert min(epochs) == 3


def test_a_training_that_ended_is_not_repeated(store, tmp_path):
    first = train_selector(store, tmp_path, CONFIG, device="cpu")
    again = train_selector(
        store, tmp_path, CONFIG, device="cpu", on_progress=lambda _: pytest.fail("trains again")
    )
    assert again == first


def test_two_trainings_do_not_write_one_folder(store, tmp_path):
    def begin_another(progress):
        with pytest.raises(StoreError, match=r"another run is writing .*process \d+ on"):
            train_selector(store, tmp_path, CONFIG, device="cpu")
        raise Stop

    with pytest.raises(Stop):
        train_selector(store, tmp_path, CONFIG, device="cpu", on_progress=begin_another)
    train_selector(store, tmp_path, CONFIG, device="cpu")  # the first has let go


def test_what_a_kill_at_the_end_leaves_behind_is_removed(store, tmp_path):
    """Between `metrics.json` and the clean-up, or in the middle of a write."""
    first = train_selector(store, tmp_path, CONFIG, device="cpu")
    for name in ("checkpoint.pt", ".checkpoint.pt.0123.tmp"):
        (tmp_path / name).write_bytes(b"left over")
    assert train_selector(store, tmp_path, CONFIG, device="cpu") == first
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "metrics.json", "runs", "selector.safetensors", "tensorboard"}


def test_a_finished_training_of_the_first_schema_gets_what_it_lacks(store, tmp_path):
    train_selector(store, tmp_path, CONFIG, device="cpu")
    new = (tmp_path / "config.json").read_bytes()
    old = json.loads(new) | {"schema_version": 1}
    del old["trained_on"], old["revision"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    before = weights(tmp_path)
    train_selector(
        store, tmp_path, CONFIG, device="cpu", on_progress=lambda _: pytest.fail("trains again")
    )
    assert (tmp_path / "config.json").read_bytes() == new
    assert weights(tmp_path) == before


def test_a_result_without_its_weights_is_trained_again(store, tmp_path):
    train_selector(store, tmp_path, CONFIG, device="cpu")
    before = weights(tmp_path)
    (tmp_path / "selector.safetensors").unlink()
    train_selector(store, tmp_path, CONFIG, device="cpu")
    assert weights(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_named(store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write to .*file"):
        train_selector(store, tmp_path / "file", CONFIG, device="cpu")


def test_a_folder_of_another_training_is_refused_with_the_differing_options(store, tmp_path):
    train_selector(store, tmp_path / "ended", CONFIG, device="cpu")
    train_until(store, tmp_path / "halted", CONFIG, 100)
    for name in ("ended", "halted"):
        with pytest.raises(ConfigError, match=r"learning_rate 0\.01 -> 0\.02;"):
            train_selector(
                store, tmp_path / name, replace(CONFIG, learning_rate=0.02), device="cpu"
            )


def test_the_configuration_of_a_checkpoint_is_not_replaced(store, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "videomae"}')
    with pytest.raises(ConfigError, match=r"holds the config\.json of something else"):
        train_selector(store, tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_damaged_checkpoint_is_refused_by_name(store, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"half a file")
    with pytest.raises(ConfigError, match=r"checkpoint\.pt' is damaged"):
        train_selector(store, tmp_path, CONFIG, device="cpu")


def test_it_stops_early_and_keeps_the_best_epoch(store, tmp_path, monkeypatch):
    losses = iter([0.5, 0.4, 0.3, 0.35, 0.31])

    class Scripted(train_module.RankingMeter):
        def result(self):
            found = super().result()  # only the judging between epochs asks for no keep ratio
            return found if self.keep_ratios else replace(found, bce=next(losses))

    monkeypatch.setattr(train_module, "RankingMeter", Scripted)
    config = replace(CONFIG, epochs=40, patience=2)
    result = train_selector(store, tmp_path / "early", config, device="cpu")
    assert (result.num_epochs, result.best_epoch) == (5, 3)
    losses = iter([0.5, 0.4, 0.3, 0.1, 0.2, 0.2])
    longer = train_selector(store, tmp_path / "longer", config, device="cpu")
    assert longer.best_epoch == 4
    assert weights(tmp_path / "early") != weights(tmp_path / "longer")


@pytest.mark.parametrize("arch", ARCHS)
def test_every_architecture_trains_on_whole_grids(tmp_path, arch):
    store = make_learnable_store(tmp_path / "s", 24, embeddings_per_clip=-1)
    config = replace(CONFIG, arch=arch, epochs=2, clean=("edges", "peaks"))
    result = train_selector(store, tmp_path / "out", config, device="cpu")
    assert result.history[1]["train_loss"] < result.history[0]["train_loss"]
    assert load_selector(tmp_path / "out").config.clean == ("edges", "peaks")


def test_cleaning_changes_the_target_and_not_what_is_judged_against(store, tmp_path):
    plain = train_selector(store, tmp_path / "a", CONFIG, device="cpu")
    cleaned = train_selector(
        store, tmp_path / "b", replace(CONFIG, clean=("sharpen",)), device="cpu"
    )
    assert plain.methods["oracle"] == cleaned.methods["oracle"]
    assert plain.history[0]["held_out_loss"] != cleaned.history[0]["held_out_loss"]


def test_a_sample_of_the_tokens_does_for_the_transformer_and_not_for_global(store, tmp_path):
    config = replace(CONFIG, epochs=1)
    train_selector(store, tmp_path / "t", replace(config, arch="transformer"), device="cpu")
    with pytest.raises(ConfigError, match="needs all 32 tokens .* --embeddings-per-clip all"):
        train_selector(store, tmp_path / "g", replace(config, arch="global"), device="cpu")


def test_metrics_json_is_plain_json_with_the_options(store, tmp_path):
    train_selector(store, tmp_path, CONFIG, device="cpu")
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["training"]["learning_rate"] == 0.01
    assert set(content["methods"]) == {"selector", "random", "oracle"}
    assert content["methods"]["selector"]["recall"]["0.5"] > 0.5


def test_a_training_that_diverges_says_so(store, tmp_path):
    with pytest.raises(ConfigError, match="diverged"):
        train_selector(store, tmp_path, replace(CONFIG, learning_rate=1e30), device="cpu")


def test_an_unfinished_store_is_refused_unless_allowed(tmp_path):
    store = make_learnable_store(tmp_path / "s", shards=[0, 1, 2, 3])
    with pytest.raises(StoreError, match="--allow-unfinished"):
        train_selector(store, tmp_path / "out", CONFIG, device="cpu")
    result = train_selector(store, tmp_path / "out", CONFIG, device="cpu", allow_unfinished=True)
    assert result.num_missing == 28


@pytest.mark.parametrize(
    "changes",
    [
        {"arch": "cnn"},
        {"arch": "mlp5", "num_layers": 3},
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"batch_tokens": 0},
    ],
)
def test_options_that_cannot_work_are_refused_at_once(changes):
    with pytest.raises(ConfigError):
        replace(CONFIG, **changes)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="nonsense"):
        resolve_device("nonsense")
    if not torch.cuda.is_available():
        assert resolve_device("auto").type == "cpu"
        with pytest.raises(ConfigError, match="cuda"):
            resolve_device("cuda")


def test_the_default_width_gives_the_papers_gflops_to_the_digit():
    """VideoMAE-B: the closed form of the cost plus the selector on all 1568 tokens."""
    assert default_width(768) == 256
    all_tokens, d = 1568, 768
    selector = all_tokens * (d * 256 + 256 * 256 + 256)
    gmacs = [
        (12 * (12 * n * d * d + 2 * n * n * d) + all_tokens * 1536 * d + selector) / 1e9
        for n in (1568, 1411, 1097, 784, 470)
    ]
    assert [round(g) for g in gmacs] == [181, 159, 118, 80, 46]


def test_a_selector_without_a_width_takes_the_default(store, tmp_path):
    train_selector(store, tmp_path, replace(CONFIG, width=None, epochs=1), device="cpu")
    assert load_selector(tmp_path).config.width == default_width(HIDDEN_SIZE)


@pytest.mark.parametrize("clean", [(), ("sharpen",)])
def test_the_mean_target_per_place_of_the_training_clips_is_kept(store, tmp_path, clean):
    """Of all of them, and of no held-out, failed or flat one; by brute force."""
    train_selector(store, tmp_path, replace(CONFIG, epochs=1, clean=clean), device="cpu")
    clips = store.clips()
    maps = [
        np.asarray(store.scores()[i], np.float64).reshape(-1)
        for i, clip in clips.iterrows()
        if clip.status == "ok" and not clip.degenerate and not is_held_out(clip.video_id, 0.3)
    ]
    if clean:
        maps = [m**2 / (m**2 + (1 - m) ** 2) for m in maps]
    found = load_selector(tmp_path).prior
    np.testing.assert_allclose(found.numpy(), np.mean(maps, axis=0), rtol=1e-5)


def test_a_selector_of_an_earlier_release_still_loads(store, tmp_path):
    train_selector(store, tmp_path, replace(CONFIG, epochs=1), device="cpu")
    state = load_file(tmp_path / "selector.safetensors")
    del state["prior"]
    save_file(state, tmp_path / "selector.safetensors")
    assert load_selector(tmp_path).prior is None
