"""The notebook runs from top to bottom, and what it prints is so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "tour.ipynb"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="the notebook is not run: no nbformat")
    nbclient = pytest.importorskip("nbclient", reason="the notebook is not run: no nbclient")
    pytest.importorskip("ipykernel", reason="the notebook is not run: no ipykernel")
    notebook = nbformat.read(NOTEBOOK, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code), "strip it"
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    printed = "".join(o.get("text", "") for cell in code for o in cell.outputs)
    pictures = sum("image/png" in o.get("data", {}) for cell in code for o in cell.outputs)
    assert pictures == 2

    # From the array in place of the table, by the ranks in place of the curve.
    maps = zarr.open_group(tmp_path / "tour" / "store" / "oracle.zarr", mode="r")
    scores = np.sort(np.asarray(maps["scores"][:], np.float64).ravel())
    assert not np.isnan(scores).any()
    ranks = np.arange(1, len(scores) + 1)
    gini = ((2 * ranks - len(scores) - 1) * scores).sum() / (len(scores) * scores.sum())
    assert said("Gini coefficient of all tokens", printed) == pytest.approx(gini, abs=2e-6)

    # By the class that was said in place of the label's rank.
    rows = pd.read_parquet(tmp_path / "tour" / "evaluation" / "results")
    own = rows[(rows["method"] == "lite-spread") & (rows["keep_ratio"] == 0.5)]
    right = [answer == label for answer, label in zip(own["prediction"], own["label"], strict=True)]
    assert len(right) >= 10
    top1 = said("top-1 of lite-spread at half", printed)
    assert top1 == pytest.approx(sum(right) / len(right), abs=1e-6)


def said(what: str, printed: str) -> float:
    found = re.search(rf"{what}: ([\d.]+)", printed)
    assert found, f"the notebook does not say: {what}"
    return float(found[1])
