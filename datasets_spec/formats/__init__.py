"""The annotation formats: each module reads the rows of a split and reports what it cannot use."""

from __future__ import annotations

from types import ModuleType

from datasets_spec.formats import folder, hmdb51, kinetics400, ssv2, table, ucf101

# Every module has `read_rows(spec, root, split, report) -> list[Row]`. `folder` and `table` also
# have `list_splits(spec, root)`; `folder` has `class_names(spec, root, report)`.
READERS: dict[str, ModuleType] = {
    "ssv2": ssv2,
    "kinetics400": kinetics400,
    "ucf101": ucf101,
    "hmdb51": hmdb51,
    "folder": folder,
    "csv": table,
}
