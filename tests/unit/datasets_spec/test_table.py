"""Tables of videos as CSV and JSON Lines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from datasets_spec import (
    DatasetSpecError,
    Video,
    list_splits,
    load_spec,
    read_label_names,
    read_videos,
)
from datasets_spec.check import check_dataset

SPEC = load_spec("csv")


def test_names_get_ids_by_their_order(write: Any) -> None:
    root = write({"videos.csv": "path,label\nb/2.mp4,wave\n./a/1.mp4,jump\nc.mp4,\n"})
    assert read_label_names(SPEC, root) == ["jump", "wave"]
    assert read_videos(SPEC, root, "all") == [
        Video("a/1", "a/1.mp4", 0, "all"),
        Video("b/2", "b/2.mp4", 1, "all"),
        Video("c", "c.mp4", None, "all"),
    ]


def test_numbers_are_ids(write: Any) -> None:
    root = write({"videos.csv": "path,label\na.mp4,10\nb.mp4,2\n"})
    assert read_label_names(SPEC, root) == [str(number) for number in range(11)]
    assert [v.label for v in read_videos(SPEC, root, "all")] == [10, 2]


def test_json_lines_are_the_same_table(write: Any) -> None:
    rows = [
        {"path": "a.mp4", "label": 1, "video_id": "first", "split": None, "other": [1]},
        {"path": "b.mp4", "label": None},
    ]
    root = write({"videos.jsonl": "\n".join(json.dumps(row) for row in rows)})
    assert read_videos(SPEC, root, "all") == [
        Video("b", "b.mp4", None, "all"),
        Video("first", "a.mp4", 1, "all"),
    ]


def test_a_split_column_divides_a_common_table(write: Any) -> None:
    text = "video_id,split,path,label\nx,train,a.mp4,wave\ny,val,b.mp4,jump\nz,,c.mp4,wave\n"
    root = write({"videos.csv": text})
    assert list_splits(SPEC, root) == ["all", "train", "validation"]
    assert read_videos(SPEC, root, "train") == [Video("x", "a.mp4", 1, "train")]
    assert read_videos(SPEC, root, "val") == [Video("y", "b.mp4", 0, "validation")]
    assert len(read_videos(SPEC, root, "all")) == 3


def test_a_table_of_its_own_per_split(write: Any) -> None:
    root = write({"train.csv": "path,label\na.mp4,wave\n", "val.csv": "path,label\nb.mp4,jump\n"})
    assert list_splits(SPEC, root) == ["train", "validation"]
    assert read_videos(SPEC, root, "train")[0].label == 1  # jump is known from the other split


def test_an_absolute_path_below_the_root_becomes_relative(write: Any) -> None:
    root = write({})
    write({"videos.csv": f"path,label\n{root}/a/1.mp4,wave\n"})
    assert read_videos(SPEC, root, "all")[0].path == "a/1.mp4"


def test_an_id_counts_against_a_list_of_names(write: Any, tmp_path: Any) -> None:
    spec_file = tmp_path / "mine.yaml"
    spec_file.write_text("name: mine\nformat: csv\nlabels: {names: [wave, jump]}\n")
    root = write({"videos.csv": "path,label\na.mp4,1\nb.mp4,wave\n"})
    assert [v.label for v in read_videos(load_spec(spec_file), root, "all")] == [1, 0]
    write({"videos.csv": "path,label\na.mp4,2\n"})
    with pytest.raises(DatasetSpecError, match="unknown label 2; mine has class ids 0 to 1"):
        read_videos(load_spec(spec_file), root, "all")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label\nwave\n", r"videos\.csv:1: the header must name path, label once each, got label"),
        ("path,label\n,wave\n", r"videos\.csv:2: empty path"),
        ("path,label\n../a.mp4,wave\n", r"videos\.csv:2: path '\.\./a\.mp4' is not below the data"),
        ("path,label\n/else/a.mp4,wave\n", "path '/else/a.mp4' is not below the data root"),
        ("path,label\na.mp4,wave\na.mp4,jump\n", r"csv:3: video 'a' is listed twice, first at .*2"),
        ("path,label\na.mp4,wave\nb.mp4,3\n", "labels mix ids and names: 3 .* and 'wave'"),
        ("path,label\na.mp4,32768\n", "class id 32768; ids must be below 32768"),
        ("path,label\na.mp4,\n", "no video has a label"),
        ("path,label,split\na.mp4,wave,trian\n", "unknown split 'trian'; csv has all, train,"),
    ],
)
def test_a_bad_table_is_named(write: Any, text: str, message: str) -> None:
    with pytest.raises(DatasetSpecError, match=message):
        read_videos(SPEC, write({"videos.csv": text}), "all")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not a valid JSON object"),
        ("[1]", r"expected an object with path, label, got \[1\]"),
        ('{"path": "a.mp4"}', "lacks label"),
        ('{"path": "a.mp4", "label": 1.5}', "label 1.5 is neither text nor a whole number"),
        ('{"path": "a.mp4", "label": true}', "label True is neither"),
        (
            '{"path": "a", "path": "b", "label": 1}',
            "not a valid JSON object: the key 'path' appears twice",
        ),
    ],
)
def test_a_bad_json_line_is_named(write: Any, line: str, message: str) -> None:
    text = '{"path": "ok.mp4", "label": 0}\n' + line
    with pytest.raises(DatasetSpecError, match=rf"videos\.jsonl:2: {message}"):
        read_videos(SPEC, write({"videos.jsonl": text}), "all")


def test_splits_asked_of_a_table_without_any(write: Any) -> None:
    root = write({"videos.csv": "path,label\na.mp4,wave\n"})
    assert list_splits(SPEC, root) == ["all"]
    with pytest.raises(DatasetSpecError, match="no split column, so .* 'train'; use split 'all'"):
        read_videos(SPEC, root, "train")


def test_no_table(write: Any) -> None:
    message = r"no annotations of split 'all' in .*looked for videos\.csv, videos\.jsonl"
    with pytest.raises(DatasetSpecError, match=message):
        read_videos(SPEC, write({}), "all")
    with pytest.raises(DatasetSpecError, match=message):
        read_label_names(SPEC, write({}))


def test_a_row_of_another_split_in_a_splits_own_table(write: Any) -> None:
    root = write({"train.csv": "path,label,split\na.mp4,wave,test\n"})
    with pytest.raises(DatasetSpecError, match=r"split 'test' in the table of split 'train'"):
        read_videos(SPEC, root, "train")


def test_a_line_separator_inside_a_text_ends_no_line(write: Any) -> None:
    root = write({"videos.jsonl": '{"path": "a\u2028b.mp4", "label": 0}\n'})
    assert read_videos(SPEC, root, "all")[0].path == "a\u2028b.mp4"


CROSSING = """path,label,split,group
a.mp4,x,train,home
b.mp4,y,train,yard
c.mp4,x,test,home
d.mp4,y,test,
"""


def test_a_group_in_two_splits_is_refused_by_name_and_not_in_all(write: Any) -> None:
    root = write({"videos.csv": CROSSING})
    for split, other in (("train", "test"), ("test", "train")):
        with pytest.raises(DatasetSpecError, match=f"{split!r} and in {other!r}: home;"):
            read_videos(SPEC, root, split)
    assert [v.group for v in read_videos(SPEC, root, "all")] == ["home", "yard", "home", None]
    obstacles = check_dataset(SPEC, root).obstacles()
    assert sum("home" in said for said in obstacles) == 2, obstacles
    assert not any("unusable" in said for said in obstacles)


def test_a_video_that_two_splits_share_tears_no_group_apart(write: Any) -> None:
    both = {
        "train.csv": "path,label,group\na.mp4,x,g\n",
        "test.csv": "path,label,group\na.mp4,x,g\n",
    }
    assert len(read_videos(SPEC, write(both), "train")) == 1
