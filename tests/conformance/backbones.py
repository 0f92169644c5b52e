"""What must be true of every backbone adapter; a test class inherits it and gives two fixtures.

class TestVideoMAE(BackboneTests):
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls): ...              # a small checkpoint
    @pytest.fixture(scope="class")
    @classmethod
    def plain(cls, folder): ...       # pixel_values -> logits, by the model's own code
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from pipeline.backbones import load_backbone
from pipeline.backbones.base import LAYER_PARTS, Backbone
from pipeline.backbones.tokens import (
    KEYS,
    PROBABILITIES,
    RECEIVED,
    Reducer,
    Reduction,
    Tokens,
    Wanted,
    grid_tokens,
    reduce,
)
from pipeline.errors import ConfigError
from pipeline.oracle.cam import CamTarget, ClassActivationMap, class_activation_maps
from selector.methods.cost import CostModel, without_data

SEEDS = st.integers(0, 2**31)
# A fixture of a class lives longer than one example, and is not changed by any.
examples = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


class Opened(Reducer):
    """Reduces nothing, but has every block run in halves and show everything."""

    def wants(self, layer: int) -> Wanted:
        return frozenset({KEYS, RECEIVED, PROBABILITIES})


def pixels_for(backbone: Backbone, batch: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    side = backbone.image_size
    return torch.randn(batch, backbone.num_frames, 3, side, side, generator=generator)


def random_subset(x: Tokens, seed: int, shuffled: bool = False) -> Reduction:
    """The prefix and some of the other tokens, each clip its own."""
    generator = torch.Generator().manual_seed(seed)
    rest = x.num - x.prefix
    k = int(torch.randint(1, rest + 1, (), generator=generator))
    rows = []
    for _ in range(len(x)):
        kept = torch.randperm(rest, generator=generator)[:k] + x.prefix
        kept = kept if shuffled else kept.sort().values
        rows.append(torch.cat([torch.arange(x.prefix), kept]))
    return Reduction(torch.stack(rows))


def silent(backbone: Backbone) -> set[str]:
    """Layers after the last attention, where only what the head reads has a gradient."""
    last = backbone.num_layers - 1
    return {f"blocks.{last}.mlp", f"blocks.{last}.output"} if backbone.prefix else set()


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


class BackboneTests:
    @pytest.fixture(scope="class")
    @classmethod
    def backbone(cls, folder: Path) -> Backbone:
        return load_backbone(str(folder))

    @pytest.fixture(autouse=True)
    def without_gradients(self):
        with torch.no_grad():
            yield

    @pytest.fixture(scope="class")
    @classmethod
    def tokens(cls, backbone: Backbone) -> Tokens:
        with torch.no_grad():
            return backbone.embed(pixels_for(backbone, 3))

    def test_all_tokens_give_the_plain_models_logits(
        self, backbone: Backbone, plain: Callable[[torch.Tensor], torch.Tensor]
    ):
        pixels = pixels_for(backbone, 3)
        close(backbone(pixels), plain(pixels))

    def test_all_tokens_come_row_major_after_what_lies_on_no_grid(
        self, backbone: Backbone, tokens: Tokens
    ):
        n = backbone.grid.num_tokens
        assert tokens.values.shape == (3, backbone.off_grid + n, backbone.hidden_size)
        assert (tokens.prefix, tokens.off_grid) == (backbone.prefix, backbone.off_grid)
        assert tokens.off_grid <= tokens.prefix
        expected = [-1] * backbone.off_grid + list(range(n))
        assert tokens.place.tolist() == [expected] * 3

    def test_a_token_holds_its_own_pixels_and_no_others(self, backbone: Backbone):
        """Changing one tubelet's pixels changes that token alone."""
        pixels = pixels_for(backbone, 1)
        grid, p, f = backbone.grid, backbone.patch_size, backbone.tubelet_size
        t, y, x = grid.t - 1, grid.h // 2, 0
        changed = pixels.clone()
        changed[:, t * f : (t + 1) * f, :, y * p : (y + 1) * p, x * p : (x + 1) * p] += 1
        moved = (backbone.embed(changed).on_grid != backbone.embed(pixels).on_grid).any(-1)[0]
        assert moved.nonzero().flatten().tolist() == [(t * grid.h + y) * grid.w + x]

    def test_opened_blocks_give_the_same_bits_as_whole_ones(
        self, backbone: Backbone, tokens: Tokens
    ):
        assert torch.equal(backbone.run(tokens, Opened()), backbone.run(tokens))
        some = reduce(tokens, random_subset(tokens, 1))
        assert torch.equal(backbone.run(some, Opened()), backbone.run(some))

    @examples
    @given(seed=SEEDS)
    def test_the_order_of_tokens_does_not_matter(
        self, backbone: Backbone, tokens: Tokens, seed: int
    ):
        ordered = reduce(tokens, random_subset(tokens, seed))
        generator = torch.Generator().manual_seed(seed + 1)
        order = torch.randperm(ordered.num - tokens.prefix, generator=generator) + tokens.prefix
        order = torch.cat([torch.arange(tokens.prefix), order]).expand(len(tokens), -1)
        close(backbone.run(reduce(ordered, Reduction(order))), backbone.run(ordered))

    @examples
    @given(seed=SEEDS)
    def test_a_clip_alone_is_the_clip_in_its_batch(
        self, backbone: Backbone, tokens: Tokens, seed: int
    ):
        some = reduce(tokens, random_subset(tokens, seed))
        together = backbone.run(some)
        for clip in range(len(some)):
            alone = backbone.run(some.rows(torch.tensor([clip])))
            close(alone, together[clip : clip + 1])

    def test_dropped_tokens_have_no_influence(self, backbone: Backbone, tokens: Tokens):
        keep = random_subset(tokens, 5)
        noise = torch.randn(tokens.values.shape, generator=torch.Generator().manual_seed(9))
        kept = torch.zeros(tokens.place.shape, dtype=torch.bool).scatter(1, keep.keep, True)
        other = replace(tokens, values=torch.where(kept[..., None], tokens.values, noise))
        assert torch.equal(backbone.run(reduce(tokens, keep)), backbone.run(reduce(other, keep)))

    def test_every_block_shows_what_is_asked_for(self, backbone: Backbone, tokens: Tokens):
        some = reduce(tokens, random_subset(tokens, 2))
        for block in backbone.blocks:
            _, seen = block.attend(some, frozenset({KEYS, RECEIVED, PROBABILITIES}))
            b, k = some.place.shape
            assert seen.keys is not None
            assert seen.keys.shape[:3:2] == (b, k)
            assert seen.keys.shape[3] == backbone.head_size
            assert seen.probabilities is not None
            assert seen.received is not None
            torch.testing.assert_close(seen.probabilities.sum(-1), torch.ones(b, k))
            torch.testing.assert_close(seen.probabilities.mean(1), seen.received)
            _, nothing = block.attend(some, frozenset())
            assert set(nothing) == {None}

    def test_attention_by_size_is_attention_to_so_many_copies(
        self, backbone: Backbone, tokens: Tokens
    ):
        """A token of size 3 draws as much attention as three equal tokens do."""
        if backbone.merging_refused:
            pytest.skip(backbone.merging_refused)
        size = torch.ones(tokens.place.shape)
        size[:, -1] = 3
        copies = [*range(tokens.num), tokens.num - 1, tokens.num - 1]
        copied = reduce(tokens, Reduction(torch.tensor(copies).expand(len(tokens), -1)))
        for block in backbone.blocks:
            sized, _ = block.attend(replace(tokens, size=size), frozenset(), by_size=True)
            three, _ = block.attend(copied, frozenset())
            close(sized.values, three.values[:, : tokens.num])

    def test_costs_equal_the_count_of_a_whole_run(self, backbone: Backbone):
        costs, twin = CostModel(backbone), without_data(backbone)
        for k in (1, 5, backbone.grid.num_tokens):
            values = torch.empty(1, k + backbone.off_grid, backbone.hidden_size, device="meta")
            x = grid_tokens(values, prefix=backbone.prefix, off_grid=backbone.off_grid)
            with FlopCounterMode(display=False) as counter:
                twin.run(x)
            assert costs.blocks(k) == counter.get_total_flops() / 2e9
        with FlopCounterMode(display=False) as counter:
            twin(pixels_for(backbone, 1).to("meta"))
        full = costs.at(backbone.grid.num_tokens).total
        assert full == pytest.approx(counter.get_total_flops() / 2e9, rel=1e-12)

    def test_layers_say_something_of_every_token_or_are_refused(
        self, backbone: Backbone, tokens: Tokens
    ):
        blocks = (0, backbone.num_layers - 1)
        layers = [f"blocks.{i}.{part}" for i in blocks for part in LAYER_PARTS]
        for layer in ("embeddings", *layers):
            if layer in silent(backbone):
                with pytest.raises(ConfigError, match=r"says nothing .* blocks\.-1\.norm1"):
                    backbone.layer_target(layer)
                continue
            maps = ClassActivationMap(layer, "hirescam").values(backbone, tokens, None)
            assert maps.cam.shape == (3, backbone.grid.num_tokens)
            read = backbone.prefix - backbone.off_grid
            assert (maps.cam[:, read:] != 0).any(), layer

    def test_maps_of_all_layers_at_once_are_those_of_single_passes(
        self, backbone: Backbone, tokens: Tokens
    ):
        blocks = (0, backbone.num_layers - 1)
        layers = ["embeddings", *(f"blocks.{i}.{part}" for i in blocks for part in LAYER_PARTS)]
        labels = torch.zeros(len(tokens), dtype=torch.int64)
        asked = [
            CamTarget(layer, method, classes)
            for layer in layers
            if layer not in silent(backbone)
            for method in ("gradcam", "hirescam")
            for classes in (labels, None)
        ]
        together = class_activation_maps(backbone, tokens, asked)
        for (layer, method, classes), found in zip(asked, together, strict=True):
            alone = ClassActivationMap(layer, method).values(backbone, tokens, classes)
            assert torch.equal(found.cam, alone.cam), (layer, method)
            assert torch.equal(found.logits, alone.logits), layer

    def test_no_clips_get_no_answers(self, backbone: Backbone):
        assert backbone(pixels_for(backbone, 0)).shape == (0, backbone.num_classes)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_other_floats_are_cast(self, backbone: Backbone, dtype: torch.dtype):
        pixels = pixels_for(backbone, 1).to(dtype)
        assert torch.equal(backbone(pixels), backbone(pixels.float()))

    def test_parameters_are_frozen(self, backbone: Backbone):
        assert not backbone.training
        assert not any(p.requires_grad for p in backbone.parameters())
