"""One interface for everything that makes a clip cheaper.

A method looks at a batch once (`prepare`) and then says, for any budget, what happens to the tokens
on their way through the blocks (`reducer`). It only decides; `pipeline.backbones.tokens.reduce`
applies. A method has one knob, its *setting*: the tokens that a ranking keeps, the tokens that ToMe
merges in a block. `counts` says what a setting leaves of the tokens, block by block, and from that
follow its cost and the setting that a budget buys.

To add one: a class in the room it belongs to (`rank` before the blocks, `merge` inside them), its
line in `selector.methods.registry`; `tests/conformance/methods.py` holds what must be true of it.

Axes: B clips, T frames, N tokens of the full grid, D channels.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.backbones.base import Backbone
from pipeline.backbones.tokens import Evidence, Reducer, Tokens, Wanted
from pipeline.clips.views import View
from pipeline.errors import ConfigError, UnreachableBudgetError
from selector.methods.cost import CostModel, Flow, TokenCounts
from selector.methods.keep import num_kept

Setting = Any
"""A method's knob: an integer, or a tuple of them for a chain; plain JSON."""


@dataclass(frozen=True)
class _Alike(Sequence[Any]):
    """The same `value`, `num` times, where how often is not asked before it must be."""

    value: Any
    num: int

    def __len__(self) -> int:
        return int(self.num)

    def __getitem__(self, index: Any) -> Any:
        return ((self.value,) * len(self))[index]


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """Some clips, decoded and embedded once for all methods.

    A clip that could not be decoded is there too, all black, so that its neighbours' bits do not
    depend on it; what a method says of it is thrown away.
    """

    backbone: Backbone
    """Frozen; on the device of the tensors below."""
    frames: npt.NDArray[np.uint8]
    """(B, T, H, W, 3) RGB, as decoded: resized and cropped, not normalised."""
    pixel_values: torch.Tensor
    """(B, T, 3, H, W), the backbone's input."""
    tokens: Tokens
    """Patch embeddings with positions, all of them, as they enter block 1."""
    labels: torch.Tensor
    """int64 (B,), true classes, on the tokens' device; for oracles only."""
    clip_ids: Sequence[int]
    """Rows of the plan."""
    video_ids: Sequence[str]
    """Of the clips' videos; with the view they name a clip in every plan, and seed its chance."""
    paths: Sequence[str | None]
    """Video files, for methods that read the compressed stream; None where the clip is black."""
    views: Sequence[View]
    """Which segment and crop of its video each clip is."""

    def __len__(self) -> int:
        return len(self.clip_ids)

    def entropies(self, seed: int) -> Iterator[list[int]]:
        """`clip_entropy` of each clip."""
        for video, view in zip(self.video_ids, self.views, strict=True):
            yield clip_entropy(seed, video, view.segment, view.crop)

    @property
    def num_clips(self) -> int:
        """`len`, or in a graph that is exported the batch's size, which is any."""
        return self.tokens.values.shape[0]

    @classmethod
    def of_pixels(cls, backbone: Backbone, pixel_values: torch.Tensor, tokens: Tokens) -> ClipBatch:
        """Of clips in use, about which nothing else is known.

        All have one name, so that `random` has one mask for all of them.
        """
        # Not `len`: it is a number, and a graph that is exported has none for its batch.
        num, side = tokens.values.shape[0], backbone.image_size
        return cls(
            backbone=backbone,
            frames=np.empty((0, backbone.num_frames, side, side, 3), np.uint8),
            pixel_values=pixel_values,
            tokens=tokens,
            labels=torch.full((num,), -1, device=tokens.values.device),
            clip_ids=_Alike(0, num),
            video_ids=_Alike("", num),
            paths=_Alike(None, num),
            views=_Alike(View(), num),
        )


def clip_entropy(seed: int, video_id: str, segment: int, crop: int) -> list[int]:
    """What seeds a generator for one clip: 32 bytes that a seed, a video and a view decide alone.

    So what is random of a clip is the same in every plan, batch and order.
    """
    text = "\n".join(map(str, (seed, video_id, segment, crop)))
    return list(hashlib.sha256(text.encode()).digest())


