"""A film strip shows the frames that the oracle saw, of the backbone that the store names."""

from __future__ import annotations

import numpy as np
import pytest

import pipeline.backbones
from pipeline.clips.views import View
from pipeline.decode import DecodeRequest, decode_video
from pipeline.errors import ConfigError
from pipeline.store.reader import open_store
from selector.analysis.videos import Videos
from selector.report.strips import strip
from tests.builds import make_dataset, run_build
from tests.checkpoints import save_videomae


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


def test_another_backbone_in_the_same_place_is_refused(built, tmp_path, monkeypatch):
    store, data = built
    other = save_videomae(tmp_path / "other", seed=1)
    load = pipeline.backbones.load_backbone
    monkeypatch.setattr(pipeline.backbones, "load_backbone", lambda *a, **k: load(str(other), **k))
    with pytest.raises(ConfigError, match="not the one that this store was built by"):
        Videos(store, str(data))
