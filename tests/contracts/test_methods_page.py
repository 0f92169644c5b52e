"""docs/methods.md lists the methods that the program knows, and whom each serves, in its own words.

`python tests/contracts/test_methods_page.py` writes both tables anew.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from pipeline.backbones import load_backbone
from pipeline.backbones.base import Backbone
from selector.methods.names import LITE
from selector.methods.registry import METHODS, Parts, parse_method
from tests.checkpoints import KINDS
from tests.lite_models import make_selector

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods.md"
_TABLE = re.compile(r"(?:^\|[^\n]*\n)+", re.M)
_WHOM = re.compile(r"<!-- whom -->\n(.*?)<!-- /whom -->\n", re.S)

MADE_ELSEWHERE = ("saliency",)
"""Needs an extra package to be made, and serves every backbone, as it looks at pixels alone."""


def table() -> str:
    lines = ["| name | acts | what it does | source |", "|---|---|---|---|"]
    for name, known in METHODS.items():
        brackets = known.brackets.replace("|", "\\|")
        where = "inside the blocks" if known.inside else "before block 1"
        lines.append(f"| `{name}{brackets}` | {where} | {known.summary} | {known.source} |")
    return "\n".join(lines) + "\n"


def refusal(name: str, backbone: Backbone) -> str | None:
    """Why a method cannot serve a backbone, as it says itself."""
    if name in MADE_ELSEWHERE:
        return None
    parts = Parts(backbone, selectors={LITE: make_selector(backbone, "")})
    method = METHODS[name].make(parse_method(name, "embeddings", "hirescam"), parts)
    return method.fits(backbone)


def whom() -> str:
    """Methods by backbones, those alike in one row; a letter for every reason."""
    reasons: dict[str, str] = {}
    alike: dict[tuple[str, ...], list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        backbones = []
        for number, save in enumerate(KINDS.values()):
            place = Path(folder) / str(number)
            place.mkdir()
            backbones.append(load_backbone(str(save(place))))
        for name in METHODS:
            cells = []
            for backbone in backbones:
                why = refusal(name, backbone)
                letter = "abcdefgh"[len(reasons)] if why not in reasons else reasons[why or ""]
                if why is not None:
                    reasons.setdefault(why, letter)
                cells.append("yes" if why is None else f"no ({reasons[why]})")
            alike.setdefault(tuple(cells), []).append(f"`{name}`")
    rows = [f"| method | {' | '.join(KINDS)} |", "|---" * (1 + len(KINDS)) + "|"]
    rows += [f"| {', '.join(names)} | {' | '.join(cells)} |" for cells, names in alike.items()]
    notes = [f"- ({letter}) {why}" for why, letter in reasons.items()]
    return "\n".join([*rows, "", *notes]) + "\n"


def test_the_page_lists_the_methods() -> None:
    found = _TABLE.search(PAGE.read_text())
    assert found is not None
    assert found[0] == table(), "run: python tests/contracts/test_methods_page.py"


def test_the_page_says_whom_each_method_serves() -> None:
    found = _WHOM.search(PAGE.read_text())
    assert found is not None
    assert found[1] == whom(), "run: python tests/contracts/test_methods_page.py"


if __name__ == "__main__":
    text = PAGE.read_text()
    text = (
        text.replace("{table}\n", table())
        if "{table}" in text
        else _TABLE.sub(lambda _: table(), text, count=1)
    )
    PAGE.write_text(_WHOM.sub(lambda _: f"<!-- whom -->\n{whom()}<!-- /whom -->\n", text, count=1))
