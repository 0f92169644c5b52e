"""`lite-pipeline show`: which clips, and that what is drawn is their map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import ClipStatus, ConfigError, StoreError
from selector.report.choosing import clips_by_number, clips_of_class, worst_clips
from selector.report.strips import KEEP_RATIO, bare_strip, heat, top
from tests.stores import begin_store, make_store


def show(*arguments: object):
    return CliRunner().invoke(app, ["show", *map(str, arguments)])


def test_by_number(tiny_store):
    assert clips_by_number(tiny_store, [9, 0]) == {9: "as asked", 0: "as asked"}
    with pytest.raises(StoreError, match="no clip 10: they are 0 to 9"):
        clips_by_number(tiny_store, [10])
    with pytest.raises(StoreError, match="no clip -1"):
        clips_by_number(tiny_store, [-1])
    with pytest.raises(StoreError, match="clip 3 has no map: decode_error"):
        clips_by_number(tiny_store, [3])


def test_a_clip_that_is_not_done(tmp_path: Path):
    begin_store(tmp_path / "s", 10)
    result = show("--store", tmp_path / "s", "--out", tmp_path / "o", "--clip", 2)
    assert result.exit_code == 1
    assert "clip 2" in result.output
    assert "is not done yet" in result.output


def test_by_class(tiny_store):
    """Labels come in turn: 0 1 2 0 ..., and clip 3 failed."""
    name = tiny_store.label_names[0]
    assert list(clips_of_class(tiny_store, name, 10)) == [0, 6, 9]
    assert list(clips_of_class(tiny_store, name, 2)) == [0, 6]
    with pytest.raises(ConfigError, match=f"no class is called '{name}s'; similar: {name}"):
        clips_of_class(tiny_store, f"{name}s", 10)


def test_the_worst(tiny_store):
    clips = tiny_store.clips(status="ok")
    ordered = sorted(zip(clips["true_prob"], clips["clip_id"], strict=True))
    assert list(worst_clips(tiny_store, 4)) == [clip for _, clip in ordered[:4]]
    assert len(worst_clips(tiny_store, 99)) == 9


def test_a_store_of_failures_and_one_of_one_clip(tmp_path: Path):
    broken = make_store(tmp_path / "a", 2, failed=dict.fromkeys((0, 1), ClipStatus.MISSING_FILE))
    with pytest.raises(StoreError, match="has both a map and a label"):
        worst_clips(broken, 3)
    with pytest.raises(StoreError, match="no clip of class"):
        clips_of_class(broken, broken.label_names[0], 3)
    assert list(worst_clips(make_store(tmp_path / "b", 1), 10)) == [0]


def test_the_tokens_that_are_kept_are_the_highest():
    values = np.arange(20.0).reshape(2, 2, 5)[:, ::-1]
    kept = top(values)
    assert kept.sum() == int(20 * KEEP_RATIO) == 6
    assert sorted(values[kept]) == [14, 15, 16, 17, 18, 19]


def test_a_bare_map_is_bright_where_its_scores_are_high(tiny_store):
    shown = bare_strip(tiny_store, 4, "as asked")
    scores = np.asarray(tiny_store.scores()[4], np.float64)
    t, h, w = scores.shape
    picture = shown.pictures[shown.heat]
    assert picture.shape == (t, 16 * h, 16 * w, 3)
    light = picture.astype(float).sum(axis=-1)[:, 8::16, 8::16]
    order = np.argsort(scores.ravel(), kind="stable")
    assert (np.diff(light.ravel()[order]) >= -2).all()  # rounding of three colours
    assert "clip 4 of video video0004" in shown.title


def test_heat_leaves_the_frame_visible():
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    frames[:, :, 2:] = 200
    seen = heat(frames, np.zeros((1, 2, 2)))
    assert seen[:, :, 2:].mean() > seen[:, :, :2].mean() + 50


def test_files_with_a_dollar_sign_in_the_class(tmp_path: Path):
    make_store(tmp_path / "s", 6, label_names=["$a_{", "b", "c"])
    out = tmp_path / "new" / "maps"
    result = show("--store", tmp_path / "s", "--out", out, "--class", "$a_{")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == ["clip-000000.png", "clip-000003.png"]
    with Image.open(out / "clip-000003.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels[0, 0] == 255).all()  # on white
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_a_class_with_an_accent_as_a_mac_types_it(tmp_path: Path):
    make_store(tmp_path / "s", 6, label_names=["Caf\u00e9", "b", "c"])
    result = show("--store", tmp_path / "s", "--out", tmp_path, "--class", "Cafe\u0301")
    assert result.exit_code == 0, result.output
    assert [path.name for path in sorted(tmp_path.glob("*.png"))] == [
        "clip-000000.png",
        "clip-000003.png",
    ]


def test_it_says_whose_map_of_which_clip_and_what_is_left_out(tmp_path: Path, tiny_store):
    """Clip 3, of class 0, failed; 9 of 10 have a map."""
    row = tiny_store.clips().set_index("clip_id").loc[6]
    names = tiny_store.label_names
    label, said = names[int(row["label"])], names[int(row["prediction"])]
    result = show("--store", tiny_store.root, "--out", tmp_path / "o", "--class", label)
    assert result.exit_code == 0, result.output
    assert (
        f"clip-000006.png: class {label}: clip 6 of video video0006; label {label}, probability "
        f"{row['true_prob']:.2f}; predicted {said}, probability {row['confidence']:.2f}"
    ) in result.stdout
    assert "not drawn, as they have no map: 1 clips (decode_error)" in result.stderr
    shown = bare_strip(tiny_store, 6, "")
    assert next(iter(shown.pictures)) == shown.heat
    assert shown.heat.startswith(f"oracle {tiny_store.oracles[0]}: 0 is dark, 1 is the best")
    assert "flat" not in shown.heat
    result = show("--store", tiny_store.root, "--out", tmp_path / "o", "--worst", 99)
    assert "99 were asked for, and 9 clips have a map and a label" in result.stderr
    assert "worst no. 1 by the true class: clip" in result.stdout


def test_a_bare_map_has_the_colours_of_its_scale(tmp_path: Path, tiny_store):
    """The scale stands right of the frames and ends, at 1, in the colour of the best token."""
    assert show("--store", tiny_store.root, "--out", tmp_path, "--clip", 6).exit_code == 0
    picture = np.asarray(Image.open(tmp_path / "clip-000006.png"))
    best = [209, 210, 152]  # the end of inferno, (252.0, 254.6, 164.5), over grey 128: 35 % of it
    first = [45, 45, 47]  # and its beginning, (0.4, 0.1, 3.5)
    for colour in (best, first):
        _, columns = np.nonzero((np.abs(picture.astype(int) - colour) <= 1).all(axis=2))
        t = tiny_store.grid.t
        side = min(180, (1000 - 32 - 56 + 3) // t - 3)
        in_frames = columns < 16 + t * (side + 3)
        assert in_frames.any()
        assert not in_frames.all()


@pytest.mark.parametrize("chosen", [[], ["--clip", "1", "--worst", "2"]])
def test_one_way_to_choose(tmp_path: Path, tiny_store, chosen: list[str]):
    result = show("--store", tiny_store.root, "--out", tmp_path / "o", *chosen)
    assert result.exit_code == 1
    assert "one of --clip ID, --class NAME, --worst 10" in " ".join(result.output.split())
