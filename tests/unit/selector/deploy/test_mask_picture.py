"""The picture of a clip's mask: what its panels are called, and where their pixels are."""

from __future__ import annotations

from contextlib import closing

import av
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import VideoMAEForVideoClassification, VideoMAEImageProcessor

from pipeline.backbones import load_backbone
from pipeline.errors import ConfigError
from selector.deploy.label_map import oracle_panel
from selector.deploy.mask_files import MaskVideo, mask_paths
from selector.deploy.mask_picture import WIDTH, Panel, draw_clip, draw_frame, mask_panels

KEPT = np.zeros((2, 2, 2), bool)
KEPT[0, 0, 1] = KEPT[1, 1, 0] = True


def grey(num=4):
    return np.full((num, 16, 16, 3), 200, np.uint8)


def test_without_scores_it_says_what_is_drawn():
    names = [panel.name for panel in mask_panels(grey(), KEPT, method="random")]
    assert names[1:] == [
        "kept by random: 2 of 8 tokens (25%), the rest blue; random gives no scores, so there is "
        "no heat map"
    ]
    group = np.zeros((2, 2, 2), np.int64)
    group[1] = 1
    names = [panel.name for panel in mask_panels(grey(), KEPT, None, group, "tome")]
    assert names[1].startswith("8 tokens merged into 2 by tome")
    dropped = np.where(KEPT, np.arange(8).reshape(2, 2, 2), -1)  # nothing is merged
    assert mask_panels(grey(), KEPT, None, dropped, "evs")[1].name.startswith("kept by evs: 2 of 8")
    whole = mask_panels(grey(), np.ones((2, 2, 2), bool))
    assert [panel.name for panel in whole][1:] == ["all 8 tokens are kept, and none is ranked"]


def test_the_scale_ends_at_the_highest_value_of_the_clip():
    scores = np.full((2, 2, 2), 0.125, np.float32)
    scores[1, 0, 0] = 0.25
    _, heat, kept = mask_panels(grey(), KEPT, scores)
    assert heat.scale == (0.0, 0.25)
    assert "best is 0.25" in heat.name
    assert heat.frames[2, 0, 0].tolist() == [234, 235, 177]  # the end of inferno over grey 200
    assert "no scores" not in kept.name
    flat = mask_panels(grey(), KEPT, np.zeros((2, 2, 2), np.float32))[1]
    assert flat.scale == (0.0, 1.0)
    assert flat.frames[0, 0, 0].tolist() == [70, 70, 72]  # its beginning
    missing = np.full((2, 2, 2), np.nan, np.float32)
    assert len(mask_panels(grey(), KEPT, missing)) == 2


def test_pixels_of_a_token_in_the_still_picture():
    """Two columns of 180, the margin 16 and 3 between them; the name takes one line of 19."""
    panel = mask_panels(grey(), KEPT)[1]
    short = Panel(name="kept", frames=panel.frames)
    picture = np.asarray(draw_clip([], [short], num_rows=2))
    assert picture.shape == (16 + 19 + 180 + 16, WIDTH, 3)
    top, left, right = 16 + 19, 16, 16 + 180 + 3
    kept, dark = [200] * 3, [55, 70, 130]
    places = {(45, left + 45): dark, (45, left + 135): kept, (135, left + 45): dark}
    places |= {(45, right + 45): dark, (135, right + 45): kept, (135, right + 135): dark}
    for (row, column), colour in places.items():
        assert picture[top + row, column].tolist() == colour, (row, column)
    assert (picture[top : top + 180, left + 180 : right] == 255).all()


def test_a_long_clip_goes_on_below_and_nothing_runs_over():
    frames = np.full((20, 8, 8, 3), 100, np.uint8)
    panel = Panel(name="of a long name " * 20, frames=frames, scale=(0.0, 1.0))
    picture = np.asarray(draw_clip(["x" * 500], [panel], num_rows=20))
    assert (picture[:, :16] == 255).all()
    assert (picture[:, -16:] == 255).all()
    assert (picture[-16:] == 255).all()
    is_frame = (picture == 100).all(axis=2)
    columns = [int(np.diff(row.astype(int)).clip(0).sum()) for row in is_frame]
    assert sorted(set(columns)) == [0, 4, 8]  # 8, 8, 4


