"""The confidence of a second model on an evaluation's clips: the one thing that its rows lack."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch

from pipeline.backbones.loading import load_for_run
from pipeline.config import RunConfig
from pipeline.errors import DecodeError
from pipeline.shards.loader import ClipLoader
from selector.budgets.confidence_names import load_confidence
from selector.budgets.levels import Ints, SecondOpinion
from selector.evaluation.files import Evaluation


def ask_second_model(
    name: str,
    evaluation: Evaluation,
    clip_ids: Ints,
    run_config: RunConfig,
    on_clips: Callable[[int, int], None] = lambda done, failed: None,
) -> SecondOpinion:
    """Decode clips of an evaluation as it did, and let a classifier judge them.

    Args:
        name: `movinet:...`, `hf:...` or `torchvision:...`; see `selector.budgets.confidence_names`.
        evaluation: whose decoder, sampling and views hold.
        clip_ids: rows of its plan, ascending, (n,).
        run_config: speed settings, and where the videos are.
        on_clips: called with the clips that are done with, and how many of them failed.

    Returns:
        A confidence per clip, NaN where the clip could not be decoded or judged.

    Raises:
        ConfigError: the classifier cannot be loaded or used.
        BackboneError: the backbone, whose input the classifier is fed from, does not load.
    """
    config = evaluation.config
    backbone = load_for_run(config, run_config)
    asked = load_confidence(name, backbone)
    confidence = np.full(len(clip_ids), np.nan)
    plan = evaluation.plan().take(pa.array(clip_ids)).to_pydict()
    loader = ClipLoader(config, run_config, backbone)

    def failed(position: int, error: DecodeError) -> None:
        on_clips(1, 1)

    try:
        for batch in loader.every_batch(plan, failed):
            positions = list(batch.facts)
            with torch.inference_mode():
                pixels = backbone.pixel_values(batch.clips[[p - batch.start for p in positions]])
                judged = asked(pixels, backbone.embed(pixels), torch.empty(0))
            confidence[positions] = judged.confidence.double().cpu().numpy()
            on_clips(len(positions), 0)
    finally:
        loader.close()
    return SecondOpinion(confidence, asked.gmacs)
