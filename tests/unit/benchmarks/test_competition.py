"""The comparison of the same videos with and without competitors, by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


def rows(right: dict[str, list[int]]) -> pd.DataFrame:
    """A row per method and video `v0`, `v1`, ...; 1 is right."""
    return pd.DataFrame(
        [
            {"video_id": f"v{i}", "method": method, "label_rank": 1 - value}
            for method, values in right.items()
            for i, value in enumerate(values)
        ]
    )


def test_gains_over_random_are_compared_video_by_video(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from competition import with_and_alone

    beside = rows({"random": [1, 0, 0, 0], "lite": [0, 0, 0, 0]})
    alone = rows({"random": [1, 1, 0, 0], "lite": [1, 1, 1, 0]})
    extra = pd.DataFrame([{"video_id": "other", "method": "lite", "label_rank": 0}])
    found = with_and_alone(beside, pd.concat([alone, extra])).loc["lite"]
    assert found["beside"] == 0
    assert found["alone"] == 75
    assert found["over random"] == -25
    assert found["alone, over random"] == 25
    assert found["more"] == 50
    # per video +100, 0, +100, 0: deviation 57.735, over four videos 28.868, times 1.96
    assert found["+-"] == pytest.approx(56.6, abs=0.05)
