"""The order of the methods on two backbones, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def table(right: dict[str, list[float]], videos: list[str]) -> pd.DataFrame:
    """Videos by methods at half of the tokens; 1 is right."""
    found = pd.DataFrame(right, index=videos)
    found.columns = pd.MultiIndex.from_product([[0.5], found.columns])
    return found


def test_the_correlation_is_of_the_ranks_of_the_methods_means() -> None:
    from method_order import correlation

    # Means 4, 3, 2, 1 of 4 against 3, 4, 1, 2: every rank is off by one, 1 - 6 * 4 / (4 * 15).
    one = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]], float)
    other = one[:, [1, 0, 3, 2]]
    low, observed, high = correlation(one, other)
    assert observed == pytest.approx(0.6)
    assert low <= observed <= high


def test_methods_of_one_backbone_oracles_and_the_full_model_are_not_ranked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from method_order import print_order

    shared = {"a": [1, 1, 1, 1], "b": [1, 1, 1, 0], "c": [1, 0, 0, 0]}
    first = table(shared | {"oracle": [0.0] * 4, "alone": [1.0] * 4}, list("vwxy"))
    backwards = dict(zip("abc", list(shared.values())[::-1], strict=True))
    second = table(backwards | {"oracle": [1.0] * 4}, list("vwxy"))
    print_order({"one": first, "two": second})
    row = capsys.readouterr().out.strip().splitlines()[-1].split(" | ")
    assert row[:3] == ["| 0.5", "one, two", "3"]
    assert row[3].startswith("-1.00 [")
    assert row[4] == "a > b > c |"


def test_the_tables_are_compared_on_the_videos_of_both_in_one_order() -> None:
    from method_order import common_videos

    found = common_videos(
        {"one": table({"a": [1, 0, 1]}, ["x", "y", "z"]), "two": table({"a": [0, 1]}, ["z", "x"])}
    )
    assert [list(t.index) for t in found.values()] == [["x", "z"], ["x", "z"]]
    assert found["two"][0.5, "a"].tolist() == [1, 0]
