"""A film strip shows the frames that the oracle saw, of the backbone that the store names."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import pipeline.backbones
from pipeline.backbones import load_backbone
from pipeline.cli import app
from pipeline.clips.plan import plan_digest
from pipeline.clips.views import View
from pipeline.decode import DecodeRequest, decode_video
from pipeline.errors import ConfigError, DecodeError, StoreError
from pipeline.store.reader import Store, open_store
from pipeline.store.shard_writer import ShardWriter
from pipeline.store.writer import create_store
from selector.analysis.videos import Videos
from selector.report.contents import sections
from selector.report.draw import film_strip
from selector.report.page import Section, render
from selector.report.strips import Strip, strip
from tests.builds import make_dataset, run_build
from tests.checkpoints import save_videomae
from tests.stores import make_config, make_plan
from tests.videos import write_video


@pytest.fixture(scope="module")
def built(tmp_path_factory, tiny_backbone):
    """A store of six clips a video, and the folder of its videos."""
    root = tmp_path_factory.mktemp("strips")
    data = make_dataset(root / "data", 5)
    asked = {"num_segments": 2, "num_crops": 3}
    run_build(root / "store", data, tiny_backbone, asked=asked)
    return open_store(root / "store"), data


def test_the_frames_are_the_clips_own_and_the_checkpoint_is_opened_once(built, monkeypatch):
    store, data = built
    opened = []
    load = pipeline.backbones.load_backbone
    monkeypatch.setattr(
        pipeline.backbones, "load_backbone", lambda *a, **k: opened.append(a) or load(*a, **k)
    )
    videos = Videos(store, str(data))
    rows = store.clips()
    for clip, (segment, crop) in {1: (0, 1), 5: (1, 2), 9: (1, 0)}.items():
        row = rows.iloc[clip]
        request = DecodeRequest(
            path=str(data / row["path"]),
            views=(View(segment, crop, 2, 3),),
            num_frames=4,
            size=16,
            short_side=16,
        )
        wanted = decode_video(request).clips[0]
        assert np.array_equal(videos.frames(row), wanted)
        shown = strip(store, clip, "as asked", videos).pictures["frames"]
        assert np.array_equal(shown, wanted[::2])  # one frame of each token row in time
    assert len(opened) == 1


def test_another_video_of_the_same_name_is_not_drawn_under_the_old_ones_map(built, tmp_path):
    store, data = built
    shutil.copytree(data, tmp_path / "data")
    write_video(tmp_path / "data/v000.mp4", 9, 24, 32, "mpeg4")
    videos = Videos(store, str(tmp_path / "data"))
    rows = store.clips()
    with pytest.raises(DecodeError, match=r"v000.mp4 has 9 frames, and had 8 when the store was"):
        videos.frames(rows[rows["path"] == "v000.mp4"].iloc[0])
    assert [isinstance(found, DecodeError) for found in videos.each(rows)] == [True] * 6 + 24 * [
        False
    ]


def test_another_backbone_in_the_same_place_is_refused(built, tmp_path, monkeypatch):
    store, data = built
    other = save_videomae(tmp_path / "other", seed=1)
    load = pipeline.backbones.load_backbone
    monkeypatch.setattr(pipeline.backbones, "load_backbone", lambda *a, **k: load(str(other), **k))
    with pytest.raises(ConfigError, match="not the one that this store was built by"):
        Videos(store, str(data))


# A video as much footage is: 172x128 pixels, 100 frames. The shipped backbone takes 16 of 48x48, in
# tokens of 2x8x8. `stride:4` is of 25 frames, 0, 4, ... 96, the 16 in the middle: 16, 20, ... 76.
HEIGHT, WIDTH, NUM_FRAMES = 128, 172, 100
SHOWN = range(16, 80, 4)
PLACES = [(5, 0), (0, 5), (2, 3), (4, 4), (1, 0), (5, 5), (3, 2), (0, 1)]
"""Row and column of the token in which the square is, at each of the 8 places in time."""


def square_frame(number: int, height: int, width: int) -> np.ndarray:
    """A bright square on grey; a frame that a clip must not show is white.

    The short side becomes 48, so the long one 64, of which the middle 48 are cut: a token's column
    `x` begins at pixel (8 + 8 x) / 64 of the width, its row `y` at 8 y / 48 of the height.
    """
    frame = np.full((height, width, 3), 70 if number in SHOWN else 255, np.uint8)
    if number in SHOWN:
        y, x = PLACES[SHOWN.index(number) // 2]
        rows = [height * 8 * end / 48 for end in (y, y + 1)]
        columns = [width * (8 + 8 * end) / 64 for end in (x, x + 1)]
        (top, bottom), (left, right) = ((int(a) + 3, int(b) - 3) for a, b in (rows, columns))
        frame[top:bottom, left:right] = [240, 230, 60]
    return frame


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> tuple[Store, Path]:
    """Two clips, the second of a short video; value lies on the square and nowhere else."""
    data = tmp_path_factory.mktemp("squares")
    (data / "videos").mkdir()
    lengths = (NUM_FRAMES, 40)
    for number, length in enumerate(lengths):
        path = data / f"videos/video{number:04d}.mp4"
        write_video(path, length, HEIGHT, WIDTH, options={"crf": "4"}, frame=square_frame)
    backbone = load_backbone("synthetic", None, device="meta")
    plan = make_plan(2, 4)
    config = make_config(
        backbone_digest=backbone.digest, sampling="stride:4", embeddings_per_clip=0,
        plan_digest=plan_digest(plan),
    )  # fmt: skip
    scores = np.zeros(tuple(backbone.grid), np.float32)
    for t, place in enumerate(PLACES):
        scores[t, *place] = 1 - t / 100
    store = data / "store"
    with create_store(str(store), config, plan, backbone.grid, 6, ["a", "b", "c"]) as writer:
        result = ShardWriter(writer.root).new_result(0)
        for row, length in enumerate(lengths):
            result.set_ok(
                row, scores=[scores.ravel()], cam=[scores.ravel() - 0.5], prediction=0,
                top5=[0, 1, 2], confidence=0.5, true_prob=0.5, loss=0.7, num_frames_total=length,
                padded=length < NUM_FRAMES, damaged=False, decoder="pyav", decoder_version="0",
                embeddings=None, embedding_index=None,
            )  # fmt: skip
        ShardWriter(writer.root).write(0, result)
    return open_store(store), data


def test_map_and_mask_lie_on_the_pixels_of_a_square_whose_place_is_known(squares):
    store, data = squares
    shown = strip(store, 0, "as asked", Videos(store, str(data)))
    frames, heat, kept = (p.astype(int) for p in list(shown.pictures.values())[:3])
    assert frames.shape == (8, 48, 48, 3)
    yellow = (np.abs(frames - [240, 230, 60]) < 25).all(axis=-1)
    in_inferno = heat.sum(axis=-1) > 400
    for t, (y, x) in enumerate(PLACES):
        token = np.zeros((48, 48), bool)
        token[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = True
        assert yellow[t, token].sum() >= 12, (t, "the square is not where it was drawn")
        assert not yellow[t, ~token].any()
        assert (frames[t, ~token] < 130).all(), (t, "a frame that the clip does not show")
        assert np.array_equal(in_inferno[t], token)
        assert np.array_equal(kept[t, token], frames[t, token])
    # 86 of 288 tokens are kept; all others are a fifth as light, and blue.
    same = (kept == frames).all(axis=-1)
    assert same.sum() == 86 * 64
    assert (kept[~same][:, 2] >= 90).all()


def test_it_says_which_frames_it_shows_counted_from_1(squares):
    store, data = squares
    videos = Videos(store, str(data))
    assert strip(store, 0, "", videos).title.endswith(
        "; frames 17, 25, 33, 41, 49, 57, 65, 73 of 100"
    )
    short = strip(store, 1, "", videos).title
    assert "; shorter than a clip, which repeats frames; frames 1, 9, 17, 25, 33, 37" in short
    assert short.endswith(", 37, 37 of 40")
    assert videos.indices(store.clips().iloc[0]) == list(SHOWN)


def test_small_frames_are_enlarged_with_their_edges(squares, built):
    for (store, data), small in ((squares, True), (built, True)):
        shown = strip(store, 0, "", Videos(store, str(data)))
        assert ('class="wide strip small"' in render("x", [Section("S", strips=[shown])])) == small
    large = replace(shown, pictures={n: p.repeat(14, 2) for n, p in shown.pictures.items()})
    assert 'class="wide strip"' in render("x", [Section("S", strips=[large])])


def test_the_page_shows_the_clips_that_are_asked_for_first(squares, tmp_path: Path):
    store, data = squares
    [part] = [
        p for p in sections(store, data_root=str(data), asked_clips=[1]) if p.title == "Clips"
    ]
    assert [s.title.split(" of")[0] for s in part.strips] == ["as asked: clip 1", "worst: clip 0"]
    with pytest.raises(StoreError, match="no clip 2: they are 0 to 1"):
        sections(store, data_root=str(data), asked_clips=[2])
    run = ["report", "--store", str(store.root), "--data-root", str(data), "--clip", "1"]
    done = CliRunner().invoke(app, [*run, "--out", str(tmp_path / "r.html")])
    assert done.exit_code == 0, done.output
    assert "as asked: clip 1 of video video0001" in (tmp_path / "r.html").read_text()


def test_frames_of_a_figure_stand_side_by_side_below_a_long_name():
    frames = np.zeros((8, 16, 16, 3), np.uint8)
    names = {"a name that is much wider than one frame of it is": frames, "x": frames}
    picture = film_strip(Strip(title="t", pictures=names, heat="x"))
    picture.draw_without_rendering()
    for row in np.reshape(picture.axes, (2, 8)):
        left = [ax.get_window_extent().x0 for ax in row]
        assert np.ptp(np.diff(left)) < 1  # pixel
    first, below = (ax.get_window_extent() for ax in picture.axes[::8])
    assert first.y0 - below.y1 > 10  # room for the name of the second row
