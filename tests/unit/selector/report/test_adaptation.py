"""The adaptation matrix as it is read: means over seeds, gains on the same videos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import StoreError
from selector.report.adaptation import heat_map, read_matrix, said


def write(
    folder: Path, train: str, seed: int, right: dict[str, list[int]], best_step: int = 5
) -> None:
    rows = folder / "rows"
    rows.mkdir(parents=True, exist_ok=True)
    packed = {test: np.packbits(bits).tobytes().hex() for test, bits in right.items()}
    videos = len(next(iter(right.values())))
    content = {"train": train, "seed": seed, "videos": videos, "right": packed}
    content["best_step"] = best_step
    (rows / f"{train}-{seed}.json").write_text(json.dumps(content))


def bits(number: int) -> list[int]:
    """Of ten videos, so many are right."""
    return [1] * number + [0] * (10 - number)


def test_means_and_gains_by_hand(tmp_path: Path):
    write(tmp_path, "none", 0, {"full@1": bits(9), "lite@0.5": bits(4), "random@0.5": bits(6)})
    for seed, number in enumerate((7, 9)):
        right = {"full@1": bits(8), "lite@0.5": bits(number), "random@0.5": bits(6)}
        write(tmp_path, "lite", seed, right)
    frame = read_matrix(tmp_path).set_index(["train", "test"])
    cell = frame.loc["lite", "lite"]
    assert (cell["num_seeds"], cell["num_videos"]) == (2, 10)
    assert cell["top1"] == pytest.approx(0.8)
    assert cell["gain"] == pytest.approx(0.4)
    assert cell["gain_low"] < 0.4 < cell["gain_high"]
    assert frame.loc["lite", "full"]["gain"] == pytest.approx(-0.1)
    lines = said(frame.reset_index())
    assert "the best of 4 is adapted with lite masks, tested with lite: 80.0 %, +40.0 " in lines[0]
    assert "With all tokens, adapted with lite masks, top-1 changes by -10.0 points" in lines[1]
    picture = heat_map(frame.reset_index().query("test != 'full'"), 0.5)
    shown = [text.get_text() for text in picture.axes[0].texts]
    assert sorted(shown) == ["40.0", "60.0", "60.0", "80.0"]


def test_the_best_is_what_is_right_and_not_what_gains_most(tmp_path: Path):
    write(tmp_path, "none", 0, {"tome@0.5": bits(2), "prior@0.5": bits(9), "prior@0.1": bits(3)})
    write(tmp_path, "lite", 0, {"tome@0.5": bits(6), "prior@0.5": bits(8), "prior@0.1": bits(5)})
    half, tenth = said(read_matrix(tmp_path))
    assert half.endswith("keep ratio 0.5 the best of 4 is not adapted, tested with prior: 90.0 %.")
    assert "keep ratio 0.1 the best of 2 is adapted with lite masks" in tenth


def test_a_training_that_changed_nothing_is_said_to_be_one(tmp_path: Path):
    right = {"full@1": bits(9), "lite@0.5": bits(4)}
    write(tmp_path, "none", 0, right, best_step=0)
    write(tmp_path, "uniform", 0, right, best_step=0)
    write(tmp_path, "prior", 0, right, best_step=0)
    write(tmp_path, "prior", 1, right)
    frame = read_matrix(tmp_path)
    assert frame.groupby("train")["num_unchanged"].max().to_dict() == {
        "none": 0,
        "prior": 1,
        "uniform": 1,
    }
    stayed = [line for line in said(frame) if "stayed as it was" in line]
    assert len(stayed) == 1
    assert stayed[0].startswith("Adapted with uniform masks")


def test_what_is_no_matrix(tmp_path: Path):
    with pytest.raises(StoreError, match=r"no rows .*adaptation_matrix.py"):
        read_matrix(tmp_path)
    write(tmp_path, "none", 0, {"lite@0.5": bits(4)})
    assert "nothing compares" in said(read_matrix(tmp_path))[0]
    write(tmp_path, "lite", 0, {"lite@0.5": [1, 0, 1]})
    with pytest.raises(StoreError, match=r"\[3, 10\] videos"):
        read_matrix(tmp_path)
    (tmp_path / "rows" / "lite-0.json").write_text("{}")
    with pytest.raises(StoreError, match=r"lite-0.json is no row"):
        read_matrix(tmp_path)
