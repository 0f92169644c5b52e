"""What a check finds, and what of it would break a build."""

from __future__ import annotations

from typing import Any

import pytest

from datasets_spec import DatasetSpecError, load_spec, read_videos
from datasets_spec.agreement import Agreement
from datasets_spec.check import SplitCheck, check_dataset

SPEC = load_spec("ssv2")
FOLDER = "20bn-something-something-v2"


def test_a_sound_dataset_is_ready_though_files_are_missing(
    write: Any, ssv2_files: dict[str, Any]
) -> None:
    """Missing and empty files become rows; they do not break a build."""
    ssv2_files[f"{FOLDER}/2.webm"] = b""
    result = check_dataset(SPEC, write(ssv2_files))
    train, validation, test = result.splits
    assert (train.num_videos, train.missing, train.empty) == (2, (), (f"{FOLDER}/2.webm",))
    assert (validation.num_videos, validation.num_found) == (1, 0)
    assert validation.missing == (f"{FOLDER}/3.webm",)
    assert (test.num_videos, test.num_unlabelled) == (1, 1)
    assert result.num_classes == 2
    assert result.obstacles() == []


def test_every_unusable_line_is_counted_and_the_others_still_are(
    write: Any, ssv2_files: dict[str, Any]
) -> None:
    train = ssv2_files["labels/train.json"]
    train += [dict(train[0]), {"id": "11", "template": "Juggling"}, {"id": "12", "label": "x"}, 3]
    result = check_dataset(SPEC, write(ssv2_files)).splits[0]
    assert result.num_videos == 2
    counts = [len(result.of_kind(k)) for k in ("duplicate", "unknown_label", "malformed")]
    assert counts == [1, 1, 2]


def test_what_breaks_a_build_is_what_reading_refuses(
    write: Any, ssv2_files: dict[str, Any]
) -> None:
    ssv2_files["labels/train.json"].append({"id": "11", "template": "Juggling"})
    ssv2_files[f"{FOLDER}/3.webm"] = b"video"
    root = write(ssv2_files)
    assert check_dataset(SPEC, root).obstacles() == ["split 'train' has 1 unusable line"]
    assert check_dataset(SPEC, root, ["val"]).obstacles() == []
    read_videos(SPEC, root, "val")
    with pytest.raises(DatasetSpecError):
        read_videos(SPEC, root, "train")


def test_one_unreadable_split_does_not_hide_the_others(
    write: Any, ssv2_files: dict[str, Any]
) -> None:
    ssv2_files["labels/train.json"] = "["
    result = check_dataset(SPEC, write(ssv2_files))
    assert result.splits[0].error is not None
    assert "not valid JSON" in result.obstacles()[0]
    assert [split.num_videos for split in result.splits] == [0, 1, 1]


def test_an_empty_split_and_a_root_without_videos(write: Any, ssv2_files: dict[str, Any]) -> None:
    files = {k: v for k, v in ssv2_files.items() if k.startswith("labels")}
    root = write(files | {"labels/test.json": []})
    assert check_dataset(SPEC, root).obstacles() == [
        "split 'test' lists no videos",
        "not one video file is where the specification's patterns say",
    ]


def test_a_video_in_two_splits_is_reported(write: Any, ssv2_files: dict[str, Any]) -> None:
    ssv2_files["labels/test.json"] = [{"id": "10"}]
    result = check_dataset(SPEC, write(ssv2_files))
    assert result.overlaps == {"train+test": ("10",)}
    assert result.obstacles() == []


def test_folds_may_share_videos(write: Any) -> None:
    lists = {
        "trainlist01.txt": "YoYo/v_1.avi 101\n",
        "testlist01.txt": "YoYo/v_2.avi\n",
        "testlist02.txt": "YoYo/v_1.avi\n",
        "trainlist02.txt": "YoYo/v_1.avi 101\n",
    }
    assert check_dataset(load_spec("ucf101"), write(lists)).overlaps == {"train2+test2": ("v_1",)}


def test_problems_of_gathered_class_names_are_reported_once(write: Any) -> None:
    root = write({"videos.csv": "path,label\na.mp4,wave\n,jump\n"})
    result = check_dataset(load_spec("csv"), root)
    assert result.num_classes == 1
    assert [problem.kind for problem in result.splits[0].problems] == ["malformed"]


def test_the_checkpoints_class_order_decides(write: Any, ssv2_files: dict[str, Any]) -> None:
    root = write(ssv2_files)
    good = check_dataset(SPEC, root, (), ["Closing something", "Dropping something"])
    assert good.agreement is not None
    assert (good.agreement.verdict, good.obstacles()) == (Agreement.SAME, [])
    swapped = check_dataset(SPEC, root, (), ["Dropping something", "Closing something"])
    assert swapped.agreement is not None
    assert swapped.agreement.verdict is Agreement.REORDERED
    obstacle = "the checkpoint's classes are not the dataset's (--accept-classes)"
    assert swapped.obstacles() == [obstacle]
    names = ["Dropping something", "Closing something"]
    assert check_dataset(SPEC, root, (), names, accept_classes=True).obstacles() == []
    more = check_dataset(SPEC, root, (), [*names, "third"], accept_classes=True)
    assert more.obstacles() == ["the checkpoint has another number of classes than the dataset"]


def test_sizes_are_looked_at_only_if_asked(write: Any, ssv2_files: dict[str, Any]) -> None:
    root = write(ssv2_files | {f"{FOLDER}/2.webm": b""})
    (root / FOLDER / "3.webm").symlink_to("nowhere")  # listed, but nothing is behind it
    with_sizes = check_dataset(SPEC, root).splits
    without = check_dataset(SPEC, root, sizes=False).splits
    assert (len(with_sizes[0].empty), len(with_sizes[1].missing)) == (1, 1)
    assert (len(without[0].empty), len(without[1].missing)) == (0, 0)


def test_no_annotations_at_all(write: Any) -> None:
    with pytest.raises(
        DatasetSpecError, match=r"no annotations in .*looked for labels/train\.json"
    ):
        check_dataset(SPEC, write({}))


def test_found_is_listed_less_missing() -> None:
    assert SplitCheck(split="train", num_videos=3, missing=("a",)).num_found == 2
