"""From video files to class names, with what each answer cost."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from datasets_spec import load_spec
from datasets_spec.formats.folder import videos_below
from datasets_spec.types import Skipped
from datasets_spec.walk import count_skipped, worth_saying
from pipeline.clips.views import View
from pipeline.decode import DecodedVideo, DecodePool, DecodeRequest
from pipeline.decode.sliding import slide
from pipeline.decode.windows import Window, WindowRequest
from pipeline.errors import ClipStatus, ConfigError, DecodeError, printable
from selector.deploy.model import LiteModel
from selector.deploy.output import LiteOutput

_log = logging.getLogger(__name__)

SHORT = "shorter than a clip, which repeats frames"
"""What is said of a video that has too few frames."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer for one video; V views."""

    top: list[tuple[int, str, float]]
    """Class id, its name, its probability (mean over the views); best first."""
    kept_tokens: list[int]
    """Tokens each view kept."""
    num_tokens: int
    """Tokens of a view."""
    gmacs: float
    """Of all views together, everything included."""
    full_gmacs: float
    """Of the plain model on the same views."""
    confidence: list[float] | None
    """Of each view, where a confidence model set the budget."""
    damaged: bool
    """The decoder reported errors; see `DecodedVideo`."""
    padded: bool
    """The video has fewer frames than a clip, which repeats some."""
    frames: npt.NDArray[np.uint8]
    """uint8 (T, H, W, 3), the first view."""
    kept: npt.NDArray[np.bool_]
    """bool (t, y, x), its kept tokens."""
    scores: npt.NDArray[np.float32] | None
    """(t, y, x), what its tokens are predicted to be worth; see `LiteOutput.scores`."""
    group: npt.NDArray[np.int64] | None
    """int64 (t, y, x), which token at the head each became part of; see `LiteOutput.group`."""


def predict_videos(
    model: LiteModel,
    paths: Sequence[str],
    pool: DecodePool,
    *,
    keep_ratio: float | None = None,
    adaptive: bool | None = None,
    views: tuple[View, ...] = (View(),),
    sampling: str | None = None,
    decoder: str = "pyav",
    top: int = 5,
) -> Iterator[Prediction | DecodeError]:
    """Classify videos, one after the other; a video that fails is a value, not an end.

    Args:
        model: what classifies.
        paths: video files.
        pool: decodes ahead.
        keep_ratio: as `LiteModel.forward` has it.
        adaptive: as `LiteModel.forward` has it.
        views: the clips whose mean probability decides.
        sampling: default the model's own.
        decoder: backend.
        top: classes to report.

    Yields:
        In the order of `paths`.
    """
    requests = [
        clip_request(model, path, sampling or model.sampling, decoder, views) for path in paths
    ]
    for decoded in pool.imap(requests):
        if isinstance(decoded, DecodeError):
            yield decoded
        else:
            yield from predict_decoded(
                model, [decoded], keep_ratio=keep_ratio, adaptive=adaptive, top=top
            )


def list_videos(places: Iterable[str]) -> list[str]:
    """The files among `places`, and in place of a folder the videos in and below it.

    Raises:
        ConfigError: a folder holds no video.
    """
    extensions = load_spec("folder").extensions
    paths: list[str] = []
    skipped: list[Skipped] = []
    for place in places:
        if not Path(place).is_dir():
            paths.append(place)  # one that is missing fails where the others are answered
            continue
        found = [str(path) for path in videos_below(Path(place), extensions, skipped.append)]
        if not found:
            raise ConfigError(f"{place} holds no video (.{', .'.join(extensions)})")
        paths += found
    if worth_saying(skipped):
        _log.warning("%d files or folders are no video: %s", len(skipped), count_skipped(skipped))
    return paths


def clip_request(
    model: LiteModel, path: str, sampling: str, decoder: str, views: tuple[View, ...] = (View(),)
) -> DecodeRequest:
    """Ask for the clips of a video as `model` takes them."""
    return DecodeRequest(
        path=path, views=views, sampling=sampling, decoder=decoder, **model.backbone.clip_format
    )


def predict_windows(
    model: LiteModel,
    request: WindowRequest,
    *,
    keep_ratio: float | None = None,
    adaptive: bool | None = None,
    top: int = 5,
) -> Iterator[tuple[Window, Prediction | DecodeError]]:
    """Classify the windows of a long file or a live source, as they come.

    Args:
        model: what classifies.
        request: the source and its windows; `clip` from `clip_request`.
        keep_ratio: as `LiteModel.forward` has it.
        adaptive: as `LiteModel.forward` has it.
        top: classes to report.

    Yields:
        By the windows' ends; an error stands for one window.

    Raises:
        DecodeError: the source cannot be read, or no further.
        ConfigError: the windows do not fit it.
    """
    with closing(slide(request)) as windows:
        for window in windows:
            (answer,) = predict_decoded(
                model, [window.decoded], keep_ratio=keep_ratio, adaptive=adaptive, top=top
            )
            yield window, answer


