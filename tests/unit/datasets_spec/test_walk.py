"""Every file below the root of a `folder` dataset is a row, or is named with the reason."""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from datasets_spec import DatasetSpecError, load_spec, read_label_names, read_videos
from datasets_spec.check import check_dataset
from datasets_spec.formats.folder import videos_below
from datasets_spec.types import Skipped

SPEC = load_spec("folder")


def paths(root: Path) -> list[str]:
    """Of the videos of the default split."""
    return [video.path for video in read_videos(SPEC, root, "all")]


def skipped(root: Path, *splits: str) -> dict[str, str]:
    """Path to reason of what gives no row."""
    return {found.path: found.reason for found in check_dataset(SPEC, root, splits).skipped}


def test_every_file_is_a_row_or_named(write: Any) -> None:
    files = {
        "jump/1.mp4": b"",
        "jump/2.MTS": b"",
        "jump/b.gif": b"",
        "jump/notes": "",
        "jump/c.TXT": "",
        "jump/.d.mp4": b"",
        "jump/deep/er/3.webm": b"",
        "walk/1.mp4": b"",
        "readme.md": "",
        "jump/__MACOSX/._1.mp4": b"",
        "jump/@eaDir/1.mp4": b"",
        "__MACOSX/x/._a.mp4": b"",
        ".cache/a.mp4": b"",
    }
    root = write(files)
    rows = ["jump/1.mp4", "jump/2.MTS", "jump/deep/er/3.webm", "walk/1.mp4"]
    assert paths(root) == rows
    assert skipped(root) == {
        "jump/b.gif": "ending .gif",
        "jump/c.TXT": "ending .txt",
        "jump/notes": "no ending",
        "readme.md": "ending .md",
        "jump/.d.mp4": "hidden",
        ".cache": "hidden",
        "__MACOSX": "made by a file system or an archive, no data",
        "jump/__MACOSX": "made by a file system or an archive, no data",
        "jump/@eaDir": "made by a file system or an archive, no data",
    }
    named = {*rows, *skipped(root)}
    for file in root.rglob("*"):  # counted another way: each file is named, or lies in what is
        if file.is_file():
            inside = file.relative_to(root)
            assert named & {inside.as_posix(), *(p.as_posix() for p in inside.parents)}, file


def test_a_build_says_how_many_gave_no_row_and_why(write: Any, caplog: Any) -> None:
    root = write({"jump/1.mp4": b"", "jump/a.gif": b"", "jump/b.GIF": b"", "jump/.DS_Store": b""})
    with caplog.at_level(logging.WARNING):
        read_videos(SPEC, root, "all")
    (record,) = caplog.records
    assert "3 files or folders give no row (2 ending .gif, 1 hidden)" in record.getMessage()


def test_what_a_system_hides_is_no_reason_to_warn(write: Any, caplog: Any) -> None:
    root = write({"jump/1.mp4": b"", "jump/.DS_Store": b"", "__MACOSX/._a": b""})
    with caplog.at_level(logging.WARNING):
        read_videos(SPEC, root, "all")
    assert not caplog.records


def test_links_to_folders_and_files_are_followed(write: Any, tmp_path: Path) -> None:
    root = write({"jump/a.mp4": b"", "walk/a.mp4": b""})
    disk = tmp_path / "disk2"
    for name in ("b.mp4", "deep/c.mp4", "run/d.mp4"):
        (disk / name).parent.mkdir(parents=True, exist_ok=True)
        (disk / name).write_bytes(b"")
    (root / "jump/more").symlink_to(disk / "deep")
    (root / "jump/b.mp4").symlink_to(disk / "b.mp4")
    (root / "run").symlink_to(disk / "run")
    assert paths(root) == ["jump/a.mp4", "jump/b.mp4", "jump/more/c.mp4", "run/d.mp4", "walk/a.mp4"]
    assert read_label_names(SPEC, root) == ["jump", "run", "walk"]
    assert skipped(root) == {}


@pytest.mark.parametrize("target", ["..", ".", "../..", "../../..", "/"])
def test_a_link_in_a_circle_ends(write: Any, target: str) -> None:
    root = write({"jump/a.mp4": b"", "jump/deep/b.mp4": b"", "walk/c.mp4": b""})
    (root / "jump/deep/loop").symlink_to(target)
    assert paths(root) == ["jump/a.mp4", "jump/deep/b.mp4", "walk/c.mp4"]
    (reason,) = skipped(root).values()
    assert reason.startswith("a second way to a folder")


@pytest.mark.parametrize("target", ["../..", ".."])
def test_a_link_from_a_split_to_what_holds_it(write: Any, target: str) -> None:
    """To the data root, whose other split must not become videos of this one; to the split."""
    root = write({"train/jump/a.mp4": b"", "train/walk/b.mp4": b"", "val/jump/c.mp4": b""})
    (root / "train/jump/loop").symlink_to(target)
    videos = read_videos(SPEC, root, "train")
    assert [video.path for video in videos] == ["train/jump/a.mp4", "train/walk/b.mp4"]
    (reason,) = skipped(root, "train").values()
    assert reason.startswith("a second way to a folder")


def test_folders_that_link_to_each_other_are_read_once(write: Any) -> None:
    """Every folder links to every other: followed without a memory, there are millions of ways."""
    names = [f"d{i}" for i in range(10)]
    root = write({f"jump/{name}/v.mp4": b"" for name in names})
    for one in names:
        for other in names:
            if one != other:
                (root / "jump" / one / other).symlink_to(f"../{other}")
    found = paths(root)
    real = Counter((root / path).resolve().parent.name for path in found)
    assert real == dict.fromkeys(names, 1)


