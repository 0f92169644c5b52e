"""What a build or an evaluation is made from: a dataset's clips and a backbone that fits them."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from datasets_spec import DatasetSpec
from datasets_spec.read import canonical_split, read_split
from pipeline.backbones import Backbone, load_backbone
from pipeline.clips.classes import settle_classes
from pipeline.clips.plan import UNKNOWN_LABEL, build_plan, plan_digest
from pipeline.config import ClipConfig
from pipeline.decode import check_decoder
from pipeline.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ClipRequest:
    """Which clips and which backbone are asked for; None where the dataset decides."""

    dataset: str
    data_root: str
    backbone: str
    revision: str | None = None
    split: str | None = None
    views: tuple[int, int] | None = None
    sampling: str | None = None
    limit: int | None = None
    decoder: str = ClipConfig.decoder
    precision: str = ClipConfig.precision
    shard_size: int
    accept_classes: bool = False
    """Go on where the checkpoint's class names disagree with the dataset's."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything that is known before the first video is opened."""

    config: ClipConfig
    plan: pa.Table
    label_names: list[str]
    backbone: Backbone


def read_inputs(
    request: ClipRequest,
    spec: DatasetSpec,
    split: str,
    *,
    views: tuple[int, int],
    without_label: str | None,
) -> Inputs:
    """Read the dataset and the checkpoint and check that they go together.

    Args:
        request: what is asked for.
        spec: its dataset.
        split: of the dataset, in any of its spellings.
        views: temporal segments and spatial crops per video where the request leaves them open.
        without_label: what the error says of clips without a label; None accepts them.

    Raises:
        DatasetSpecError: the dataset, its split or its annotations.
        BackboneError: the checkpoint does not load, or its classes are not the dataset's.
        ConfigError: options that cannot work together, a decoder that does not work here, or clips
            without a label.
    """
    check_decoder(request.decoder)
    split = canonical_split(spec, split)
    found = read_split(spec, request.data_root, split)
    segments, crops = request.views or views
    plan = build_plan(found.videos, (segments, crops), request.shard_size, request.limit)
    if without_label is not None:
        unknown = pc.sum(pc.equal(plan["label"], UNKNOWN_LABEL)).as_py()
        if unknown:
            where = f"{unknown} of {plan.num_rows} clips of {spec.name}/{split}"
            raise ConfigError(f"{where} {without_label}")
    backbone = load_backbone(request.backbone, request.revision)
    classes = settle_classes(
        spec.name, found.label_names, backbone, request.backbone, accept=request.accept_classes
    )
    config = ClipConfig(
        dataset=spec.name,
        plan_digest=plan_digest(plan),
        split=split,
        backbone=request.backbone,
        backbone_digest=backbone.digest,
        revision=request.revision,
        decoder=request.decoder,
        sampling=request.sampling or spec.sampling,
        num_segments=segments,
        num_crops=crops,
        precision=request.precision,
        class_agreement=classes.agreement.value,
        shard_size=request.shard_size,
    )
    return Inputs(config=config, plan=plan, label_names=classes.names, backbone=backbone)
