"""UCF101's split files: `Class/v_Class_gNN_cNN.avi`, in training lists with the class number.

The number counts from 1 in the order of classInd.txt. It is checked against the class list, so
that a list whose classes were renumbered is found instead of training on wrong labels.
"""

from __future__ import annotations

import re
from pathlib import Path

from datasets_spec.files import annotation_files
from datasets_spec.textio import read_lines
from datasets_spec.types import DatasetSpec, Problem, Report, Row

_LINE = re.compile(r"(?P<label>[^/\s]+)/(?P<stem>[^/\s]+)\.\w+(?:\s+(?P<number>[0-9]{1,9}))?")


def read_rows(spec: DatasetSpec, root: Path, split: str, report: Report) -> list[Row]:
    """Reads one split file; lines that cannot be used are reported and left out."""
    path = annotation_files(spec, root, split)[0]
    rows = []
    for where, line in read_lines(path):
        match = _LINE.fullmatch(line)
        if match is None:
            message = f"{where}: expected Class/video.avi and perhaps a number, got {line!r:.100}"
            report(Problem("malformed", message))
            continue
        number = None if match["number"] is None else int(match["number"]) - 1
        rows.append(Row(match["stem"], match["label"], where, number=number))
    return rows
