"""Something-Something V2's JSON."""

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

SPEC = load_spec("ssv2")
FOLDER = "20bn-something-something-v2"


def test_label_is_the_template_without_brackets(write: Any, ssv2_files: dict[str, Any]) -> None:
    root = write(ssv2_files)
    assert read_label_names(SPEC, root) == ["Closing something", "Dropping something"]
    assert read_videos(SPEC, root, "train") == [
        Video("10", f"{FOLDER}/10.webm", 1, "train"),
        Video("2", f"{FOLDER}/2.webm", 0, "train"),
    ]


def test_a_missing_file_stays_in_the_list(write: Any, ssv2_files: dict[str, Any]) -> None:
    root = write(ssv2_files)
    assert read_videos(SPEC, root, "validation") == [
        Video("3", f"{FOLDER}/3.webm", 0, "validation")
    ]


def test_held_back_labels_are_none(write: Any, ssv2_files: dict[str, Any]) -> None:
    assert read_videos(SPEC, write(ssv2_files), "test")[0].label is None


def test_val_means_validation(write: Any, ssv2_files: dict[str, Any]) -> None:
    root = write(ssv2_files)
    assert read_videos(SPEC, root, "val") == read_videos(SPEC, root, "validation")


@pytest.mark.parametrize("folder", ["labels/", "annotations/", ""])
@pytest.mark.parametrize("prefix", ["", "something-something-v2-"])
def test_official_file_names_in_the_usual_folders(
    write: Any, ssv2_files: dict[str, Any], folder: str, prefix: str
) -> None:
    renamed = {
        name.replace("labels/", folder + prefix, 1): content for name, content in ssv2_files.items()
    }
    root = write(renamed)
    assert list_splits(SPEC, root) == ["train", "validation", "test"]
    assert [video.label for video in read_videos(SPEC, root, "train")] == [1, 0]


def test_a_number_is_an_id_too(write: Any, ssv2_files: dict[str, Any]) -> None:
    ssv2_files["labels/test.json"] = [{"id": 4}]
    assert read_videos(SPEC, write(ssv2_files), "test")[0].video_id == "4"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("4", "expected an object with id and template, got '4'"),
        ({"template": "Closing [something]"}, "id None is no video id"),
        ({"id": True}, "id True is no video id"),
        ({"id": "../4"}, "id '../4' cannot be a file name"),
        ({"id": "4", "template": 3}, "template 3 of video '4' is no text"),
        ({"id": "4", "label": "x"}, "video '4' has a label but no template"),
    ],
)
def test_a_malformed_entry_names_file_and_line(
    write: Any, ssv2_files: dict[str, Any], entry: object, message: str
) -> None:
    ssv2_files["labels/test.json"] = [{"id": "3"}, entry]  # written over lines 2-4 and from 5 on
    with pytest.raises(DatasetSpecError, match=rf"test\.json:5: {message}"):
        read_videos(SPEC, write(ssv2_files), "test")


def test_unknown_label_is_named_with_a_close_one(write: Any, ssv2_files: dict[str, Any]) -> None:
    ssv2_files["labels/train.json"][1]["template"] = "Closing [somthing]"
    message = r"entry 2: unknown label 'Closing somthing' \(did you mean 'Closing something'\?\)"
    with pytest.raises(DatasetSpecError, match=message):
        read_videos(SPEC, write(ssv2_files), "train")


def test_the_same_video_twice_is_refused(write: Any, ssv2_files: dict[str, Any]) -> None:
    ssv2_files["labels/train.json"].append(dict(ssv2_files["labels/train.json"][0]))
    with pytest.raises(
        DatasetSpecError, match=r"entry 3: video '10' is listed twice, first at .*1"
    ):
        read_videos(SPEC, write(ssv2_files), "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"id": "4"},\n}]', r"test\.json:2: not valid JSON"),
        ('{"4": {}}', r"test\.json: expected a list of videos, got dict"),
        ('[{"id": "4", "id": "5"}]', r"test\.json: not valid JSON: the key 'id' appears twice"),
        (b"\xff\xfe[]", r"test\.json: not UTF-8 text \(byte 0\)"),
        ("[]", r"split 'test' of .* lists no videos"),
    ],
)
def test_a_broken_annotation_file(
    write: Any, ssv2_files: dict[str, Any], content: str | bytes, message: str
) -> None:
    ssv2_files["labels/test.json"] = content
    with pytest.raises(DatasetSpecError, match=message):
        read_videos(SPEC, write(ssv2_files), "test")


def test_a_byte_order_mark_is_no_error(write: Any, ssv2_files: dict[str, Any]) -> None:
    ssv2_files["labels/test.json"] = b'\xef\xbb\xbf[{"id": "4"}]'
    assert len(read_videos(SPEC, write(ssv2_files), "test")) == 1


def test_what_is_not_there_is_said_with_what_was_looked_for(
    write: Any, ssv2_files: dict[str, Any]
) -> None:
    del ssv2_files["labels/train.json"]
    root = write(ssv2_files)
    with pytest.raises(DatasetSpecError, match=r"'train' in .*looked for labels/train\.json, "):
        read_videos(SPEC, root, "train")
    with pytest.raises(DatasetSpecError, match=r"no split 'tests' \(did you mean 'test'\?\)"):
        read_videos(SPEC, root, "tests")
    with pytest.raises(DatasetSpecError, match=r"no folder at the data root '.*/nowhere'"):
        read_videos(SPEC, root / "nowhere", "train")
    (root / "labels/labels.json").unlink()
    with pytest.raises(
        DatasetSpecError, match=r"no class list in .*looked for labels/labels\.json"
    ):
        read_videos(SPEC, root, "validation")


def test_default_split_is_the_one_papers_report_on(write: Any, ssv2_files: dict[str, Any]) -> None:
    root = write(ssv2_files)
    assert default_split(SPEC, root) == "validation"
    (root / "labels/validation.json").unlink()
    with pytest.raises(
        DatasetSpecError, match="no split 'validation'; name one with --split: train, "
    ):
        default_split(SPEC, root)
    (root / "labels/test.json").unlink()
    assert default_split(SPEC, root) == "train"
