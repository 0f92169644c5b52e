"""`datasets check`, `build-oracle` and `status` say the same of a dataset, good or bad.

Each case is a small dataset with what must become of it: its clips per status, or a refusal.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from tests.builds import make_video

CLASSES = [f"class {i}" for i in range(5)]  # of the `tiny_backbone` fixture
HEADER = "label,youtube_id,time_start,time_end,split\n"
REFUSED: dict[str, int] = {}
Make = Callable[[Path, bytes], "tuple[str, dict[str, int]]"]
CASES: dict[str, Make] = {}


def case(make: Make) -> Make:
    CASES[make.__name__] = make
    return make


def lay(root: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_text(text, encoding="utf-8")


def folders(video: bytes, names: list[str] = CLASSES, below: str = ".") -> dict[str, Any]:
    """One video a class."""
    return {f"{below}/{name}/v.mp4": video for name in names}


def table(labels: list[object]) -> str:
    return "path,label\n" + "".join(f"v{i}.mp4,{label}\n" for i, label in enumerate(labels))


def videos(video: bytes, number: int = 5) -> dict[str, Any]:
    return {f"v{i}.mp4": video for i in range(number)}


@case
def folder_without_splits(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    lay(root, folders(video))
    return "folder", {"ok": 5}


@case
def folder_with_train(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    lay(root, folders(video, below="train") | {"val/class 0/v.mp4": video})
    return "folder", {"ok": 5}


@case
def folder_whose_split_must_be_named(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    lay(root, folders(video, below="val") | folders(video, below="test"))
    return "folder", REFUSED


@case
def split_folders_without_classes(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    lay(root, {"train/a.mp4": video, "test/b.mp4": video})
    return "folder", REFUSED


@case
def folders_numbered_from_0(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    lay(root, folders(video, [str(i) for i in range(5)]))
    return "folder", {"ok": 5}


@case
def folders_numbered_from_1(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    lay(root, folders(video, [str(i) for i in range(1, 6)]))
    return "folder", REFUSED


@case
def one_class_in_common(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    lay(root, folders(video, ["class 0", "run", "swim", "walk", "yoga"]))
    return "folder", REFUSED


@case
def folder_that_is_no_class(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    lay(root, folders(video) | {"annotations/notes.txt": "x"})
    return "folder", REFUSED  # the sixth class


@case
def archive_of_a_mac(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    lay(root, folders(video) | {"__MACOSX/class 0/._v.mp4": b"x", "class 0/._v.mp4": b"x"})
    return "folder", {"ok": 5}


@case
def linked_folder(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    lay(root, folders(video))
    lay(root.parent / "disk2", {"a.mp4": video, "b.mp4": video})
    (root / "class 0/more").symlink_to(root.parent / "disk2")
    (root / "class 0/loop").symlink_to(root)
    return "folder", {"ok": 7}


@case
def unlisted_endings(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    lay(root, folders(video) | {"class 0/w.MTS": video, "class 0/x.gif": b"x", "readme": ""})
    return "folder", {"ok": 6}


@case
def name_that_is_no_utf8(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    lay(root, folders(video))
    Path(os.fsdecode(os.fsencode(root) + b"/class 0/caf\xe9.mp4")).write_bytes(video)
    return "folder", REFUSED


@case
def missing_and_empty_files(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    files = videos(video) | {"v1.mp4": b"", "videos.csv": table(CLASSES)}
    del files["v0.mp4"]
    lay(root, files)
    return "csv", {"ok": 3, "missing_file": 1, "decode_error": 1}


@case
def not_one_file(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    lay(root, {"videos.csv": table(CLASSES)})
    return "csv", REFUSED


@case
def table_of_ids(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    lay(root, videos(video) | {"videos.csv": table([4, 3, 2, 1, 0])})
    return "csv", {"ok": 5}


@case
def table_of_float_ids(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    lay(root, videos(video) | {"videos.csv": table(["0.0", "1.0", "2.0", "3.0", "4.0"])})
    return "csv", {"ok": 5}


@case
def table_without_a_label(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    lay(root, videos(video, 6) | {"videos.csv": table([*CLASSES, ""])})
    return "csv", REFUSED


@case
def table_with_a_bad_line_in_another_split(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    lay(root, videos(video) | {"train.csv": table(CLASSES), "test.csv": "path,label\n,class 0\n"})
    return "csv", REFUSED  # class names are gathered from all splits


@case
def table_in_the_other_normal_form(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    rows = "".join(f"saut\u00e9{i}.mp4,{name}\n" for i, name in enumerate(CLASSES))
    lay(
        root,
        {f"saute\u0301{i}.mp4": video for i in range(5)} | {"videos.csv": f"path,label\n{rows}"},
    )
    return "csv", {"ok": 5}


@case
def path_that_leads_out(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    lay(root, videos(video) | {"videos.csv": table(CLASSES) + "../v0.mp4,class 0\n"})
    return "csv", REFUSED


@case
def numbers_that_are_names_and_ids(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    names = [str(i) for i in range(1, 6)]
    lay(root, videos(video) | {"videos.csv": table([1, 2, 3, 4, 0])})
    lay(root.parent, {"mine.yaml": {"name": "mine", "format": "csv", "labels": {"names": names}}})
    return str(root.parent / "mine.yaml"), REFUSED


@case
def json_nested_too_deeply(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    lay(root, {"labels.json": CLASSES, "train.json": '{"a":' * 100_000})
    return "ssv2", REFUSED


@case
def no_annotations(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    lay(root, videos(video))
    return "ssv2", REFUSED


@case
def kinetics_folders_without_brackets(root: Path, video: bytes) -> tuple[str, dict[str, int]]:
    names = [f"class ({i})" for i in range(5)]
    lay(root, {"train.csv": HEADER + "".join(f"{n},id,{i},9,train\n" for i, n in enumerate(names))})
    lay(root, {f"train/Class_{i}/id_{i:06d}_000009.mp4": video for i in range(5)})
    values = {"name": "mine", "format": "kinetics400", "labels": {"names": names}}
    lay(root.parent, {"mine.yaml": values})
    return str(root.parent / "mine.yaml"), {"ok": 5}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    make_video(path, 0)
    return path.read_bytes()


def run(*args: object) -> tuple[int, str]:
    """Exit code and output; what ends in a traceback fails here."""
    result = CliRunner().invoke(app, [*map(str, args)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


NAMED = ("folder_with_train", "folder_without_splits", "table_without_a_label")


@pytest.mark.parametrize(
    ("name", "named"), [(name, False) for name in CASES] + [(name, True) for name in NAMED]
)
def test_they_agree(
    name: str, named: bool, tmp_path: Path, video: bytes, tiny_backbone: Path
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    dataset, expected = CASES[name](root, video)
    options = ["--data-root", root, "--backbone", tiny_backbone]
    if named:  # the one that a build takes
        options += ["--split", "train" if name == "folder_with_train" else "all"]
    check, text = run("datasets", "check", dataset, *options)
    store = ["--store", tmp_path / "store"]
    speed = ["--decode-workers", 0, "--batch-size", 2, "--shard-size", 4]
    build, output = run("build-oracle", "--dataset", dataset, *options, *store, *speed)
    assert ("ready for a build" in text) == (check == 0)
    if expected is REFUSED:
        assert (check, build) == (1, 1), text + output
        assert "error: " in output
        return
    assert (check, build) == (0, 0), text + output
    counts = json.loads(run("datasets", "check", dataset, *options, "--json")[1])["splits"]
    counted = counts[re.search(r"split that a build takes: (\w+)", text)[1]]  # type: ignore[index]
    clips = json.loads(run("status", *store, "--json")[1])["clips"]
    assert {status: number for status, number in clips.items() if status in expected} == expected
    assert clips["total"] == counted["videos"] == sum(expected.values())
    assert counted["missing"] == expected.get("missing_file", 0)
    assert counted["empty"] == expected.get("decode_error", 0)
