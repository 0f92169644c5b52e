"""The two configurations of a build: what decides the results, and what decides only the speed.

`OracleConfig` is fingerprinted and stored; a store refuses to go on with another one.
`RunConfig` may change freely between two runs on the same store.

What a user asks for is a configuration with open fields, which the dataset and the checkpoint
close (`pipeline.clips.inputs.read_inputs`); only a closed one has a fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

from pipeline.errors import ConfigError

DECODERS = ("pyav", "decord", "torchcodec")
LONGEST_S = 10 * 24 * 3600
"""Longest time limit: waiting longer is waiting for ever, and the system's clocks have an end."""
PRECISIONS = ("fp32", "bf16", "fp16")
DEFAULT_LAYER = "blocks.-1.output"
DEFAULT_EMBEDDINGS_PER_CLIP = 128
LABEL = "label"
TARGETS = (LABEL, "predicted")
_ORACLE_PATTERN = re.compile(r"([a-z0-9+-]+)(?:@([a-z0-9.-]+))?(?::(\w+))?")

# For the reader of a store, not for its identity: the same weights may live in another folder.
INFORMATIVE = {"informative": True}


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Which clips go through which backbone, in which shards: what all configurations share.

    Results are committed under the fingerprint of their configuration. A field with
    `metadata=INFORMATIVE` is for the reader and not part of that identity. An empty text and a
    number of views of 0 are open: the dataset or the checkpoint decides.

    Raises:
        ConfigError: a field is outside its range; the message names field and rule.
    """

    dataset: str
    """Name of the dataset specification."""
    plan_digest: str = ""
    """SHA-256 over the plan: video ids, labels, paths, views, groups if there are any, in order."""
    split: str = ""
    """Split of the dataset the plan lists."""
    limit: int | None = field(default=None, metadata=INFORMATIVE)
    """Videos in the plan's even sample of the split; None for all (the digest pins which)."""
    backbone: str = field(metadata=INFORMATIVE)
    """The checkpoint as the user named it: a folder or a hub id."""
    backbone_digest: str = ""
    """SHA-256 over the checkpoint's weights and configuration."""
    revision: str | None = field(default=None, metadata=INFORMATIVE)
    """The hub revision asked for (the digest already pins the weights)."""
    class_agreement: str = field(default="", metadata=INFORMATIVE)
    """How the dataset's class names relate to the checkpoint's, a `datasets_spec.agreement.
    Agreement` (of names and digests that are part of the identity); one that does not fit was
    accepted by `--accept-classes`."""
    decoder: str = "pyav"
    """Decoder backend; one for all clips."""
    sampling: str = ""
    """Frame sampling: `uniform` over the whole video, or `stride:N`."""
    num_segments: int = 0
    """Temporal views per video."""
    num_crops: int = 0
    """Spatial views per temporal view."""
    precision: str = "fp32"
    """Precision of the backbone's forward pass."""
    shard_size: int
    """Clips per shard, the unit of work and of commit."""

    def __post_init__(self) -> None:
        require_one_of("decoder", self.decoder, DECODERS)
        require_one_of("precision", self.precision, PRECISIONS)
        require_at_least("shard_size", self.shard_size, 1)
        for name in ("num_segments", "num_crops"):
            require_at_least(name, getattr(self, name), 0)
        if self.sampling:
            from pipeline.clips.views import Sampling  # late: it needs numpy

            Sampling.parse(self.sampling)

    @property
    def views(self) -> tuple[int, int]:
        """Temporal segments and spatial crops per video."""
        return self.num_segments, self.num_crops

    @property
    def num_views(self) -> int:
        """Clips per video."""
        return self.num_segments * self.num_crops

    @property
    def open_fields(self) -> tuple[str, ...]:
        """Names of the fields that the dataset or the checkpoint has yet to decide."""
        names = ("plan_digest", "split", "backbone_digest", "sampling", "num_segments", "num_crops")
        return tuple(name for name in names if not getattr(self, name))

    def identity(self) -> dict[str, Any]:
        """The fields that decide the results, as plain JSON values.

        Raises:
            ConfigError: some are open; two that look alike could then close differently.
        """
        if self.open_fields:
            raise ConfigError(
                f"this configuration has no identity yet: {', '.join(self.open_fields)} open"
            )
        return {f.name: getattr(self, f.name) for f in fields(self) if not f.metadata}

    def fingerprint(self) -> str:
        """Hex SHA-256 of `identity()` in canonical JSON."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return asdict(self)


class OracleName(NamedTuple):
    """An oracle as commands, configurations and readers call it: `METHOD@LAYER:TARGET`.

    `hirescam@embeddings`, `gradcam@blocks.11.output:predicted`; which methods and layers there are,
    `pipeline.oracle.names` knows.
    """

    method: str
    """`gradcam`, `hirescam`, ..., `occlusion`."""
    layer: str = ""
    """Module whose output is scored; empty where the method's default is still to be found."""
    target: str = LABEL
    """Class whose logit is explained: the true `label` or the `predicted` one."""

    @classmethod
    def parse(cls, text: str) -> OracleName:
        """The inverse of `str`; `@LAYER` and `:TARGET` may be left out.

        Raises:
            ConfigError: it is no name.
        """
        match = _ORACLE_PATTERN.fullmatch(text)
        target = (match[3] or LABEL) if match else ""
        if match is None or target not in TARGETS:
            raise ConfigError(
                f"an oracle is called METHOD, METHOD@LAYER or METHOD@LAYER:TARGET, TARGET one of "
                f"{', '.join(TARGETS)}, such as gradcam@blocks.-1.output:predicted; got {text!r}"
            )
        return cls(match[1], match[2] or "", target)

    def __str__(self) -> str:
        layer = f"@{self.layer}" if self.layer else ""
        return f"{self.method}{layer}" + ("" if self.target == LABEL else f":{self.target}")

    @property
    def suffix(self) -> str:
        """What stands in a store after the names of this oracle's arrays and columns.

        Letters, digits and underscores: file systems, SQL and attributes of a data frame take it.
        """
        return "_" + re.sub(r"\W", "_", str(self).replace("+", "p"))


