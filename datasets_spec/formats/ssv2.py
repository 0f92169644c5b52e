"""Something-Something V2's JSON: objects with `id` and, but for the test split, `template`.

The class of a video is its template without the square brackets, as the official label file
spells it ("Turning [something] upside down" is "Turning something upside down").
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets_spec.files import annotation_files, unsafe_name
from datasets_spec.textio import entry_lines, parse_json
from datasets_spec.types import DatasetSpec, Problem, Report, Row


def read_rows(spec: DatasetSpec, root: Path, split: str, report: Report) -> list[Row]:
    """Reads one annotation file; entries that cannot be used are reported and left out."""
    path = annotation_files(spec, root, split)[0]
    text, entries = parse_json(path)
    if not isinstance(entries, list):
        kind = type(entries).__name__
        report(Problem("malformed", f"{path}: expected a list of videos, got {kind}"))
        return []
    rows, lines = [], None
    for index, entry in enumerate(entries):
        fault = _fault(entry)
        if fault is not None:
            lines = lines or entry_lines(text)
            report(Problem("malformed", f"{path}:{lines[index]}: {fault}"))
            continue
        template = entry.get("template")
        label = None if template is None else template.replace("[", "").replace("]", "").strip()
        rows.append(Row(str(entry["id"]), label, f"{path}: entry {index + 1}"))
    return rows


def _fault(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return f"expected an object with id and template, got {entry!r:.80}"
    video_id = entry.get("id")
    if isinstance(video_id, bool) or not isinstance(video_id, (str, int)):
        return f"id {video_id!r:.80} is no video id"
    if unsafe_name(str(video_id)):
        return f"id {video_id!r:.80} cannot be a file name"
    template = entry.get("template")
    if template is not None and (not isinstance(template, str) or not template.strip()):
        return f"template {template!r:.80} of video {video_id!r} is no text"
    if template is None and "label" in entry:
        return f"video {video_id!r} has a label but no template, which names the class"
    return None
