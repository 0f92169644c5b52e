"""Divided attention on any tokens of the grid is exact; what TimeSformer is not is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import TimesformerForVideoClassification, VideoMAEImageProcessor

from pipeline.backbones import load_backbone
from pipeline.backbones.base import Backbone
from pipeline.backbones.timesformer import DIVIDED
from pipeline.backbones.tokens import PROBABILITIES, Reduction, Tokens, reduce
from pipeline.errors import BackboneError, ConfigError
from selector.methods.cost import CostModel
from selector.methods.registry import Parts, make_method, parse_method
from tests.checkpoints import save_timesformer
from tests.conformance.backbones import close, pixels_for, random_subset

SIZES = {"image_size": 24, "num_frames": 5}


@pytest.fixture(scope="module")
def divided(tmp_path_factory) -> Backbone:
    folder = tmp_path_factory.mktemp("divided")
    return load_backbone(str(save_timesformer(folder, attention_type=DIVIDED, **SIZES)))


@pytest.fixture(scope="module")
def tokens(divided: Backbone) -> Tokens:
    with torch.no_grad():
        return divided.embed(pixels_for(divided, 2))


def by_loops(backbone: Backbone, x: Tokens) -> Tensor:
    """Divided attention written out: clip by clip, column by column, frame by frame."""
    model, places = backbone.model, backbone.grid.h * backbone.grid.w
    answers = []
    for clip in range(len(x)):
        cls, kept, place = x.values[clip, :1], x.values[clip, 1:], x.place[clip, 1:]
        for layer in model.timesformer.encoder.layer:
            update = torch.zeros_like(kept)
            for column in (place % places).unique():
                mine = place % places == column
                seen = layer.temporal_layernorm(kept[mine])[None]
                update[mine] = layer.temporal_dense(layer.temporal_attention(seen)[0][0])
            kept = kept + update
            update, of_cls = torch.zeros_like(kept), []
            for frame in range(backbone.grid.t):
                mine = place // places == frame
                seen = layer.layernorm_before(torch.cat([cls, kept[mine]]))[None]
                found = layer.attention(seen)[0][0]
                of_cls.append(found[0])
                update[mine] = found[1:]
            both = torch.cat([cls + torch.stack(of_cls).mean(0), kept + update])
            both = both + layer.output(layer.intermediate(layer.layernorm_after(both)))
            cls, kept = both[:1], both[1:]
        answers.append(model.classifier(model.timesformer.layernorm(cls[0])))
    return torch.stack(answers)


def keeping(x: Tokens, rows: list[list[int]]) -> Tokens:
    """CLS and these tokens of the grid of each clip."""
    return reduce(x, Reduction(torch.tensor([[0, *(place + 1 for place in row)] for row in rows])))


@torch.no_grad()
@pytest.mark.parametrize(
    "rows",
    [
        [[0], [44]],
        [[0, 9, 18, 27, 36], [0, 1, 2, 3, 4]],  # one column; most of one frame, others are empty
        [list(range(9)), [8, 17, 26, 35, 44, 0, 1, 10, 19]],
        [[3, 12, 4, 13], [40, 44, 13, 22]],
    ],
)
def test_any_tokens_attend_within_columns_and_frames(divided: Backbone, tokens: Tokens, rows):
    some = keeping(tokens, rows)
    close(divided.run(some), by_loops(divided, some))


@torch.no_grad()
@pytest.mark.parametrize("seed", range(5))
def test_random_tokens_do_too_in_any_order(divided: Backbone, tokens: Tokens, seed: int):
    some = reduce(tokens, random_subset(tokens, seed, shuffled=True))
    close(divided.run(some), by_loops(divided, some))


@torch.no_grad()
def test_a_graph_without_data_gives_the_same(divided: Backbone, tokens: Tokens, monkeypatch):
    """A compiler needs shapes that do not depend on which tokens are kept."""
    for seed in range(3):
        some = reduce(tokens, random_subset(tokens, seed))
        expected = divided.run(some)
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        close(divided.run(some), expected)
        monkeypatch.undo()


@torch.no_grad()
def test_gradients_pass_empty_places(divided: Backbone, tokens: Tokens, monkeypatch):
    some = keeping(tokens, [[0, 9, 10, 30], [1, 2, 3, 31]])
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda given=compiling: given)
        with torch.enable_grad():
            leaf = Tokens(some.values.clone().requires_grad_(), some.place, None, 1, 1)
            (gradient,) = torch.autograd.grad(divided.run(leaf).sum(), leaf.values)
            (expected,) = torch.autograd.grad(by_loops(divided, leaf).sum(), leaf.values)
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_attention_shown_is_that_within_frames(divided: Backbone, tokens: Tokens):
    """A token's row reaches its frame and CLS; the row of CLS is the mean over the frames."""
    some = keeping(tokens, [[0, 1, 10, 30], [1, 2, 3, 31]])
    _, seen = divided.blocks[0].attend(some, frozenset({PROBABILITIES}))
    assert seen.probabilities is not None
    first = seen.probabilities[0]
    assert (first[1] > 0).tolist() == [True, True, True, False, False]
    assert (first[3] > 0).tolist() == [True, False, False, True, False]
    # In two of five frames CLS sees itself alone.
    assert first[0, 0] > 2 / 5
    # In the frame of token 30 it shares its attention with that one.
    assert 0 < first[0, 4] < 1 / 5
    torch.testing.assert_close(first.sum(dim=1), torch.ones(5))


