"""What a build or an evaluation is made from: a dataset's clips and a backbone that fits them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from datasets_spec import DatasetSpec
from datasets_spec.read import canonical_split, read_split
from pipeline.backbones import Backbone, load_backbone
from pipeline.clips.classes import settle_classes
from pipeline.clips.plan import UNKNOWN_LABEL, build_plan, plan_digest
from pipeline.config import ClipConfig, RunConfig
from pipeline.decode import check_decoder
from pipeline.errors import ConfigError

Config = TypeVar("Config", bound=ClipConfig)


@dataclass(frozen=True, kw_only=True)
class Inputs(Generic[Config]):
    """Everything that is known before the first video is opened."""

    config: Config
    """What was asked for, with the fields of `ClipConfig` closed."""
    plan: pa.Table
    label_names: list[str]
    backbone: Backbone
    """On PyTorch's meta device: what it is, without its weights."""


def read_inputs(
    asked: Config,
    run: RunConfig,
    spec: DatasetSpec,
    split: str,
    *,
    views: tuple[int, int],
    without_label: str | None,
) -> Inputs[Config]:
    """Read the dataset and the checkpoint and check that they go together.

    Args:
        asked: the configuration, fields of `ClipConfig` open where the dataset shall decide.
        run: where the videos are, and whether class names may disagree.
        spec: the dataset.
        split: of the dataset, in any of its spellings.
        views: temporal segments and spatial crops per video where they are open.
        without_label: what the error says of clips without a label; None accepts them.

    Raises:
        DatasetSpecError: the dataset, its split or its annotations.
        BackboneError: the checkpoint does not load, or its classes are not the dataset's.
        ConfigError: options that cannot work together, a decoder that does not work here, or clips
            without a label.
    """
    check_decoder(asked.decoder)
    split = canonical_split(spec, split)
    found = read_split(spec, run.data_root, split)
    segments, crops = asked.num_segments or views[0], asked.num_crops or views[1]
    plan = build_plan(found.videos, (segments, crops), asked.shard_size, asked.limit)
    if without_label is not None:
        unknown = pc.sum(pc.equal(plan["label"], UNKNOWN_LABEL)).as_py()
        if unknown:
            where = f"{unknown} of {plan.num_rows} clips of {spec.name}/{split}"
            raise ConfigError(f"{where} {without_label}")
    backbone = load_backbone(asked.backbone, asked.revision, device="meta")
    classes = settle_classes(
        spec.name, found.label_names, backbone, asked.backbone, accept=run.accept_classes
    )
    config = replace(
        asked,
        dataset=spec.name,
        plan_digest=plan_digest(plan),
        split=split,
        backbone_digest=backbone.digest,
        sampling=asked.sampling or spec.sampling,
        num_segments=segments,
        num_crops=crops,
        class_agreement=classes.agreement.value,
    )
    return Inputs(
        config=config,
        plan=plan,
        label_names=classes.names,
        backbone=backbone,
    )
