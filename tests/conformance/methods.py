"""What must be true of every method on every backbone it fits; a test class gives two fixtures.

class TestToMe(MethodTests):
    @pytest.fixture(scope="class")
    @classmethod
    def backbone(cls): ...            # small, on the CPU, in fp32
    @pytest.fixture(scope="class")
    @classmethod
    def method(cls, backbone): ...    # made for it
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.backbones.base import Backbone
from pipeline.backbones.tokens import (
    PROBABILITIES,
    RECEIVED,
    Evidence,
    Reducer,
    Tokens,
    Wanted,
)
from pipeline.clips.views import View
from pipeline.errors import UnreachableBudgetError
from selector.methods.base import ClipBatch, Method, Setting
from selector.methods.cost import CostModel, TokenCounts
from tests.conformance.backbones import SEEDS, close, examples

RATIOS = (0.9, 0.7, 0.5, 0.3)


def make_batch(backbone: Backbone, clip_ids: Sequence[int]) -> ClipBatch:
    """Clips that depend on their number alone: a bright square that wanders over a still scene."""
    side, frames = backbone.image_size, []
    for clip in clip_ids:
        rng = np.random.default_rng(clip)
        scene = rng.integers(0, 200, (1, side, side, 3)).repeat(backbone.num_frames, axis=0)
        for t in range(backbone.num_frames):
            y, x = rng.integers(0, side - 8, 2)
            scene[t, y : y + 8, x : x + 8] = 255
        frames.append(scene.astype(np.uint8))
    pixels = backbone.pixel_values(np.stack(frames))
    return ClipBatch(
        backbone=backbone,
        frames=np.stack(frames),
        pixel_values=pixels,
        tokens=backbone.embed(pixels),
        labels=torch.tensor([clip % backbone.num_classes for clip in clip_ids]),
        clip_ids=tuple(clip_ids),
        video_ids=tuple(f"v{clip}" for clip in clip_ids),
        paths=(None,) * len(clip_ids),
        views=(View(),) * len(clip_ids),
    )


@functools.lru_cache(maxsize=8)
def costs_of(backbone: Backbone) -> CostModel:
    """Counted once for all methods."""
    return CostModel(backbone)


class Watched(Reducer):
    """Passes everything on to a reducer and notes how many tokens there are, and their places."""

    def __init__(self, reducer: Reducer) -> None:
        self.inner = reducer
        self.proportional = reducer.proportional
        self.attention: list[int] = []
        self.mlp: list[int] = []

    def wants(self, layer: int) -> Wanted:
        return self.inner.wants(layer) or frozenset()

    def before(self, x: Tokens) -> Tokens:
        x = self.inner.before(x)
        self.attention.append(x.num)
        return x

    def between(self, layer: int, x: Tokens, seen: Evidence) -> Tokens:
        if self.inner.wants(layer) is not None:
            x = self.inner.between(layer, x, seen)
        self.mlp.append(x.num)
        return x

    def after(self, layer: int, x: Tokens, seen: Evidence) -> Tokens:
        if self.inner.wants(layer) is not None:
            x = self.inner.after(layer, x, seen)
        self.attention.append(x.num)
        return x

    @property
    def counts(self) -> TokenCounts:
        return TokenCounts(tuple(self.attention[:-1]), tuple(self.mlp), self.attention[-1])


class MethodTests:
    looks_at_labels = False

    @pytest.fixture(autouse=True)
    def without_gradients(self):
        with torch.no_grad():
            yield

    @pytest.fixture(scope="class")
    @classmethod
    def costs(cls, backbone: Backbone) -> CostModel:
        return costs_of(backbone)

    @pytest.fixture(scope="class")
    @classmethod
    def bought(cls, method: Method, costs: CostModel) -> dict[float, Setting]:
        """Keep ratio -> setting, for those that the method can get down to."""
        found = {}
        for ratio in RATIOS:
            try:
                found[ratio] = method.setting(ratio, costs)
            except UnreachableBudgetError:
                cheapest = method.counts(method.knobs(costs.flow)[-1], costs.flow)
                target = costs.blocks(int(costs.num_tokens * ratio + 1e-9))
                assert costs.blocks(cheapest) > target
        assert len(found) > 1
        return found

    @pytest.fixture(scope="class")
    @classmethod
    def settings(cls, bought: dict[float, Setting]) -> list[Setting]:
        return list(bought.values())

    @pytest.fixture(scope="class")
    @classmethod
    def batch(cls, backbone: Backbone) -> ClipBatch:
        with torch.no_grad():
            return make_batch(backbone, (0, 1, 2))

    def test_it_fits(self, method: Method, backbone: Backbone):
        assert method.fits(backbone) is None

    def test_at_its_dearest_it_is_the_full_model(
        self, method: Method, backbone: Backbone, batch: ClipBatch, costs: CostModel
    ):
        dearest = method.knobs(costs.flow)[0]
        reducer = method.reducer(method.prepare(batch), dearest)
        assert torch.equal(backbone.run(batch.tokens, reducer), backbone.run(batch.tokens))
        full = TokenCounts.constant(costs.flow.num, costs.flow.num_layers)
        assert method.counts(dearest, costs.flow) == full

    def test_tokens_run_as_it_says(
        self,
        method: Method,
        backbone: Backbone,
        batch: ClipBatch,
        costs: CostModel,
        settings: list[Setting],
    ):
        prepared = method.prepare(batch)
        for setting in settings:
            watched = Watched(method.reducer(prepared, setting))
            backbone.run(batch.tokens, watched)
            assert watched.counts == method.counts(setting, costs.flow)

    def test_a_budget_buys_the_dearest_setting_within_it(
        self, method: Method, costs: CostModel, bought: dict[float, Setting]
    ):
        knobs = list(method.knobs(costs.flow))
        for ratio, setting in bought.items():
            target = costs.blocks(int(costs.num_tokens * ratio + 1e-9))
            assert costs.blocks(method.counts(setting, costs.flow)) <= target
            if setting in knobs and (at := knobs.index(setting)):
                assert costs.blocks(method.counts(knobs[at - 1], costs.flow)) > target

    def test_cheaper_settings_are_never_dearer(self, method: Method, costs: CostModel):
        knobs = method.knobs(costs.flow)
        some = knobs[:: max(1, len(knobs) // 20)]
        counted = [costs.blocks(method.counts(setting, costs.flow)) for setting in some]
        assert counted == sorted(counted, reverse=True)

    def test_its_cost_is_that_of_the_run(
        self, method: Method, backbone: Backbone, costs: CostModel, settings: list[Setting]
    ):
        """Counted as it runs, the comparisons inside the blocks included."""
        one = make_batch(backbone, (0,))
        runs, prepared, tokens = backbone, method.prepare(one), one.tokens
        if backbone.merging_refused:
            # Which tokens share a column is in their places: without them it is counted on average.
            runs, prepared, tokens = (on_meta(value) for value in (backbone, prepared, tokens))
        for setting in settings:
            reducer = method.reducer(prepared, setting)
            # The counter knows the plain attention alone of those that run on a CPU.
            with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
                runs.run(tokens, reducer)
            counts = method.counts(setting, costs.flow)
            expected = costs.blocks(counts) + self.overhead_of_the_run(method, setting, costs)
            expected += self.maps_of_attention(reducer, counts, costs)
            assert counter.get_total_flops() / 2e9 == pytest.approx(expected, rel=1e-9)

    @hypothesis_settings(examples, max_examples=2)
    @given(seed=SEEDS)
    def test_a_permuted_batch_gives_the_permuted_result(
        self, method: Method, backbone: Backbone, settings: list[Setting], seed: int
    ):
        ids = [seed % 100, seed % 100 + 1, seed % 100 + 2]
        order = torch.randperm(3, generator=torch.Generator().manual_seed(seed)).tolist()
        straight, mixed = make_batch(backbone, ids), make_batch(backbone, [ids[i] for i in order])
        expected = self.logits(method, straight, settings[-1])[order]
        close(self.logits(method, mixed, settings[-1]), expected)

    def test_a_clip_alone_is_the_clip_in_its_batch(
        self, method: Method, backbone: Backbone, batch: ClipBatch, settings: list[Setting]
    ):
        together = self.all_logits(method, batch, settings)
        for clip in range(3):
            alone = self.all_logits(method, make_batch(backbone, (clip,)), settings)
            for one, three in zip(alone, together, strict=True):
                close(one, three[clip : clip + 1])

    def test_only_an_oracle_sees_the_label(
        self, method: Method, batch: ClipBatch, backbone: Backbone, settings: list[Setting]
    ):
        other = replace(batch, labels=(batch.labels + 1) % backbone.num_classes)
        pairs = zip(
            self.all_logits(method, batch, settings),
            self.all_logits(method, other, settings),
            strict=True,
        )
        assert any(not torch.equal(*pair) for pair in pairs) == self.looks_at_labels

    def test_what_is_left_is_part_of_the_clip(
        self,
        method: Method,
        backbone: Backbone,
        batch: ClipBatch,
        settings: list[Setting],
    ):
        """Places once each, the prefix in front, and every token of the grid accounted for."""
        prepared = method.prepare(batch)
        for setting in settings:
            left = backbone.encode(batch.tokens.tracked(), method.reducer(prepared, setting))
            assert left.group is not None
            for clip in range(len(left)):
                places = left.place[clip].tolist()
                assert (
                    places[: backbone.prefix]
                    == batch.tokens.place[clip].tolist()[: backbone.prefix]
                )
                assert len(set(places)) == left.num
                group = left.group[clip]
                on_grid = left.place[clip, backbone.off_grid :]
                # A token is in its own group, wherever it went; or another took its place over.
                own, taken = group[on_grid], group[on_grid] < 0
                assert torch.equal(own[~taken], torch.arange(backbone.off_grid, left.num)[~taken])
                assert not taken.any() or "hybrid" in str(method)
                self.check_sizes(left, clip, backbone)

    def check_sizes(self, left: Tokens, clip: int, backbone: Backbone) -> None:
        """A token's size is the number of tokens in its group."""
        if left.size is None:
            return
        group = left.group[clip]
        members = torch.bincount(group[group >= 0], minlength=left.num)
        on_grid = slice(backbone.off_grid, None)
        assert torch.equal(left.size[clip, on_grid], members[on_grid].to(left.size.dtype))

    def maps_of_attention(self, reducer: Reducer, counts: TokenCounts, costs: CostModel) -> float:
        """GMACs of queries times keys, which a fused attention computes once more to be seen."""
        seen = 0
        for layer, num in enumerate(counts.attention):
            if (reducer.wants(layer) or frozenset()) & {RECEIVED, PROBABILITIES}:
                seen += num**2 * costs.flow.hidden_size
        return seen / 1e9

    def overhead_of_the_run(self, method: Method, setting: Setting, costs: CostModel) -> float:
        """GMACs of deciding that are spent inside the blocks."""
        return method.overhead(setting, costs.flow) or 0.0

    def logits(self, method: Method, batch: ClipBatch, setting: Setting) -> torch.Tensor:
        return self.all_logits(method, batch, [setting])[0]

    def all_logits(
        self, method: Method, batch: ClipBatch, settings: Sequence[Setting]
    ) -> list[torch.Tensor]:
        """At each setting, from one look at the batch, as an evaluation does it."""
        prepared = method.prepare(batch)
        return [batch.backbone.run(batch.tokens, method.reducer(prepared, s)) for s in settings]


def on_meta(value: Any) -> Any:
    """A copy with all tensors on the meta device."""
    stream = io.BytesIO()
    torch.save(value, stream)
    stream.seek(0)
    return torch.load(stream, map_location="meta", weights_only=False)
