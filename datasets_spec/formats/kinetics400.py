"""Kinetics' CSV: `label,youtube_id,time_start,time_end,split[,is_cc]`; test files may lack labels.

A video is `<youtube_id>_<start>_<end>`, seconds with six digits, which is also its file name.
"""

from __future__ import annotations

from pathlib import Path

from datasets_spec.files import annotation_files, unsafe_name
from datasets_spec.names import whole_number
from datasets_spec.textio import read_csv
from datasets_spec.types import DatasetSpec, Problem, Report, Row, same_split

_REQUIRED = ("youtube_id", "time_start", "time_end")


def read_rows(spec: DatasetSpec, root: Path, split: str, report: Report) -> list[Row]:
    """Reads one annotation file; lines that cannot be used are reported and left out."""
    path = annotation_files(spec, root, split)[0]
    rows = []
    for where, values in read_csv(path, _REQUIRED, report):
        fault = _fault(values, split)
        if fault is not None:
            report(Problem("malformed", f"{where}: {fault}"))
            continue
        start, end = (whole_number(values[key]) or 0 for key in ("time_start", "time_end"))
        # Some copies keep the quotes of "massaging person's head" inside the field.
        label = values.get("label", "").replace('"', "").strip() or None
        rows.append(Row(f"{values['youtube_id']}_{start:06d}_{end:06d}", label, where))
    return rows


def _fault(values: dict[str, str], split: str) -> str | None:
    if unsafe_name(values["youtube_id"]):
        return f"youtube_id {values['youtube_id']!r:.80} cannot be a file name"
    for key in ("time_start", "time_end"):
        if whole_number(values[key]) is None:
            return f"{key} {values[key]!r:.80} is no whole number of seconds"
    if values.get("split") and not same_split(values["split"], split):
        return f"split {values['split']!r} in a file of split {split!r}"
    return None
