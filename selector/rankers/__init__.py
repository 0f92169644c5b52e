"""Ways of choosing which tokens a clip keeps: one interface, a score per token before block 1.

To add one: a `Ranker` in a file of its own, its name in `spec.NAMES`, its construction here.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.backbones.base import Backbone
from pipeline.errors import ConfigError
from selector.rankers.base import ClipBatch, Ranker
from selector.rankers.spec import CUES, NAMES, ORACLES, RankerSpec, parse_specs

__all__ = ["NAMES", "ClipBatch", "Ranker", "RankerSpec", "make_ranker", "parse_specs"]


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
        selector: folder of the trained selector, for `lite`.
        sampling: how the clips' frames were sampled, for `motion-vectors`.

    Raises:
        ConfigError: `lite` without a selector or with one of another backbone; an oracle of a
            layer or method that does not exist; `saliency` without OpenCV's contrib modules.
    """
    if spec.name in ORACLES:
        from selector.rankers.oracle import OracleRanker

        assert spec.layer is not None
        assert spec.method is not None
        return OracleRanker(backbone, spec.layer, spec.method, ORACLES[spec.name])
    if spec.name == "lite":
        from selector.rankers.lite import LiteRanker
        from selector.saving import load_selector

        if selector is None:
            raise ConfigError(
                "method lite needs a trained selector: give its folder with --selector DIR, or "
                "make one with `lite-pipeline train-selector`"
            )
        return LiteRanker(load_selector(selector, backbone, backbone.device))
    if spec.name in CUES:
        return _make_cue(spec.name, backbone, sampling)
    from selector.rankers.chance import RandomRanker, UniformRanker

    return RandomRanker(seed) if spec.name == "random" else UniformRanker()


def _make_cue(name: str, backbone: Backbone, sampling: str) -> Ranker:
    if name == "attention":
        from selector.rankers.attention import AttentionRanker

        return AttentionRanker(backbone)
    if name == "motion-vectors":
        from selector.rankers.motion_vectors import MotionVectorRanker

        return MotionVectorRanker(backbone, sampling)
    if name == "saliency":
        from selector.rankers.saliency import SaliencyRanker

        return SaliencyRanker()
    from selector.rankers.motion import MotionRanker, PixelMotionRanker

    return MotionRanker(backbone) if name == "motion" else PixelMotionRanker()
