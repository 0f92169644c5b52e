"""What the model's process answers."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.decode import DecodedVideo
from selector.deploy.config import LiteConfig
from selector.serving.child import classify
from selector.serving.messages import ModelOptions
from tests.lite_models import make_model


@pytest.mark.parametrize(
    ("spread", "named"), [(0.0, "lite"), (2.0, "lite (sampled by value, spread 2)")]
)
def test_a_picture_says_what_chose_the_tokens_as_that_of_predict_does(tiny_backbone, spread, named):
    model = make_model(tiny_backbone, LiteConfig(spread=spread))
    video = DecodedVideo(
        clips=np.zeros((1, 4, 16, 16, 3), np.uint8),
        num_frames_total=4,
        padded=False,
        damaged=False,
        decoder="pyav",
        decoder_version="",
    )
    asked = ModelOptions(
        model="", keep_ratio=None, adaptive=None, top=5, device="cpu", precision=None, threads=None
    )
    (answer,) = classify(model, asked, [video])
    assert answer.method == named
