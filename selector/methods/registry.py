"""The methods: the command line, its help and the documentation all ask this table.

To add a method, add its line to `METHODS` and what makes it to `selector.methods.makers`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.errors import ConfigError
from selector.methods import makers
from selector.methods.base import Chain, Method
from selector.methods.makers import Parts
from selector.methods.names import (
    BLOCK,
    LITE,
    LITE_SPREAD,
    ORACLE,
    ORACLE_SECOND,
    ORACLE_WRONG,
    PITOME,
    PRIOR,
    PRIOR_SPREAD,
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
    split_names,
)

__all__ = ["METHODS", "Known", "Parts", "make_method", "parse_method", "parse_methods"]

_PART = re.compile(r"(?P<name>[a-z-]+)(?:\[(?P<inside>[^\[\]]*)\])?")


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


METHODS: dict[str, Known] = {
    "random": Known(
        "tokens at random, several seeds", "arXiv 2411.13626, baseline", makers.make_random
    ),
    "uniform": Known(
        "an even grid over time and space, the same for every clip", "ours", makers.make_uniform
    ),
    LITE: Known(
        "the best by a trained selector (LITE, ICCV 2025)",
        "arXiv 2411.13626",
        makers.make_lite,
        brackets=SELECTOR,
        read=read_selector,
    ),
    LITE_SPREAD: Known(
        "the selector's scores sampled evenly in time and space (ours)",
        "ours; order sampling after Rosén 1997",
        makers.make_lite,
        brackets=SELECTOR,
        read=read_selector,
    ),
    PRIOR: Known(
        "control: the best places by a selector's training clips, the same for every clip",
        "ours",
        makers.make_prior,
        brackets=SELECTOR,
        read=read_selector,
    ),
    PRIOR_SPREAD: Known(
        "control: those, sampled evenly in time and space as by lite-spread",
        "ours",
        makers.make_prior,
        brackets=SELECTOR,
        read=read_selector,
    ),
    "attention": Known(
        "attention received, mean over blocks or in one; costs the model",
        "arXiv 2411.13626, baseline",
        makers.make_attention,
        brackets=BLOCK,
        read=read_block,
    ),
    "motion": Known(
        "change of the patch embedding over time (EVEREST, ICML 2024)",
        "arXiv 2211.10636",
        makers.make_motion,
    ),
    "motion-pixels": Known(
        "change of the pixels over time", "ours, after RLT", makers.make_motion_pixels
    ),
    "motion-vectors": Known(
        "the codec's motion vectors", "arXiv 2411.13626, baseline", makers.make_motion_vectors
    ),
    "saliency": Known(
        "spectral-residual saliency (Hou and Zhang, CVPR 2007)",
        "CVPR 2007; pooling ours",
        makers.make_saliency,
    ),
    "oracle": Known(
        "the map of the true label: what a selector could know at best",
        "arXiv 2411.13626",
        makers.make_oracle,
        brackets=ORACLE,
        read=read_oracle,
    ),
    "oracle-predicted": Known(
        "the map of the predicted class, which needs no label",
        "arXiv 2411.13626",
        makers.make_oracle,
        brackets=ORACLE,
        read=read_oracle,
    ),
    ORACLE_SECOND: Known(
        "control: the map of the class that the full model finds second; reads no label",
        "ours",
        makers.make_oracle,
        brackets=ORACLE,
        read=read_oracle,
    ),
    ORACLE_WRONG: Known(
        "control: the map of a random class, neither the label nor predicted; several seeds",
        "ours",
        makers.make_oracle,
        brackets=ORACLE,
        read=read_oracle,
    ),
    "evs": Known(
        "change of the pixels, the first tubelet kept (EVS 2025, RLT 2024)",
        "arXiv 2510.14624",
        makers.make_evs,
    ),
    RLT: Known(
        "what changed by more than a threshold, as many as those are (RLT, NeurIPS 2024)",
        "arXiv 2411.05222",
        makers.make_rlt,
        brackets=THRESHOLD,
        read=read_threshold,
    ),
    "fluxvit": Known(
        "motion within four spans of time, equally many of each (FluxViT, 2025)",
        "arXiv 2503.14237",
        makers.make_fluxvit,
    ),
    "random-tube": Known(
        "random places, the same in all tubelets",
        "arXiv 2203.12602, masks of pre-training",
        makers.make_tube,
    ),
    "random-frame": Known("as many random tokens in every tubelet", "ours", makers.make_frame),
    "uniform-tube": Known(
        "an even grid over space, the same in all tubelets", "ours", makers.make_tube
    ),
    "uniform-frame": Known(
        "an even grid, as many tokens in every tubelet", "ours", makers.make_frame
    ),
    "lite-tube": Known(
        "the places of the best mean score, in all tubelets",
        "ours",
        makers.make_tube,
        brackets=SELECTOR,
        read=read_selector,
    ),
    "lite-frame": Known(
        "the best by a trained selector, as many in every tubelet",
        "ours",
        makers.make_frame,
        brackets=SELECTOR,
        read=read_selector,
    ),
    "tome": Known(
        "merges similar tokens in every block (Token Merging, ICLR 2023)",
        "arXiv 2210.09461; modes 2506.03885",
        makers.make_tome,
        inside=True,
        brackets=TOME,
        read=read_tome,
    ),
    "pitome": Known(
        "merges tokens that many others resemble (PiToMe, NeurIPS 2024)",
        "arXiv 2405.16148",
        makers.make_pitome,
        inside=True,
        brackets=PITOME,
        read=read_pitome,
    ),
    "vid-tldr": Known(
        "merges in the first blocks, by saliency (vid-TLDR, CVPR 2024)",
        "arXiv 2403.13347",
        makers.make_vid_tldr,
        inside=True,
        brackets=VID_TLDR,
        read=read_vid_tldr,
    ),
    "sta": Known(
        "drops what the time before had too (STA, ICCV 2023)",
        "arXiv 2308.04549",
        makers.make_sta,
        inside=True,
    ),
    "evit": Known(
        "drops what receives little attention, at three depths (ours, after EViT 2022)",
        "ours, after arXiv 2202.07800",
        makers.make_evit,
        inside=True,
    ),
    "repshift": Known(
        "drops what the MLPs of the first half change little (ours, after RepShift 2025)",
        "ours, after arXiv 2508.00367",
        makers.make_repshift,
        inside=True,
    ),
}
