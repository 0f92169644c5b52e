"""UCF101's split files."""

from __future__ import annotations

from typing import Any

import pytest

from datasets_spec import DatasetSpecError, Video, list_splits, load_spec, read_videos

SPEC = load_spec("ucf101")
LISTS = {
    "ucfTrainTestlist/trainlist01.txt": "Archery/v_Archery_g8.avi 3\r\nYoYo/v_YoYo_1.avi 101\r\n",
    "ucfTrainTestlist/testlist01.txt": "Archery/v_Archery_g01_c01.avi\n\n",
    "ucfTrainTestlist/testlist02.txt": "YoYo/v_YoYo_1.avi\n",
}


@pytest.mark.parametrize(
    "folder", ["UCF-101/Archery/", "videos/Archery/", "Archery/", "videos/", ""]
)
def test_training_and_test_lists_in_every_layout(write: Any, folder: str) -> None:
    path = f"{folder}v_Archery_g01_c01.avi"
    root = write(LISTS | {path: b"video"})
    assert read_videos(SPEC, root, "test") == [Video("v_Archery_g01_c01", path, 2, "test")]
    assert [v.label for v in read_videos(SPEC, root, "train")] == [2, 100]


def test_the_number_of_the_split_is_part_of_its_name(write: Any) -> None:
    root = write(LISTS)
    assert list_splits(SPEC, root) == ["train", "test", "test2"]
    assert [v.video_id for v in read_videos(SPEC, root, "test2")] == ["v_YoYo_1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("v_Archery_g08_c01.avi 3", r"expected Class/video\.avi and perhaps a number, got 'v_A"),
        ("Archery/v_Archery_g08_c01.avi three", "expected Class/video"),
        ("Archary/v_Archery_g08_c01.avi 3", r"unknown label 'Archary' \(did you mean 'Archery'"),
        ("Archery/v_Archery_g08_c01.avi 4", "class 'Archery' has number 4 here and 3 in the class"),
    ],
)
def test_a_bad_line_is_named(write: Any, line: str, message: str) -> None:
    root = write({"trainlist01.txt": f"YoYo/v_YoYo_g01_c01.avi 101\n{line}\n"})
    with pytest.raises(DatasetSpecError, match=rf"trainlist01\.txt:2: {message}"):
        read_videos(SPEC, root, "train")


def test_a_renumbered_subset_reads_its_own_class_list(write: Any, tmp_path: Any) -> None:
    spec_file = tmp_path / "mine.yaml"
    spec_file.write_text("name: mine\nformat: ucf101\nlabels: {data: classInd.txt}\n")
    root = write(
        {"classInd.txt": "1 Archery\n2 YoYo\n", "trainlist01.txt": "YoYo/v_YoYo_1.avi 2\n"}
    )
    assert read_videos(load_spec(spec_file), root, "train")[0].label == 1
