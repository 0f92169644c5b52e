"""Names of rankings, as the command line takes them and as results carry them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.errors import ConfigError

ORACLES = {"oracle": "label", "oracle-predicted": "predicted"}
"""Name -> whose class is explained."""
CUES = ("attention", "motion", "motion-pixels", "motion-vectors", "saliency")
SIMPLE = ("random", "uniform", "lite", *CUES)
NAMES = (*SIMPLE, *ORACLES)

_PATTERN = re.compile(r"(?P<name>[a-z-]+)(?:\[(?P<layer>[^\],]+),(?P<method>[^\],]+)\])?")


@dataclass(frozen=True)
class RankerSpec:
    """One ranking; `str()` is its canonical name, `oracle[blocks.-1.output,gradcam]`."""

    name: str
    layer: str | None = None
    """The oracle's target layer; None for other rankings."""
    method: str | None = None
    """The oracle's class-activation method; None for other rankings."""

    def __str__(self) -> str:
        return self.name if self.layer is None else f"{self.name}[{self.layer},{self.method}]"


def parse_specs(text: str, layer: str, method: str) -> tuple[RankerSpec, ...]:
    """Reads `random,lite,oracle,oracle[embeddings,hirescam]`.

    Args:
        text: names separated by commas; an oracle may carry `[layer,method]`.
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
            f"unknown method {text!r}: the known ones are {', '.join(NAMES)}, and an oracle may "
            "name its layer and method, as in oracle[embeddings,hirescam]"
        )
    if match["name"] not in ORACLES:
        if match["layer"]:
            raise ConfigError(f"only an oracle takes [layer,method], got {text!r}")
        return RankerSpec(match["name"])
    if match["layer"]:
        layer, method = match["layer"].strip(), match["method"].strip()
    if layer is None or method is None:
        raise ConfigError(f"an oracle needs its [layer,method], got {text!r}")
    return RankerSpec(match["name"], layer, method)
