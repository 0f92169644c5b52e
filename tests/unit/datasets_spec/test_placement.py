"""Files that are not called quite as the annotations say, and names that would lead elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datasets_spec import DatasetSpecError, load_spec, read_videos
from datasets_spec.check import check_dataset

COMPOSED, DECOMPOSED = "saut\u00e9", "saute\u0301"
KINETICS = load_spec("kinetics400")
HEADER = "label,youtube_id,time_start,time_end,split\n"


def specification(folder: Path, **values: Any) -> Any:
    """A user's own YAML (JSON is YAML)."""
    path = folder / "mine.yaml"
    path.write_text(json.dumps({"name": "mine", **values}), encoding="utf-8")
    return load_spec(path)


@pytest.mark.parametrize(
    ("label", "folder"),
    [
        ("shooting goal (soccer)", "shooting_goal_soccer"),
        ("massaging person's head", "massaging_persons_head"),
        ("massaging person's head", "massaging person_s head"),
        ("passing American football (in game)", "Passing american football in game"),
        ("abseiling", "abseiling"),
    ],
)
@pytest.mark.parametrize("split", ["val", "."])
def test_class_folders_with_other_separators(
    write: Any, label: str, folder: str, split: str
) -> None:
    path = Path(split, folder, "-b_000001_000011.mp4").as_posix()
    root = write({"val.csv": f'{HEADER}"{label}",-b,1,11,val\n', path: b"video"})
    assert [video.path for video in read_videos(KINETICS, root, "val")] == [path]


def test_a_folder_to_the_letter_comes_before_one_that_is_like_it(write: Any) -> None:
    name = "b_000001_000011.mp4"
    root = write(
        {
            "val.csv": HEADER + "arm wrestling,b,1,11,val\n",
            f"val/Arm-Wrestling/{name}": b"",
            f"arm_wrestling/{name}": b"",
        }
    )
    assert read_videos(KINETICS, root, "val")[0].path == f"arm_wrestling/{name}"


def test_two_folders_that_are_like_a_class_are_none(write: Any) -> None:
    root = write(
        {
            "val.csv": HEADER + "arm wrestling,b,1,11,val\n",
            "val/Arm-Wrestling/b_000001_000011.mp4": b"",
            "val/armwrestling/x": b"",
        }
    )
    assert check_dataset(KINETICS, root).splits[0].missing == ("validation/b_000001_000011.mp4",)


def test_separators_count_where_they_tell_two_classes_apart(write: Any, tmp_path: Path) -> None:
    spec = specification(
        tmp_path,
        format="kinetics400",
        labels={"names": ["a b", "ab", "c d"]},
        videos=["{label}/{video_id}.{ext}"],
    )
    root = write({"val.csv": HEADER + "a b,b,1,11,val\n", "a_b/b_000001_000011.mp4": b""})
    assert read_videos(spec, root, "val")[0].path == "a b/b_000001_000011.mp4"  # missing


@pytest.mark.parametrize("on_disk", [COMPOSED, DECOMPOSED])
@pytest.mark.parametrize("in_table", [COMPOSED, DECOMPOSED])
def test_a_name_in_the_other_normal_form_is_found(write: Any, on_disk: str, in_table: str) -> None:
    """In a table of paths, and where a pattern says what a file is called."""
    path = f"{on_disk}/{on_disk}.mp4"
    root = write({path: b"v", "videos.csv": f"path,label\n{in_table}/{in_table}.mp4,x\n"})
    (video,) = read_videos(load_spec("csv"), root, "all")
    assert (video.path, video.video_id) == (path, f"{COMPOSED}/{COMPOSED}")
    assert (root / video.path).is_file()
    assert check_dataset(load_spec("csv"), root).splits[0].missing == ()
    write(
        {
            "labels.json": [in_table],
            "train.json": [{"id": in_table, "template": in_table}],
            f"videos/{on_disk}.webm": b"v",
        }
    )
    (video,) = read_videos(load_spec("ssv2"), root, "train")
    assert (root / video.path).is_file()
    assert (video.video_id, video.label) == (COMPOSED, 0)


@pytest.mark.parametrize("label", ["..", ".", "../..", "/etc", "a/../../..", "a\0b"])
def test_a_label_does_not_lead_out_of_the_root(write: Any, tmp_path: Path, label: str) -> None:
    (tmp_path / "1.webm").write_bytes(b"secret")
    spec = specification(
        tmp_path, format="ssv2", labels={"sorted": True}, videos=["{label}/{video_id}.{ext}"]
    )
    root = write({"train.json": [{"id": "1", "template": label}]})
    with pytest.raises(DatasetSpecError, match="needs a label that can be a folder name; '.*' is "):
        read_videos(spec, root, "train")
    assert "can be a folder name" in check_dataset(spec, root, ["train"]).obstacles()[0]


def test_a_label_that_is_no_folder_does_no_harm_where_a_pattern_does_without(
    write: Any, tmp_path: Path
) -> None:
    spec = specification(
        tmp_path,
        format="ssv2",
        labels={"sorted": True},
        videos=["{label}/{video_id}.{ext}", "{video_id}.{ext}"],
    )
    root = write({"train.json": [{"id": "1", "template": "and/or"}], "and/or/1.webm": b""})
    assert read_videos(spec, root, "train")[0].path == "1.webm"


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("ucf101", {"trainlist01.txt": "../v_1.avi 1\n"}),
        ("hmdb51", {".._test_split1.txt": "v_1.avi 1\n"}),
    ],
)
def test_no_format_lets_a_class_folder_lead_out(
    write: Any, tmp_path: Path, name: str, files: dict[str, str]
) -> None:
    spec = specification(
        tmp_path, format=name, labels={"sorted": True}, videos=["{label}/{video_id}.{ext}"]
    )
    (tmp_path / "v_1.avi").write_bytes(b"secret")
    with pytest.raises(DatasetSpecError, match=r"folder name; '\.\.' is none"):
        read_videos(spec, write(files), "train")


@pytest.mark.parametrize("stem", ["..", "."])
def test_no_id_leads_out(write: Any, tmp_path: Path, stem: str) -> None:
    spec = specification(
        tmp_path, format="ucf101", labels={"sorted": True}, videos=["{video_id}/clip.{ext}"]
    )
    root = write({"trainlist01.txt": f"a/{stem}.avi 1\n"})
    with pytest.raises(DatasetSpecError, match=f"id '{stem}' cannot be a file name"):
        read_videos(spec, root, "train")
