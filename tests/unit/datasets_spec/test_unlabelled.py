"""Reading videos without their classes: no class list is asked, a file is found all the same."""

from __future__ import annotations

from typing import Any

import pytest

from datasets_spec import DatasetSpecError, Video, load_spec
from datasets_spec.read import read_split


def test_labels_that_are_no_class_and_labels_that_are_missing_stop_nothing(write: Any) -> None:
    table = "path,label,split\na.mp4,,train\nb.mp4,no such,train\nc.mp4,7,train\n"
    yaml = "name: mine\nformat: csv\nlabels: {names: [one, two]}\n"
    root = write({"videos.csv": table, "mine.yaml": yaml})
    spec = load_spec(str(root / "mine.yaml"))
    found = read_split(spec, root, "train", labelled=False)
    assert found.videos == [Video(i, f"{i}.mp4", None, "train") for i in "abc"]
    assert found.label_names == []
    with pytest.raises(DatasetSpecError, match="unknown label 'no such'"):
        read_split(spec, root, "train")


def test_no_class_list_is_read(write: Any) -> None:
    videos = {f"20bn-something-something-v2/{i}.webm": b"video" for i in (1, 2)}
    root = write({"test.json": '[{"id": "1"}, {"id": "2"}]'} | videos)
    found = read_split(load_spec("ssv2"), root, "test", labelled=False)
    assert [video.path for video in found.videos] == list(videos)
    with pytest.raises(DatasetSpecError, match="no class list"):
        read_split(load_spec("ssv2"), root, "test")


def test_a_label_may_still_be_a_folder(write: Any) -> None:
    header = "label,youtube_id,time_start,time_end,split\n"
    table = header + "arm wrestling,a,7,17,val\nno class of it,b,120,130,val\n"
    paths = ["val/arm_wrestling/a_000007_000017.mp4", "val/no class of it/b_000120_000130.mp4"]
    root = write({"annotations/val.csv": table} | dict.fromkeys(paths, b"video"))
    found = read_split(load_spec("kinetics400"), root, "val", labelled=False)
    assert [(video.path, video.label) for video in found.videos] == [(path, None) for path in paths]


def test_what_else_is_wrong_is_still_refused(write: Any) -> None:
    root = write({"videos.csv": "path,label,split\na.mp4,,train\na.mp4,,train\n"})
    with pytest.raises(DatasetSpecError, match="listed twice"):
        read_split(load_spec("csv"), root, "train", labelled=False)
    root = write({"videos.csv": "path,label,split,group\na.mp4,,train,g\nb.mp4,,validation,g\n"})
    with pytest.raises(DatasetSpecError, match="groups in split"):
        read_split(load_spec("csv"), root, "train", labelled=False)
