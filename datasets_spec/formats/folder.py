"""Videos in one folder per class: `CLASS/video.mp4`, or `SPLIT/CLASS/video.mp4`.

There is no annotation file, so a file that is not there is not missed. Folders inside a class
folder are read too, and links to folders followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from datasets_spec.class_names import in_order
from datasets_spec.errors import DatasetSpecError
from datasets_spec.names import as_utf8, normal
from datasets_spec.types import DatasetSpec, Problem, Report, Row, Skipped, ignore
from datasets_spec.walk import Walk, file_without_row, list_folder, relative

ALL = "all"
OUTSIDE = "outside the split folders"
NO_VIDEO = "a class folder without a video; it counts as a class all the same"


def list_splits(spec: DatasetSpec, root: Path) -> list[str]:
    """Splits whose folder exists; `all`, the whole data root, only where there is none."""
    found = [split for split in spec.splits if split != ALL and _folder(spec, root, split)]
    if found:
        return found
    return [ALL] if ALL in spec.splits and _classes(root, root) else []


def class_names(spec: DatasetSpec, root: Path, report: Report) -> list[str]:
    """Names of the class folders of all splits; one without a video is reported.

    Raises:
        DatasetSpecError: a folder cannot be listed.
    """
    folders: dict[str, list[Path]] = {}
    for split in list_splits(spec, root):
        for folder in _classes(_base(spec, root, split), root):
            folders.setdefault(normal(folder.name), []).append(folder)
    for places in folders.values():
        if not any(_holds_video(place, spec.extensions) for place in places):
            report(Skipped(relative(places[0], root), NO_VIDEO))
    return in_order(name for name in folders if as_utf8(name) == name)


def read_rows(spec: DatasetSpec, root: Path, split: str, report: Report) -> list[Row]:
    """Reads the class folders of a split; files that give no row are reported.

    Raises:
        DatasetSpecError: the split has no folder, or a folder cannot be listed.
    """
    base = _base(spec, root, split)
    folders, files = list_folder(base, root, report)
    for path in files:
        if is_video(path, spec.extensions):
            report(Problem("malformed", f"{path}: a video outside the class folders"))
        else:
            report(file_without_row(path, root))
    if base != root:
        _report_outside(spec, root, report)
    elif folders and all(folder.name in _split_names(spec) for folder in folders):
        what = f"a split needs class folders, as in {folders[0].name}/CLASS/video.mp4"
        names = ", ".join(folder.name for folder in folders)
        report(Problem("malformed", f"{base}: the folders are splits ({names}): {what}"))

    def again(at: Path, first: Path) -> None:
        """A folder may be linked twice into a class, not into two."""
        one, other = (_class_of(path, base) for path in (first, at))
        if one is None or one == other:
            walk.report_again(at, first)
        else:
            report(Problem("malformed", f"{at} is {first}: one folder in two classes"))

    walk = Walk(root, report, again)
    walk.enter(root)
    walk.enter(base)
    return [
        row
        for folder in folders
        for row in _read_class(walk.files(folder), base, root, spec.extensions, report)
    ]


def videos_below(
    folder: Path, extensions: tuple[str, ...], report: Callable[[Skipped], None]
) -> Iterator[Path]:
    """Files with one of the extensions in a folder and the folders inside it, in order of names.

    Raises:
        DatasetSpecError: a folder cannot be listed.
    """
    for path in Walk(folder, report).files(folder):
        if is_video(path, extensions):
            yield path
        else:
            report(file_without_row(path, folder))


def is_video(path: Path, extensions: tuple[str, ...]) -> bool:
    """Whether a file has one of the extensions, in any case."""
    return path.suffix.lower().removeprefix(".") in extensions


def _read_class(
    paths: Iterator[Path], base: Path, root: Path, extensions: tuple[str, ...], report: Report
) -> Iterator[Row]:
    for path in paths:
        place = path.relative_to(root).as_posix()
        if not is_video(path, extensions):
            report(file_without_row(path, root))
        elif as_utf8(place) != place:
            what = "the name is no UTF-8, and a store holds no other: rename it"
            report(Problem("malformed", f"{root}/{as_utf8(place)}: {what}"))
        else:
            inside = path.relative_to(base)
            video_id = inside.with_suffix("").as_posix()
            yield Row(video_id, inside.parts[0], str(path), path=place)


def _report_outside(spec: DatasetSpec, root: Path, report: Report) -> None:
    """Report what lies beside the split folders."""
    bases = [_base(spec, root, split) for split in list_splits(spec, root)]
    used = {base.relative_to(root).parts[0] for base in bases}
    folders, files = list_folder(root, root, report)
    for path in files:
        report(Skipped(relative(path, root), OUTSIDE))
    for path in folders:
        if path.name not in used:
            report(Skipped(f"{relative(path, root)}/", OUTSIDE))


def _base(spec: DatasetSpec, root: Path, split: str) -> Path:
    splits = list_splits(spec, root)
    if split not in splits:
        raise DatasetSpecError(
            f"{spec.name}: no split {split!r} in {root}; "
            + (f"its folders make up {', '.join(splits)}" if splits else "it has no class folders")
        )
    return root if split == ALL else root / str(_folder(spec, root, split))


def _folder(spec: DatasetSpec, root: Path, split: str) -> str | None:
    return next((name for name in spec.splits[split] if _classes(root / name, root)), None)


def _split_names(spec: DatasetSpec) -> set[str]:
    return {name for split, names in spec.splits.items() if split != ALL for name in names}


def _classes(base: Path, root: Path) -> list[Path]:
    """Folders in `base`, but for hidden ones; none if it is no folder."""
    return list_folder(base, root, ignore).folders if base.is_dir() else []


def _class_of(path: Path, base: Path) -> str | None:
    """The class folder that a path lies in, or None."""
    parts = path.relative_to(base).parts if path.is_relative_to(base) else ()
    return normal(parts[0]) if parts else None


def _holds_video(folder: Path, extensions: tuple[str, ...]) -> bool:
    return any(is_video(path, extensions) for path in Walk(folder, ignore).files(folder))