@dataclass(frozen=True, kw_only=True)
class OracleConfig(ClipConfig):
    """Everything that changes a byte of a store's committed files.

    Raises:
        ConfigError: a field is outside its range; the message names field and rule.
    """

    method: str = "gradcam"
    """Oracle: `gradcam`, `hirescam`, ..., `occlusion` (see `pipeline.oracle.names.METHODS`)."""
    layer: str = ""
    """Module whose output is scored: `embeddings`, or `blocks.N.(mlp|output|norm1)`."""
    target: str = LABEL
    """Class whose logit is explained: the true `label` or the `predicted` one."""
    further_oracles: tuple[str, ...] = ()
    """Names of further oracles of the same pass, whose maps stand beside those of the first."""
    embeddings_per_clip: int | None = None
    """Patch embeddings kept per clip for the selector; -1 keeps all, 0 none, None is open."""
    seed: int = 0
    """Seed of the sampled token positions."""
    shard_size: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("target", self.target, TARGETS)
        if self.embeddings_per_clip is not None:
            require_at_least("embeddings_per_clip", self.embeddings_per_clip, -1)
        require_at_least("seed", self.seed, 0)
        names = [str(name) for name in self.oracles]
        # One spelling of each, and a tuple also where they come from JSON: stores compare them.
        object.__setattr__(self, "further_oracles", tuple(names[1:]))
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise ConfigError(f"the oracle {repeated} is asked for more than once")

    @property
    def oracles(self) -> tuple[OracleName, ...]:
        """All oracles of the pass, the first one first."""
        first = OracleName(self.method, self.layer, self.target)
        return (first, *map(OracleName.parse, self.further_oracles))

    @property
    def open_fields(self) -> tuple[str, ...]:
        """As `ClipConfig.open_fields`."""
        own = () if self.layer else ("layer",)
        further = () if all(name.layer for name in self.oracles[1:]) else ("further_oracles",)
        kept = () if self.embeddings_per_clip is not None else ("embeddings_per_clip",)
        return (*super().open_fields, *own, *further, *kept)

    def identity(self) -> dict[str, Any]:
        """As `ClipConfig.identity`."""
        return self._without_no_further_oracles(super().identity())

    def to_dict(self) -> dict[str, Any]:
        """As `ClipConfig.to_dict`."""
        return self._without_no_further_oracles(super().to_dict())

    def _without_no_further_oracles(self, fields: dict[str, Any]) -> dict[str, Any]:
        # A store of one oracle is the same, byte for byte, as before there could be several.
        if not self.further_oracles:
            del fields["further_oracles"]
        return fields


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How fast and on what a run works; none of it may change the results.

    Bits of the last place may still move with `batch_size`, the device and the thread count, as
    they do in any floating-point program; files are byte-identical for equal settings.
    """

    data_root: str
    """Folder of the videos; the plan's paths are relative to it."""
    workers: int = 0
    """Ray actors; 0 runs in this process and never imports Ray."""
    gpus_per_worker: float = 0.0
    """GPUs (or a share of one) each worker asks Ray for."""
    decode_workers: int = 1
    """Decoder processes per worker; 0 decodes in the worker itself (PyAV only)."""
    threads_per_worker: int = 1
    """Threads of the backbone's CPU kernels."""
    batch_size: int = 16
    """Clips per forward pass."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: CUDA where the process sees one."""
    ray_address: str | None = None
    """None starts a local Ray; `auto` or `host:port` joins a cluster."""
    decode_timeout_s: float = 60.0
    """Seconds one video may take to decode."""
    shard_timeout_s: float | None = None
    """Seconds one shard may take before its worker is killed; None waits for ever."""
    max_attempts: int = 3
    """Times a shard may fail before it is given up."""
    accept_classes: bool = False
    """Whether to go on where the checkpoint's class names disagree with the dataset's."""
    accept_missing: bool = False
    """Whether whole shards without one readable video are recorded as such; they else end a run."""
    accept_killed: bool = False
    """Whether a clip counts as failed whose process is killed from outside whenever it is alone."""
    backbone_commit: str | None = None
    """Commit of a hub id, as the driver found it: what its workers load."""
    known_videos: tuple[str, ...] = ()
    """Videos that the driver could read: a worker that cannot read them has lost the dataset."""
    max_pixels: int = 4096 * 2304
    """Largest frame, in pixels, that is decoded."""
    max_frames: int = 20_000
    """Longest video, in frames, that is decoded."""

    def __post_init__(self) -> None:
        require_at_least("workers", self.workers, 0)
        require_at_least("decode_workers", self.decode_workers, 0)
        require_at_least("threads_per_worker", self.threads_per_worker, 1)
        require_at_least("batch_size", self.batch_size, 1)
        require_at_least("max_attempts", self.max_attempts, 1)
        for name in ("decode_timeout_s", "shard_timeout_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= LONGEST_S:
                raise ConfigError(
                    f"{name} must be above 0 seconds and at most {LONGEST_S}, got {value!r}"
                )
        if self.shard_timeout_s is not None and self.workers == 0:
            raise ConfigError(
                "a shard timeout needs a worker process that can be killed: use --workers 1"
            )
        if self.ray_address is not None and not self.workers:
            raise ConfigError("an address of a Ray cluster needs Ray workers: add --workers N")
        if not 0 <= self.gpus_per_worker < math.inf:
            raise ConfigError(
                f"gpus_per_worker must be a number from 0, got {self.gpus_per_worker!r}"
            )
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {self.device!r}")


def require_one_of(name: str, value: str, allowed: Collection[str]) -> None:
    """Refuse a value that is not among those allowed.

    Raises:
        ConfigError: names them.
    """
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def require_at_least(name: str, value: int, low: int) -> None:
    """Refuse a number that is too small.

    Raises:
        ConfigError: names the smallest.
    """
    if value < low:
        raise ConfigError(f"{name} must be at least {low}, got {value!r}")
