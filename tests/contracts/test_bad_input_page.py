"""What `docs/bad-input.md` quotes is what the code says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from pipeline.errors import ClipStatus

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "bad-input.md"
STATUSES = {status.value for status in ClipStatus}


def rows() -> list[tuple[str, str]]:
    """Input and answer of every row."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [re.split(r" ?\| ?", line.strip("| ")) for line in lines]
    return [(cell[0], cell[1]) for cell in cells if cell[0] != "input"]


def texts_of_the_code() -> list[str]:
    """Every string of the packages, parts of one joined; a value in it is an ellipsis."""
    found = []
    for package in ("pipeline", "selector", "datasets_spec"):
        for path in (REPO / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def said(sentence: str, texts: list[str]) -> bool:
    """Whether one text holds the pieces of a quotation in their order."""
    pieces = [re.escape(piece.strip()) for piece in sentence.split("…") if piece.strip()]
    pattern = re.compile(".*".join(pieces), re.S)
    return any(pattern.search(text) for text in texts)


def test_every_quoted_sentence_is_one_that_the_code_says():
    texts = texts_of_the_code()
    quoted = [s for _, answer in rows() for s in re.findall(r'"([^"]+)"', answer)]
    assert len(quoted) > 40
    assert not [sentence for sentence in quoted if not said(sentence, texts)]


def test_every_status_is_explained_once_there_is_one():
    named = {w for _, answer in rows() for w in re.findall(r"`(\w+)`", answer)} & STATUSES
    assert named == STATUSES - {ClipStatus.OK.value}


def test_a_sentence_that_nobody_says_is_seen():
    assert said("no folder at the data root …", texts_of_the_code())
    assert not said("no folder at the root of all data", texts_of_the_code())
    assert not said("the data root … no folder at", ["no folder at the data root"])
