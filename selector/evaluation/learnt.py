"""Which of an evaluation's videos its selectors may have learnt from: there they look too good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from selector.evaluation.config import EvalConfig
from selector.training.config import TrainedOn
from selector.training.files import read_config
from selector.training.split import may_have_trained


def learnt_from(selectors: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """`EvalConfig.learnt_from` of trained selectors, given as `EvalConfig.selectors` is."""
    known = {method: read_config(Path(folder)).trained_on for method, folder in selectors.items()}
    return {method: asdict(clips) for method, clips in known.items() if clips is not None}


def num_learnt(
    config: EvalConfig,
    video_ids: npt.NDArray[np.object_],
    groups: npt.NDArray[np.object_] | None,
) -> dict[str, int]:
    """Method to how many videos its selector may have learnt from; only those above 0.

    Args:
        config: of the evaluation.
        video_ids: (V,) videos of it, each once.
        groups: (V,) the videos' units; None where the dataset says no groups.
    """
    found = {}
    for name in config.names:
        clips = config.learnt_from.get(name.selected_by or "")
        if clips is not None:
            learnt = may_have_trained(
                TrainedOn(**clips), config.dataset, config.split, video_ids, groups
            )
            found[str(name)] = int(learnt.sum())
    return {method: count for method, count in found.items() if count}


def warning(found: Mapping[str, int], num_videos: int) -> str:
    """`num_learnt` as a sentence; empty where there is nothing to say."""
    if not found:
        return ""
    return (
        f"{', '.join(found)} may have learnt from {max(found.values())} of the {num_videos} videos "
        "(those of the selector's training split that it did not hold out) and look better on them "
        "than on others: evaluate on another split"
    )
