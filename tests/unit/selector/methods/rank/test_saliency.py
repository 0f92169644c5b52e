"""Saliency: what stands out in a frame, or a clear word that OpenCV's contrib is missing."""

import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from pipeline.clips.grid import TokenGrid
from pipeline.clips.views import View
from pipeline.errors import ConfigError
from selector.methods.base import ClipBatch
from selector.methods.rank.saliency import SaliencyMethod

HAS_CONTRIB = hasattr(getattr(cv2, "saliency", None), "StaticSaliencySpectralResidual_create")
needs_contrib = pytest.mark.skipif(
    not HAS_CONTRIB, reason="NO OPENCV CONTRIB: pip install 'lite-pipeline[saliency]' to test it"
)


def make_batch(frames):
    backbone = SimpleNamespace(grid=TokenGrid(2, 4, 4), patch_size=32)
    return ClipBatch(
        backbone=backbone,
        frames=frames,
        pixel_values=torch.empty(0),
        tokens=torch.empty(0),
        labels=torch.zeros(len(frames)),
        clip_ids=tuple(range(len(frames))),
        video_ids=("",) * len(frames),
        paths=("",) * len(frames),
        views=(View(),) * len(frames),
    )


@needs_contrib
def test_the_odd_thing_out_is_salient_where_and_when_it_is_seen():
    grating = (
        80 + 20 * np.sin(np.arange(128) * 2 * np.pi / 16)[:, None, None]
    )  # regular: not salient
    frames = np.broadcast_to(grating.astype(np.uint8), (2, 4, 128, 128, 3)).copy()
    frames[1, 2:, 40:56, 72:88] = (250, 30, 30)
    scores = SaliencyMethod().rank(make_batch(frames)).scores.view(2, 2, 4, 4)
    assert scores[1, 1].argmax() == 1 * 4 + 2
    assert scores[1, 1, 1, 2] > 2 * scores[1, 1].median()
    assert scores[1, 0].argmax() != 1 * 4 + 2
    assert torch.equal(scores[0, 0], scores[0, 1])


@needs_contrib
def test_a_black_clip_has_finite_scores():
    scores = SaliencyMethod().rank(make_batch(np.zeros((1, 4, 128, 128, 3), np.uint8))).scores
    assert scores.shape == (1, 32)
    assert scores.isfinite().all()


@pytest.mark.parametrize("fake", [SimpleNamespace(), SimpleNamespace(saliency=SimpleNamespace())])
def test_without_contrib_it_says_how_to_get_it(monkeypatch, fake):
    """Also where another OpenCV wheel left an empty module behind."""
    monkeypatch.setitem(sys.modules, "cv2", fake)
    with pytest.raises(ConfigError, match=r"lite-pipeline\[saliency\]"):
        SaliencyMethod()
