"""Motion vectors pooled to tokens, on encoded videos whose motion is known."""

import av
import numpy as np
import pytest
import torch

from pipeline.backbones import load_backbone
from pipeline.clips.grid import TokenGrid
from pipeline.clips.views import View
from pipeline.decode.request import DecodeRequest
from pipeline.errors import ConfigError, DecodeError
from selector.methods.base import ClipBatch
from selector.methods.rank.motion_vectors import (
    MotionVectorMethod,
    Vectors,
    pool_vectors,
    read_vectors,
    require_motion_vectors,
)
from tests.checkpoints import save_videomae
from tests.videos import orient_mp4

GRID = TokenGrid(4, 4, 4)
SIDE, SPEED = 128, 3


def encode(path, codec="libx264", moving=(slice(32, 64), slice(64, 96)), num_frames=16, size=None):
    """A textured scene at rest but for one window, whose texture runs to the right."""
    height, width = size or (SIDE, SIDE)
    rng = np.random.default_rng(0)

    def texture(columns):  # smooth, so that an encoder finds the motion
        coarse = rng.integers(0, 255, (height // 8, columns // 8, 3))
        return coarse.repeat(8, 0).repeat(8, 1).astype(np.uint8)

    still, wide = texture(width), texture(width + 8 * num_frames)
    images = []
    for n in range(num_frames):
        images.append(still.copy())
        images[-1][moving] = wide[:, SPEED * (num_frames - n) :][:, :width][moving]
    return write(path, images, codec)


def write(path, images, codec="libx264", gop_size=100):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.gop_size = "yuv420p", gop_size
        # One reference, and that the last frame: a vector's distance in time is not told.
        stream.options = {"bf": "0", "refs": "1", "qscale": "2"}
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def make_request(path, **changes):
    options = {"num_frames": 8, "size": 32, "short_side": 32, "views": (View(),)} | changes
    return DecodeRequest(path=path, **options)


def pooled(path, view=None, **changes):
    request = make_request(path, **changes)
    return pool_vectors(read_vectors(request), view or View(), request, GRID)


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", "mp4"), ("mpeg4", "avi")])
def test_motion_is_found_where_it_is_at_its_true_speed(tmp_path, codec, suffix):
    """3 px per frame of 128 is 0.75 px of the 32 that the model sees."""
    maps = pooled(encode(tmp_path / f"v.{suffix}", codec))
    moving = maps[:, 1, 2].copy()
    assert moving == pytest.approx(np.full(4, SPEED * 32 / SIDE), rel=0.35)
    maps[:, 1, 2] = 0
    assert np.median(maps) == 0
    assert maps.max() < moving.min()


def test_a_block_counts_for_every_token_by_the_area_it_covers():
    """Tokens of 8 px in a frame of 32; a block of 16, and one of 8 by 4 that is thrice as fast."""
    vectors = Vectors(
        shape=(32, 32),
        num_frames=8,
        frame=np.array([1, 1]),
        y=np.float32([12, 8]),
        x=np.float32([16, 6]),
        dy=np.float32([0, 3]),
        dx=np.float32([1, 0]),
        height=np.float32([16, 8]),
        width=np.float32([16, 4]),
    )
    maps = pool_vectors(vectors, View(), make_request("v.mp4"), GRID)
    # By pixels of each frame: the first covers y 4-20, x 8-24; the second y 4-12, x 4-8.
    first, second = np.zeros((32, 32)), np.zeros((32, 32))
    first[4:20, 8:24], second[4:12, 4:8] = 1, 1
    weight, total = (
        image.reshape(4, 8, 4, 8).sum(axis=(1, 3)) for image in (first + second, first + 3 * second)
    )
    everywhere = total.sum() / weight.sum()
    expected = np.where(weight > 0, total / np.maximum(weight, 1), everywhere)
    np.testing.assert_allclose(maps, np.broadcast_to(expected, GRID), rtol=1e-6)
    assert sorted(set(expected.ravel().round(6))) == [1.0, round(everywhere, 6), 3.0]


def test_crops_move_the_grid_with_them(tmp_path):
    """In a frame twice as wide, a window in the last quarter is only in the right crop."""
    moving = (slice(32, 64), slice(224, 256))
    path = encode(tmp_path / "v.mp4", moving=moving, size=(SIDE, 2 * SIDE))
    left, _, right = (pooled(path, View(0, crop, 1, 3)) for crop in range(3))
    assert right[:, 1, 3].min() > 0.5
    assert left.max() < 0.1


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((0, 1, -1, 0), lambda maps: np.rot90(maps, -1, (1, 2))),
        ((-1, 0, 0, 1), lambda maps: maps[:, :, ::-1]),
        ((0, 1, 1, 0), lambda maps: maps.transpose(0, 2, 1)),
    ],
    ids=["turned clockwise", "mirrored", "transposed"],
)
def test_vectors_are_pooled_where_their_blocks_are_shown(tmp_path, matrix, shown):
    path = tmp_path / "v.mp4"
    request = make_request(encode(path))
    stored = pool_vectors(read_vectors(request), View(), request, GRID)
    orient_mp4(path, matrix)
    pooled = pool_vectors(read_vectors(request), View(), request, GRID)
    assert not np.allclose(pooled, stored, atol=1e-3)
    np.testing.assert_allclose(pooled, shown(stored), atol=1e-6)


