"""Where each video lies: the patterns of a specification against the files that are there."""

from __future__ import annotations

from collections.abc import Sequence

from datasets_spec.errors import DatasetSpecError
from datasets_spec.files import Listing, unsafe_name
from datasets_spec.names import folds_apart
from datasets_spec.types import SPLIT_ALIASES, DatasetSpec, Row

_LABELS = ("{label}", "{label_underscored}")


def place_rows(
    spec: DatasetSpec, rows: Sequence[Row], class_names: Sequence[str], split: str, listing: Listing
) -> list[str]:
    """Path of each row's video relative to the data root, whether the file exists or not.

    A video is where the first pattern that matches a file says: to the letter or, failing that,
    in the other normal form of Unicode, and for a folder that is a class with case and separators
    passed over ("massaging_persons_head"). One that is nowhere is put where most of the split is,
    so that its path stays the same once the file is there.

    Args:
        spec: the dataset.
        rows: of one split.
        class_names: all of the dataset's; separators count if they tell two of them apart.
        split: as the specification spells it.
        listing: of the data root.

    Raises:
        DatasetSpecError: a row fits no pattern, since its id or label cannot be a file name.
    """
    fold_labels = folds_apart(class_names)
    layouts = [_Layout(pattern, listing, fold_labels) for pattern in _patterns(spec, split)]
    placed: list[str | None] = []
    for row in rows:
        if row.path is not None:
            placed.append(listing.find(row.path) or row.path)
            continue
        names = _names(row)
        found = next((path for layout in layouts if (path := layout.exact(names))), None)
        placed.append(
            found or next((path for lay in layouts if (path := lay.search(row, names))), None)
        )
    layouts.sort(key=lambda layout: -layout.hits)  # stable: order wins ties
    return [
        _anywhere(layouts, row) if path is None else path
        for path, row in zip(placed, rows, strict=True)
    ]


class _Layout:
    """A pattern with `{split}` and `{ext}` filled in, and how many videos it found."""

    def __init__(self, pattern: str, listing: Listing, fold_labels: bool) -> None:
        self.pattern = pattern
        self.hits = 0
        self._listing = listing
        self._fold_labels = fold_labels
        *self._folders, self._name = pattern.split("/")
        self._found: dict[tuple[str | None, str], str | None] = {}

    def exact(self, names: dict[str, str]) -> str | None:
        """The file that is called so to the letter, or None."""
        path = self.fill(names)
        if path is None or not self._listing.has_file(path):
            return None
        self.hits += 1
        return path

    def search(self, row: Row, names: dict[str, str]) -> str | None:
        """The file that means the same, or None."""
        folder, name = self._folder(row, names), _fill(self._name, names)
        path = None if folder is None or name is None else self._listing.find_file(folder, name)
        self.hits += path is not None
        return path

    def fill(self, names: dict[str, str]) -> str | None:
        """The path, or None if the pattern needs a name that the row does not have."""
        return _fill(self.pattern, names)

    def _folder(self, row: Row, names: dict[str, str]) -> str | None:
        """The folder that means the same, looked up once for every class."""
        in_folder = any("{video_id}" in part for part in self._folders)
        key = (row.label, row.video_id if in_folder else "")
        if key not in self._found:
            at: str | None = ""
            for part in self._folders:
                at = None if at is None else self._find_folder(at, part, row, names)
            self._found[key] = at
        return self._found[key]

    def _find_folder(self, at: str, part: str, row: Row, names: dict[str, str]) -> str | None:
        name = _fill(part, names)
        found = None if name is None else self._listing.find_folder(at, name)
        if found is None and part in _LABELS and row.label is not None and self._fold_labels:
            found = self._listing.find_folder_like(at, row.label)
        return found


def _patterns(spec: DatasetSpec, split: str) -> list[str]:
    """The patterns with `{split}` and `{ext}` filled in, in order of preference, each once."""
    folders = SPLIT_ALIASES if split in SPLIT_ALIASES else (split,)
    filled = (
        pattern.replace("{split}", folder).replace("{ext}", extension)
        for pattern in spec.videos
        for folder in folders
        for extension in spec.extensions
    )
    return list(dict.fromkeys(filled))


def _names(row: Row) -> dict[str, str]:
    """What fills a pattern; nothing that would lead out of its folder."""
    names = {"video_id": row.video_id}
    if row.label is not None:
        names["label"] = row.label
        names["label_underscored"] = row.label.replace(" ", "_")
    return {key: name for key, name in names.items() if not unsafe_name(name)}


def _fill(pattern: str, names: dict[str, str]) -> str | None:
    try:
        return pattern.format_map(names)
    except KeyError:
        return None


def _anywhere(layouts: Sequence[_Layout], row: Row) -> str:
    names = _names(row)
    for layout in layouts:
        path = layout.fill(names)
        if path is not None:
            return path
    what = "it has none" if row.label is None else f"{row.label!r:.80} is none"
    if "video_id" not in names:
        raise DatasetSpecError(f"{row.where}: id {row.video_id!r:.80} cannot be a file name")
    raise DatasetSpecError(
        f"{row.where}: every video pattern needs a label that can be a folder name; {what}"
    )
