"""docs/methods.md lists the methods that the program knows, in its own words.

`python tests/contracts/test_methods_page.py` writes the table anew.
"""

from __future__ import annotations

import re
from pathlib import Path

from selector.methods.registry import METHODS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods.md"
_TABLE = re.compile(r"(?:^\|[^\n]*\n)+", re.M)


def table() -> str:
    lines = ["| name | acts | what it does |", "|---|---|---|"]
    for name, known in METHODS.items():
        brackets = known.brackets.replace("|", "\\|")
        where = "inside the blocks" if known.inside else "before block 1"
        lines.append(f"| `{name}{brackets}` | {where} | {known.summary} |")
    return "\n".join(lines) + "\n"


def test_the_page_lists_the_methods() -> None:
    found = _TABLE.search(PAGE.read_text())
    assert found is not None
    assert found[0] == table(), "run: python tests/contracts/test_methods_page.py"


if __name__ == "__main__":
    text = PAGE.read_text()
    text = (
        text.replace("{table}\n", table())
        if "{table}" in text
        else _TABLE.sub(lambda _: table(), text, count=1)
    )
    PAGE.write_text(text)
