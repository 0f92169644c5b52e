"""When two spellings name the same class: the rules behind every comparison of labels.

Names are compared exactly, in Unicode's composed form. Only between two class lists, and only
where it makes no two names of a list equal, does the comparison pass over case and separators.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from difflib import get_close_matches

MAX_DIGITS = 18
"""Longest whole number that is read; Python refuses to convert thousands of digits."""

_WHOLE = re.compile(rf"([0-9]{{1,{MAX_DIGITS}}})(?:\.0+)?", re.ASCII)
_GENERIC = re.compile(rf"LABEL_([0-9]{{1,{MAX_DIGITS}}})", re.ASCII)
_SEPARATORS = re.compile(r"[\s_\[\](){}'\"‘’“”`´.,;:!?]+")
_JOINTS = re.compile(r"(?<=[^\W\d_])[-+/&](?=[^\W\d_])")


def normal(name: str) -> str:
    """The name in composed form (NFC) without white space around it: what is stored and shown.

    A Mac writes an accent as a letter of its own (NFD); the two print alike and mean the same.
    """
    return composed(name).strip()


def composed(text: str) -> str:
    """The text in composed form (NFC)."""
    return unicodedata.normalize("NFC", text)


def as_utf8(text: str) -> str:
    r"""The text as UTF-8 can hold it: a file name's byte that is no UTF-8 becomes `\xe9`."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\\udc", "\\x")


def fold(name: str) -> str:
    """The name without case and separators: "Arm_Wrestling" and "arm wrestling" are one.

    Separators are white space, underscores, brackets, quotes and punctuation, and a hyphen, plus
    sign, slash or ampersand between two letters. What tells names apart stays: other signs ("C#",
    "C++", "-1"), the marks of Indic scripts, emoji, and a separator between two digits ("1.5").
    """
    plain = _JOINTS.sub("", normal(normal(name).casefold()))

    def between_digits(match: re.Match[str]) -> str:
        around = plain[match.start() - 1 : match.start()], plain[match.end() : match.end() + 1]
        return " " if all(side.isdigit() for side in around) else ""

    return _SEPARATORS.sub(between_digits, plain) or plain


def similar(name: str, names: Sequence[str]) -> str:
    """Up to five names that a name which is none of them may mean, or the first, for a message."""
    return ", ".join(get_close_matches(name, names, n=5, cutoff=0.4) or names[:5])


def folds_apart(names: Sequence[str]) -> bool:
    """Whether folding makes no two different names of a list equal."""
    exact = {normal(name) for name in names}
    return len({fold(name) for name in exact}) == len(exact)


def whole_number(text: str) -> int | None:
    """The number of `7`, and of `7.0` as pandas writes an integer column with gaps; else None."""
    match = _WHOLE.fullmatch(text.strip())
    return int(match[1]) if match else None


def class_numbers(names: Sequence[str]) -> list[int] | None:
    """The numbers of a list whose names are all numbers (`7` or `LABEL_7`) and no two the same."""
    matches = [_WHOLE.fullmatch(normal(name)) or _GENERIC.fullmatch(normal(name)) for name in names]
    numbers = [int(match[1]) for match in matches if match]
    return numbers if len(numbers) == len(names) == len(set(numbers)) else None


def are_ids(names: Sequence[str]) -> bool:
    """Whether a list only counts its classes: `0`, `1`, ... or `LABEL_0`, `LABEL_1`, ..."""
    return class_numbers(names) == list(range(len(names)))