class Method(ABC):
    """Something that makes a clip cheaper.

    Attributes:
        whole_grid: whether it needs all tokens of the grid to begin with, so that no other method
            may choose before it.
        by_content: whether each clip's content decides how many tokens it keeps, so that a budget
            sets nothing, a setting has no `counts`, and `num_left` says what a clip keeps.
        unseen: what it must see beside pixels and tokens, which a model in use does not have; None
            where it can be part of one.
        limit: what keeps it from becoming as cheap as one likes, for the sentence that refuses a
            budget; empty where nothing does.
    """

    whole_grid: bool = False
    by_content: bool = False
    unseen: str | None = None
    limit: str = ""

    def fits(self, backbone: Backbone) -> str | None:
        """None, or the sentence that says why this method cannot serve a backbone."""
        return None

    def prepare(self, batch: ClipBatch) -> Any:
        """What is computed once for a batch, whatever the budget; called under `no_grad`."""
        return None

    def reasons(self, prepared: Any) -> Mapping[int, str]:
        """Position in the batch -> why the method cannot decide for that clip, which then fails."""
        return MappingProxyType({})

    def kept_mass(
        self, prepared: Any, settings: Sequence[Setting]
    ) -> npt.NDArray[np.float64] | None:
        """Share of the predicted value that each setting keeps, (B, L); None: none is predicted."""
        return None

    @abstractmethod
    def reducer(self, prepared: Any, setting: Setting) -> Reducer:
        """What happens to the tokens of the batch that `prepared` was computed from."""

    @abstractmethod
    def knobs(self, flow: Flow) -> Sequence[Setting]:
        """All settings, from the dearest to the cheapest."""

    @abstractmethod
    def counts(self, setting: Setting, flow: Flow) -> TokenCounts | None:
        """What a setting leaves of the tokens, block by block; None where the content decides."""

    def course(self, setting: Setting, flow: Flow) -> TokenCounts:
        """`counts` of a method that has them.

        Raises:
            ConfigError: the content decides.
        """
        counts = self.counts(setting, flow)
        if counts is None:
            raise ConfigError(
                f"what {self} costs, each clip's content decides: it has no cost of its own and "
                "takes no budget"
            )
        return counts

    def num_left(self, prepared: Any, setting: Setting) -> torch.Tensor:
        """Tokens of the grid that each clip keeps, int64 (B,), where the content decides."""
        raise NotImplementedError

    def overhead(self, setting: Setting, flow: Flow) -> float | None:
        """GMACs of deciding for one view, beyond embedding it.

        None for an oracle, which needs the label or the full model's answer and can be no part of
        a cheaper model.
        """
        return 0.0

    def setting(self, keep_ratio: float, costs: CostModel) -> Setting:
        """The dearest setting that costs no more than keeping this share of the tokens.

        Embedding, blocks and head count; what deciding costs does not, as in the paper's tables.

        Raises:
            ConfigError: a keep ratio outside (0, 1].
            UnreachableBudgetError: one so small that no setting is as cheap.
        """
        return self.setting_within(costs.at(num_kept(costs.num_tokens, keep_ratio)).backbone, costs)

    def setting_within(self, gmacs: float, costs: CostModel) -> Setting:
        """The dearest setting with which one view, without deciding, costs at most so much.

        Raises:
            UnreachableBudgetError: the cheapest setting costs more.
        """
        return cheapest_above(self, costs.flow, costs, gmacs)


def cheapest_above(method: Method, flow: Flow, costs: CostModel, gmacs: float) -> Setting:
    """The first of a method's settings with which a view costs at most so much, by bisection.

    Raises:
        UnreachableBudgetError: its cheapest setting costs more.
    """
    knobs = method.knobs(flow)

    def cost(at: int) -> float:
        return costs.at(method.course(knobs[at], flow)).backbone

    low, high = 0, len(knobs) - 1
    if cost(high) > gmacs:
        raise UnreachableBudgetError(
            f"{method} cannot get down to {gmacs:.4g} GMACs here: its cheapest setting costs "
            f"{cost(high):.4g}, as much as a keep ratio of {costs.keep_ratio_of(cost(high))}"
            f"{f' ({method.limit})' if method.limit else ''}: ask for no less than that"
        )
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(middle) <= gmacs else (middle + 1, high)
    return knobs[low]


