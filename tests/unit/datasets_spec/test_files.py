"""Where videos are looked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from datasets_spec import load_spec, read_videos
from datasets_spec.files import Listing

SPEC = load_spec("ssv2")


def _labels(ids: str) -> dict[str, Any]:
    return {
        "labels.json": {"Closing something": "0"},
        "train.json": [{"id": i, "template": "Closing [something]"} for i in ids],
    }


@pytest.mark.parametrize(
    "pattern",
    ["20bn-something-something-v2/{}.webm", "videos/{}.webm", "{}.webm", "videos/{}.mp4"],
)
def test_each_layout_is_found(write: Any, pattern: str) -> None:
    files = {pattern.format(i): b"video" for i in "12"}
    videos = read_videos(SPEC, write(_labels("12") | files), "train")
    assert [video.path for video in videos] == sorted(files)


def test_a_missing_video_is_put_where_the_others_are(write: Any) -> None:
    """Its path, and so the plan, stays the same once the file is there."""
    files = {f"videos/{i}.mp4": b"video" for i in "13"}
    root = write(_labels("123") | files)
    before = read_videos(SPEC, root, "train")
    (root / "videos/2.mp4").write_bytes(b"video")
    assert before == read_videos(SPEC, root, "train")


def test_without_any_video_the_official_layout_is_assumed(write: Any) -> None:
    videos = read_videos(SPEC, write(_labels("1")), "train")
    assert videos[0].path == "20bn-something-something-v2/1.webm"


def test_the_first_pattern_wins_where_a_video_is_twice(write: Any) -> None:
    files = {"1.webm": b"video", "videos/1.mp4": b"video", "videos/1.webm": b"video"}
    assert read_videos(SPEC, write(_labels("1") | files), "train")[0].path == "videos/1.webm"


def test_a_folder_of_that_name_is_no_video(write: Any) -> None:
    root = write(_labels("1") | {"1.webm": b"video", "videos/1.webm/x": b""})
    assert read_videos(SPEC, root, "train")[0].path == "1.webm"


def test_annotations_elsewhere_are_named_by_an_absolute_path(write: Any, tmp_path: Path) -> None:
    root = write(_labels("1") | {"videos/1.webm": b"video"})
    spec_file = tmp_path / "mine.yaml"
    spec_file.write_text(
        f"name: mine\nformat: ssv2\nlabels: {{data: {root}/labels.json}}\n"
        f"splits: {{train: {root}/train.json}}\neval_split: train\nvideos: ['{{video_id}}.webm']\n"
    )
    assert read_videos(load_spec(spec_file), root / "videos", "train")[0].path == "1.webm"


def test_a_folder_is_listed_once_however_many_videos_it_holds(
    write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write({f"videos/{i}.webm": b"video" for i in range(50)})
    listed: list[Path] = []
    scandir = os.scandir

    def counting(path: Path) -> Any:
        listed.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counting)
    listing = Listing(root)
    assert all(listing.has_file(f"videos/{i}.webm") for i in range(50))
    assert not listing.has_file("nowhere/1.webm")
    assert listed == [root / "videos", root / "nowhere"]