def test_a_film_shows_each_frame_at_its_time(tmp_path):
    panels = mask_panels(grey(), KEPT)
    pictures = [draw_frame(["title"], panels, i) for i in range(4)]
    with closing(MaskVideo()) as film:
        for picture, at_s in zip(pictures, (0, 0.5, 1.25, 2), strict=True):
            film.add(picture, at_s)
        assert not list(tmp_path.iterdir())
        film.save(tmp_path / "mask.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["mask.mp4"]
    with av.open(str(tmp_path / "mask.mp4")) as container:
        shown = list(container.decode(video=0))
    assert [float(frame.time) for frame in shown] == pytest.approx([0, 0.5, 1.25, 2], abs=1e-3)
    for frame, picture in zip(shown, pictures, strict=True):
        found = frame.to_ndarray(format="rgb24").astype(int)
        assert found.shape == np.asarray(picture).shape
        assert np.abs(found - np.asarray(picture)).mean() < 4
    before, after = (np.asarray(pictures[i]).astype(int) for i in (1, 2))
    assert np.abs(before - after).mean() > 8  # the test can tell them apart


def test_a_larger_picture_is_made_to_fit_the_film(tmp_path):
    with closing(MaskVideo()) as film:
        film.add(Image.new("RGB", (100, 50), "black"), 0)
        film.add(Image.new("RGB", (100, 80), "black"), 1)
        film.save(tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        first, second = (f.to_ndarray(format="rgb24") for f in container.decode(video=0))
    assert first.shape == second.shape == (50, 100, 3)
    assert second[25, 2].mean() > 230  # 50/80 as wide, between white
    assert second[25, 50].mean() < 25


def test_files_in_a_folder_are_named_by_their_videos_and_cannot_collide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "masks"
    videos = ["a/x.mp4", "a/x.webm", "b/deep/x.mp4", str(tmp_path / "y.mp4"), "a/../a/x.mp4"]
    names = [str(path.relative_to(place)) for path in mask_paths(place, videos, None)]
    assert names == ["a/x.mp4.png", "a/x.webm.png", "b/deep/x.mp4.png", "y.mp4.png", "a/x.mp4.png"]
    assert mask_paths(place, ["a/x.mp4", "a/y.mp4"], "mp4") == [
        place / "x.mp4.mp4",
        place / "y.mp4.mp4",
    ]
    assert mask_paths(tmp_path / "one.PNG", ["a/x.mp4"], None) == [tmp_path / "one.PNG"]


def test_a_mask_never_replaces_a_video(tmp_path):
    video = tmp_path / "x.mp4"
    video.write_bytes(b"a video")
    (tmp_path / "link.mp4").symlink_to(video)
    for place in (video, tmp_path / "link.mp4"):
        with pytest.raises(ConfigError, match="would replace the video"):
            mask_paths(place, [str(video)], None)


def test_the_oracle_explains_the_label_to_the_whole_model(tiny_backbone):
    """Its probability is that of transformers' own model on all tokens."""
    frames = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    processor = VideoMAEImageProcessor.from_pretrained(tiny_backbone, do_resize=False)
    plain = VideoMAEForVideoClassification.from_pretrained(tiny_backbone).eval()
    with torch.no_grad():
        logits = plain(**processor(list(frames), return_tensors="pt")).logits[0]
    backbone = load_backbone(str(tiny_backbone))
    drawn = []
    for class_id in (1, 3):
        panel = oracle_panel(backbone, frames, class_id, "that one")
        probability = logits.softmax(-1)[class_id].item()
        assert f"of the label 'that one', which the whole model gives {probability:.1%};" in (
            panel.name
        )
        assert panel.scale == (0.0, 1.0)
        drawn.append(panel.frames)
    assert not np.array_equal(*drawn)
