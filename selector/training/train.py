"""Trains a token selector from a store: soft binary cross-entropy against the oracle's score.

Epochs, optimiser and learning rate are not public. Ours: AdamW, cosine decay to zero over
the epochs asked for, and early stopping on the held-out cross-entropy, or on the backbone's
accuracy with the selector's tokens; the best epoch is kept.

A run may be stopped at any moment and started again: on the CPU it ends with the same bits as an
undisturbed one (on CUDA up to the order of atomic additions).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from pipeline.config import OracleName
from pipeline.errors import ConfigError
from selector.training.accuracy import AccuracyJudge
from selector.training.config import (
    ACCURACY,
    DEFAULT_LAYERS,
    NEEDS_ALL_TOKENS,
    ScoresFrom,
    SelectorConfig,
    TrainConfig,
    TrainedOn,
    default_width,
)
from selector.training.data import TokenBatch, TokenStream
from selector.training.files import (
    TrainingFiles,
    TrainLog,
    TrainResult,
    check_config_is_ours,
    claimed,
)
from selector.training.metrics import RankingMeter, RankingMetrics
from selector.training.model import TokenSelector
from selector.training.other_scores import OtherScores
from selector.training.split import HELD_OUT, split_store

if TYPE_CHECKING:
    from pipeline.store.reader import Store

_log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60.0
"""Time between checkpoints inside an epoch; the end of an epoch always writes one."""


@dataclass(frozen=True)
class TrainProgress:
    """Where a training stands."""

    epoch: int
    """Current epoch, from 1."""
    epochs: int
    """Epochs at most."""
    clips_done: int
    """Training clips of this epoch so far."""
    clips_total: int
    """Training clips per epoch."""
    tokens_per_s: float
    """Since this process began to train, reading included."""
    held_out_loss: float | None
    """Of the last finished epoch."""


def resolve_device(name: str) -> torch.device:
    """The device behind `auto`, `cpu`, `cuda`, `cuda:1`, ...

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used here: {reason}") from error
    return device


def train_selector(
    store: Store,
    out: str | Path,
    config: TrainConfig,
    *,
    device: str = "auto",
    allow_unfinished: bool = False,
    oracle: str | None = None,
    scores_from: Store | None = None,
    on_progress: Callable[[TrainProgress], None] = lambda _: None,
) -> TrainResult:
    """Trains a selector and saves it in `out`; goes on where an earlier run there stopped.

    Args:
        store: an opened store with embeddings.
        out: folder for `selector.safetensors`, `config.json`, `metrics.json` and `tensorboard/`.
        config: what to train, and how.
        device: `cpu`, `cuda`, or `auto`.
        allow_unfinished: train from the committed part of a store.
        oracle: whose scores to learn, by its name in the store, or in `scores_from` where that is
            given; None for the first.
        scores_from: another backbone's store of the same clips, whose scores to learn; see
            `selector.training.other_scores`. None: the store's own.
        on_progress: called after every batch.

    Raises:
        StoreError: the store is empty, unfinished, damaged, has no embeddings or not that oracle,
            or another training is writing `out`; or the two stores do not mean the same clips.
        BackboneError: accuracy is to choose, or another store has the scores, and a checkpoint
            that built a store is not there any more.
        ConfigError: the options do not fit the store, `out` holds a selector of other options or
            another's `config.json`, or cannot be written, or the training diverged.
    """
    place = resolve_device(device)
    other = None if scores_from is None else OtherScores(store, scores_from, oracle)
    own = oracle if other is None else None
    split = split_store(store, config.held_out, allow_unfinished, own, other)
    stream = TokenStream(store, split, config.clean, config.seed, oracle=own, other=other)
    of = store if scores_from is None else scores_from
    learnt = of.config.oracles[0] if oracle is None else OracleName.parse(oracle)
    shape = _selector_config(store, stream, config, learnt, scores_from)
    identity = config.identity() | {"num_layers": shape.num_layers, "width": shape.width}
    identity |= {"store_fingerprint": shape.store_fingerprint, "num_train": stream.num_train}
    if learnt != of.config.oracles[0]:
        identity["oracle"] = str(learnt)
    if scores_from is not None:
        identity["scores_from"] = scores_from.config.fingerprint()
    check_config_is_ours(out)
    with claimed(out, identity) as files:
        ended = files.read_result(shape)
        if ended is not None:
            _log.info("%s is trained already", out)
            return ended
        judge = None
        if config.select_by == ACCURACY:
            judge = AccuracyJudge(store, split, config.select_ratio, place)
        run = _Run(config, shape, stream, files, place, judge, on_progress)
        run.train()
        model = run.best_model()
        model.prior = stream.place_means()
        result = TrainResult(
            selector=shape,
            best_epoch=run.best_epoch,
            num_epochs=run.epoch,
            macs_per_token=model.macs_per_token(),
            num_train=stream.num_train,
            num_held_out=split.count(HELD_OUT),
            num_failed=sum(split.failed.values()),
            num_degenerate=split.num_degenerate,
            num_missing=split.num_missing,
            methods=_judge(model, run.held_out, config.seed),
            history=run.history,
            videos=None if other is None else other.videos,
        )
        files.write_result(model, result)
        return result


