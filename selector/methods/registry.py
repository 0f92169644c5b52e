"""The methods: the command line, its help and the documentation all ask this table.

To add a method, add its line to `METHODS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from pipeline.backbones.base import Backbone
from pipeline.errors import ConfigError
from selector.methods.base import Chain, Method
from selector.methods.names import (
    BLOCK,
    LITE,
    LITE_SPREAD,
    ORACLE,
    ORACLE_SECOND,
    ORACLE_WRONG,
    PITOME,
    PLAIN,
    PRIOR,
    PRIOR_SPREAD,
    PROP_ATTN,
    RLT,
    SELECTOR,
    THRESHOLD,
    TOME,
    VID_TLDR,
    MethodName,
    Options,
    no_options,
    read_block,
    read_oracle,
    read_pitome,
    read_selector,
    read_threshold,
    read_tome,
    read_vid_tldr,
    require_selectors,
    split_names,
    tome_options,
)
from selector.methods.rank.base import RankingMethod
from selector.training.model import TokenSelector

_PART = re.compile(r"(?P<name>[a-z-]+)(?:\[(?P<inside>[^\[\]]*)\])?")


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


@dataclass(frozen=True)
class Known:
    """One method's line."""

    summary: str
    source: str
    """Where it comes from, for people."""
    make: Callable[[MethodName, Parts], Method]
    inside: bool = False
    """Whether it acts inside the blocks."""
    brackets: str = ""
    """What may stand in its brackets, for people."""
    read: Callable[[Options | None, Options], Options] = no_options
    """Reads them; see `selector.methods.names`."""


def parse_methods(text: str, layer: str, method: str) -> tuple[MethodName, ...]:
    """Reads `random,lite,lite[hires]+tome,oracle,oracle[embeddings,hirescam]`.

    Args:
        text: names separated by commas.
        layer: target layer of an oracle that names none.
        method: class-activation method of an oracle that names none.

    Raises:
        ConfigError: no name, an unknown one, or the same method twice.
    """
    names = [parse_method(part, layer, method) for part in split_names(text)]
    if not names:
        raise ConfigError(f"name at least one method of {', '.join(METHODS)}, got {text!r}")
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"method {name} is asked for twice in {text!r}")
    return tuple(names)


def parse_method(text: str, layer: str | None = None, method: str | None = None) -> MethodName:
    """Reads one name; `layer` and `method` complete an oracle that names none.

    Raises:
        ConfigError: an unknown name, brackets that are not as wanted, or a chain whose parts do not
            act one before and one inside the blocks.
    """
    defaults = (layer, method) if layer and method else ()
    names = [_parse_one(part.strip(), defaults) for part in text.split("+")]
    first = names[0]
    if len(names) == 1:
        return first
    if len(names) > 2 or METHODS[first.name].inside or not METHODS[names[1].name].inside:
        inside = ", ".join(name for name, known in METHODS.items() if known.inside)
        raise ConfigError(
            f"a chain is one method before the blocks + one inside them ({inside}), got {text!r}"
        )
    return MethodName(first.name, first.options, names[1])


def _parse_one(text: str, defaults: Options) -> MethodName:
    match = _PART.fullmatch(text)
    if match is None or match["name"] not in METHODS:
        raise ConfigError(
            f"unknown method {text!r}: the known ones are {', '.join(METHODS)}; an oracle may name "
            "its layer and method, as in oracle[embeddings,hirescam], and lite its selector"
        )
    name, inside = match["name"], match["inside"]
    given = None if inside is None else tuple(part.strip() for part in inside.split(","))
    try:
        return MethodName(name, METHODS[name].read(given, defaults))
    except ValueError as error:
        raise ConfigError(f"{name} {error}, got {text!r}") from None


def make_method(name: MethodName, parts: Parts) -> Method:
    """Builds a method for a backbone; heavy models load here.

    Raises:
        ConfigError: it cannot serve this backbone; a `lite` without a selector; `saliency` without
            OpenCV's contrib modules.
    """
    first = METHODS[name.name].make(name, parts)
    made = first if name.then is None else Chain(first, make_method(name.then, parts))
    refusal = made.fits(parts.backbone)
    if refusal is not None:
        raise ConfigError(f"method {name} cannot serve this backbone: {refusal}")
    return made


def _make_random(name: MethodName, parts: Parts) -> Method:
    from selector.methods.rank.chance import RandomMethod

    return RandomMethod(parts.seed)


def _make_uniform(name: MethodName, parts: Parts) -> Method:
    from selector.methods.rank.chance import UniformMethod

    return UniformMethod()


def _make_lite(name: MethodName, parts: Parts) -> Method:
    from selector.methods.rank.lite import LiteMethod
    from selector.methods.spread import DEFAULT_SPREAD

    spread = parts.spread if name.name == LITE else DEFAULT_SPREAD
    return LiteMethod(_selector(name, parts), spread)