def test_motion_counts_for_the_tubelet_in_which_it_happens(tmp_path):
    """Still for eight frames, then moving: of four tubelets the last two see it."""
    with av.open(encode(tmp_path / "moving.mp4", num_frames=8)) as source:
        moving = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
    path = write(tmp_path / "v.mp4", [moving[0]] * 8 + moving)
    at = pooled(path)[:, 1, 2]
    assert at[:2].max() < 0.1
    assert at[2:].min() > 0.4


def test_vp9_says_that_it_is_not_available(tmp_path):
    path = encode(tmp_path / "v.webm", "libvpx-vp9", num_frames=4)
    with pytest.raises(DecodeError, match="motion-vectors is not available for vp9"):
        read_vectors(make_request(path))


def test_a_dataset_of_vp9_is_refused_before_anything_is_decoded(tmp_path):
    webm = encode(tmp_path / "v.webm", "libvpx-vp9", num_frames=4)
    with pytest.raises(ConfigError, match="not available for vp9 video"):
        require_motion_vectors([webm, str(tmp_path / "gone.mp4")])
    require_motion_vectors([webm, encode(tmp_path / "v.mp4")])
    require_motion_vectors([str(tmp_path / "gone.mp4")])


def test_a_video_of_key_frames_has_none_either(tmp_path):
    images = [np.full((64, 64, 3), 40 * n, np.uint8) for n in range(4)]
    path = write(tmp_path / "v.avi", images, "mpeg4", gop_size=1)
    with pytest.raises(DecodeError, match="not available for mpeg4"):
        read_vectors(make_request(path))


def test_too_slow_is_a_timeout(tmp_path):
    with pytest.raises(DecodeError, match="not decoded within"):
        read_vectors(make_request(encode(tmp_path / "v.mp4"), timeout_s=1e-9))


def test_the_ranker_scores_what_it_can_and_says_why_not_the_rest(tmp_path):
    backbone = load_backbone(str(save_videomae(tmp_path / "b", image_size=32, num_frames=8)))
    good = encode(tmp_path / "v.mp4")
    paths = (good, good, str(tmp_path / "gone.mp4"), encode(tmp_path / "v.webm", "libvpx-vp9"))
    batch = ClipBatch(
        backbone=backbone,
        frames=np.zeros((4, 8, 32, 32, 3), np.uint8),
        pixel_values=torch.zeros(4, 8, 3, 32, 32),
        tokens=torch.zeros(4, GRID.num_tokens, 24),
        labels=torch.zeros(4, dtype=torch.long),
        clip_ids=(0, 1, 2, 3),
        video_ids=("a", "b", "c", "d"),
        paths=paths,
        views=(View(0, 0, 2, 1), View(1, 0, 2, 1), View(0, 0, 2, 1), View(0, 0, 2, 1)),
    )
    ranking = MotionVectorMethod(backbone).rank(batch)
    scores = ranking.scores
    assert scores.isfinite().all(1).tolist() == [True, True, False, False]
    assert scores[0].view(tuple(GRID)).amax(0).argmax() == 1 * 4 + 2
    assert set(ranking.reasons) == {2, 3}
    assert "no such file" in ranking.reasons[2]
    assert "vp9" in ranking.reasons[3]
