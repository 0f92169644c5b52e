"""Names of rankings, as the command line takes them and as results carry them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pipeline.errors import ConfigError

ORACLES = {"oracle": "label", "oracle-predicted": "predicted"}
"""Name -> whose class is explained."""
CUES = ("attention", "motion", "motion-pixels", "motion-vectors", "saliency")
LITE, LITE_SPREAD = "lite", "lite-spread"
TRAINED = (LITE, LITE_SPREAD)
"""What ranks by a trained selector."""
SIMPLE = ("random", "uniform", *TRAINED, *CUES)
NAMES = (*SIMPLE, *ORACLES)

_PATTERN = re.compile(r"(?P<name>[a-z-]+)(?:\[(?P<inside>[^\[\]]+)\])?")
_SELECTOR_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class RankerSpec:
    """One ranking; `str()` is its canonical name.

    That is `oracle[blocks.-1.output,gradcam]`, `lite[hires]`, or the bare name.
    """

    name: str
    layer: str | None = None
    """The oracle's target layer; None for other rankings."""
    method: str | None = None
    """The oracle's class-activation method; None for other rankings."""
    selector: str | None = None
    """Which of several selectors ranks; None for the unnamed one, and for other rankings."""

    def __str__(self) -> str:
        if self.selector is not None:
            return f"{self.name}[{self.selector}]"
        return self.name if self.layer is None else f"{self.name}[{self.layer},{self.method}]"

    @property
    def selected_by(self) -> str | None:
        """The `lite` or `lite[NAME]` whose trained selector ranks; None for other rankings."""
        if self.name not in TRAINED:
            return None
        return str(RankerSpec(LITE, selector=self.selector))


def parse_specs(text: str, layer: str, method: str) -> tuple[RankerSpec, ...]:
    """Reads `random,lite,lite[hires],oracle,oracle[embeddings,hirescam]`.

    Args:
        text: names separated by commas; an oracle may carry `[layer,method]`, `lite` and
            `lite-spread` the name of a selector.
        layer: target layer of an oracle that names none.
        method: class-activation method of an oracle that names none.

    Raises:
        ConfigError: no name, an unknown one, or the same ranking twice.
    """
    # Commas inside brackets belong to the name.
    parts = [part.strip() for part in re.split(r",(?![^\[]*\])", text)]
    specs = [parse_spec(part, layer, method) for part in parts if part]
    if not specs:
        raise ConfigError(f"name at least one method of {', '.join(NAMES)}, got {text!r}")
    for spec in specs:
        if specs.count(spec) > 1:
            raise ConfigError(f"method {spec} is asked for twice in {text!r}")
    return tuple(specs)


def parse_spec(text: str, layer: str | None = None, method: str | None = None) -> RankerSpec:
    """Reads one name; `layer` and `method` complete an oracle that names none.

    Raises:
        ConfigError: an unknown name, or brackets where they do not belong.
    """
    match = _PATTERN.fullmatch(text)
    if match is None or match["name"] not in NAMES:
        raise ConfigError(
            f"unknown method {text!r}: the known ones are {', '.join(NAMES)}; an oracle may name "
            "its layer and method, as in oracle[embeddings,hirescam], and lite its selector"
        )
    name, inside = match["name"], match["inside"]
    if name in TRAINED and inside:
        if not _SELECTOR_NAME.fullmatch(inside):
            raise ConfigError(f"{name} takes the name of one selector in brackets, got {text!r}")
        return RankerSpec(name, selector=inside)
    if name not in ORACLES:
        if inside:
            raise ConfigError(f"only an oracle and lite take brackets, got {text!r}")
        return RankerSpec(name)
    if inside:
        layer, _, method = (part.strip() for part in inside.partition(","))
    if not layer or not method or "," in method:
        raise ConfigError(f"an oracle needs its [layer,method], got {text!r}")
    return RankerSpec(name, layer, method)


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
        method = str(RankerSpec(LITE, selector=name if named else None))
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


def require_selectors(specs: Sequence[RankerSpec], given: Collection[str]) -> None:
    """Checks that every `lite` and `lite-spread` has its selector, and every selector is used.

    Args:
        specs: the rankings.
        given: what there are selectors for, `lite` or `lite[NAME]`.

    Raises:
        ConfigError: names what is missing, or what is not used.
    """
    for spec in specs:
        if spec.selected_by is not None and spec.selected_by not in given:
            option = "DIR" if spec.selector is None else f"{spec.selector}=DIR"
            raise ConfigError(
                f"method {spec} needs its trained selector: give the folder with --selector "
                f"{option}, or make one with `lite-pipeline train-selector`"
            )
    used = [spec.selected_by for spec in specs]
    unused = [method for method in given if method not in used]
    if unused:
        raise ConfigError(
            f"a selector is given for {', '.join(unused)}, which is none of the methods "
            f"{', '.join(map(str, specs))}: add it to --methods, or leave the selector out"
        )
