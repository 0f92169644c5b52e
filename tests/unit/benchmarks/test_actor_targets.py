"""What a selector is taught by the actors: the labelled one, or all who act, and no bystander."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets_spec.synthetic.actors import NO_ACTION, Body
from pipeline.clips.grid import TokenGrid

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


def body(actor: int, action: int, x0: float) -> Body:
    """Four pixels wide and high from `x0` on, in a video of 8x8 and two frames."""
    box = [x0, 0.0, x0 + 4, 4.0]
    return Body(actor, action, 1.0, 8, 8, np.array([box, box], np.float32))


def test_who_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from actor_targets import actor_cover

    bodies = [body(0, 3, 0.0), body(1, 5, 4.0), body(2, NO_ACTION, 2.0)]
    frames, grid = np.array([0, 1]), TokenGrid(1, 2, 2)
    labelled = actor_cover(bodies, frames, grid, "labelled")
    assert labelled.tolist() == [[[1, 0], [0, 0]]]
    assert actor_cover(bodies, frames, grid, "all").tolist() == [[[1, 1], [0, 0]]]
