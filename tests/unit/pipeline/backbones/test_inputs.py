"""One gate for frames: what is meant is understood, what cannot be is named, nothing is changed."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.backbones import Backbone, load_backbone
from pipeline.errors import ConfigError


@pytest.fixture(scope="module")
def backbone(tiny_backbone) -> Backbone:
    """Four frames of 16 pixels, mean and deviation a half."""
    return load_backbone(str(tiny_backbone))


@pytest.fixture
def clips() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 3), dtype=np.uint8)


def by_hand(clips: np.ndarray) -> np.ndarray:
    """(pixel / 255 - 0.5) / 0.5, channels before rows."""
    return ((clips / 255.0 - 0.5) / 0.5).transpose(0, 1, 4, 2, 3)


def frozen(clips: np.ndarray) -> np.ndarray:
    clips = clips.copy()
    clips.flags.writeable = False
    return clips


RAW = {
    "an array": lambda c: c,
    "a tensor": torch.from_numpy,
    "backwards in time": lambda c: c[:, ::-1].copy()[:, ::-1],
    "mirrored twice": lambda c: np.ascontiguousarray(c[..., ::-1, :])[..., ::-1, :],
    "strided": lambda c: c.repeat(2, axis=1)[:, ::2],
    "read-only": frozen,
    "in another memory order": np.asfortranarray,
    "lists of arrays": lambda c: [list(clip) for clip in c],
    "lists of pictures": lambda c: [[Image.fromarray(frame) for frame in clip] for clip in c],
}


@pytest.mark.parametrize("form", RAW)
def test_raw_frames_are_understood_in_every_form(backbone, clips, form):
    got = backbone.pixel_values(RAW[form](clips))
    np.testing.assert_allclose(got.numpy(), by_hand(clips), rtol=0, atol=1e-6)


def test_the_callers_frames_stay_as_they_are(backbone, clips):
    before, tensor = clips.copy(), torch.from_numpy(clips)
    backbone.pixel_values(tensor)
    backbone.pixel_values(clips)
    pixels = torch.randn(1, 4, 3, 16, 16)
    kept = pixels.clone()
    backbone(pixels)
    assert np.array_equal(clips, before)
    assert torch.equal(pixels, kept)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda c: c.transpose(0, 1, 4, 2, 3),
            r"\(B, 4, 16, 16, 3\), got .*permute\(0, 1, 3, 4, 2",
        ),
        (lambda c: c.transpose(0, 4, 1, 2, 3), r"another order: clips.permute\(0, 2, 3, 4, 1\)"),
        (lambda c: c[0], r"batch axis: clips\[None\]"),
        (lambda c: c[:, :3], r"must be \(B, 4, 16, 16, 3\), got \(2, 3, 16, 16, 3\)$"),
        (lambda c: c[..., :1], r"got \(2, 4, 16, 16, 1\)$"),
        (lambda c: c[:, :, :8], r"got \(2, 4, 8, 16, 3\)$"),
        (lambda c: c / 255, "must be uint8, 0 to 255, got float64"),
        (lambda c: torch.from_numpy(c).float(), "must be uint8, 0 to 255, got float32"),
        (lambda c: c.astype(np.int64), "got int64"),
        (lambda c: [c[0], c[1, :2]], "one uint8 array"),
        (lambda c: "video.mp4", "must be uint8"),
        (lambda c: None, "must be uint8"),
    ],
)
def test_raw_frames_of_another_kind_are_refused_by_name(backbone, clips, change, fault):
    with pytest.raises(ConfigError, match=fault):
        backbone.pixel_values(change(clips))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda x: x.permute(0, 2, 1, 3, 4), r"pixel_values.permute\(0, 2, 1, 3, 4\)"),
        (lambda x: x.permute(0, 1, 3, 4, 2), r"pixel_values.permute\(0, 1, 4, 2, 3\)"),
        (lambda x: x[0], r"pixel_values\[None\]"),
        (lambda x: x.to(torch.uint8), "floating point, got uint8: raw uint8 frames"),
        (lambda x: x.long(), "floating point, got int64"),
        (lambda x: x.to(torch.complex64), "floating point, got complex64"),
        (lambda x: x.numpy(), "float tensor .*got ndarray"),
        (lambda x: (x * 127.5 + 127.5).round(), "reach from 0 to 255, and normalised frames"),
        (lambda x: x.where(x != x[0, 0, 0, 0, 0], torch.nan), "reach from nan"),
        (lambda x: x.where(x != x[0, 0, 0, 0, 0], torch.inf), "to inf"),
    ],
)
def test_normalised_frames_of_another_kind_are_refused_by_name(backbone, clips, change, fault):
    pixels = torch.linspace(-1, 1, 2 * 4 * 3 * 16 * 16).reshape(2, 4, 3, 16, 16)
    with pytest.raises(ConfigError, match=fault):
        backbone(change(pixels))


def test_noise_is_no_raw_frame(backbone):
    generator = torch.Generator().manual_seed(0)
    assert backbone(3 * torch.randn(2, 4, 3, 16, 16, generator=generator)).isfinite().all()


def test_scaled_frames_that_were_not_normalised_are_warned_about(backbone, clips, caplog):
    scaled = torch.from_numpy(clips).permute(0, 1, 4, 2, 3) / 255
    with caplog.at_level(logging.WARNING):
        backbone(scaled)
    assert "scaled but not normalised; normalised ones" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        backbone(2 * scaled - 1)
        backbone(torch.zeros(1, 4, 3, 16, 16))
    assert caplog.text == ""


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_processors_float32_is_cast_to_the_models_precision(tiny_backbone, clips, precision):
    half = load_backbone(str(tiny_backbone), precision=precision)
    pixels = torch.from_numpy(by_hand(clips)).float()
    assert torch.equal(half(pixels), half(half.pixel_values(clips)))
    assert half(pixels).dtype == torch.float32