def test_merging_is_refused_with_the_reason(divided: Backbone, tokens: Tokens):
    with pytest.raises(ConfigError, match="cannot serve .* ties each token to its frame and"):
        make_method(parse_method("tome"), Parts(divided))
    with pytest.raises(ConfigError, match="tokens cannot have sizes here"):
        divided.blocks[0].attend(tokens, frozenset(), by_size=True)


@torch.no_grad()
@pytest.mark.parametrize("columns", [1, 4, 9])
def test_whole_columns_cost_what_is_counted_without_data(
    divided: Backbone, tokens: Tokens, columns: int
):
    places = [t * 9 + p for t in range(5) for p in range(columns)]
    one = keeping(tokens.rows(torch.tensor([0])), [places])
    # The counter does not know the CPU's fused kernel.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        divided.run(one)
    assert CostModel(divided).blocks(5 * columns) == counter.get_total_flops() / 2e9


@torch.no_grad()
def test_all_tokens_cost_the_plain_model_without_its_copies_of_cls(divided: Backbone):
    """Hugging Face projects CLS once for each of 5 frames, four times in each of 3 blocks."""
    with FlopCounterMode(display=False) as counter:
        divided.model(pixels_for(divided, 1))
    copies = (5 - 1) * 3 * 4 * 24**2
    ours = CostModel(divided).at(45).total
    assert ours == pytest.approx(counter.get_total_flops() / 2e9 - copies / 1e9, rel=1e-12)


def test_joint_attention_costs_its_closed_form(tmp_path: Path):
    backbone = load_backbone(str(save_timesformer(tmp_path, **SIZES)))
    costs = CostModel(backbone)
    for kept in (1, 20, 45):
        n, d, mlp = kept + 1, 24, 48
        block = 4 * n * d**2 + 2 * n**2 * d + 2 * n * d * mlp
        assert costs.blocks(kept) * 1e9 == pytest.approx(3 * block + d * 5, rel=1e-12)


def test_positions_are_those_of_the_plain_model(tmp_path: Path):
    """Token (t, y, x) carries the positions of its frame and of its place."""
    backbone = load_backbone(str(save_timesformer(tmp_path, **SIZES)))
    embeddings = backbone.model.timesformer.embeddings
    with torch.no_grad():
        x = backbone.embed(torch.zeros(1, 5, 3, 24, 24))
        t, y, column = 3, 2, 1
        expected = (
            embeddings.patch_embeddings.projection.bias
            + embeddings.position_embeddings[0, 1 + y * 3 + column]
            + embeddings.time_embeddings[0, t]
        )
        torch.testing.assert_close(x.on_grid[0, (t * 3 + y) * 3 + column], expected)


def test_pixels_have_the_mean_of_its_own_processor(tmp_path: Path):
    """Meta's is 0.45, whatever the channel."""
    folder = save_timesformer(tmp_path, **SIZES)
    clips = np.random.default_rng(0).integers(0, 256, (2, 5, 24, 24, 3), dtype=np.uint8)
    processor = VideoMAEImageProcessor.from_pretrained(folder)
    theirs = processor([list(clip) for clip in clips], return_tensors="pt")["pixel_values"]
    ours = load_backbone(str(folder)).pixel_values(clips)
    assert torch.equal(ours, theirs)
    by_hand = (clips / 255 - 0.45) / 0.225
    np.testing.assert_allclose(ours.movedim(2, -1), by_hand, rtol=0, atol=1e-5)


def edit_config(folder: Path, **fields) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_other_kinds_are_refused(tmp_path: Path):
    folder = save_timesformer(tmp_path / "space", attention_type="space_only", **SIZES)
    with pytest.raises(BackboneError, match="'space_only', whose frames never meet; joint_space"):
        load_backbone(str(folder))
    folder = save_timesformer(tmp_path / "wide", image_size=[24, 32], num_frames=5)
    with pytest.raises(BackboneError, match=r"image_size is \[24, 32\], not one number"):
        load_backbone(str(folder))


def test_a_model_trained_with_divided_attention_is_not_taken_for_a_joint_one(tmp_path: Path):
    folder = save_timesformer(tmp_path, attention_type=DIVIDED, **SIZES)
    edit_config(folder, attention_type="joint_space_time")
    with pytest.raises(BackboneError, match="unexpected keys: .*temporal_attention"):
        load_backbone(str(folder))


@torch.no_grad()
def test_hugging_faces_own_forward_stays_as_it_was(divided: Backbone, tmp_path: Path):
    divided.model.save_pretrained(tmp_path)
    again = TimesformerForVideoClassification.from_pretrained(tmp_path).eval()
    pixels = pixels_for(divided, 1)
    assert torch.equal(again(pixels).logits, divided.model(pixels).logits)
