"""Rankings under constraints, and those by change, against what other code keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.backbones import load_backbone
from selector.methods.keep import top_tokens
from selector.methods.names import MethodName
from selector.methods.rank.base import Ranking
from selector.methods.rank.chance import RandomMethod
from selector.methods.rank.motion import pixel_change
from selector.methods.rank.shape import GroupedMethod, TubeMethod, flux_spans
from selector.methods.registry import Parts, make_method
from selector.methods.spread import even_lattice
from tests.checkpoints import save_videomae
from tests.conformance.methods import make_batch


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """Grid 4 x 4 x 4."""
    folder = tmp_path_factory.mktemp("backbone")
    return load_backbone(str(save_videomae(folder, image_size=32, num_frames=8)))


def kept_places(method, backbone, k, clips=(0, 1)):
    """bool (B, t, y x)."""
    with torch.no_grad():
        scores = method.rank(make_batch(backbone, clips)).scores
    mask = torch.zeros(scores.shape, dtype=torch.bool).scatter(1, top_tokens(scores, k), True)
    return mask.unflatten(1, (4, 16))


def test_a_tube_keeps_the_same_places_all_the_time(backbone):
    mask = kept_places(TubeMethod(RandomMethod(), first=True), backbone, 20)
    assert (mask.sum(2) == 5).all()
    assert (mask == mask[:, :1]).all()
    assert not torch.equal(mask[0], mask[1])


def test_a_tube_of_scores_keeps_the_best_mean(backbone):
    method = RandomMethod(3)
    mask = kept_places(TubeMethod(method), backbone, 8)
    mean = method.rank(make_batch(backbone, (0, 1))).scores.view(2, 4, 16).mean(1)
    for clip in range(2):
        assert set(mask[clip, 0].nonzero().flatten().tolist()) == set(
            mean[clip].topk(2).indices.tolist()
        )


def test_every_tubelet_keeps_its_own_best(backbone):
    method = RandomMethod(3)
    mask = kept_places(GroupedMethod(method, "x"), backbone, 12)
    scores = method.rank(make_batch(backbone, (0, 1))).scores.view(2, 4, 16)
    best = torch.zeros_like(mask).scatter(2, scores.topk(3, dim=2).indices, True)
    assert torch.equal(mask, best)


class Alike(RandomMethod):
    """All tokens of a clip score alike."""

    def rank(self, batch):
        return Ranking(torch.zeros(len(batch), batch.backbone.grid.num_tokens))


def prepared_places(method, backbone, k):
    batch = make_batch(backbone, (0,))
    with torch.no_grad():
        scores = method.prepare(batch).scores
    return torch.zeros(64, dtype=torch.bool).scatter(0, top_tokens(scores, k)[0], True).view(4, 16)


def test_tokens_that_score_alike_are_kept_by_the_lattice(backbone):
    lattice = torch.from_numpy(even_lattice(backbone.grid)).view(4, 16)
    frames = prepared_places(GroupedMethod(Alike(), "x"), backbone, 14)
    in_all = torch.zeros_like(frames).scatter(1, lattice.topk(3, dim=1).indices, True)
    assert (frames & in_all).sum() == 12
    assert frames.sum(1).tolist() != [4, 4, 3, 3]  # the two left over are not the first frames'
    tubes = prepared_places(TubeMethod(Alike()), backbone, 10)
    whole = tubes.all(0)
    assert whole.sum() == 2  # two columns, and part of one
    assert (tubes.any(0) & ~whole).sum() == 1
    last = lattice[:, (tubes.any(0) & ~whole).nonzero().item()]
    assert set(tubes[:, tubes.any(0) & ~whole][:, 0].nonzero().flatten().tolist()) == set(
        last.topk(2).indices.tolist()
    )


@pytest.mark.parametrize(
    ("tubelets", "spans"), [(8, 4), (16, 4), (4, 2), (6, 2), (2, 1), (3, 1), (1, 1)]
)
def test_spans_of_fluxvit(tubelets, spans):
    assert flux_spans(tubelets) == spans


def test_evs_keeps_the_first_tubelet_and_then_what_changed_most(backbone):
    batch = make_batch(backbone, (0,))
    frames = batch.pixel_values[0].view(4, 2, 3, 4, 8, 4, 8)
    change = torch.stack(
        [(frames[t, 1] - frames[t - 1, 0]).abs().mean(dim=(0, 2, 4)) for t in (1, 2, 3)]
    )
    best = change.flatten().topk(10).indices + 16
    method = make_method(MethodName("evs"), Parts(backbone))
    kept = kept_places(method, backbone, 26, (0,)).flatten().nonzero().flatten().tolist()
    assert kept == [*range(16), *sorted(best.tolist())]
    assert kept_places(method, backbone, 6, (0,))[0, 0].sum() == 6


def reference_batch(peers_dir):
    reference = load_backbone(str(peers_dir / "common" / "videomae_tiny"))
    frames = np.load(peers_dir / "common" / "clips.npz")["clips"]
    pixels = reference.pixel_values(frames)
    with torch.no_grad():
        tokens = reference.embed(pixels)
    return replace(
        make_batch(reference, range(4)), frames=frames, pixel_values=pixels, tokens=tokens
    )


@pytest.mark.parametrize("dropped", ["0.1", "0.3", "0.4", "0.5", "0.7", "0.9"])
@pytest.mark.parametrize(("name", "peer"), [("motion", "everest"), ("fluxvit", "flux")])
def test_what_it_keeps_is_worth_what_the_authors_code_keeps(peers_dir, name, peer, dropped):
    """Equal values are told apart by the sort there, and by the position of the token here."""
    batch = reference_batch(peers_dir)
    known = np.load(peers_dir / "patch_difference" / "select.npz")
    theirs = torch.from_numpy(known[f"{peer}_rho{dropped}_keep"])
    with torch.no_grad():
        scores = make_method(MethodName(name), Parts(batch.backbone)).rank(batch).scores
    ours = torch.zeros(scores.shape, dtype=torch.bool)
    ours.scatter_(1, top_tokens(scores, int(theirs[0].sum())), True)
    value = torch.from_numpy(known["score" if name == "motion" else "flux_score"])
    for clip in range(4):
        kept, expected = (value[clip][mask[clip]].sort().values for mask in (ours, theirs))
        torch.testing.assert_close(kept, expected, rtol=0, atol=1e-5)
        if name == "fluxvit":
            assert len(set(ours[clip].view(4, -1).sum(1).tolist())) == 1


def test_motion_equals_everests_scores(peers_dir):
    batch = reference_batch(peers_dir)
    with torch.no_grad():
        scores = make_method(MethodName("motion"), Parts(batch.backbone)).rank(batch).scores
    known = np.load(peers_dir / "patch_difference" / "select.npz")["score"]
    np.testing.assert_allclose(scores, known, rtol=0, atol=1e-5)


def test_change_equals_that_of_run_length_tokenization(peers_dir):
    known = np.load(peers_dir / "rlt" / "rlt.npz")["distance"]
    found = pixel_change(reference_batch(peers_dir))
    np.testing.assert_allclose(found, known, rtol=0, atol=1e-5)
