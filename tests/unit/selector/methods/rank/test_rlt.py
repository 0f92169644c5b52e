"""Run-Length Tokenization: masks and logits of the authors' code, and a hand count."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.backbones import load_backbone
from pipeline.errors import ConfigError
from selector.methods.names import MethodName
from selector.methods.rank.base import KeepBest
from selector.methods.rank.rlt import RLT, grey_levels, tau_of
from selector.methods.registry import Parts, make_method, parse_method
from tests.checkpoints import KINDS, save_videomae
from tests.conformance.methods import make_batch
from tests.unit.selector.methods.rank.test_shape import reference_batch

NO_BUDGET = 1.0
TAU = 0.6


def masks(method, batch):
    setting = method.setting(NO_BUDGET, None)
    reducer = method.reducer(method.prepare(batch), setting)
    found = torch.zeros(len(batch), batch.backbone.grid.num_tokens, dtype=torch.bool)
    for rows, part in reducer.split():
        left = part.before(batch.tokens.rows(rows))
        found[rows] = found[rows].scatter(1, left.place[:, left.off_grid :], True)
    return found


@pytest.mark.parametrize("tau", ["0.0", "0.05", "0.1", "0.2", "0.5"])
def test_it_equals_the_authors_code(peers_dir, tau):
    """Masks exactly; logits as far as pixels in float32 allow."""
    known = np.load(peers_dir / "rlt" / "rlt.npz")
    with torch.no_grad():
        batch = reference_batch(peers_dir)
        method = make_method(parse_method(f"rlt[tau={tau}]"), Parts(batch.backbone))
        prepared, setting = method.prepare(batch), method.setting(NO_BUDGET, None)
        logits = batch.backbone.run(batch.tokens, method.reducer(prepared, setting))
    np.testing.assert_array_equal(masks(method, batch), known[f"tau{tau}_mask"])
    np.testing.assert_array_equal(method.num_left(prepared, setting), known[f"tau{tau}_count"])
    np.testing.assert_allclose(logits, known[f"tau{tau}_logits"], rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """Grid 4 x 4 x 4."""
    folder = tmp_path_factory.mktemp("backbone")
    return load_backbone(str(save_videomae(folder, image_size=32, num_frames=8)))


@pytest.fixture(scope="module")
def batch(backbone):
    with torch.no_grad():
        return make_batch(backbone, range(5))


def test_what_changed_less_is_dropped_pixel_by_pixel(backbone, batch):
    """Counted from the decoded frames: last frame of a tubelet minus first of the one before."""
    grid, patch, span = backbone.grid, backbone.patch_size, backbone.tubelet_size
    std = np.array(backbone.preprocessing.std)
    expected = np.zeros((len(batch), grid.num_tokens), bool)
    tau = TAU
    for clip, frames in enumerate(batch.frames.astype(float)):
        for token, (t, y, x) in enumerate(np.ndindex(*grid)):
            window = np.s_[y * patch : (y + 1) * patch, x * patch : (x + 1) * patch]
            if t == 0:
                expected[clip, token] = True
                continue
            change = frames[t * span + span - 1][window] - frames[(t - 1) * span][window]
            expected[clip, token] = (np.abs(change) / std).mean() > tau
    assert len(set(expected.sum(1))) > 1  # else nothing here is uneven
    np.testing.assert_array_equal(masks(RLT(backbone.preprocessing, tau), batch), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_clips_of_other_counts_in_one_batch_are_the_clips_alone(tmp_path, kind):
    backbone = load_backbone(str(KINDS[kind](tmp_path)))
    method = RLT(backbone.preprocessing, TAU)
    setting = method.setting(NO_BUDGET, None)
    with torch.no_grad():
        batch = make_batch(backbone, range(5))
        prepared = method.prepare(batch)
        together = backbone.run(batch.tokens, method.reducer(prepared, setting))
        left = masks(method, batch)
        assert len(set(left.sum(1).tolist())) > 1  # else nothing here is uneven
        for clip, mask in enumerate(left):
            own = batch.tokens.rows(torch.tensor([clip]))
            alone = backbone.run(own, KeepBest(mask[None].float(), int(mask.sum())))
            torch.testing.assert_close(together[clip], alone[0], rtol=0, atol=1e-6)


def test_a_threshold_in_grey_levels_is_one_of_normalised_pixels(backbone):
    """With ImageNet's standard deviations 0.1 is a change of 5.8 of 255, with 0.5 one of 12.75."""
    imagenet = replace(backbone.preprocessing, std=(0.229 * 255, 0.224 * 255, 0.225 * 255))
    half = replace(backbone.preprocessing, std=(127.5,) * 3)
    assert grey_levels(0.1, imagenet) == pytest.approx(5.76, abs=0.01)
    assert grey_levels(0.1, half) == pytest.approx(12.75)
    assert tau_of(12.75, half) == pytest.approx(0.1)
    made = make_method(parse_method("rlt[grey=8]"), Parts(backbone))
    assert made.setting(NO_BUDGET, None)["grey_levels"] == pytest.approx(8)


def test_a_batch_with_pixels_that_are_no_numbers_says_which_clip(backbone, batch):
    method = RLT(backbone.preprocessing)
    with torch.no_grad():
        prepared = method.prepare(batch)
    prepared[2, -1] = torch.nan
    assert list(method.reasons(prepared)) == [2]


@pytest.mark.parametrize("text", ["rlt[0.1]", "rlt[tau=-1]", "rlt[tau=nan]", "rlt[tau=1,grey=2]"])
def test_a_threshold_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="rlt takes"):
        parse_method(text)


def test_no_budget_sets_it_and_nothing_follows_it(backbone):
    assert parse_method("rlt").by_content
    with pytest.raises(ConfigError, match="another number of tokens"):
        make_method(MethodName("rlt", (), MethodName("tome")), Parts(backbone))


def test_a_still_clip_is_its_first_tubelet_even_at_no_threshold(backbone, batch):
    """What changed by nothing did not change by more than nothing."""
    still = replace(batch, pixel_values=batch.pixel_values[:, :1].expand_as(batch.pixel_values))
    method = RLT(backbone.preprocessing, 0.0)
    expected = torch.zeros(len(batch), 4, 16, dtype=torch.bool)
    expected[:, 0] = True
    assert torch.equal(masks(method, still), expected.flatten(1))


@torch.no_grad()
def test_clips_of_other_counts_are_answered_in_double_precision(batch):
    backbone = copy.deepcopy(batch.backbone).double()
    double = make_batch(backbone, range(5))
    method = make_method(parse_method(f"rlt[tau={TAU}]"), Parts(backbone))
    prepared, setting = method.prepare(double), method.setting(NO_BUDGET, None)
    assert len(set(method.num_left(prepared, setting).tolist())) > 1
    logits = backbone.run(double.tokens, method.reducer(prepared, setting))
    for clip in range(5):
        alone = make_batch(backbone, [clip])
        expected = backbone.run(alone.tokens, method.reducer(method.prepare(alone), setting))
        torch.testing.assert_close(logits[clip : clip + 1], expected, rtol=0, atol=1e-12)
