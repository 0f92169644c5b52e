"""How methods are named, and what their brackets hold.

A name is `random`, `lite[NAME]`, `oracle[LAYER,METHOD]`, `tome[inflect=-1,prop-attn]`, or two
joined by `+`, the second inside the blocks: `lite+tome`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.errors import ConfigError

LITE, LITE_SPREAD = "lite", "lite-spread"
PRIOR, PRIOR_SPREAD = "prior", "prior-spread"
TRAINED = (LITE, LITE_SPREAD, "lite-tube", "lite-frame", PRIOR, PRIOR_SPREAD)
"""What needs a trained selector."""
RLT = "rlt"
ORACLE_SECOND, ORACLE_WRONG = "oracle-second", "oracle-wrong"
Options = tuple[str, ...]

PROP_ATTN, PLAIN = "prop-attn", "plain"
SELECTOR, ORACLE, BLOCK = "[NAME of a selector]", "[layer,method]", "[blocks.N]"
TOME = "[inflect=-1..1,prop-attn,drop|hybrid=0.8|random-merge|random-drop]"
PITOME = "[plain,prop-attn]"
VID_TLDR = "[blocks=4|merge=6:2:1]"
THRESHOLD = "[tau=0.1|grey=6]"

_BLOCK_NAME = re.compile(r"blocks\.(-?\d+)")
_SELECTOR_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


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
        """The `lite` or `lite[NAME]` whose trained selector it needs; None if it needs none."""
        return str(MethodName(LITE, self.options)) if self.name in TRAINED else None

    @property
    def is_random(self) -> bool:
        """Whether it depends on a seed."""
        own = any(o.startswith("random") for o in (self.name, *self.options))
        own = own or self.name == ORACLE_WRONG
        return own or (self.then is not None and self.then.is_random)

    @property
    def by_content(self) -> bool:
        """Whether each clip's content decides what it costs, so that no budget sets it."""
        return self.name == RLT

    @property
    def predicts_values(self) -> bool:
        """Whether adaptive budgets may use it: a trained selector ranks, and nothing else acts."""
        return self.then is None and self.name in (LITE, LITE_SPREAD)


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


def split_names(text: str) -> list[str]:
    """The names in `a,b[x,y]`; commas inside brackets belong to the name."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()]


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


# What brackets hold (None: there are none), and the oracle's defaults -> canonical options. What is
# wrong is a `ValueError` that says what is wanted.


def no_options(given: Options | None, defaults: Options = ()) -> Options:
    """None at all."""
    if given is not None:
        raise ValueError("takes no brackets")
    return ()


def read_selector(given: Options | None, defaults: Options) -> Options:
    """The name of one selector, or nothing."""
    if given is None:
        return ()
    if len(given) != 1 or not _SELECTOR_NAME.fullmatch(given[0]):
        raise ValueError("takes the name of one selector in brackets")
    return given


def read_oracle(given: Options | None, defaults: Options) -> Options:
    """Layer and method."""
    found = defaults if given is None else given
    if len(found) != 2 or not all(found):
        raise ValueError("needs its [layer,method]")
    return found


def read_block(given: Options | None, defaults: Options) -> Options:
    """One block, or nothing; see `BLOCK`."""
    if given is None:
        return ()
    match = _BLOCK_NAME.fullmatch(given[0])
    if len(given) != 1 or match is None:
        raise ValueError(f"takes {BLOCK}, N a block's number, from the end where negative")
    return (f"blocks.{int(match[1])}",)


def read_tome(given: Options | None, defaults: Options) -> Options:
    """Any of `TOME`."""
    return tome_options(given or ()).names


class ToMeOptions(NamedTuple):
    """ToMe's options, as its class takes them."""

    inflect: float = 0.0
    proportional: bool = False
    mode: str = "merge"
    threshold: float = 0.8

    @property
    def names(self) -> Options:
        """Canonical: what is not the default, in this order."""
        mode = f"hybrid={self.threshold:g}" if self.mode == "hybrid" else self.mode
        return (
            *([f"inflect={self.inflect:g}"] if self.inflect else []),
            *([PROP_ATTN] if self.proportional else []),
            *([mode] if self.mode != "merge" else []),
        )


def tome_options(options: Options) -> ToMeOptions:
    """Any of `TOME`, in any order."""
    found = ToMeOptions()
    for option in options:
        name, _, value = option.partition("=")
        if name == "inflect" and -1 <= _number(value) <= 1:
            found = found._replace(inflect=float(value))
        elif name == "hybrid" and -1 <= _number(value or "0.8") <= 1:
            found = found._replace(mode=name, threshold=float(value or "0.8"))
        elif option == PROP_ATTN:
            found = found._replace(proportional=True)
        elif option in ("drop", "random-merge", "random-drop"):
            found = found._replace(mode=option)
        else:
            raise ValueError(f"takes {TOME}, not {option!r}")
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def read_pitome(given: Options | None, defaults: Options) -> Options:
    """Any of `PITOME`, in its order."""
    if unknown := set(given or ()) - {PLAIN, PROP_ATTN}:
        raise ValueError(f"takes {PITOME}, not {sorted(unknown)[0]!r}")
    return tuple(option for option in (PLAIN, PROP_ATTN) if option in (given or ()))


def read_vid_tldr(given: Options | None, defaults: Options) -> Options:
    """How the first blocks share what is merged; see `VID_TLDR`."""
    return () if given is None else (shares_name(vid_tldr_shares(given)),)


def vid_tldr_shares(options: Options) -> tuple[int, ...]:
    """What each of the first blocks merges, in proportion and in lowest terms."""
    name, _, value = options[0].partition("=")
    numbers = value.split(":")
    shares = [int(number) for number in numbers if number.isdecimal() and int(number)]
    if len(options) == 1 and len(shares) == len(numbers):
        if name == "merge":
            return tuple(share // math.gcd(*shares) for share in shares)
        if name == "blocks" and len(shares) == 1:
            return (1,) * shares[0]
    raise ValueError(
        f"takes {VID_TLDR}: how many of the first blocks merge, or what each of them does in "
        "proportion"
    )


def shares_name(shares: Sequence[int]) -> str:
    """The one option that gives these shares, which are in lowest terms."""
    if set(shares) == {1}:
        return f"blocks={len(shares)}"
    return f"merge={':'.join(map(str, shares))}"


def read_threshold(given: Options | None, defaults: Options) -> Options:
    """A threshold, of normalised pixels or in grey levels; see `THRESHOLD`."""
    if given is None:
        return ()
    name, _, value = given[0].partition("=")
    if len(given) != 1 or name not in ("tau", "grey") or not 0 <= _number(value) < float("inf"):
        raise ValueError(f"takes {THRESHOLD}, a change of normalised pixels or in grey levels")
    return (f"{name}={float(value):g}",)
