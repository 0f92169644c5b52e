"""The methods by name: the command line, its help and the documentation all ask this table.

A name is `random`, `lite[NAME]`, `oracle[LAYER,METHOD]`, `tome[inflect=-1,prop-attn]`, or two
joined by `+`, the second inside the blocks: `lite+tome`. To add a method, add its line here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.backbones.base import Backbone
from pipeline.errors import ConfigError
from selector.methods.base import Chain, Method

LITE, LITE_SPREAD = "lite", "lite-spread"
Options = tuple[str, ...]

_PART = re.compile(r"(?P<name>[a-z-]+)(?:\[(?P<inside>[^\[\]]*)\])?")
_SELECTOR_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Parts:
    """What methods are made from."""

    backbone: Backbone
    """On its device."""
    seed: int = 0
    """Of `random`."""
    selectors: Mapping[str, str] = field(default_factory=dict)
    """`lite` or `lite[NAME]` to the folder of the trained selector."""
    sampling: str = "uniform"
    """How the clips' frames were sampled, for `motion-vectors`."""


@dataclass(frozen=True)
class MethodName:
    """One method as it is asked for; `str()` is its canonical name."""

    name: str
    options: Options = ()
    then: MethodName | None = None
    """The second of a chain."""

    def __str__(self) -> str:
        text = self.name + (f"[{','.join(self.options)}]" if self.options else "")
        return text if self.then is None else f"{text}+{self.then}"

    @property
    def selected_by(self) -> str | None:
        """The `lite` or `lite[NAME]` whose trained selector it ranks by; None if it needs none."""
        return str(MethodName(LITE, self.options)) if self.name in (LITE, LITE_SPREAD) else None

    @property
    def is_random(self) -> bool:
        """Whether it depends on a seed."""
        return self.name == "random"

    @property
    def predicts_values(self) -> bool:
        """Whether adaptive budgets may use it: a trained selector ranks, and nothing else acts."""
        return self.then is None and self.selected_by is not None


@dataclass(frozen=True)
class Known:
    """One method's line."""

    summary: str
    make: Callable[[MethodName, Parts], Method]
    inside: bool = False
    """Whether it acts inside the blocks."""
    brackets: str = ""
    """What may stand in its brackets, for people."""
    read: Callable[[Options | None, Options], Options] = lambda given, defaults: _none(given)
    """What stands in them (None: no brackets), and the oracle's defaults -> canonical options.

    Raises `ValueError`, which says what is wanted.
    """


def parse_methods(text: str, layer: str, method: str) -> tuple[MethodName, ...]:
    """Reads `random,lite,lite[hires]+tome,oracle,oracle[embeddings,hirescam]`.

    Args:
        text: names separated by commas.
        layer: target layer of an oracle that names none.
        method: class-activation method of an oracle that names none.

    Raises:
        ConfigError: no name, an unknown one, or the same method twice.
    """
    # Commas inside brackets belong to the name.
    texts = [part.strip() for part in re.split(r",(?![^\[]*\])", text)]
    names = [parse_method(part, layer, method) for part in texts if part]
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


