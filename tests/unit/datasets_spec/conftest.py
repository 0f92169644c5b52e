"""Tiny datasets in every format, written where a test asks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[[dict[str, Any]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes files below the data root: text as it is, bytes too, anything else as JSON."""

    def write(files: dict[str, Any]) -> Path:
        root = tmp_path / "data"
        root.mkdir(exist_ok=True)
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                text = content if isinstance(content, str) else json.dumps(content, indent=1)
                path.write_text(text, encoding="utf-8")
        return root

    return write


@pytest.fixture
def ssv2_files() -> dict[str, Any]:
    """SSv2 with two classes; video 3 is missing, and the test labels are held back."""
    return {
        "labels/labels.json": {"Dropping something": "1", "Closing something": "0"},
        "labels/train.json": [
            {"id": "10", "label": "dropping a pen", "template": "Dropping [something]"},
            {"id": "2", "label": "closing a box", "template": "Closing [something]"},
        ],
        "labels/validation.json": [{"id": "3", "label": "x", "template": "Closing [something]"}],
        "labels/test.json": [{"id": "4"}],
        "20bn-something-something-v2/10.webm": b"video",
        "20bn-something-something-v2/2.webm": b"video",
        "20bn-something-something-v2/4.webm": b"video",
    }