def _make_prior(name: MethodName, parts: Parts) -> Method:
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


def _make_attention(name: MethodName, parts: Parts) -> Method:
    from selector.methods.rank.attention import AttentionMethod

    block = int(name.options[0].partition(".")[2]) if name.options else None
    return AttentionMethod(parts.backbone, block)


def _make_motion(name: MethodName, parts: Parts) -> Method:
    from selector.methods.rank.motion import MotionMethod

    return MotionMethod(parts.backbone)


def _make_motion_pixels(name: MethodName, parts: Parts) -> Method:
    from selector.methods.rank.motion import PixelMotionMethod

    return PixelMotionMethod()


def _make_motion_vectors(name: MethodName, parts: Parts) -> Method:
    from selector.methods.rank.motion_vectors import MotionVectorMethod

    return MotionVectorMethod(parts.backbone, parts.sampling)


def _make_saliency(name: MethodName, parts: Parts) -> Method:
    from selector.methods.rank.saliency import SaliencyMethod

    return SaliencyMethod()


def _make_oracle(name: MethodName, parts: Parts) -> Method:
    from selector.methods.rank.oracle import OracleMethod

    layer, method = name.options
    return OracleMethod(parts.backbone, layer, method, name.name, parts.seed)


def _make_evs(name: MethodName, parts: Parts) -> Method:
    from selector.methods.rank.motion import EVSMethod

    return EVSMethod()


def _make_rlt(name: MethodName, parts: Parts) -> Method:
    from selector.methods.rank import rlt

    preprocessing = parts.backbone.preprocessing
    if not name.options:
        return rlt.RLT(preprocessing)
    unit, _, value = name.options[0].partition("=")
    tau = float(value) if unit == "tau" else rlt.tau_of(float(value), preprocessing)
    return rlt.RLT(preprocessing, tau)


def _make_fluxvit(name: MethodName, parts: Parts) -> Method:
    from selector.methods.rank.motion import MotionMethod
    from selector.methods.rank.shape import GroupedMethod, flux_spans

    spans = flux_spans(parts.backbone.grid.t)
    return GroupedMethod(MotionMethod(parts.backbone, spans), "fluxvit", spans)


def _ranking(name: MethodName, parts: Parts) -> RankingMethod:
    """The ranking that `NAME-tube` and `NAME-frame` constrain."""
    alone = MethodName(name.name.rpartition("-")[0], name.options)
    made = METHODS[alone.name].make(alone, parts)
    assert isinstance(made, RankingMethod)
    return made


def _make_tube(name: MethodName, parts: Parts) -> Method:
    from selector.methods.rank.shape import TubeMethod

    return TubeMethod(_ranking(name, parts), first=name.selected_by is None)


def _make_frame(name: MethodName, parts: Parts) -> Method:
    from selector.methods.rank.shape import GroupedMethod

    return GroupedMethod(_ranking(name, parts), name.name)


def _make_tome(name: MethodName, parts: Parts) -> Method:
    from selector.methods.merge.tome import ToMe

    return ToMe(*tome_options(name.options), seed=parts.seed)


def _make_pitome(name: MethodName, parts: Parts) -> Method:
    from selector.methods.merge.pitome import PiToMe

    return PiToMe(PLAIN in name.options, PROP_ATTN in name.options)


def _make_vid_tldr(name: MethodName, parts: Parts) -> Method:
    from selector.methods.merge.vid_tldr import NUM_BLOCKS, VidTLDR

    return VidTLDR(int(name.options[0].partition("=")[2]) if name.options else NUM_BLOCKS)


def _make_sta(name: MethodName, parts: Parts) -> Method:
    from selector.methods.merge.sta import STA

    return STA()


def _make_evit(name: MethodName, parts: Parts) -> Method:
    from selector.methods.merge.prune import EViT

    return EViT()


def _make_repshift(name: MethodName, parts: Parts) -> Method:
    from selector.methods.merge.prune import RepresentationShift

    return RepresentationShift()


