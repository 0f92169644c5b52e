"""The table of training masks by test masks: what may share it, and what is compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def matrix(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import adaptation_matrix

    return adaptation_matrix


def test_a_row_of_other_settings_is_not_mixed_in(matrix, tmp_path: Path) -> None:
    asked = object.__new__(matrix.Matrix)
    asked.settings = {"steps": 100}
    row = tmp_path / "lite-0.json"
    row.write_text(json.dumps({"settings": {"steps": 50}, "right": {}, "top1": {}}))
    with pytest.raises(ConfigError, match="'steps': 50.*not.*'steps': 100"):
        asked.complete(row, "lite", 0)


def test_seeds_compare_in_the_cells_that_all_of_them_have(matrix) -> None:
    right = np.array([True, False])
    stacked = matrix._stacked([{"lite@1": right, "tome@1": right}, {"lite@1": ~right}])
    assert list(stacked) == ["lite@1"]
    assert stacked["lite@1"].tolist() == [[True, False], [False, True]]


def test_what_a_law_is_tested_on_as_its_own(matrix) -> None:
    assert matrix.masks_of("lite:distilled") == "lite"
    assert matrix.masks_of("lite-spread") == "lite-spread"
