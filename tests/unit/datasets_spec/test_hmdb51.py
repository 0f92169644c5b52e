"""HMDB51's split files."""

from __future__ import annotations

from typing import Any

import pytest

from datasets_spec import DatasetSpecError, Video, list_splits, load_spec, read_videos

SPEC = load_spec("hmdb51")
FOLDER = "testTrainMulti_7030_splits"
LISTS = {
    f"{FOLDER}/shoot_ball_test_split1.txt": "(Rad)a!_shoot_ball_0.avi 1 \nb#_shoot_ball_1.avi 2 \n",
    f"{FOLDER}/wave_test_split1.txt": "c_wave_0.avi 0 \nd_wave_1.avi 1 \n",
    f"{FOLDER}/wave_test_split3.txt": "c_wave_0.avi 2\n",
}


@pytest.mark.parametrize(
    "folder", ["hmdb51_org/shoot_ball/", "videos/shoot_ball/", "shoot_ball/", ""]
)
def test_marks_choose_the_split_and_file_names_the_class(write: Any, folder: str) -> None:
    path = f"{folder}b#_shoot_ball_1.avi"
    root = write(LISTS | {path: b"video"})
    assert read_videos(SPEC, root, "test") == [Video("b#_shoot_ball_1", path, 34, "test")]
    train = read_videos(SPEC, root, "train")
    assert [(v.video_id, v.label) for v in train] == [
        ("(Rad)a!_shoot_ball_0", 34),
        ("d_wave_1", 50),
    ]
    assert [v.video_id for v in read_videos(SPEC, root, "test3")] == ["c_wave_0"]
    assert list_splits(SPEC, root) == ["train", "test", "train3", "test3"]


@pytest.mark.parametrize("line", ["a.avi 3", "a.avi", "a 1", "x/a.avi 1"])
def test_a_bad_line_is_named(write: Any, line: str) -> None:
    root = write({"wave_test_split1.txt": f"c_wave_0.avi 0\n{line}\n"})
    with pytest.raises(DatasetSpecError, match=r"wave_test_split1\.txt:2: expected `video\.avi 0`"):
        read_videos(SPEC, root, "train")


def test_an_unknown_class_file(write: Any) -> None:
    root = write({"waive_test_split1.txt": "c_wave_0.avi 1\n"})
    with pytest.raises(DatasetSpecError, match=r"unknown label 'waive' \(did you mean 'wave'"):
        read_videos(SPEC, root, "train")


def test_the_marks_know_no_other_split(write: Any, tmp_path: Any) -> None:
    spec_file = tmp_path / "mine.yaml"
    spec_file.write_text(
        "name: mine\nformat: hmdb51\nsplits: {dev: '*_test_split1.txt'}\neval_split: dev\n"
    )
    with pytest.raises(DatasetSpecError, match="split 'dev': hmdb51's files mark only train, test"):
        read_videos(load_spec(spec_file), write(LISTS), "dev")
