"""Which confidence foretells right answers, and the rules that are compared, by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.errors import ConfigError
from selector.budgets.levels import Levels, SecondOpinion

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
MOVINET = "movinet:A0@movinet.pth"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def levels(num: int = 400) -> Levels:
    """Small (.2) and base (.3) budgets of which the small one is wrong in every fourth row."""
    ratios = (0.1, 0.2, 0.3, 0.5, 1.0)
    rank = np.zeros((num, 5), np.int64)
    rank[::4, :2] = 1
    rng = np.random.default_rng(0)
    return Levels(
        method="lite",
        keep_ratios=ratios,
        num_kept=np.array([10, 20, 30, 50, 100]),
        gmacs=np.array([1.0, 2.0, 3.0, 5.0, 10.0]),
        gmacs_blocks=np.array([0.9, 1.9, 2.9, 4.9, 9.9]),
        gmacs_embed=0.1,
        label_rank=rank,
        confidence=rng.uniform(size=(num, 5)),
        mass=np.ones((num, 5)),
    )


def test_auroc_counts_pairs() -> None:
    from confidences import auroc

    confidence = np.array([0.1, 0.4, 0.4, 0.8, 0.9])
    is_right = np.array([False, True, False, False, True])
    # Right 0.4 against wrong 0.1, 0.4, 0.8: 1 + 0.5 + 0; right 0.9: 3. Of six pairs.
    assert auroc(confidence, is_right) == pytest.approx(4.5 / 6)


def test_rules_are_those_whose_small_budget_was_evaluated_and_is_not_the_cheap_pass() -> None:
    from confidences import rules

    found = replace(levels(), opinions={MOVINET: SecondOpinion(np.zeros(400), 0.01)})
    asked = {name: (rule.base, rule.small, rule.asked) for name, rule in rules(found, 0.3).items()}
    assert asked == {
        "cheap pass": (2, 1, 0),
        "cascade": (2, 1, 1),
        "movinet:A0": (2, 1, MOVINET),
    }
    assert rules(found, 0.2) == {}  # it is the small budget itself
    assert rules(found, 0.7) == {}  # not evaluated
    without = replace(found, keep_ratios=(0.2, 0.25, 0.3, 0.5, 1.0))
    assert rules(without, 0.3) == {}  # the cheap pass is its small budget: the cascade's twin


def test_a_confidence_that_knows_gains_over_the_mixture(capsys: pytest.CaptureFixture[str]) -> None:
    from confidences import print_budgets

    found = levels()
    knows = np.where(found.is_right[:, 1], 0.9, 0.5) + np.linspace(0, 0.01, 400)
    found = replace(found, opinions={MOVINET: SecondOpinion(knows, 0.0)})
    units = np.array([f"v{n}" for n in range(400)], object)
    print_budgets(SimpleNamespace(levels=found, units=units), [0.3], None)  # type: ignore[arg-type]
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("| movinet:A0"))
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    share, gmacs, top1, against_base = (cells[n] for n in (2, 3, 4, 5))
    # Three of four rows can do with the small budget and lose nothing: 3 - 0.75 = 2.25.
    assert 70 <= int(share.split()[0]) <= 75
    assert float(gmacs.split()[0]) == pytest.approx(2.25, abs=0.05)
    assert float(top1) == pytest.approx(100, abs=0.6)
    assert against_base.startswith(("+0.0", "-0."))


def test_a_clip_that_a_model_cannot_judge_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import confidences

    found = levels()
    rows = SimpleNamespace(
        levels=found, clip_ids=np.arange(400), evaluation=SimpleNamespace(root="E")
    )
    opinion = SecondOpinion(np.r_[np.nan, np.zeros(399)], 0.01)
    monkeypatch.setattr(confidences, "ask_second_model", lambda *args: opinion)
    with pytest.raises(ConfigError, match="could not judge every clip of E"):
        confidences.with_opinions(rows, [MOVINET], None)
