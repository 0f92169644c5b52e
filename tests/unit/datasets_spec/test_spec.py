"""Specifications: the shipped ones load, and a user's YAML is held to every rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets_spec import DatasetSpecError, list_specs, load_spec

MINIMAL = "name: mine\nformat: ssv2\n"


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_every_shipped_specification_loads_under_its_own_name() -> None:
    names = list_specs()
    assert names == ["csv", "folder", "hmdb51", "kinetics400", "ssv2", "synthetic", "ucf101"]
    for name in names:
        spec = load_spec(name)
        assert spec.name == name
        assert spec.title
        assert spec.homepage


def test_only_datasets_without_directions_are_mirrored() -> None:
    allowed = {name for name in list_specs() if load_spec(name).flip}
    assert allowed == {"kinetics400", "ucf101", "hmdb51"}


def test_sampling_and_views_are_those_of_the_literature() -> None:
    ssv2, k400 = load_spec("ssv2"), load_spec("kinetics400")
    assert (ssv2.sampling, ssv2.train_views, ssv2.eval_views) == ("uniform", (1, 1), (2, 3))
    assert (k400.sampling, k400.eval_views) == ("stride:4", (5, 3))
    assert (ssv2.eval_split, load_spec("ucf101").eval_split) == ("validation", "test")


def test_synthetic_is_read_as_ssv2() -> None:
    synthetic, ssv2 = load_spec("synthetic"), load_spec("ssv2")
    assert (synthetic.format, synthetic.splits) == ("ssv2", ssv2.splits)
    assert (synthetic.labels, synthetic.videos) == (ssv2.labels, ssv2.videos)


@pytest.mark.parametrize(
    ("name", "count", "known"),
    [
        ("kinetics400", 400, {0: "abseiling", 6: "arm wrestling", 399: "zumba"}),
        ("ucf101", 101, {0: "ApplyEyeMakeup", 83: "SoccerJuggling", 100: "YoYo"}),
        ("hmdb51", 51, {0: "brush_hair", 1: "cartwheel", 50: "wave"}),
    ],
)
def test_shipped_class_orders(name: str, count: int, known: dict[int, str], tmp_path: Path) -> None:
    from datasets_spec import read_label_names

    names = read_label_names(load_spec(name), tmp_path)  # needs no data
    assert len(names) == len(set(names)) == count
    assert {number: names[number] for number in known} == known


def test_a_users_yaml_inherits_what_it_leaves_out(tmp_path: Path) -> None:
    path = _write(tmp_path, MINIMAL + "eval_views: 1x1\nlabels: {names: [a, b]}\n")
    spec = load_spec(str(path))
    assert (spec.name, spec.eval_views, spec.labels.names) == ("mine", (1, 1), ("a", "b"))
    assert spec.splits == load_spec("ssv2").splits
    assert (spec.citation, spec.source) == ("", path)


def test_an_inherited_class_file_is_still_found(tmp_path: Path) -> None:
    from datasets_spec import read_label_names

    spec = load_spec(_write(tmp_path, "name: mine\nformat: kinetics400\n"))
    assert len(read_label_names(spec, tmp_path)) == 400


def test_a_class_file_is_relative_to_its_yaml(tmp_path: Path) -> None:
    from datasets_spec import read_label_names

    path = _write(tmp_path, MINIMAL + "labels: {file: classes.txt}\n")
    (tmp_path / "classes.txt").write_text("up\ndown\n")
    (tmp_path / "data").mkdir()
    assert read_label_names(load_spec(path), tmp_path / "data") == ["up", "down"]


def test_unknown_name_suggests_a_close_one() -> None:
    with pytest.raises(DatasetSpecError, match=r"'kinetics40' \(did you mean 'kinetics400'\?\)"):
        load_spec("kinetics40")


def test_missing_yaml(tmp_path: Path) -> None:
    with pytest.raises(DatasetSpecError, match=r"no dataset specification at .*none\.yaml"):
        load_spec(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected keys and values, got NoneType"),
        ("- ssv2\n", "expected keys and values, got list"),
        ("name: [\n", "not valid YAML"),
        ("name: a\nname: b\nformat: ssv2\n", "key 'name' appears twice"),
        ("format: ssv2\n", "name: missing; allowed: a non-empty string"),
        ("name: ssv2\nformat: ssv2\n", "'ssv2' is the name of a shipped dataset"),
        ("name: a/b\nformat: ssv2\n", "got 'a/b'; allowed: letters, digits"),
        ("? [a]\n: b\n", "not valid YAML"),
        ("name: mine\n", "format: missing"),
        ("name: mine\nformat: [ssv2]\n", r"format: got \['ssv2'\]"),
        ("name: mine\nformat: ssv\n", r"format: 'ssv' \(did you mean 'ssv2'\?\); allowed: ssv2, "),
        (MINIMAL + "sampeling: uniform\n", r"sampeling: unknown key \(did you mean 'sampling'\?\)"),
        (MINIMAL + "1: x\n", "1: unknown key"),
        (MINIMAL + "title: 3\n", "title: got 3; allowed: a non-empty string"),
        (
            MINIMAL + "sampling: stride:0\n",
            "sampling: got 'stride:0'; allowed: uniform, or stride:",
        ),
        (MINIMAL + "sampling: 4\n", "sampling: got 4"),
        (MINIMAL + "flip: 'yes'\n", "flip: got 'yes'; allowed: true or false"),
        (MINIMAL + "eval_views: 2\n", "eval_views: got 2; allowed: SEGMENTSxCROPS as in 2x3"),
        (MINIMAL + "train_views: 3x0\n", "train_views: got '3x0'"),
        (MINIMAL + "splits: train.json\n", "splits: got 'train.json'; allowed: a mapping"),
        (MINIMAL + "splits: {1: a.json}\n", "splits: split 1 is no name"),
        (MINIMAL + "splits: {train: []}\n", r"splits\.train: got \[\]"),
        (MINIMAL + "splits: {train: [1]}\n", r"splits\.train: holds 1; allowed: strings"),
        (MINIMAL + "splits: {train: [a, a]}\n", r"splits\.train: holds a value twice"),
        (MINIMAL + "splits: {train: a.json}\n", "eval_split: 'validation'; allowed: train"),
        (MINIMAL + "labels: sorted\n", "labels: got 'sorted'; allowed: one of `names"),
        (MINIMAL + "labels: {names: [a], sorted: true}\n", "labels: got .*; allowed: one of"),
        (MINIMAL + "labels: {sorted: yes please}\n", r"labels\.sorted: got 'yes please'"),
        (MINIMAL + "labels: {names: [a, yes]}\n", r"labels\.names: holds True; .*quote numbers"),
        (MINIMAL + "labels: {names: [a, a]}\n", r"labels\.names: holds a value twice"),
        (MINIMAL + "videos: ['{vidio_id}']\n", r"uses \{vidio_id\} \(did you mean 'video_id'\?\)"),
        (MINIMAL + "videos: ['{video_id']\n", "'{video_id' has a brace without its other"),
        (MINIMAL + "videos: ['{{video_id}}']\n", "has a brace without its other"),
        (MINIMAL + "videos: ['{video_id}/{}']\n", r"uses \{\}; allowed: \{video_id\}, \{split"),
        (MINIMAL + "videos: ['{video_id!r}']\n", r"uses \{video_id!r\} \(did you mean"),
        (MINIMAL + "videos: ['{video_id:>9999999}']\n", r"uses \{video_id:>9999999\}"),
        (MINIMAL + "videos: ['{video_id.__class__}']\n", r"uses \{video_id\.__class__\}"),
        (MINIMAL + "videos: ['{video_id[0]}']\n", r"uses \{video_id\[0\]\}"),
        (MINIMAL + "videos: ['/data/{video_id}']\n", "paths below the data root"),
        (MINIMAL + "splits: {'..': train.json}\n", r"splits: split '\.\.' is no name"),
        (MINIMAL + "splits: {a/b: train.json}\n", "splits: split 'a/b' is no name"),
        (MINIMAL + "title: 2001-13-45\n", "not valid YAML: month must be in 1..12"),
        (MINIMAL + f"title: {'9' * 6000}\n", "not valid YAML: Exceeds the limit"),
        (MINIMAL + f"title: {'[' * 3000}\n", "not valid YAML"),
        (MINIMAL + "videos: ['{label}.webm']\n", r"lacks \{video_id\}"),
        (MINIMAL + "videos: ['../{video_id}']\n", "paths below the data root"),
        (MINIMAL + "extensions: [.webm]\n", r"extensions: holds '\.webm'"),
    ],
)
def test_a_broken_yaml_is_refused_with_file_key_and_rule(
    tmp_path: Path, text: str, message: str
) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(DatasetSpecError, match=message) as caught:
        load_spec(path)
    assert str(path) in str(caught.value)