def parse_selectors(texts: Sequence[str]) -> dict[str, str]:
    """Reads `DIR` and `NAME=DIR`: the method, `lite` or `lite[NAME]`, to the selector's folder.

    What stands before the first `=` is a name only if it looks like one, so that a folder such as
    `runs/lr=3e-3` (or `./lr=3e-3`) needs no name.

    Raises:
        ConfigError: two selectors of one name, or a folder that is not given.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        named = bool(equals) and _SELECTOR_NAME.fullmatch(name) is not None
        method = str(MethodName(LITE, (name,) if named else ()))
        folder = folder if named else text
        if not folder:
            raise ConfigError(f"--selector takes DIR or NAME=DIR, got {text!r}")
        if method in found:
            raise ConfigError(
                f"two selectors for method {method}, {found[method]!r} and {folder!r}: give each a "
                "name of its own, --selector NAME=DIR"
            )
        found[method] = folder
    return found


def require_selectors(names: Sequence[MethodName], given: Collection[str]) -> None:
    """Checks that every method that ranks by a selector has it, and every selector is used.

    Args:
        names: the methods.
        given: what there are selectors for, `lite` or `lite[NAME]`.

    Raises:
        ConfigError: names what is missing, or what is not used.
    """
    for name in names:
        if name.selected_by is not None and name.selected_by not in given:
            option = f"{name.options[0]}=DIR" if name.options else "DIR"
            raise ConfigError(
                f"method {name} needs its trained selector: give the folder with --selector "
                f"{option}, or make one with `lite-pipeline train-selector`"
            )
    used = [name.selected_by for name in names]
    unused = [method for method in given if method not in used]
    if unused:
        raise ConfigError(
            f"a selector is given for {', '.join(unused)}, which is none of the methods "
            f"{', '.join(map(str, names))}: add it to --methods, or leave the selector out"
        )


def _none(given: Options | None) -> Options:
    if given is not None:
        raise ValueError("takes no brackets")
    return ()


def _read_selector(given: Options | None, defaults: Options) -> Options:
    if given is None:
        return ()
    if len(given) != 1 or not _SELECTOR_NAME.fullmatch(given[0]):
        raise ValueError("takes the name of one selector in brackets")
    return given


def _read_oracle(given: Options | None, defaults: Options) -> Options:
    found = defaults if given is None else given
    if len(found) != 2 or not all(found):
        raise ValueError("needs its [layer,method]")
    return found


_INFLECT, _PROP_ATTN = "inflect=", "prop-attn"


def _read_tome(given: Options | None, defaults: Options) -> Options:
    """Canonical: `inflect` first, left out where it is 0."""
    inflect, proportional = 0.0, False
    for option in given or ():
        if option == _PROP_ATTN:
            proportional = True
            continue
        try:
            inflect = float(option.removeprefix(_INFLECT))
        except ValueError:
            inflect = float("nan")
        if not option.startswith(_INFLECT) or not -1 <= inflect <= 1:
            raise ValueError("takes [inflect=NUMBER from -1 to 1] and [prop-attn]")
    return (
        *([f"{_INFLECT}{inflect:g}"] if inflect else []),
        *([_PROP_ATTN] if proportional else []),
    )


def _make_random(name: MethodName, parts: Parts) -> Method:
    from selector.methods.rank.chance import RandomMethod

    return RandomMethod(parts.seed)


def _make_uniform(name: MethodName, parts: Parts) -> Method:
    from selector.methods.rank.chance import UniformMethod

    return UniformMethod()


def _make_lite(name: MethodName, parts: Parts) -> Method:
    from selector.methods.rank.lite import LiteMethod
    from selector.methods.spread import DEFAULT_SPREAD
    from selector.training.files import load_selector

    assert name.selected_by is not None
    require_selectors([name], {name.selected_by} & parts.selectors.keys())
    folder = parts.selectors[name.selected_by]
    try:
        selector = load_selector(folder, parts.backbone, parts.backbone.device)
    except ConfigError as error:
        raise ConfigError(f"method {name} ({folder}): {error}") from error
    return LiteMethod(selector, DEFAULT_SPREAD if name.name == LITE_SPREAD else 0.0)


def _make_attention(name: MethodName, parts: Parts) -> Method:
    from selector.methods.rank.attention import AttentionMethod

    return AttentionMethod(parts.backbone)


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
    target = "label" if name.name == "oracle" else "predicted"
    return OracleMethod(parts.backbone, layer, method, target)


def _make_tome(name: MethodName, parts: Parts) -> Method:
    from selector.methods.merge.tome import ToMe

    inflect = [float(o.removeprefix(_INFLECT)) for o in name.options if o != _PROP_ATTN]
    return ToMe(inflect[0] if inflect else 0.0, _PROP_ATTN in name.options)


_SELECTOR, _ORACLE = "[NAME of a selector]", "[layer,method]"

METHODS: dict[str, Known] = {
    "random": Known("tokens at random, several seeds", _make_random),
    "uniform": Known("an even grid over time and space, the same for every clip", _make_uniform),
    LITE: Known(
        "the best by a trained selector (LITE, ICCV 2025)",
        _make_lite,
        brackets=_SELECTOR,
        read=_read_selector,
    ),
    LITE_SPREAD: Known(
        "the selector's scores sampled evenly in time and space (ours)",
        _make_lite,
        brackets=_SELECTOR,
        read=_read_selector,
    ),
    "attention": Known("attention received, mean over blocks; costs the model", _make_attention),
    "motion": Known("change of the patch embedding over time (EVEREST, ICML 2024)", _make_motion),
    "motion-pixels": Known("change of the pixels over time", _make_motion_pixels),
    "motion-vectors": Known("the codec's motion vectors", _make_motion_vectors),
    "saliency": Known("spectral-residual saliency (Hou and Zhang, CVPR 2007)", _make_saliency),
    "oracle": Known(
        "the map of the true label: what a selector could know at best",
        _make_oracle,
        brackets=_ORACLE,
        read=_read_oracle,
    ),
    "oracle-predicted": Known(
        "the map of the predicted class, which needs no label",
        _make_oracle,
        brackets=_ORACLE,
        read=_read_oracle,
    ),
    "tome": Known(
        "merges similar tokens in every block (Token Merging, ICLR 2023)",
        _make_tome,
        inside=True,
        brackets="[inflect=-1..1,prop-attn]",
        read=_read_tome,
    ),
}