class _Run:
    """The loop and its state; all of it that matters is in `state()`."""

    def __init__(
        self,
        config: TrainConfig,
        shape: SelectorConfig,
        stream: TokenStream,
        files: TrainingFiles,
        device: torch.device,
        judge: Callable[[TokenSelector], float] | None,
        on_progress: Callable[[TrainProgress], None],
    ) -> None:
        self.config, self.stream, self.files, self.device = config, stream, files, device
        self._judge, self._on_progress = judge, on_progress
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = TokenSelector(shape)
        self.epoch, self.block, self.clips_done = 0, 0, 0
        self.loss_sum = 0.0
        self.best_epoch = 0
        self.best_state: dict[str, torch.Tensor] = {}
        self.history: list[dict[str, float]] = []
        saved = files.read_checkpoint()
        if saved is None:
            self.model.set_statistics(*stream.statistics())
        self.model.to(device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        if saved is not None:
            self.model.load_state_dict(saved.pop("model"))
            self.optimizer.load_state_dict(saved.pop("optimizer"))
            vars(self).update(saved)
            _log.info("going on in epoch %d of %s", self.epoch + 1, files.folder)
        self.held_out = [batch.to(device) for batch in stream.held_out(config.batch_tokens)]
        self._saved_at = time.monotonic()

    def train(self) -> None:
        """Trains until the last epoch, or until patience runs out."""
        self._started, self._tokens = time.monotonic(), 0
        with TrainLog(self.files.folder, self.epoch) as log:
            while self.epoch < self.config.epochs and not self._out_of_patience():
                self._train_epoch()
                self._end_epoch()
                log.add(self.epoch, self.history[-1])
                self._save()

    def best_model(self) -> TokenSelector:
        """The model of the best epoch, in evaluation mode."""
        self.model.load_state_dict(self.best_state)
        return self.model.eval()

    def _out_of_patience(self) -> bool:
        return self.epoch - self.best_epoch >= self.config.patience and self.best_epoch > 0

    def _train_epoch(self) -> None:
        self.model.train()
        blocks = self.stream.blocks(self.epoch, self.config.batch_tokens, self.block)
        for batches in blocks:
            loss_sum = torch.zeros((), device=self.device)
            for batch in batches:
                num_clips, num_tokens = batch.target.shape
                loss_sum += self._step(batch.to(self.device)) * num_clips
                self.clips_done += num_clips
                self._tokens += num_clips * num_tokens
                self._on_progress(self._progress())
            self.loss_sum += loss_sum.item()
            if not math.isfinite(self.loss_sum):
                raise ConfigError(
                    f"the training diverged in epoch {self.epoch + 1} (loss {self.loss_sum}); "
                    f"use a learning rate below {self.config.learning_rate:g}"
                )
            self.block += 1
            if time.monotonic() - self._saved_at > CHECKPOINT_SECONDS:
                self._save()

    def _step(self, batch: TokenBatch) -> torch.Tensor:
        done = self.epoch + self.clips_done / self.stream.num_train
        cosine = 0.5 * (1 + math.cos(math.pi * done / self.config.epochs))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * cosine
        logits = self.model(batch.tokens, batch.token_index)
        loss = F.binary_cross_entropy_with_logits(logits, batch.target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def _end_epoch(self) -> None:
        self.model.eval()
        meter = RankingMeter(keep_ratios=())
        for batch in self.held_out:
            logits = self.model(batch.tokens, batch.token_index)
            meter.update(logits, logits.sigmoid(), batch.cam, batch.target)
        judged = meter.result()
        entry = {
            "train_loss": self.loss_sum / self.clips_done,
            "held_out_loss": judged.bce,
            "spearman": judged.spearman,
        }
        if self._judge is not None:
            entry["accuracy"] = self._judge(self.model)
        self.history.append(entry)
        self.epoch, self.block, self.clips_done, self.loss_sum = self.epoch + 1, 0, 0, 0.0
        if min(self.history, key=_rank) is entry:
            self.best_epoch = self.epoch
            self.best_state = {k: v.cpu().clone() for k, v in self.model.state_dict().items()}

    def _save(self) -> None:
        kept = ("epoch", "block", "clips_done", "loss_sum", "best_epoch")
        state = {name: getattr(self, name) for name in (*kept, "best_state", "history")}
        state |= {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        self.files.write_checkpoint(state)
        self._saved_at = time.monotonic()

    def _progress(self) -> TrainProgress:
        seconds = max(time.monotonic() - self._started, 1e-9)
        return TrainProgress(
            epoch=self.epoch + 1,
            epochs=self.config.epochs,
            clips_done=self.clips_done,
            clips_total=self.stream.num_train,
            tokens_per_s=self._tokens / seconds,
            held_out_loss=self.history[-1]["held_out_loss"] if self.history else None,
        )


def _rank(epoch: dict[str, float]) -> tuple[float, float]:
    """The least is the best epoch: by accuracy where that was measured, then by loss."""
    return -epoch.get("accuracy", 0.0), epoch["held_out_loss"]


def _selector_config(
    store: Store,
    stream: TokenStream,
    config: TrainConfig,
    learnt: OracleName,
    scores_from: Store | None,
) -> SelectorConfig:
    oracle, num_tokens = store.config, store.grid.num_tokens
    if config.arch in NEEDS_ALL_TOKENS and stream.embeddings_per_clip != num_tokens:
        raise ConfigError(
            f"--arch {config.arch} needs all {num_tokens} tokens of a clip, and {store.root} "
            f"keeps {stream.embeddings_per_clip}; build a store with --embeddings-per-clip all"
        )
    return SelectorConfig(
        arch=config.arch,
        num_layers=config.num_layers or DEFAULT_LAYERS[config.arch],
        width=config.width or default_width(store.hidden_size),
        hidden_size=store.hidden_size,
        grid=store.grid,
        backbone=oracle.backbone,
        backbone_digest=oracle.backbone_digest,
        revision=oracle.revision,
        store_fingerprint=oracle.fingerprint(),
        oracle=f"{learnt.method} of {learnt.layer}, {learnt.target}",
        clean=config.clean,
        trained_on=TrainedOn(
            dataset=oracle.dataset,
            split=oracle.split,
            plan_digest=oracle.plan_digest,
            sampling=oracle.sampling,
            num_segments=oracle.num_segments,
            num_crops=oracle.num_crops,
            held_out=config.held_out,
            by_group=store.info.groups,
        ),
        chosen_by=f"accuracy at {config.select_ratio:g}" if config.select_by == ACCURACY else None,
        scores_from=None if scores_from is None else _origin(scores_from, learnt),
    )


def _origin(store: Store, learnt: OracleName) -> ScoresFrom:
    config = store.config
    return ScoresFrom(
        backbone=config.backbone,
        backbone_digest=config.backbone_digest,
        revision=config.revision,
        store_fingerprint=config.fingerprint(),
        oracle=str(learnt),
    )


@torch.no_grad()
def _judge(
    model: TokenSelector, held_out: list[TokenBatch], seed: int
) -> dict[str, RankingMetrics]:
    """The selector, a random order and the oracle's own, measured by the same code."""
    meters = {name: RankingMeter() for name in ("selector", "random", "oracle")}
    num_tokens = sum(batch.score.numel() for batch in held_out)
    mean_score = sum(float(batch.score.double().sum()) for batch in held_out) / num_tokens
    generator = torch.Generator().manual_seed(seed)
    for batch in held_out:
        logits = model(batch.tokens, batch.token_index)
        chance = torch.rand(batch.cam.shape, generator=generator).to(batch.cam.device)
        constant = torch.full_like(batch.score, mean_score)
        meters["selector"].update(logits, logits.sigmoid(), batch.cam, batch.score)
        meters["random"].update(chance, constant, batch.cam, batch.score)
        meters["oracle"].update(batch.cam, batch.score, batch.cam, batch.score)
    return {name: meter.result() for name, meter in meters.items()}
