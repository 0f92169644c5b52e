"""From a method's parsed name to the method; its own file is imported when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from pipeline.backbones.base import Backbone
from pipeline.errors import ConfigError
from selector.methods.base import Method
from selector.methods.names import (
    LITE,
    PLAIN,
    PRIOR,
    PROP_ATTN,
    MethodName,
    require_selectors,
    tome_options,
    vid_tldr_shares,
)
from selector.methods.rank.base import RankingMethod
from selector.training.model import TokenSelector


@dataclass(frozen=True)
class Parts:
    """What methods are made from."""

    backbone: Backbone
    """On its device."""
    seed: int = 0
    """Of `random`."""
    selectors: Mapping[str, str | TokenSelector] = field(default_factory=dict)
    """`lite` or `lite[NAME]` to the trained selector or its folder."""
    sampling: str = "uniform"
    """How the clips' frames were sampled, for `motion-vectors`."""
    spread: float = 0.0
    """Of `lite`; `lite-spread` has its own."""


def make_random(name: MethodName, parts: Parts) -> Method:
    """`random`."""
    from selector.methods.rank.chance import RandomMethod

    return RandomMethod(parts.seed)


def make_uniform(name: MethodName, parts: Parts) -> Method:
    """`uniform`."""
    from selector.methods.rank.chance import UniformMethod

    return UniformMethod()


def make_lite(name: MethodName, parts: Parts) -> Method:
    """`lite` and `lite-spread`."""
    from selector.methods.rank.lite import LiteMethod
    from selector.methods.spread import DEFAULT_SPREAD

    spread = parts.spread if name.name == LITE else DEFAULT_SPREAD
    return LiteMethod(_selector(name, parts), spread)


def make_prior(name: MethodName, parts: Parts) -> Method:
    """`prior` and `prior-spread`."""
    from selector.methods.rank.prior import PriorMethod
    from selector.methods.spread import DEFAULT_SPREAD

    selector = _selector(name, parts)
    try:
        return PriorMethod(selector, 0.0 if name.name == PRIOR else DEFAULT_SPREAD)
    except ConfigError as error:
        raise ConfigError(f"method {name}: {error}") from error


def _selector(name: MethodName, parts: Parts) -> TokenSelector:
    """The one that a method needs, loaded."""
    from selector.training.files import load_selector

    assert name.selected_by is not None
    require_selectors([name], {name.selected_by} & parts.selectors.keys())
    selector = parts.selectors[name.selected_by]
    if isinstance(selector, str):
        device = parts.backbone.device
        if device.type == "meta":  # a backbone without values; a selector's are looked at
            device = torch.device("cpu")
        try:
            selector = load_selector(selector, parts.backbone, device)
        except ConfigError as error:
            raise ConfigError(f"method {name} ({selector}): {error}") from error
    return selector


def make_attention(name: MethodName, parts: Parts) -> Method:
    """`attention`."""
    from selector.methods.rank.attention import AttentionMethod

    block = int(name.options[0].partition(".")[2]) if name.options else None
    return AttentionMethod(parts.backbone, block)


def make_motion(name: MethodName, parts: Parts) -> Method:
    """`motion`."""
    from selector.methods.rank.motion import MotionMethod

    return MotionMethod(parts.backbone)


def make_motion_pixels(name: MethodName, parts: Parts) -> Method:
    """`motion-pixels`."""
    from selector.methods.rank.motion import PixelMotionMethod

    return PixelMotionMethod()


def make_motion_vectors(name: MethodName, parts: Parts) -> Method:
    """`motion-vectors`."""
    from selector.methods.rank.motion_vectors import MotionVectorMethod

    return MotionVectorMethod(parts.backbone, parts.sampling)


def make_saliency(name: MethodName, parts: Parts) -> Method:
    """`saliency`."""
    from selector.methods.rank.saliency import SaliencyMethod

    return SaliencyMethod()


def make_oracle(name: MethodName, parts: Parts) -> Method:
    """`oracle` and its controls."""
    from selector.methods.rank.oracle import OracleMethod

    layer, method = name.options
    return OracleMethod(parts.backbone, layer, method, name.name, parts.seed)


def make_evs(name: MethodName, parts: Parts) -> Method:
    """`evs`."""
    from selector.methods.rank.motion import EVSMethod

    return EVSMethod()


def make_rlt(name: MethodName, parts: Parts) -> Method:
    """`rlt`."""
    from selector.methods.rank import rlt

    preprocessing = parts.backbone.preprocessing
    if not name.options:
        return rlt.RLT(preprocessing)
    unit, _, value = name.options[0].partition("=")
    tau = float(value) if unit == "tau" else rlt.tau_of(float(value), preprocessing)
    return rlt.RLT(preprocessing, tau)


def make_fluxvit(name: MethodName, parts: Parts) -> Method:
    """`fluxvit`."""
    from selector.methods.rank.motion import MotionMethod
    from selector.methods.rank.shape import GroupedMethod, flux_spans

    spans = flux_spans(parts.backbone.grid.t)
    return GroupedMethod(MotionMethod(parts.backbone, spans), "fluxvit", spans)


_CONSTRAINED = {"random": make_random, "uniform": make_uniform, LITE: make_lite}


def _ranking(name: MethodName, parts: Parts) -> RankingMethod:
    """The ranking that `NAME-tube` and `NAME-frame` constrain."""
    alone = MethodName(name.name.rpartition("-")[0], name.options)
    made = _CONSTRAINED[alone.name](alone, parts)
    assert isinstance(made, RankingMethod)
    return made


def make_tube(name: MethodName, parts: Parts) -> Method:
    """`NAME-tube`."""
    from selector.methods.rank.shape import TubeMethod

    return TubeMethod(_ranking(name, parts), first=name.selected_by is None)


def make_frame(name: MethodName, parts: Parts) -> Method:
    """`NAME-frame`."""
    from selector.methods.rank.shape import GroupedMethod

    return GroupedMethod(_ranking(name, parts), name.name)


def make_tome(name: MethodName, parts: Parts) -> Method:
    """`tome`."""
    from selector.methods.merge.tome import ToMe

    return ToMe(*tome_options(name.options), seed=parts.seed)


def make_pitome(name: MethodName, parts: Parts) -> Method:
    """`pitome`."""
    from selector.methods.merge.pitome import PiToMe

    return PiToMe(PLAIN in name.options, PROP_ATTN in name.options)


def make_vid_tldr(name: MethodName, parts: Parts) -> Method:
    """`vid-tldr`."""
    from selector.methods.merge.vid_tldr import VidTLDR

    return VidTLDR(vid_tldr_shares(name.options)) if name.options else VidTLDR()


def make_sta(name: MethodName, parts: Parts) -> Method:
    """`sta`."""
    from selector.methods.merge.sta import STA

    return STA()


def make_evit(name: MethodName, parts: Parts) -> Method:
    """`evit`."""
    from selector.methods.merge.prune import EViT

    return EViT()


def make_repshift(name: MethodName, parts: Parts) -> Method:
    """`repshift`."""
    from selector.methods.merge.prune import RepresentationShift

    return RepresentationShift()
