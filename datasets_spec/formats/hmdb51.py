"""HMDB51's split files: one per class, `<class>_test_split<N>.txt`, lines `video.avi 0|1|2`.

1 marks a video for training, 2 for testing, 0 for neither in this split.
"""

from __future__ import annotations

import re
from pathlib import Path

from datasets_spec.errors import DatasetSpecError
from datasets_spec.files import annotation_files
from datasets_spec.textio import read_lines
from datasets_spec.types import DatasetSpec, Problem, Report, Row

_MARKS = {"unused": "0", "train": "1", "test": "2"}
_LINE = re.compile(r"(?P<stem>[^/]+)\.\w+\s+(?P<mark>[012])")


def read_rows(spec: DatasetSpec, root: Path, split: str, report: Report) -> list[Row]:
    """Reads the files of every class; lines that cannot be used are reported and left out.

    Raises:
        DatasetSpecError: the split is not called train, test or unused, with or without a number.
    """
    mark = _MARKS.get(split.rstrip("0123456789"))
    if mark is None:
        raise DatasetSpecError(
            f"{spec.name}: split {split!r}: hmdb51's files mark only train, test and unused "
            "(train2 and so on for the other splits)"
        )
    rows = []
    for path in annotation_files(spec, root, split):
        label = re.sub(r"_test_split\d+$", "", path.stem)
        for where, line in read_lines(path):
            match = _LINE.fullmatch(line)
            if match is None:
                message = f"{where}: expected `video.avi 0`, 1 or 2, got {line!r:.100}"
                report(Problem("malformed", message))
            elif match["mark"] == mark:
                rows.append(Row(match["stem"], label, where))
    return rows