METHODS: dict[str, Known] = {
    "random": Known("tokens at random, several seeds", "arXiv 2411.13626, baseline", _make_random),
    "uniform": Known(
        "an even grid over time and space, the same for every clip", "ours", _make_uniform
    ),
    LITE: Known(
        "the best by a trained selector (LITE, ICCV 2025)",
        "arXiv 2411.13626",
        _make_lite,
        brackets=SELECTOR,
        read=read_selector,
    ),
    LITE_SPREAD: Known(
        "the selector's scores sampled evenly in time and space (ours)",
        "ours; order sampling after Rosén 1997",
        _make_lite,
        brackets=SELECTOR,
        read=read_selector,
    ),
    PRIOR: Known(
        "control: the best places by a selector's training clips, the same for every clip",
        "ours",
        _make_prior,
        brackets=SELECTOR,
        read=read_selector,
    ),
    PRIOR_SPREAD: Known(
        "control: those, sampled evenly in time and space as by lite-spread",
        "ours",
        _make_prior,
        brackets=SELECTOR,
        read=read_selector,
    ),
    "attention": Known(
        "attention received, mean over blocks or in one; costs the model",
        "arXiv 2411.13626, baseline",
        _make_attention,
        brackets=BLOCK,
        read=read_block,
    ),
    "motion": Known(
        "change of the patch embedding over time (EVEREST, ICML 2024)",
        "arXiv 2211.10636",
        _make_motion,
    ),
    "motion-pixels": Known(
        "change of the pixels over time", "ours, after RLT", _make_motion_pixels
    ),
    "motion-vectors": Known(
        "the codec's motion vectors", "arXiv 2411.13626, baseline", _make_motion_vectors
    ),
    "saliency": Known(
        "spectral-residual saliency (Hou and Zhang, CVPR 2007)",
        "CVPR 2007; pooling ours",
        _make_saliency,
    ),
    "oracle": Known(
        "the map of the true label: what a selector could know at best",
        "arXiv 2411.13626",
        _make_oracle,
        brackets=ORACLE,
        read=read_oracle,
    ),
    "oracle-predicted": Known(
        "the map of the predicted class, which needs no label",
        "arXiv 2411.13626",
        _make_oracle,
        brackets=ORACLE,
        read=read_oracle,
    ),
    ORACLE_SECOND: Known(
        "control: the map of the class that the full model finds second; reads no label",
        "ours",
        _make_oracle,
        brackets=ORACLE,
        read=read_oracle,
    ),
    ORACLE_WRONG: Known(
        "control: the map of a random class, neither the label nor predicted; several seeds",
        "ours",
        _make_oracle,
        brackets=ORACLE,
        read=read_oracle,
    ),
    "evs": Known(
        "change of the pixels, the first tubelet kept (EVS 2025, RLT 2024)",
        "arXiv 2510.14624",
        _make_evs,
    ),
    RLT: Known(
        "what changed by more than a threshold, as many as those are (RLT, NeurIPS 2024)",
        "arXiv 2411.05222",
        _make_rlt,
        brackets=THRESHOLD,
        read=read_threshold,
    ),
    "fluxvit": Known(
        "motion within four spans of time, equally many of each (FluxViT, 2025)",
        "arXiv 2503.14237",
        _make_fluxvit,
    ),
    "random-tube": Known(
        "random places, the same in all tubelets",
        "arXiv 2203.12602, masks of pre-training",
        _make_tube,
    ),
    "random-frame": Known("as many random tokens in every tubelet", "ours", _make_frame),
    "uniform-tube": Known("an even grid over space, the same in all tubelets", "ours", _make_tube),
    "uniform-frame": Known("an even grid, as many tokens in every tubelet", "ours", _make_frame),
    "lite-tube": Known(
        "the places of the best mean score, in all tubelets",
        "ours",
        _make_tube,
        brackets=SELECTOR,
        read=read_selector,
    ),
    "lite-frame": Known(
        "the best by a trained selector, as many in every tubelet",
        "ours",
        _make_frame,
        brackets=SELECTOR,
        read=read_selector,
    ),
    "tome": Known(
        "merges similar tokens in every block (Token Merging, ICLR 2023)",
        "arXiv 2210.09461; modes 2506.03885",
        _make_tome,
        inside=True,
        brackets=TOME,
        read=read_tome,
    ),
    "pitome": Known(
        "merges tokens that many others resemble (PiToMe, NeurIPS 2024)",
        "arXiv 2405.16148",
        _make_pitome,
        inside=True,
        brackets=PITOME,
        read=read_pitome,
    ),
    "vid-tldr": Known(
        "merges in the first blocks, by saliency (vid-TLDR, CVPR 2024)",
        "arXiv 2403.13347",
        _make_vid_tldr,
        inside=True,
        brackets=VID_TLDR,
        read=read_vid_tldr,
    ),
    "sta": Known(
        "drops what the time before had too (STA, ICCV 2023)",
        "arXiv 2308.04549",
        _make_sta,
        inside=True,
    ),
    "evit": Known(
        "drops what receives little attention, at three depths (ours, after EViT 2022)",
        "ours, after arXiv 2202.07800",
        _make_evit,
        inside=True,
    ),
    "repshift": Known(
        "drops what the MLPs of the first half change little (ours, after RepShift 2025)",
        "ours, after arXiv 2508.00367",
        _make_repshift,
        inside=True,
    ),
}
