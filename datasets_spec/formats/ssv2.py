"""Something-Something V2's JSON: objects with `id` and, but for the test split, `template`.

The class of a video is its template without the square brackets, as the official label file
spells it ("Turning [something] upside down" is "Turning something upside down").
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets_spec.jsonio import entry_line, parse_json
from datasets_spec.types import Problem, Report, Row


def read_rows(path: Path, split: str, report: Report) -> list[Row]:
    """Reads one annotation file; entries that cannot be used are reported and left out."""
    text, entries = parse_json(path)
    if not isinstance(entries, list):
        report(Problem("malformed", f"{path}: expected a list of videos, got {_kind(entries)}"))
        return []
    rows = []
    for index, entry in enumerate(entries):
        fault = _fault(entry)
        if fault is not None:
            where = f"{path}:{entry_line(text, index)}"
            report(Problem("malformed", f"{where}: {fault}"))
            continue
        video_id = str(entry["id"])
        template = entry.get("template")
        label = None if template is None else template.replace("[", "").replace("]", "")
        rows.append(Row(video_id, label, f"{path}: video {video_id!r}"))
    return rows


def _fault(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return f"expected an object with id and template, got {entry!r}"
    video_id = entry.get("id")
    if isinstance(video_id, bool) or not isinstance(video_id, (str, int)) or not str(video_id):
        return f"id {video_id!r} is no video id"
    if "/" in str(video_id) or str(video_id) in (".", ".."):
        return f"id {video_id!r} would leave the video folder"
    template = entry.get("template")
    if template is not None and (not isinstance(template, str) or not template):
        return f"template {template!r} of video {video_id!r} is no text"
    if template is None and "label" in entry:
        return f"video {video_id!r} has a label but no template, which names the class"
    return None


def _kind(value: object) -> str:
    return type(value).__name__
