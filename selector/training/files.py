"""What a training leaves in its folder: the selector, its result and log, and the way to go on.

The selector is `selector.safetensors` and, written after it, `config.json`; `metrics.json` ends the
training. Every file is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from pipeline.errors import ConfigError
from pipeline.store.lock import StoreLock
from pipeline.store.root import TEMP_SUFFIX, Root
from pipeline.strict_json import json_values
from selector.training.config import (
    FIXED_LAYERS,
    BackboneIdentity,
    SelectorConfig,
    TrainConfig,
)
from selector.training.metrics import RankingMetrics
from selector.training.model import TokenSelector
from selector.training.other_scores import SharedVideos

WEIGHTS_NAME = "selector.safetensors"
CONFIG_NAME = "config.json"
SELECTOR_NAME = "selector"
"""The folder of a selector inside that of a deployable model."""
CHECKPOINT_NAME = "checkpoint.pt"
METRICS_NAME = "metrics.json"
TENSORBOARD_NAME = "tensorboard"
_PRIOR = "prior"  # beside the network's own weights, which have longer names


def save_selector(model: TokenSelector, folder: str | Path) -> None:
    """Writes weights, statistics and configuration into `folder`, made if needed."""
    root = Root(folder)
    state = dict(model.state_dict())
    if model.prior is not None:
        state[_PRIOR] = model.prior
    root.put(WEIGHTS_NAME, save({k: v.detach().cpu().contiguous() for k, v in state.items()}))
    root.put(CONFIG_NAME, model.config.to_json().encode())


def load_selector(
    folder: str | Path,
    backbone: BackboneIdentity | None = None,
    device: str | torch.device = "cpu",
) -> TokenSelector:
    """Reads a selector, in evaluation mode.

    Args:
        folder: where `save_selector` wrote.
        backbone: the backbone it is to serve; None checks nothing (its own store's data only).
        device: where the weights go.

    Raises:
        ConfigError: there is no selector, it is damaged, or it belongs to another backbone.
    """
    config = read_config(folder)
    if backbone is not None:
        config.check_fits(backbone)
    model = TokenSelector(config)
    path = selector_folder(folder) / WEIGHTS_NAME
    try:
        state = load(path.read_bytes())
        model.prior = state.pop(_PRIOR, None)
        model.load_state_dict(state)
        if model.prior is not None and model.prior.shape != (config.grid.num_tokens,):
            raise RuntimeError(f"{_PRIOR} has shape {tuple(model.prior.shape)}")
    except (SafetensorError, RuntimeError) as error:
        raise ConfigError(
            f"{str(path)!r} does not hold the weights its config.json describes: {error}"
        ) from error
    return model.to(device).eval()


def read_config(folder: str | Path) -> SelectorConfig:
    """Reads what a selector is and where it comes from.

    Raises:
        ConfigError: there is no selector, or its configuration is damaged or of another schema.
    """
    folder = selector_folder(folder)
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise ConfigError(
                f"no selector in {str(folder)!r}: {name} is missing; make one with "
                "`lite-pipeline train-selector --store DIR --out DIR`"
            )
    path = folder / CONFIG_NAME
    return SelectorConfig.from_json(path.read_bytes().decode(errors="replace"), str(path))


def selector_folder(folder: str | Path) -> Path:
    """Where a selector's files lie: in `folder`, or in `selector/` where that is a whole model.

    Raises:
        ConfigError: both hold one, and nothing says which is meant.
    """
    folder = Path(folder)
    inner = folder / SELECTOR_NAME
    if not (inner / WEIGHTS_NAME).is_file():
        return folder
    if (folder / WEIGHTS_NAME).is_file():
        raise ConfigError(
            f"{folder} holds two selectors, one that a training wrote and, in {inner.name}/, that "
            "of a model which was saved there: remove the one that is not meant"
        )
    return inner


def selector_digest(folder: str | Path) -> str:
    """SHA-256 over a selector's weights and configuration: its identity in what it is used for."""
    digest, folder = hashlib.sha256(), selector_folder(folder)
    for name in (WEIGHTS_NAME, CONFIG_NAME):
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.hexdigest()


def is_selector_config(path: Path) -> bool:
    """Whether a `config.json` says what a selector is, and not what another's model is."""
    try:
        return "backbone_digest" in json.loads(path.read_bytes())
    except (ValueError, TypeError):
        return False


def check_config_is_ours(folder: str | Path) -> None:
    """Refuses a folder whose `config.json` a selector's would replace, such as a checkpoint's.

    Raises:
        ConfigError: it is not a selector's.
    """
    path = Path(folder) / CONFIG_NAME
    if path.exists() and not is_selector_config(path):
        raise ConfigError(
            f"{folder} holds the {CONFIG_NAME} of something else, a checkpoint or a whole model, "
            "which would be replaced: name another folder for --out"
        )


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What came out, on held-out clips."""

    selector: SelectorConfig
    """Its shape and where it comes from."""
    best_epoch: int
    """Epoch the weights are from, from 1."""
    num_epochs: int
    """Epochs trained until it stopped."""
    macs_per_token: float
    """Cost of the selector on a whole clip."""
    num_train: int
    """Clips trained on."""
    num_held_out: int
    """Held-out clips; `methods` judge as many of them as fit in memory."""
    num_failed: int
    """Clips left out because they failed in the store, or in that of the scores."""
    num_degenerate: int
    """Clips left out because no token has a positive cam."""
    num_missing: int
    """Clips of the plan that the store, or that of the scores, does not hold yet."""
    methods: dict[str, RankingMetrics]
    """`selector`, `random` and `oracle`. The cross-entropy of `random` is that of the best
    constant; that of `oracle` is its score's own entropy, the least anything can reach."""
    history: list[dict[str, float]]
    """Per epoch: train_loss, held_out_loss (both against the cleaned target), spearman, and
    accuracy where that chooses."""
    videos: SharedVideos | None = None
    """Videos of the store and of the scores' store; None where the scores are its own."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a measure without an answer is None."""
        found: dict[str, Any] = json_values(asdict(self))
        return found

    @classmethod
    def from_dict(cls, selector: SelectorConfig, found: dict[str, Any]) -> TrainResult:
        """The inverse of `to_dict` without its `selector`."""
        methods = {name: _metrics(values) for name, values in found["methods"].items()}
        videos = found.get("videos")
        if videos is not None:
            videos = SharedVideos(**videos)
        return cls(selector=selector, **found | {"methods": methods, "videos": videos})


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """What a finished training noted of how it was done."""

    config: TrainConfig
    """What was asked for, the shape filled in."""
    store_fingerprint: str
    """Of the store that it learnt from."""
    scores_from: str | None
    """Fingerprint of the store of the scores, where that is another."""
    oracle: str | None
    """Whose scores, where not those of the first oracle there."""
    num_missing: int
    """Clips of the plan that the store did not hold yet."""


def read_record(folder: str | Path) -> TrainingRecord | None:
    """How a selector was trained; None where its folder does not say, as of a model it was put in.

    Raises:
        ConfigError: what it says is damaged.
    """
    path = selector_folder(folder) / METRICS_NAME
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        noted = content["training"]
        names = {f.name for f in fields(TrainConfig)}
        asked = {name: value for name, value in noted.items() if name in names}
        if asked["arch"] in FIXED_LAYERS:
            del asked["num_layers"]
        return TrainingRecord(
            config=TrainConfig(**asked | {"clean": tuple(asked["clean"])}),
            store_fingerprint=noted["store_fingerprint"],
            scores_from=noted.get("scores_from"),
            oracle=noted.get("oracle"),
            num_missing=content["num_missing"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{str(path)!r} is damaged: {error!r}") from error


class TrainingFiles:
    """The files of one training; see `claimed`.

    Args:
        root: the folder.
        identity: all that decides the outcome, as plain JSON values. Neither a checkpoint nor a
            result of another identity is taken for one's own.
    """

    def __init__(self, root: Root, identity: dict[str, Any]) -> None:
        self.root = root
        self.folder = Path(root.path)
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))

    def write_checkpoint(self, state: dict[str, Any]) -> None:
        """Replaces the checkpoint; a kill leaves the old one or the new one."""
        buffer = io.BytesIO()
        torch.save({"identity": self.identity, "state": state}, buffer)
        self.root.put(CHECKPOINT_NAME, buffer.getvalue())

    def read_checkpoint(self) -> dict[str, Any] | None:
        """The state to go on from, on the CPU; None where none was written.

        Raises:
            ConfigError: it is damaged, or of another training.
        """
        path = self.folder / CHECKPOINT_NAME
        if not path.is_file():
            return None
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            identity, state = content["identity"], content["state"]
        except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{str(path)!r} is damaged ({error}); remove it to train from the start"
            ) from error
        self.check_same(identity, path)
        found: dict[str, Any] = state
        return found

    def write_result(self, model: TokenSelector, result: TrainResult) -> None:
        """Writes the selector and then the result, which ends the training."""
        save_selector(model, self.folder)
        metrics = {k: v for k, v in result.to_dict().items() if k != "selector"}
        content = {"training": self.identity} | metrics
        self.root.put(METRICS_NAME, (json.dumps(content, indent=2) + "\n").encode())
        self.root.remove(CHECKPOINT_NAME)

    def read_result(self, selector: SelectorConfig) -> TrainResult | None:
        """The result of a training that ended; None where there is none.

        What a kill right after the end left behind is removed, and `config.json` is written again
        where an earlier release wrote it: what it says follows from the identity.

        Args:
            selector: what this training makes.

        Raises:
            ConfigError: it is damaged, or of another training.
        """
        path = self.folder / METRICS_NAME
        if not path.is_file() or not (self.folder / WEIGHTS_NAME).is_file():
            return None
        try:
            content: dict[str, Any] = json.loads(path.read_bytes())
            identity = content.pop("training")
        except (ValueError, KeyError, AttributeError) as error:
            raise ConfigError(
                f"{str(path)!r} is damaged ({error!r}); remove it to train again"
            ) from error
        self.check_same(identity, path)
        self.root.remove(CHECKPOINT_NAME)
        config = selector.to_json().encode()
        if not self.root.exists(CONFIG_NAME) or self.root.get(CONFIG_NAME) != config:
            self.root.put(CONFIG_NAME, config)
        return TrainResult.from_dict(selector, content)

    def check_same(self, found: dict[str, Any], path: Path) -> None:
        """Refuses what another training left.

        Raises:
            ConfigError: lists what differs.
        """
        names = sorted(set(found) | set(self.identity))
        changed = [n for n in names if found.get(n) != self.identity.get(n)]
        if changed:
            lines = ", ".join(f"{n} {found.get(n)} -> {self.identity.get(n)}" for n in changed)
            raise ConfigError(
                f"{str(path.parent)!r} holds another training (there -> asked for): {lines}; "
                "choose another --out, or remove that folder"
            )


