"""What a check finds, and what of it would break a build."""

from __future__ import annotations

import os
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
        "not one video file of split 'train' is where the specification's patterns say",
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


FOLDER_SPEC, TABLE = load_spec("folder"), load_spec("csv")


@pytest.mark.parametrize(
    ("files", "built"),
    [
        (["jump/a.mp4"], "all"),
        (["train/jump/a.mp4", "val/jump/b.mp4"], "train"),
        (["val/jump/b.mp4"], "validation"),
    ],
)
def test_the_split_that_a_build_takes(write: Any, files: list[str], built: str) -> None:
    result = check_dataset(FOLDER_SPEC, write(dict.fromkeys(files, b"video")))
    assert (result.built, result.no_default, result.obstacles()) == ((built,), None, [])


def test_no_split_to_take(write: Any) -> None:
    root = write({"val/jump/a.mp4": b"", "test/jump/b.mp4": b""})
    (obstacle,) = check_dataset(FOLDER_SPEC, root).obstacles()
    assert "no split 'train'; name one with --split: validation, test" in obstacle
    assert check_dataset(FOLDER_SPEC, root, ["test"]).obstacles() == []


def test_videos_without_a_label_matter_where_a_build_would_take_them(
    write: Any, ssv2_files: dict[str, Any]
) -> None:
    root = write(ssv2_files)
    assert check_dataset(SPEC, root).obstacles() == []
    obstacle = (
        "1 of 1 videos of split 'test' have no label to explain (--target predicted needs none)"
    )
    assert check_dataset(SPEC, root, ["test"]).obstacles() == [obstacle]
    root = write({"videos.csv": "path,label\n1.mp4,wave\n2.mp4,\n", "1.mp4": b"", "2.mp4": b""})
    assert check_dataset(TABLE, root).obstacles() == [
        "1 of 2 videos of split 'all' have no label to explain (--target predicted needs none)"
    ]


def test_another_splits_lines_matter_where_class_names_are_gathered(write: Any) -> None:
    files = {
        "train.csv": "path,label\n1.mp4,wave\n",
        "test.csv": "path,label\n,jump\n",
        "1.mp4": b"",
    }
    root = write(files)
    (obstacle,) = check_dataset(TABLE, root, ["train"]).obstacles()
    assert "test.csv:2: empty path" in obstacle
    with pytest.raises(DatasetSpecError, match=r"test\.csv:2: empty path"):
        read_videos(TABLE, root, "train")


def test_files_beside_the_videos_that_no_annotation_lists(
    write: Any, ssv2_files: dict[str, Any]
) -> None:
    new = {f"{FOLDER}/11.webm": b"v", f"{FOLDER}/2.MTS": b"v", "elsewhere/12.webm": b"v"}
    root = write(ssv2_files | new)
    assert {found.path: found.reason for found in check_dataset(SPEC, root).skipped} == {
        f"{FOLDER}/11.webm": "listed nowhere, ending .webm",
        f"{FOLDER}/2.MTS": "listed nowhere, ending .mts",
    }
    assert check_dataset(SPEC, root, ["train"]).skipped == ()  # other splits have files there too


def test_annotations_beside_the_videos_are_no_such_files(write: Any) -> None:
    root = write({"videos.csv": "path,label\n1.mp4,wave\n", "1.mp4": b"", "2.mp4": b""})
    assert [found.path for found in check_dataset(TABLE, root).skipped] == ["2.mp4"]


@pytest.mark.parametrize(("found", "shards"), [({0}, 3), ({0, 300}, 2), ({1000}, 3), (set(), 4)])
def test_whole_shards_of_missing_videos_stop_a_build(
    write: Any, found: set[int], shards: int
) -> None:
    """A thousand and one videos are three shards of 256 and one of 233."""
    rows = "".join(f"v{i:04d}.mp4,wave\n" for i in range(1001))
    root = write({"videos.csv": f"path,label\n{rows}"} | {f"v{i:04d}.mp4": b"v" for i in found})
    result = check_dataset(TABLE, root)
    assert result.splits[0].missing_shards == shards
    expected = []
    if not found:
        expected = ["not one video file of split 'all' is where the specification's patterns say"]
    elif shards == 3:
        expected = ["3 times 256 videos of split 'all' in a row are missing (--accept-missing)"]
    assert result.obstacles() == expected


def test_files_of_the_same_content_are_named_with_their_labels_and_splits(write: Any) -> None:
    """By content and not by size: the middle of a file does not count, its ends and length do."""
    film, other = b"a" * 70_000, b"a" * 69_999 + b"b"
    files = {
        "train/dance/1.mp4": film,
        "train/fall/copy.mp4": film,
        "validation/fall/1.mp4": other,
        "train/fall/2.mp4": other,
        "train/fall/3.mp4": b"short",
        "train/fall/4.mp4": b"shore",
        "test/dance/5.mp4": b"x" + film[1:],
        "test/dance/6.mp4": b"",
        "test/dance/7.mp4": b"",
        "train/dance/twice.mp4": b"once more",
        "train/dance/again.mp4": b"once more",
    }
    root = write(files)
    os.mkfifo(root / "test/dance/8.mp4")
    os.mkfifo(root / "test/dance/9.mp4")
    result = check_dataset(load_spec("folder"), root)
    assert [(a.paths, a.num_labels, a.splits) for a in result.alike] == [
        (("train/dance/1.mp4", "train/fall/copy.mp4"), 2, ()),
        (("train/dance/again.mp4", "train/dance/twice.mp4"), 1, ()),
        (("train/fall/2.mp4", "validation/fall/1.mp4"), 1, ("train", "validation")),
    ]
    assert result.obstacles() == []
    assert check_dataset(load_spec("folder"), root, sizes=False).alike == ()


def test_a_table_that_lists_everything_as_well_crosses_no_split(write: Any) -> None:
    """`all` holds every video; folds of a number share videos by design."""
    rows = "path,label,split\na.mp4,x,train\nb.mp4,x,train\n"
    root = write({"videos.csv": rows, "a.mp4": b"film", "b.mp4": b"film"})
    assert [a.splits for a in check_dataset(load_spec("csv"), root).alike] == [()]
    lists = {
        "trainlist01.txt": "YoYo/v_1.avi 101\n",
        "testlist02.txt": "YoYo/v_2.avi\n",
        "UCF-101/YoYo/v_1.avi": b"film",
        "UCF-101/YoYo/v_2.avi": b"film",
    }
    found = check_dataset(load_spec("ucf101"), write(lists)).alike
    assert [a.splits for a in found] == [()]