class Chain(Method):
    """First one method before the blocks, then another inside them.

    Of a budget, the first takes the square root of the keep ratio, and the second what is missing.

    Args:
        first: acts before the first block only.
        second: acts inside the blocks only.
    """

    def __init__(self, first: Method, second: Method) -> None:
        self.first, self.second = first, second
        self.unseen = first.unseen or second.unseen

    def __str__(self) -> str:
        return "+".join(map(str, (self.first, self.second)))

    def fits(self, backbone: Backbone) -> str | None:
        """The first of the two that does not, says why."""
        if self.first.by_content:
            return (
                f"{self.first} leaves every clip another number of tokens, and what {self.second} "
                "merges is set for one number"
            )
        if self.second.whole_grid:
            return f"{self.second} needs all tokens of the grid, and {self.first} drops some before"
        return self.first.fits(backbone) or self.second.fits(backbone)

    def prepare(self, batch: ClipBatch) -> tuple[Any, Any]:
        """Both prepare."""
        first, second = self.first, self.second
        return first.prepare(batch), second.prepare(batch)

    def reasons(self, prepared: tuple[Any, Any]) -> Mapping[int, str]:
        """Of either."""
        first, second = self.first, self.second
        return {**second.reasons(prepared[1]), **first.reasons(prepared[0])}

    def reducer(self, prepared: tuple[Any, Any], setting: Setting) -> Reducer:
        """One after the other."""
        parts = zip((self.first, self.second), prepared, setting, strict=True)
        return ChainedReducers(tuple(method.reducer(p, s) for method, p, s in parts))

    def knobs(self, flow: Flow) -> Sequence[Setting]:
        """Both at their dearest, and both at their cheapest: what lies between is a surface."""
        first, second = (method.knobs(flow) for method in (self.first, self.second))
        return [(first[0], second[0]), (first[-1], second[-1])]

    def counts(self, setting: Setting, flow: Flow) -> TokenCounts:
        """Of the second, on what the first leaves."""
        first, second = self.first, self.second
        return second.course(setting[1], flow._replace(num=first.course(setting[0], flow).head))

    def overhead(self, setting: Setting, flow: Flow) -> float | None:
        """The sum; None if either has none."""
        first, second = self.first, self.second
        left = flow._replace(num=first.course(setting[0], flow).head)
        costs = first.overhead(setting[0], flow), second.overhead(setting[1], left)
        return None if costs[0] is None or costs[1] is None else costs[0] + costs[1]

    def setting(self, keep_ratio: float, costs: CostModel) -> Setting:
        """See the class."""
        within = costs.at(num_kept(costs.num_tokens, keep_ratio)).backbone
        return self._shared(keep_ratio, within, costs)

    def setting_within(self, gmacs: float, costs: CostModel) -> Setting:
        """See the class."""
        return self._shared(costs.keep_ratio_within(gmacs), gmacs, costs)

    def _shared(self, keep_ratio: float, gmacs: float, costs: CostModel) -> Setting:
        first, second = self.first, self.second
        kept = first.setting(keep_ratio**0.5, costs)
        left = costs.flow._replace(num=first.course(kept, costs.flow).head)
        return kept, cheapest_above(second, left, costs, gmacs)


@dataclass(frozen=True)
class ChainedReducers(Reducer):
    """Several reducers, one after the other; at most one has a part in any one block."""

    parts: tuple[Reducer, ...]

    @property
    def proportional(self) -> bool:  # type: ignore[override]
        """Whether any of them asks for it."""
        return any(part.proportional for part in self.parts)

    def wants(self, layer: int) -> Wanted | None:
        """What the one with a part in this block wants."""
        acting = [w for w in (part.wants(layer) for part in self.parts) if w is not None]
        if len(acting) > 1:
            # What the second would see describes tokens that the first has changed by then.
            raise ConfigError(f"two methods of one chain act inside block {layer}")
        return acting[0] if acting else None

    def before(self, x: Tokens) -> Tokens:
        """In order."""
        for part in self.parts:
            x = part.before(x)
        return x

    def between(self, layer: int, x: Tokens, seen: Evidence) -> Tokens:
        """In order."""
        for part in self.parts:
            x = part.between(layer, x, seen)
        return x

    def after(self, layer: int, x: Tokens, seen: Evidence) -> Tokens:
        """In order."""
        for part in self.parts:
            x = part.after(layer, x, seen)
        return x
