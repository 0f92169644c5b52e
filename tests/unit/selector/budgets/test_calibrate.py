"""A budget for a model from made-up rows: what is picked, what is expected of it, what is refused.

Of the made-up rows (`make_lite_evaluation`) the base 0.5 is always right, the small budget 0.3 on
the easy half of the clips, and costs are the tokens of 10 plus 1 for the selector.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import ConfigError
from selector.budgets.calibrate import BudgetRequest, HeldOut, _warnings, calibrate
from selector.budgets.candidates import Mass, Thresholds
from selector.budgets.clip_budget import MassBudget, ThresholdBudget
from selector.budgets.confidence_names import DEFAULT_CONFIDENCE
from selector.budgets.levels import SecondOpinion
from selector.budgets.pick import Goal
from selector.budgets.rows import CalibrationRows, calibration_rows
from selector.deploy.config import LiteConfig
from selector.training.split import halves
from tests.unit.selector.budgets.test_rows import evaluate, save_model

NO_LOSS = Goal(max_loss=0.0, certainty=None)
AT_A_COST = Goal(target_gmacs=5.0)


@pytest.fixture
def rows(tmp_path) -> CalibrationRows:
    model = save_model(tmp_path / "model")
    return calibration_rows(model, evaluate(tmp_path / "e", model))


def with_rank(rows: CalibrationRows, keep_ratio: float, right: np.ndarray) -> CalibrationRows:
    """The same rows with other outcomes at one keep ratio."""
    rank = rows.levels.label_rank.copy()
    rank[:, rows.level(keep_ratio)] = np.where(right, 0, 1)
    return replace(rows, levels=replace(rows.levels, label_rank=rank))


def easy_of(rows: CalibrationRows) -> np.ndarray:
    return rows.levels.is_right[:, rows.level(0.3)]


def test_the_papers_rule_gives_the_easy_and_hopeless_the_small_budget(rows):
    found = calibrate(rows, BudgetRequest(goal=NO_LOSS))
    share = easy_of(rows).mean()
    budget = found.config.budget
    assert isinstance(budget, ThresholdBudget)
    assert (budget.base_ratio, budget.small_ratio) == (0.5, 0.3)
    assert found.config.confidence == "backbone:0.1"
    # Every cut is at 5 % of the rows, so that each side may miss as much.
    assert found.shares[3] == pytest.approx(share, abs=0.1)
    assert found.shares[3] + found.shares[5] == pytest.approx(1)
    # Blocks of 1 token less the embedding for the look, then 4 or 6.
    cost = (1 - 0.5) + 4 * found.shares[3] + 6 * found.shares[5]
    assert found.outcome.gmacs == pytest.approx(cost)
    assert (found.outcome.accuracy, found.outcome.base_accuracy) == (1, 1)
    assert (found.outcome.base_gmacs, found.num_videos) == (6, 400)


def test_a_cascade_is_the_small_budgets_own_confidence(rows):
    """Embedding 0.5, selector 1 and blocks 2.5 for all; 9.5 for those that go on to all tokens."""
    wanted = BudgetRequest(goal=NO_LOSS, base_ratio=1.0, small_ratio=0.3, confidence="backbone:0.3")
    found = calibrate(rows, wanted)
    share = easy_of(rows).mean()
    assert found.config.confidence == "backbone:0.3"
    assert found.shares == pytest.approx({3: share, 10: 1 - share}, abs=0.05)
    assert found.outcome.gmacs == pytest.approx(4 + 9.5 * found.shares[10])


def test_the_mass_that_tells_easy_from_hard_is_found(rows):
    found = calibrate(rows, BudgetRequest(goal=NO_LOSS, kind="mass"))
    share = easy_of(rows).mean()
    budget = found.config.budget
    assert isinstance(budget, MassBudget)
    assert budget.levels == (0.1, 0.3, 0.5)
    assert 0.41 * 0.8 < budget.mass <= 0.9 * 0.8  # what the hard and the easy hold at 0.3
    assert found.shares == pytest.approx({3: share, 5: 1 - share})
    assert found.config.confidence == DEFAULT_CONFIDENCE
    assert found.warnings == ()  # it beats any mixture of 0.3 and 0.5, and loses nothing


@pytest.mark.parametrize("kind", ["threshold", "mass"])
def test_what_to_expect_is_each_half_under_the_others_budget(rows, kind):
    """Noise on the outcomes, so that the halves pick differently."""
    rng = np.random.default_rng(1)
    rows = with_rank(rows, 0.3, easy_of(rows) & (rng.random(400) < 0.9))
    rows = with_rank(rows, 0.5, rng.random(400) < 0.95)
    goal = Goal(max_loss=0.05, certainty=None)
    found = calibrate(rows, BudgetRequest(goal=goal, kind=kind))
    levels = rows.levels
    rule = Mass(base=2) if kind == "mass" else Thresholds(base=2, small=1, asked=0)
    half = halves(rows.video_ids)
    right, gmacs = np.zeros(400), np.zeros(400)
    for judged in (half, ~half):
        picked, _ = rule.pick(levels.of(~judged), goal)
        for row in np.flatnonzero(judged):
            if kind == "mass":
                held = [level for level in (0, 1, 2) if levels.mass[row, level] >= picked[0]]
                level = min(held, default=2)
                gmacs[row] = (2, 4, 6)[level]
            else:
                sure = levels.confidence[row, 0]
                level = 1 if sure < picked[0] or sure > picked[1] else 2
                gmacs[row] = 0.5 + (4 if level == 1 else 6)
            right[row] = levels.label_rank[row, level] == 0
    base = (levels.label_rank[:, 2] == 0).mean()
    assert found.held_out.accuracy == pytest.approx(right.mean())
    assert found.held_out.gmacs == pytest.approx(gmacs.mean())
    held_out = found.held_out
    assert held_out.difference == pytest.approx(right.mean() - base)
    spread = 1.96 * (right - (levels.label_rank[:, 2] == 0)).std() / 20  # of 400 clips
    ends = (held_out.difference - spread, held_out.difference + spread)
    found_ends = (held_out.difference_low, held_out.difference_high)
    assert found_ends == pytest.approx(ends, abs=0.1 * spread)
    # The mixture lies on the line between the neighbours 4 and 6 (kept 3 and 5).
    line = np.interp(gmacs.mean(), [4, 6], [(levels.label_rank[:, 1] == 0).mean(), base])
    assert found.held_out.gain == pytest.approx(right.mean() - line)
    assert found.held_out.gain_low < found.held_out.gain < found.held_out.gain_high


def test_the_intervals_are_over_videos_and_not_over_their_views(tmp_path):
    """Four equal views of a video say no more than one: a fourth of the rows, the same interval."""
    model = save_model(tmp_path / "model")
    one = calibration_rows(model, evaluate(tmp_path / "one", model, num_videos=200))
    rng = np.random.default_rng(1)
    one = with_rank(one, 0.5, rng.random(200) < 0.9)
    again = np.repeat(np.arange(200), 4)
    levels = replace(
        one.levels,
        label_rank=one.levels.label_rank[again],
        confidence=one.levels.confidence[again],
        mass=one.levels.mass[again],
    )
    videos = one.video_ids[again]
    four = replace(one, levels=levels, video_ids=videos, units=videos, clip_ids=again)
    wanted = BudgetRequest(goal=Goal(max_loss=0.05, certainty=None), kind="mass")
    few, many = (calibrate(rows, wanted).held_out for rows in (one, four))
    # Clips of one group are the same to it as views of one video.
    names = np.array([f"clip {i}" for i in range(len(four.video_ids))], object)
    assert calibrate(replace(four, video_ids=names), wanted).held_out == many
    assert vars(many) == pytest.approx(vars(few))
    assert few.difference_high - few.difference_low > 0.01


def test_a_second_model_is_asked_about_the_rows_that_count_and_paid_by_all(tmp_path):
    model = save_model(tmp_path / "model")
    rows = calibration_rows(model, evaluate(tmp_path / "e", model, split="train"))
    asked = []

    def judge(name, clip_ids):
        asked.append((name, clip_ids.tolist()))
        sure = np.where(easy_of(rows), 0.9, 0.5)
        sure[:3] = np.nan
        return SecondOpinion(sure, 0.25)

    found = calibrate(rows, BudgetRequest(goal=NO_LOSS, confidence="hf:judge"), judge)
    assert asked == [("hf:judge", rows.clip_ids.tolist())]
    assert found.config.confidence == "hf:judge"
    share = easy_of(rows)[3:].mean()
    assert found.shares == pytest.approx({3: share, 5: 1 - share})
    assert found.outcome.gmacs == pytest.approx(0.25 + 4 * share + 6 * (1 - share))
    assert found.num_failed == 3
    assert found.num_trained_on == 400 - len(rows.clip_ids)
    with pytest.raises(ConfigError, match=r"confidence of hf:judge: .* --data-root"):
        calibrate(rows, BudgetRequest(goal=NO_LOSS, confidence="hf:judge"))


def test_the_base_is_the_models_keep_ratio_unless_one_is_given(rows):
    rows = replace(rows, model=LiteConfig(keep_ratio=0.3))
    with pytest.raises(ConfigError, match=r"at keep ratio 0\.2\. "):  # the small budget from 0.3
        calibrate(rows, BudgetRequest(goal=NO_LOSS))
    found = calibrate(rows, BudgetRequest(goal=NO_LOSS, base_ratio=0.5))
    assert found.config.budget.base_ratio == 0.5
    assert found.config.keep_ratio == 0.3  # what the model does without --adaptive is its own


def test_all_tokens_may_be_the_base(rows):
    wanted = BudgetRequest(goal=NO_LOSS, base_ratio=1.0, small_ratio=0.3)
    found = calibrate(rows, wanted)
    assert found.outcome.base_gmacs == 10  # without the selector
    assert found.outcome.gmacs == pytest.approx(0.5 + 4 * found.shares[3] + 11 * found.shares[10])


def test_what_saves_nothing_is_refused(rows):
    """The small budget is always wrong, so that all would get the base and pay a look on top."""
    rows = with_rank(rows, 0.3, np.zeros(400, bool))
    with pytest.raises(ConfigError, match=r"no budget for lite\+\+ from 0\.5: it costs 6\.5 GFLO"):
        calibrate(rows, BudgetRequest(goal=NO_LOSS))


@pytest.mark.parametrize("kind", ["threshold", "mass"])
def test_what_gives_every_clip_the_same_is_a_fixed_budget(rows, kind):
    """The small budget is always right, so that all get it: for less without looking at them."""
    rows = with_rank(with_rank(rows, 0.3, np.ones(400, bool)), 0.5, np.arange(400) < 390)
    message = "every clip the same 3 tokens, as a fixed keep ratio of 0.3"
    with pytest.raises(ConfigError, match=message):
        calibrate(rows, BudgetRequest(goal=NO_LOSS, kind=kind))


def test_what_saves_only_where_it_was_picked_is_refused(rows):
    """One half has easy clips of low confidence, the other of high; neither helps the other."""
    half, rng = halves(rows.video_ids), np.random.default_rng(0)
    easy = rng.random(400) < 0.6
    confidence = rows.levels.confidence.copy()
    confidence[:, 0] = np.where(
        easy, np.where(half, 0.9, 0.1) + 0.1 * rng.random(400), 0.4 + 0.2 * rng.random(400)
    )
    rows = with_rank(replace(rows, levels=replace(rows.levels, confidence=confidence)), 0.3, easy)
    _, outcome = Thresholds(base=2, small=1, asked=0).pick(rows.levels, NO_LOSS)
    assert outcome.gmacs == pytest.approx(5.5)
    message = r"on one half of the videos it costs 6\.5 GFLOPs on the other, .* budget's 6$"
    with pytest.raises(ConfigError, match=message):
        calibrate(rows, BudgetRequest(goal=NO_LOSS))


def test_labels_that_are_not_the_checkpoints_tell_nothing(rows):
    """Right on a third of the clips, among three classes."""
    rows = with_rank(rows, 0.5, np.arange(400) % 3 == 0)
    with pytest.raises(ConfigError, match=r"134 of 400 clips .* chance among 3 classes"):
        calibrate(rows, BudgetRequest(goal=NO_LOSS))
    # Half of them is more than chance.
    calibrate(with_rank(rows, 0.5, np.arange(400) % 2 == 0), BudgetRequest(goal=AT_A_COST))
    with pytest.raises(ConfigError, match="0 of 400 clips"):
        calibrate(with_rank(rows, 0.5, np.zeros(400, bool)), BudgetRequest(goal=NO_LOSS))


def test_a_loss_above_the_allowed_one_is_warned_about(rows):
    """Confidences that say nothing: what is picked on one half is luck on the other."""
    rng = np.random.default_rng(3)
    confidence = rows.levels.confidence.copy()
    confidence[:, 0] = rng.random(400)
    rows = replace(rows, levels=replace(rows.levels, confidence=confidence))
    rows = with_rank(rows, 0.3, rng.random(400) < 0.7)
    rows = with_rank(rows, 0.5, rng.random(400) < 0.75)
    found = calibrate(rows, BudgetRequest(goal=Goal(max_loss=0.0, certainty=None)))
    assert found.held_out.difference < 0
    assert any("more than the 0.00 allowed" in text for text in found.warnings)
    assert any("do not show that it is more accurate" in text for text in found.warnings)
    assert found.config.calibration["warnings"] == list(found.warnings)


def test_a_budget_below_any_mixture_says_to_use_a_fixed_one(rows):
    """A confidence that says nothing: its cost of 0.5 would buy a fourth of the clips the base."""
    confidence = rows.levels.confidence.copy()
    confidence[:, 0] = np.random.default_rng(3).random(400)
    rows = replace(rows, levels=replace(rows.levels, confidence=confidence))
    found = calibrate(rows, BudgetRequest(goal=Goal(target_gmacs=5.0)))
    assert found.held_out.gain_high < 0
    assert any("use one of them" in text for text in found.warnings)


def test_what_was_found_goes_into_the_configuration(rows):
    found = calibrate(rows, BudgetRequest(goal=Goal(max_loss=0.01, certainty=None)))
    stored = found.config.calibration
    assert stored["goal"] == {"target_gmacs": None, "max_loss": 0.01, "certainty": None}
    assert (stored["dataset"], stored["split"]) == ("csv", "all")
    assert stored["evaluation"] == rows.evaluation.config.fingerprint()
    assert stored["held_out"]["gain"] == found.held_out.gain
    assert stored["outcome"]["num_rows"] == 400
    kept = {str(num): share for num, share in found.shares.items()}
    assert stored["shares"] == kept
    assert set(kept) == {"3", "5"}


def test_where_no_answer_changes_wilsons_bound_says_what_might(rows):
    """Of 400 clips none loses or wins: as many as 3.84 / (400 + 3.84) of all still may."""
    held_out = calibrate(rows, BudgetRequest(goal=NO_LOSS, kind="mass")).held_out
    most = 1.96**2 / (400 + 1.96**2)
    ends = (held_out.difference_low, held_out.difference, held_out.difference_high)
    assert ends == pytest.approx((-most, 0, most), rel=1e-3)


@pytest.mark.parametrize("kind", ["threshold", "mass"])
def test_a_promise_rests_on_videos_and_not_on_their_views(tmp_path, kind):
    """Every clip four times, as the views of a video, allows what one of each does."""
    model = save_model(tmp_path / "model")
    one = calibration_rows(model, evaluate(tmp_path / "one", model))
    one = with_rank(one, 0.3, easy_of(one) & (np.random.default_rng(1).random(400) < 0.95))
    again = np.repeat(np.arange(400), 4)
    of = {n: getattr(one.levels, n)[again] for n in ("label_rank", "confidence", "mass")}
    rule = Mass(base=2) if kind == "mass" else Thresholds(base=2, small=1, asked=0)
    goal = Goal(max_loss=0.04)
    picked, _ = rule.pick(one.levels, goal)
    assert rule.pick(replace(one.levels, views=4, **of), goal)[0] == pytest.approx(picked)
    # As so many videos of their own they would show more.
    assert rule.pick(replace(one.levels, **of), goal)[0] != pytest.approx(picked)


def test_what_speaks_against_a_budget_is_said_in_points_and_gflops():
    found = HeldOut(
        gmacs=5.06, accuracy=0.7, difference=-0.0123, difference_low=-0.1, difference_high=0.1,
        gain=0.1, gain_low=0.01, gain_high=0.2,
    )  # fmt: skip
    (loss,) = _warnings(Goal(max_loss=0.005), found)
    assert loss == (
        "on videos that it was not picked on it loses 1.23 points, more than the 0.50 allowed"
    )
    (cost,) = _warnings(Goal(target_gmacs=5.0), found)
    assert cost == (
        "on videos that it was not picked on it costs 5.06 GFLOPs, more than the 5 asked for"
    )
    # A hundredth more is a matter of which rows there are.
    assert list(_warnings(Goal(target_gmacs=5.02), found)) == []
    assert list(_warnings(Goal(max_loss=0.0123), found)) == []
    below = replace(found, gain=-0.1, gain_low=-0.2, gain_high=-0.01)
    assert list(_warnings(Goal(target_gmacs=6.0), below)) == [
        "fixed keep ratios of the same cost are more accurate: use one of them"
    ]
    level = replace(found, gain=0.0, gain_low=0.0)
    assert list(_warnings(Goal(target_gmacs=6.0), level)) == [
        "these videos do not show that it is more accurate than fixed ratios of its cost"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "mood"}, "budget must be one of threshold, mass"),
        ({"kind": "mass", "confidence": "backbone:0.3"}, "belong to the threshold budget"),
        ({"kind": "mass", "small_ratio": 0.3}, "belong to the threshold budget"),
        ({"base_ratio": 0.3, "small_ratio": 0.5}, "must be below the base"),
        ({"confidence": "backbone:some"}, "names no keep ratio"),
        ({"confidence": "backbone:0.05"}, r"at keep ratio 0\.05\. "),
        ({"base_ratio": 0.7}, r"at keep ratio 0\.7\. "),
        ({"kind": "mass", "base_ratio": 0.7}, r"at keep ratio 0\.7\. "),
        ({"goal": Goal(target_gmacs=1.0)}, "1 GFLOPs is below 4.5, the cheapest possible"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(rows, changes, message):
    with pytest.raises(ConfigError, match=message):
        calibrate(rows, BudgetRequest(**({"goal": NO_LOSS} | changes)))
