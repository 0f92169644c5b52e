"""Videos in one folder per class: `CLASS/video.mp4`, or `SPLIT/CLASS/video.mp4`.

There is no annotation file, so a file that is not there is not missed. Folders inside a class
folder are read too; names that begin with a dot are not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from datasets_spec.errors import DatasetSpecError
from datasets_spec.types import DatasetSpec, Problem, Report, Row

ALL = "all"


def list_splits(spec: DatasetSpec, root: Path) -> list[str]:
    """Splits whose folder exists; `all`, the whole data root, only where there is none."""
    found = [split for split in spec.splits if split != ALL and _folder(spec, root, split)]
    if found:
        return found
    return [ALL] if ALL in spec.splits and _classes(root) else []


def class_names(spec: DatasetSpec, root: Path) -> list[str]:
    """Names of the class folders of all splits, empty ones too, sorted."""
    splits = list_splits(spec, root)
    return sorted({name for split in splits for name in _classes(_base(spec, root, split))})


def read_rows(spec: DatasetSpec, root: Path, split: str, report: Report) -> list[Row]:
    """Reads the class folders of a split; a video outside them is reported and left out.

    Raises:
        DatasetSpecError: the split has no folder.
    """
    base = _base(spec, root, split)
    for path in sorted(base.iterdir()):
        if _is_video(path.name, spec.extensions) and path.is_file():
            report(Problem("malformed", f"{path}: a video outside the class folders"))
    rows = []
    for label in _classes(base):
        for path in videos_below(base / label, spec.extensions):
            video_id = path.relative_to(base).with_suffix("").as_posix()
            where = path.relative_to(root).as_posix()
            rows.append(Row(video_id, label, str(path), path=where))
    return rows


def videos_below(root: Path, extensions: tuple[str, ...]) -> Iterator[Path]:
    """Files with one of the extensions in a folder and the folders inside it, in order of names."""
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files) if _is_video(name, extensions))


def _is_video(name: str, extensions: tuple[str, ...]) -> bool:
    endings = tuple(f".{extension}" for extension in extensions)
    return name.lower().endswith(endings) and not name.startswith(".")


def _base(spec: DatasetSpec, root: Path, split: str) -> Path:
    splits = list_splits(spec, root)
    if split not in splits:
        raise DatasetSpecError(
            f"{spec.name}: no split {split!r} in {root}; "
            + (f"its folders make up {', '.join(splits)}" if splits else "it has no class folders")
        )
    return root if split == ALL else root / str(_folder(spec, root, split))


def _folder(spec: DatasetSpec, root: Path, split: str) -> str | None:
    return next((name for name in spec.splits[split] if _classes(root / name)), None)


def _classes(base: Path) -> list[str]:
    """Folders in `base`, sorted, but for hidden ones; none if it is no folder."""
    if not base.is_dir():
        return []
    with os.scandir(base) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
