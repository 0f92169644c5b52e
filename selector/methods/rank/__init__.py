"""Ways of choosing which tokens a clip keeps: one interface, a score per token before block 1.

To add one: a `Ranker` in a file of its own, its name in `spec.NAMES`, its construction here.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.backbones.base import Backbone
from pipeline.errors import ConfigError
from selector.methods.rank.base import ClipBatch, Ranker
from selector.methods.rank.spec import (
    CUES,
    LITE_SPREAD,
    NAMES,
    ORACLES,
    RankerSpec,
    parse_selectors,
    parse_specs,
    require_selectors,
)

__all__ = [
    "NAMES",
    "ClipBatch",
    "Ranker",
    "RankerSpec",
    "make_ranker",
    "parse_selectors",
    "parse_specs",
    "require_selectors",
]


def make_ranker(
    spec: RankerSpec,
    backbone: Backbone,
    seed: int = 0,
    selector: str | Path | None = None,
    sampling: str = "uniform",
) -> Ranker:
    """Builds a ranking for a backbone; heavy models load here.

    Args:
        spec: which one.
        backbone: on its device.
        seed: of `random`.
        selector: folder of the trained selector, for `lite` and `lite-spread`.
        sampling: how the clips' frames were sampled, for `motion-vectors`.

    Raises:
        ConfigError: a `lite` without a selector or with one of another backbone; an oracle of a
            layer or method that does not exist; `saliency` without OpenCV's contrib modules.
    """
    if spec.name in ORACLES:
        from selector.methods.rank.oracle import OracleRanker

        assert spec.layer is not None
        assert spec.method is not None
        return OracleRanker(backbone, spec.layer, spec.method, ORACLES[spec.name])
    if spec.selected_by is not None:
        from selector.methods.rank.lite import LiteRanker
        from selector.methods.spread import DEFAULT_SPREAD
        from selector.training.files import load_selector

        require_selectors([spec], [] if selector is None else [spec.selected_by])
        assert selector is not None
        spread = DEFAULT_SPREAD if spec.name == LITE_SPREAD else 0.0
        try:
            return LiteRanker(load_selector(selector, backbone, backbone.device), spread)
        except ConfigError as error:
            raise ConfigError(f"method {spec} ({selector}): {error}") from error
    if spec.name in CUES:
        return _make_cue(spec.name, backbone, sampling)
    from selector.methods.rank.chance import RandomRanker, UniformRanker

    return RandomRanker(seed) if spec.name == "random" else UniformRanker()


def _make_cue(name: str, backbone: Backbone, sampling: str) -> Ranker:
    if name == "attention":
        from selector.methods.rank.attention import AttentionRanker

        return AttentionRanker(backbone)
    if name == "motion-vectors":
        from selector.methods.rank.motion_vectors import MotionVectorRanker

        return MotionVectorRanker(backbone, sampling)
    if name == "saliency":
        from selector.methods.rank.saliency import SaliencyRanker

        return SaliencyRanker()
    from selector.methods.rank.motion import MotionRanker, PixelMotionRanker

    return MotionRanker(backbone) if name == "motion" else PixelMotionRanker()
