"""Kinetics' CSV."""

from __future__ import annotations

from typing import Any

import pytest

from datasets_spec import DatasetSpecError, Video, list_splits, load_spec, read_videos

SPEC = load_spec("kinetics400")
HEADER = "label,youtube_id,time_start,time_end,split\n"
VAL = HEADER + "arm wrestling,a-_1,7,17,val\nzumba,b,120,130,val\n"


@pytest.mark.parametrize(
    "pattern",
    [
        "val/{id}.mp4",
        "validation/{id}.mp4",
        "val/{label}/{id}.mp4",
        "val/{under}/{id}.mp4",
        "{label}/{id}.mp4",
        "{under}/{id}.mp4",
        "{id}.mp4",
        "{id}.mkv",
    ],
)
def test_flat_split_and_class_folders(write: Any, pattern: str) -> None:
    wanted = [
        Video(video_id, pattern.format(id=video_id, label=name, under=under), label, "validation")
        for video_id, name, under, label in (
            ("a-_1_000007_000017", "arm wrestling", "arm_wrestling", 6),
            ("b_000120_000130", "zumba", "zumba", 399),
        )
    ]
    root = write({"annotations/val.csv": VAL} | {video.path: b"video" for video in wanted})
    assert read_videos(SPEC, root, "validation") == wanted
    assert read_videos(SPEC, root, "val") == wanted


def test_test_rows_may_lack_the_label(write: Any) -> None:
    without_column = "youtube_id,time_start,time_end,split\nb,1,11,test\n"
    root = write({"test.csv": without_column, "test/b_000001_000011.mp4": b"video"})
    video = Video("b_000001_000011", "test/b_000001_000011.mp4", None, "test")
    assert read_videos(SPEC, root, "test") == [video]
    write({"test.csv": HEADER + ",b,1,11,test\n"})
    assert read_videos(SPEC, root, "test") == [video]
    assert list_splits(SPEC, root) == ["test"]


def test_quotes_and_further_columns_do_no_harm(write: Any) -> None:
    text = HEADER.replace("split", "split,is_cc") + '"massaging person\'s head",b,1,11,val,0\n'
    text += '"""zumba""",c,1,11,val,0\r\n\r\n'
    labels = [v.label for v in read_videos(SPEC, write({"val.csv": text}), "val")]
    assert labels == [SPEC_NAMES.index("massaging person's head"), 399]


SPEC_NAMES = (SPEC.source.parent / "labels/kinetics400.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("zumba,b,1,11", "4 fields under 5 columns"),
        ("zumba,b,1.5,11,val", "time_start '1.5' is no whole number of seconds"),
        ("zumba,b,1,,val", "time_end '' is no whole number"),
        ("zumba,a/b,1,11,val", "youtube_id 'a/b' cannot be a file name"),
        ("zumba,,1,11,val", "youtube_id '' cannot be a file name"),
        ("zumba,b,1,11,train", "split 'train' in a file of split 'validation'"),
        ("zumbaa,b,1,11,val", r"unknown label 'zumbaa' \(did you mean 'zumba'\?\)"),
        ("zumba,a-_1,7,17,val", r"'a-_1_000007_000017' is listed twice, first at .*val\.csv:2"),
    ],
)
def test_a_bad_line_is_named(write: Any, line: str, message: str) -> None:
    root = write({"val.csv": HEADER + "zumba,a-_1,7,17,val\n" + line + "\n"})
    with pytest.raises(DatasetSpecError, match=rf"val\.csv:3: .*{message}"):
        read_videos(SPEC, root, "validation")


@pytest.mark.parametrize("text", ["", "zumba 1\n", HEADER.replace("time_end", "time_start")])
def test_a_header_that_will_not_do(write: Any, text: str) -> None:
    message = r"val\.csv:1: the header must name youtube_id, time_start, time_end once each, got"
    with pytest.raises(DatasetSpecError, match=message):
        read_videos(SPEC, write({"val.csv": text}), "validation")


def test_unfinished_quotes_are_no_csv(write: Any) -> None:
    with pytest.raises(DatasetSpecError, match=r"val\.csv:2: not valid CSV"):
        read_videos(SPEC, write({"val.csv": HEADER + '"zumba,b,1,11,val\n'}), "validation")


def test_another_kinetics_sorts_its_own_names(write: Any, tmp_path: Any) -> None:
    spec_file = tmp_path / "k600.yaml"
    spec_file.write_text("name: k600\nformat: kinetics400\nlabels: {sorted: true}\n")
    root = write(
        {
            "train.csv": HEADER + "yodeling,c,0,10,train\n,d,0,10,train\n",
            "val.csv": HEADER + "acting,b,0,10,val\n",
        }
    )
    assert [v.label for v in read_videos(load_spec(spec_file), root, "train")] == [1, None]