@contextmanager
def claimed(folder: str | Path, identity: dict[str, Any]) -> Iterator[TrainingFiles]:
    """The files of a training in `folder`, made if needed, and nobody else's meanwhile.

    Args:
        folder: where.
        identity: as `TrainingFiles` has it.

    Raises:
        StoreError: another training is writing there.
        ConfigError: the folder cannot be written.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        root = Root(folder)
        lock = StoreLock(root)
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error}") from error
    try:
        for name in root.names():
            if name.startswith(".") and name.endswith(TEMP_SUFFIX):
                root.remove(name)  # a kill cut it off
        yield TrainingFiles(root, identity)
    finally:
        lock.release()


class TrainLog:
    """TensorBoard curves of a training; a context manager.

    Args:
        folder: the training's folder.
        first_epoch: curves from here on are cut off before new points are added, so that an epoch
            trained twice after an interruption is drawn once.
    """

    def __init__(self, folder: Path, first_epoch: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # tensorboard's own imports
            from torch.utils.tensorboard import SummaryWriter
        self._writer = SummaryWriter(str(folder / TENSORBOARD_NAME), purge_step=first_epoch)

    def add(self, epoch: int, values: dict[str, float]) -> None:
        """Adds one point per curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def __enter__(self) -> TrainLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.close()


def _metrics(found: dict[str, Any]) -> RankingMetrics:
    def number(value: float | None) -> float:
        return math.nan if value is None else value

    return RankingMetrics(
        num_clips=found["num_clips"],
        bce=number(found["bce"]),
        spearman=number(found["spearman"]),
        recall={float(k): number(v) for k, v in found["recall"].items()},
        mass={float(k): number(v) for k, v in found["mass"].items()},
    )
