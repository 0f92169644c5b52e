"""One folder per class."""

from __future__ import annotations

from typing import Any

import pytest

from datasets_spec import (
    DatasetSpecError,
    Video,
    default_split,
    list_splits,
    load_spec,
    read_label_names,
    read_videos,
)

SPEC = load_spec("folder")


def test_class_folders_without_splits(write: Any) -> None:
    root = write(
        {
            "wave/b.MP4": b"video",
            "jump/deep/a.avi": b"video",
            "jump/notes.txt": "no video",
            "jump/._a.avi": b"not a video either",
            ".cache/x.mp4": b"nor this",
            "readme.md": "nor this",
        }
    )
    assert read_label_names(SPEC, root) == ["jump", "wave"]
    assert list_splits(SPEC, root) == ["all"]
    assert default_split(SPEC, root) == "all"
    assert read_videos(SPEC, root, "all") == [
        Video("jump/deep/a", "jump/deep/a.avi", 0, "all"),
        Video("wave/b", "wave/b.MP4", 1, "all"),
    ]


def test_split_folders_share_one_class_order(write: Any) -> None:
    """A class that one split lacks, or whose folder is empty, still takes its id."""
    root = write({"train/jump/1.mp4": b"", "train/wave/2.mp4": b"", "val/wave/3.mp4": b""})
    (root / "val" / "clap").mkdir()
    assert read_label_names(SPEC, root) == ["clap", "jump", "wave"]
    assert list_splits(SPEC, root) == ["train", "validation"]
    assert read_videos(SPEC, root, "val") == [Video("wave/3", "val/wave/3.mp4", 2, "validation")]
    with pytest.raises(DatasetSpecError, match="no split 'all' in .*make up train, validation"):
        read_videos(SPEC, root, "all")


def test_a_video_outside_the_class_folders_is_not_lost_in_silence(write: Any) -> None:
    root = write({"wave/1.mp4": b"video", "stray.mp4": b"video"})
    with pytest.raises(DatasetSpecError, match=r"stray\.mp4: a video outside the class folders"):
        read_videos(SPEC, root, "all")


def test_two_files_of_one_name_are_one_id(write: Any) -> None:
    root = write({"wave/1.mp4": b"video", "wave/1.avi": b"video"})
    with pytest.raises(DatasetSpecError, match=r"1\.mp4: video 'wave/1' is listed twice"):
        read_videos(SPEC, root, "all")


def test_an_empty_root(write: Any) -> None:
    with pytest.raises(DatasetSpecError, match="no split 'all' in .* it has no class folders"):
        read_videos(SPEC, write({}), "all")


def test_a_folder_outside_a_given_class_list(write: Any, tmp_path: Any) -> None:
    spec_file = tmp_path / "mine.yaml"
    spec_file.write_text("name: mine\nformat: folder\nlabels: {names: [wave, jump]}\n")
    root = write({"wave/1.mp4": b"video", "jum/2.mp4": b"video"})
    with pytest.raises(DatasetSpecError, match=r"unknown label 'jum' \(did you mean 'jump'\?\)"):
        read_videos(load_spec(spec_file), root, "all")


@pytest.mark.parametrize("folder", [" wave", "wave ", "\twave\n", " wäve"])
def test_white_space_around_a_class_folder_is_no_part_of_its_name(write: Any, folder: str) -> None:
    """In ASCII as in any letters; the path keeps it."""
    root = write({f"{folder}/1.mp4": b"video", "jump/2.mp4": b"video"})
    assert read_label_names(SPEC, root) == ["jump", folder.strip()]
    videos = {video.path: video.label for video in read_videos(SPEC, root, "all")}
    assert videos == {f"{folder}/1.mp4": 1, "jump/2.mp4": 0}