def test_a_link_to_itself_and_to_nothing_is_named(write: Any) -> None:
    root = write({"jump/a.mp4": b""})
    (root / "jump/self").symlink_to("self")
    (root / "jump/gone").symlink_to("nowhere")
    (root / "jump/b.mp4").symlink_to("nowhere.mp4")
    assert paths(root) == ["jump/a.mp4", "jump/b.mp4"]  # the second becomes a failed row
    assert skipped(root) == {"jump/self": "a link to nothing", "jump/gone": "a link to nothing"}


@pytest.mark.parametrize(("link", "target"), [("walk/more", "../jump"), ("leap", "jump")])
def test_one_folder_in_two_classes_is_refused(write: Any, link: str, target: str) -> None:
    root = write({"jump/a.mp4": b"", "walk/b.mp4": b""})
    (root / link).symlink_to(target)
    with pytest.raises(DatasetSpecError, match="one folder in two classes"):
        paths(root)
    assert check_dataset(SPEC, root).obstacles() == ["split 'all' has 1 unusable line"]


def test_names_that_are_no_utf8(write: Any) -> None:
    root = write({"jump/a.mp4": b"", "walk/a.mp4": b""})
    for name in (b"/jump/caf\xe9.mp4", b"/jump/not\xe9.txt"):
        Path(os.fsdecode(os.fsencode(root) + name)).write_bytes(b"")
    with pytest.raises(DatasetSpecError, match=r"data/jump/caf\\xe9\.mp4: the name is no UTF-8"):
        paths(root)
    result = check_dataset(SPEC, root)
    assert result.splits[0].num_videos == 2
    assert [p.message for p in result.splits[0].problems] == [
        f"{root}/jump/caf\\xe9.mp4: the name is no UTF-8, and a store holds no other: rename it"
    ]
    assert skipped(root) == {"jump/not\\xe9.txt": "ending .txt"}


def test_a_class_folder_that_is_no_utf8(write: Any) -> None:
    root = write({"jump/a.mp4": b""})
    folder = Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9"))
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"")
    with pytest.raises(DatasetSpecError, match=r"data/caf\\xe9/a\.mp4: the name is no UTF-8"):
        paths(root)


def test_a_folder_that_cannot_be_listed_is_an_error(
    write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not passed over, as `os.walk` does. (The tests may run as root, who may list anything.)"""
    root = write({"jump/deep/a.mp4": b"", "jump/b.mp4": b""})
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DatasetSpecError, match=r"cannot list .*jump/deep: Permission denied"):
        paths(root)


def test_what_lies_beside_the_split_folders_is_named(write: Any) -> None:
    root = write(
        {
            "train/jump/a.mp4": b"",
            "val/jump/b.mp4": b"",
            "validation/jump/c.mp4": b"",
            "x.mp4": b"",
            "walk/d.mp4": b"",
            "train/notes.txt": "",
        }
    )
    beside = {
        "val/": "outside the split folders",
        "walk/": "outside the split folders",
        "x.mp4": "outside the split folders",
    }
    assert skipped(root) == beside | {"train/notes.txt": "ending .txt"}
    assert skipped(root, "validation") == beside


def test_a_class_folder_without_a_video_is_named_and_keeps_its_id(write: Any) -> None:
    root = write({"annotations/a.txt": "", "jump/a.mp4": b"", "clap/b.gif": b""})
    assert read_label_names(SPEC, root) == ["annotations", "clap", "jump"]
    nothing = "a class folder without a video; it counts as a class all the same"
    assert skipped(root) == {
        "annotations": nothing,
        "annotations/a.txt": "ending .txt",
        "clap": nothing,
        "clap/b.gif": "ending .gif",
    }


def test_split_folders_without_class_folders_are_no_classes(write: Any) -> None:
    root = write({"train/a.mp4": b"", "test/b.mp4": b""})
    with pytest.raises(DatasetSpecError, match=r"are splits \(test, train\).*test/CLASS/video"):
        paths(root)
    vehicles = write({"bus/a.mp4": b""})
    assert read_label_names(SPEC, vehicles) == ["bus", "test", "train"]
    assert len(paths(vehicles)) == 3


def test_class_folders_in_two_normal_forms_are_one_class(write: Any) -> None:
    root = write({"saut\u00e9/a.mp4": b"", "saute\u0301/b.mp4": b"", "x/a.mp4": b""})
    assert read_label_names(SPEC, root) == ["saut\u00e9", "x"]
    videos = read_videos(SPEC, root, "all")
    assert [(v.video_id, v.label) for v in videos] == [
        ("saut\u00e9/a", 0),
        ("saut\u00e9/b", 0),
        ("x/a", 1),
    ]
    assert all((root / video.path).is_file() for video in videos)
    write({"saute\u0301/a.mp4": b""})
    with pytest.raises(DatasetSpecError, match="'saut\u00e9/a' is listed twice"):
        paths(root)


def test_videos_below_any_folder(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write({"a.mp4": b"", "b/c.mp4": b"", "b/d.txt": ""})
    (root / "b/loop").symlink_to(root)
    monkeypatch.chdir(root)
    for folder in (root, Path()):
        found: list[Skipped] = []
        videos = [p.as_posix() for p in videos_below(folder, ("mp4",), found.append)]
        assert videos == [(folder / "a.mp4").as_posix(), (folder / "b/c.mp4").as_posix()]
        assert [s.path for s in found] == ["b/d.txt", "b/loop"]