def predict_decoded(
    model: LiteModel,
    videos: Sequence[DecodedVideo],
    *,
    keep_ratio: float | None = None,
    adaptive: bool | None = None,
    top: int = 5,
) -> list[Prediction | DecodeError]:
    """Classify videos in one batch.

    Args:
        model: what classifies.
        videos: one or more, with as many views each as they like.
        keep_ratio: as `LiteModel.forward` has it, for all of them.
        adaptive: as `LiteModel.forward` has it.
        top: classes to report.

    Returns:
        In the order of `videos`; an error where the model's logits are not finite.
    """
    adaptive = model.config.adapts(keep_ratio, adaptive)
    clips = np.concatenate([video.clips for video in videos])
    output = model(model.backbone.pixel_values(clips), keep_ratio, adaptive)
    answers, start = [], 0
    for video in videos:
        views = slice(start, start + len(video.clips))
        answers.append(_answer(model, video, output, views, keep_ratio, adaptive, top))
        start = views.stop
    return answers


def _answer(
    model: LiteModel,
    video: DecodedVideo,
    output: LiteOutput,
    views: slice,
    keep_ratio: float | None,
    adaptive: bool,
    top: int,
) -> Prediction | DecodeError:
    """What the rows `views` of a batch's output say of one video."""
    logits = output.logits[views]
    if not torch.isfinite(logits).all():
        return DecodeError(ClipStatus.MODEL_ERROR, "the model's logits are not finite")
    probability = logits.softmax(dim=-1).mean(dim=0)
    best = probability.topk(min(top, len(probability)))
    names = model.backbone.label_names
    kept = output.budget[views].tolist()
    grid = model.backbone.grid

    def first_view(values: torch.Tensor | None) -> Any:
        return None if values is None else values[views.start].reshape(grid).cpu().numpy()

    return Prediction(
        top=[
            (index, names[index] if names else f"class {index}", value)
            for index, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ],
        kept_tokens=kept,
        num_tokens=grid.num_tokens,
        gmacs=_gmacs(model, kept, keep_ratio, adaptive),
        full_gmacs=len(kept) * model.cost(grid.num_tokens).total,
        confidence=None if output.confidence is None else output.confidence[views].tolist(),
        damaged=video.damaged,
        padded=video.padded,
        frames=video.clips[0],
        kept=first_view(output.kept),
        scores=first_view(output.scores),
        group=first_view(output.group),
    )


def _gmacs(model: LiteModel, kept: list[int], keep_ratio: float | None, adaptive: bool) -> float:
    if model.config.selects or (model.by_content and keep_ratio is None):
        return sum(model.cost(num, adaptive).total for num in kept)
    return len(kept) * model.cost_of(keep_ratio).total


def to_json(
    path: str, result: Prediction | DecodeError, window: Window | None = None
) -> dict[str, object]:
    """The answer for one video, or for one window of it, as plain JSON values."""
    where: dict[str, object] = {"video": path}
    if window is not None:
        where |= {"start": round(window.start_s, 6), "end": round(window.end_s, 6)}
        where |= {"start_frame": window.start_frame, "frames": window.decoded.num_frames_total}
        where |= {"skipped_windows": window.num_skipped}
    if isinstance(result, DecodeError):
        return where | {"status": result.status.value, "error": str(result)}
    keys = ("kept_tokens", "num_tokens", "gmacs", "full_gmacs", "confidence", "damaged", "padded")
    top: Iterable[dict[str, object]] = (
        {"class": index, "label": label, "probability": probability}
        for index, label, probability in result.top
    )
    shown = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    return where | {"status": ClipStatus.OK.value, "top": list(top)} | {k: shown[k] for k in keys}


def to_text(title: str, result: Prediction) -> str:
    """What is said of one video, or of one window."""
    notes = " (damaged: the decoder reported errors)" if result.damaged else ""
    notes += f" ({SHORT})" if result.padded else ""
    lines = [printable(title) + notes]
    lines += [f"  {100 * p:5.1f} %  {printable(label)}" for _, label, p in result.top]
    num_views = len(result.kept_tokens)
    kept, num = sum(result.kept_tokens), num_views * result.num_tokens
    cost = f"{result.gmacs:.3g} of {result.full_gmacs:.3g} GMACs"
    share = f"{100 * result.gmacs / result.full_gmacs:.0f} %"
    over = "" if num_views == 1 else f" over {num_views} views"
    lines.append(f"  kept {kept} of {num} tokens{over}, {cost} ({share})")
    if result.confidence is not None:
        sure = ", ".join(f"{value:.2f}" for value in result.confidence)
        lines.append(f"  confidence {sure}")
    return "\n".join(lines)
