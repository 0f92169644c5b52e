"""Runs a model over a store's labelled clips, to calibrate an adaptive budget on what it sees.

Clips whose selector was trained on them would look easier than others, so on the selector's own
training store only its held-out videos count.

Axes: n clips, L token counts, M shares of mass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from pipeline.clips.views import View
from pipeline.decode import DecodePool
from pipeline.errors import ClipStatus, ConfigError, DecodeError
from pipeline.store.reader import Store
from selector.budgets.confidence import Confidence, Judgement
from selector.budgets.rules import tokens_for_mass
from selector.deploy.model import LiteModel
from selector.deploy.predict import clip_request
from selector.training.split import is_held_out


@dataclass(frozen=True, kw_only=True)
class LabelledClips:
    """Some clips, decoded; those that failed are left out and counted."""

    frames: npt.NDArray[np.uint8]
    """(B, T, H, W, 3)."""
    labels: npt.NDArray[np.int64]
    """(B,)"""
    video_ids: list[str]
    """(B,)"""
    num_failed: int


@dataclass(frozen=True, kw_only=True)
class ValidationRows:
    """What the model did with every clip."""

    correct: npt.NDArray[np.bool_]
    """(n, L), whether the prediction is right with each number of tokens."""
    confidence: npt.NDArray[np.float64]
    """(n,); NaN where no confidence model was asked."""
    needed: npt.NDArray[np.int64]
    """(n, M), the fewest tokens that hold each share of the predicted mass."""
    video_ids: npt.NDArray[np.str_]
    """(n,)"""
    num_failed: int
    """Clips left out: not decoded, or the model's output was not finite."""

    def __getitem__(self, chosen: npt.NDArray[np.bool_]) -> ValidationRows:
        """Some of the rows."""
        return replace(
            self,
            correct=self.correct[chosen],
            confidence=self.confidence[chosen],
            needed=self.needed[chosen],
            video_ids=self.video_ids[chosen],
        )


def choose_clips(
    store: Store, model: LiteModel, held_out: float, limit: int | None = None
) -> pd.DataFrame:
    """Rows of the store to calibrate on: labelled, ok, and not what the selector learnt from.

    Args:
        store: built for the model's backbone.
        model: what is to be calibrated.
        held_out: the share of videos that `train-selector` held out; matters for its own store.
        limit: clips at most, evenly spaced over the store.

    Raises:
        ConfigError: the store is of another backbone, or no clip is left.
    """
    built, used = store.config.backbone_digest, model.backbone.digest
    if built != used:
        raise ConfigError(
            f"{store.root} was built for another backbone ({store.config.backbone}): "
            f"backbone_digest {built[:12]} -> {used[:12]}; its classes may be other ones"
        )
    columns = ["clip_id", "video_id", "path", "label", "segment", "crop"]
    clips = store.clips(columns=columns, status=ClipStatus.OK.value)
    clips = clips[clips["label"] >= 0]
    assert model.selector is not None
    if store.config.fingerprint() == model.selector.config.store_fingerprint:
        clips = clips[
            clips["video_id"].map(lambda video: is_held_out(video, held_out)).astype(bool)
        ]
    if clips.empty:
        raise ConfigError(
            f"{store.root} has no labelled clips to calibrate on (of its training store, only the "
            "selector's held-out videos count); build a store of the validation split"
        )
    if limit is not None and limit < len(clips):
        clips = clips.iloc[np.linspace(0, len(clips) - 1, limit).round().astype(int)]
    return clips


def decode_clips(
    clips: pd.DataFrame,
    store: Store,
    data_root: str | Path,
    model: LiteModel,
    pool: DecodePool,
    batch_size: int,
) -> Iterator[LabelledClips]:
    """Decode rows of the store again, with its own decoder, sampling and views."""
    config = store.config
    places = zip(*(clips[name].tolist() for name in ("path", "segment", "crop")), strict=True)
    requests = [
        clip_request(
            model,
            str(Path(data_root) / path),
            config.sampling,
            config.decoder,
            (View(segment, crop, config.num_segments, config.num_crops),),
        )
        for path, segment, crop in places
    ]
    named = (clips[name].tolist() for name in ("label", "video_id"))
    triples = zip(pool.imap(requests), *named, strict=True)
    while batch := list(islice(triples, batch_size)):
        good = [(d.clips[0], *names) for d, *names in batch if not isinstance(d, DecodeError)]
        empty = requests[0].empty_clips()[:0]
        yield LabelledClips(
            frames=np.stack([frames for frames, _, _ in good]) if good else empty,
            labels=np.array([label for _, label, _ in good], np.int64),
            video_ids=[video for _, _, video in good],
            num_failed=len(batch) - len(good),
        )


def measure(
    model: LiteModel,
    batches: Iterable[LabelledClips],
    counts: Sequence[int],
    *,
    confidence: Confidence | None = None,
    masses: npt.NDArray[np.float64] | None = None,
) -> ValidationRows:
    """Classify every clip with each number of tokens; it is embedded and ranked once.

    Args:
        model: what is to be calibrated.
        batches: labelled clips.
        counts: numbers of tokens, (L,).
        confidence: asked about every clip, if given.
        masses: shares of the predicted mass, (M,), if wanted.

    Raises:
        ConfigError: no clip could be used.
    """
    shares = torch.as_tensor(np.empty(0) if masses is None else masses)
    correct: list[torch.Tensor] = []
    confidences: list[torch.Tensor] = []
    needed: list[torch.Tensor] = []
    video_ids: list[str] = []
    num_failed = 0
    for batch in batches:
        num_failed += batch.num_failed
        if not len(batch.labels):
            continue
        pixels = model.backbone.pixel_values(batch.frames)
        tokens = model.backbone.embed(pixels)
        ranking, scores = model.rank(tokens)
        labels = torch.as_tensor(batch.labels, device=ranking.device)
        sure, answers = torch.full(labels.shape, torch.nan), None
        if confidence is not None:
            judged: Judgement = confidence(pixels, tokens, ranking)
            sure, answers = judged.confidence.double(), judged.answers
        each = (
            model.classify(tokens, ranking, torch.full_like(labels, num), answers)[0]
            for num in counts
        )
        logits = torch.stack(list(each), dim=1)
        good = logits.isfinite().flatten(1).all(dim=1) & ranking.isfinite().all(dim=1)
        if confidence is not None:
            good &= sure.isfinite()
        num_failed += int((~good).sum())
        correct.append((logits.argmax(-1) == labels[:, None])[good].cpu())
        confidences.append(sure.cpu()[good.cpu()])
        wanted = shares.to(ranking.device)
        needed.append(tokens_for_mass(scores[good], ranking[good], wanted).cpu())
        video_ids += compress(batch.video_ids, good.tolist())
    if not correct:
        raise ConfigError(f"none of the {num_failed} clips could be used; is --data-root right?")
    return ValidationRows(
        correct=torch.cat(correct).numpy(),
        confidence=torch.cat(confidences).double().numpy(),
        needed=torch.cat(needed).numpy(),
        video_ids=np.array(video_ids, np.str_),
        num_failed=num_failed,
    )
