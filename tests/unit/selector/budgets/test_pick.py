"""Calibration against brute force and against answers known by construction."""

from statistics import NormalDist

import numpy as np
import pytest

from pipeline.errors import ConfigError
from selector.budgets import pick
from selector.budgets.pick import Goal, calibrate_mass, calibrate_thresholds

COSTS = {"gmacs_small": 40.0, "gmacs_base": 80.0, "gmacs_confidence": 1.0}


def rows(num, seed):
    rng = np.random.default_rng(seed)
    # Coarse, so that some confidences are equal.
    confidence = rng.integers(0, 20, num) / 20
    base = rng.random(num) < 0.3 + 0.6 * confidence
    small = np.where(rng.random(num) < 0.2, rng.random(num) < 0.5, base)
    return confidence, small, base


def apply(confidence, small, base, alpha, beta):
    is_small = (confidence < alpha) | (confidence > beta)
    accuracy = np.where(is_small, small, base).mean()
    return accuracy, 1 + np.where(is_small, 40.0, 80.0).mean()


def brute_force(confidence, small, base):
    points = np.r_[-1, np.unique(confidence) - 0.01, np.unique(confidence) + 0.01, 2]
    return [
        apply(confidence, small, base, alpha, beta)
        for alpha in points
        for beta in points
        if alpha <= beta
    ]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("target", [45.0, 60.0, 75.0])
def test_no_thresholds_within_the_cost_are_more_accurate(seed, target):
    data = rows(60, seed)
    alpha, beta, outcome = calibrate_thresholds(*data, **COSTS, goal=Goal(target_gmacs=target))
    accuracy, gmacs = apply(*data, alpha, beta)
    assert (outcome.accuracy, outcome.gmacs) == pytest.approx((accuracy, gmacs))
    assert gmacs <= target + 1e-9
    assert accuracy == pytest.approx(max(a for a, g in brute_force(*data) if g <= target + 1e-9))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("loss", [0.0, 0.02, 0.1])
def test_no_thresholds_within_the_loss_are_cheaper(seed, loss):
    data = rows(60, seed)
    alpha, beta, outcome = calibrate_thresholds(
        *data, **COSTS, goal=Goal(max_loss=loss, certainty=None)
    )
    accuracy, gmacs = apply(*data, alpha, beta)
    assert (outcome.accuracy, outcome.gmacs) == pytest.approx((accuracy, gmacs))
    floor = data[2].mean() - loss - 1e-9
    assert accuracy >= floor
    assert gmacs == pytest.approx(min(g for a, g in brute_force(*data) if a >= floor))


def test_the_middle_is_found_where_only_it_needs_the_base_budget():
    confidence = np.linspace(0.05, 0.95, 19)
    middle = (confidence > 0.3) & (confidence < 0.7)
    base, small = confidence > 0.22, (confidence > 0.22) & ~middle
    alpha, beta, outcome = calibrate_thresholds(
        confidence, small, base, **COSTS, goal=Goal(max_loss=0.0, certainty=None)
    )
    assert alpha == pytest.approx(0.325)
    assert beta == pytest.approx(0.675)
    assert outcome.accuracy == outcome.base_accuracy == pytest.approx(15 / 19)
    assert outcome.gmacs == pytest.approx(1 + (12 * 40 + 7 * 80) / 19)
    assert outcome.base_gmacs == 80


def test_confidences_of_zero_and_one_can_all_get_the_small_budget():
    confidence, wins = np.array([0.0, 0.0, 1.0, 1.0]), np.array([True] * 4)
    alpha, beta, outcome = calibrate_thresholds(
        confidence, wins, ~wins, **COSTS, goal=Goal(max_loss=0.0, certainty=None)
    )
    assert outcome.gmacs == 41
    assert apply(confidence, wins, ~wins, alpha, beta) == (1.0, 41.0)


def test_many_rows_take_no_long_and_stay_within_the_goal():
    data = rows(20_000, 0)
    confidence = np.random.default_rng(0).random(20_000)
    _, _, outcome = calibrate_thresholds(
        confidence, *data[1:], **COSTS, goal=Goal(target_gmacs=60.0)
    )
    assert 58 <= outcome.gmacs <= 60  # 5 % of the rows are 2


def test_thresholds_are_too_coarse_to_fit_single_rows():
    """A row that wins and then one that loses, and so on: there is nothing to find but noise."""
    confidence = (np.arange(2000) + 0.5) / 2000
    small = np.arange(2000) % 2 == 0
    alpha, beta, _ = calibrate_thresholds(
        confidence, small, ~small, **COSTS, goal=Goal(target_gmacs=60.0)
    )
    assert [20 * alpha, 20 * beta] == pytest.approx([round(20 * alpha), round(20 * beta)])


def test_a_cascade_costs_the_small_budget_for_all_and_the_bases_blocks_for_some():
    """The confidence is the small budget's own pass: embedding 5, blocks 35 and 75."""
    confidence = np.linspace(0.05, 0.95, 10)
    base, small = np.ones(10, bool), confidence > 0.3
    costs = {"gmacs_small": 5.0, "gmacs_base": 5.0 + 75.0, "gmacs_confidence": 35.0}
    _, _, outcome = calibrate_thresholds(
        confidence, small, base, **costs, goal=Goal(max_loss=0.0, certainty=None)
    )
    assert outcome.gmacs == pytest.approx(5 + 35 + 0.3 * 75)


def test_the_cheapest_mass_within_the_loss():
    masses = np.array([0.2, 0.5, 0.9])
    level = np.array([[0, 0, 1], [0, 1, 1], [0, 0, 0], [0, 1, 1]])
    correct = np.array([[False, True], [False, True], [True, True], [True, True]])
    common = {"gmacs": np.array([10.0, 20.0]), "gmacs_base": 20.0}
    base = np.ones(4, bool)
    mass, outcome = calibrate_mass(
        masses, level, correct, base, **common, goal=Goal(max_loss=0.25, certainty=None)
    )
    assert mass == 0.5
    assert (outcome.accuracy, outcome.gmacs) == (0.75, 15.0)
    mass, outcome = calibrate_mass(
        masses, level, correct, base, **common, goal=Goal(target_gmacs=10)
    )
    assert mass == 0.2
    assert outcome.accuracy == 0.5


def warning_of(confidence, small, base, goal):
    return calibrate_thresholds(confidence, small, base, **COSTS, goal=goal)[2].warning


def test_a_budget_that_saves_nothing_carries_a_warning():
    """The small budget is always wrong: all get the base, and pay the confidence on top."""
    confidence, base = np.linspace(0, 1, 200), np.ones(200, bool)
    no_loss = Goal(max_loss=0.0, certainty=None)
    assert warning_of(confidence, ~base, base, no_loss) == (
        "it costs 81 GFLOPs, no less than the fixed budget's 80"
    )
    assert warning_of(confidence, confidence > 0.5, base, no_loss) is None


def test_at_a_cost_above_the_bases_more_accuracy_is_a_gain_and_within_a_loss_it_is_none():
    """On a twentieth of the rows the small budget is right and the base wrong."""
    confidence = np.linspace(0, 1, 200)
    small = np.arange(200) < 10
    base = ~small
    costs = COSTS | {"gmacs_confidence": 39.0}
    _, _, outcome = calibrate_thresholds(
        confidence, small, base, **costs, goal=Goal(target_gmacs=119.0)
    )
    assert outcome.gmacs > outcome.base_gmacs
    assert outcome.accuracy > outcome.base_accuracy
    assert outcome.warning is None
    _, _, outcome = calibrate_thresholds(
        confidence, small, base, **costs, goal=Goal(max_loss=0.0, certainty=None)
    )
    assert "no less than" in outcome.warning


def test_few_rows_carry_a_warning_whatever_they_show():
    """On one row nothing is saved; on twelve that are all wrong, nothing can be lost."""
    one, twelve = np.ones(1, bool), np.zeros(12, bool)
    goal = Goal(max_loss=0.006, certainty=None)
    assert "1 rows are too few" in warning_of(np.array([0.5]), ~one, one, goal)
    assert "12 rows are too few" in warning_of(np.linspace(0, 1, 12), twelve, twelve, goal)
    for num, few in ((99, True), (100, False)):
        rows_ = np.ones(num, bool)
        found = warning_of(np.linspace(0, 1, num), rows_, rows_, goal)
        assert (found is not None) == few
        level = np.zeros((num, 1), int)
        _, outcome = calibrate_mass(
            np.array([0.5]), level, rows_[:, None], rows_, gmacs=np.array([1.0]), gmacs_base=2.0,
            goal=goal,
        )  # fmt: skip
        assert (outcome.warning is not None) == few


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ({}, "either"),
        ({"target_gmacs": 1.0, "max_loss": 0.1}, "either"),
        ({"target_gmacs": 0.0}, "above 0"),
        ({"max_loss": 1.0}, r"\[0, 1\)"),
        ({"max_loss": 0.1, "certainty": 0.5}, r"\(0\.5, 1\), got 0\.5"),
        ({"max_loss": 0.1, "certainty": 1.0}, r"\(0\.5, 1\), got 1\.0"),
    ],
)
def test_goals_that_make_no_sense_are_refused(goal, message):
    with pytest.raises(ConfigError, match=message):
        Goal(**goal)


def test_a_bound_may_fail_in_a_part_of_what_the_certainty_leaves():
    """2.5 % and 5 % above, from the normal distribution's table; half of the rows: 1 / sqrt 2."""
    assert Goal(max_loss=0.1).quantile([0.5, 1.0]) == pytest.approx([1.959964, 1.644854])
    assert Goal(max_loss=0.1, share=0.5).quantile() == pytest.approx(1.163087)
    assert Goal(max_loss=0.1, certainty=None).quantile([0.5, 1]).tolist() == [0, 0]
    told = [Goal(max_loss=0.1, certainty=0.9), Goal(target_gmacs=2.0)]
    assert [goal.to_dict()["certainty"] for goal in told] == [0.9, None]


def test_thresholds_share_the_failures_that_the_certainty_leaves(monkeypatch):
    """Half goes to those without a lower side, the rest is dealt among the other 20 sides."""
    seen = []

    def bounds(lost, won, num, z, views):
        seen.append(z)
        return np.zeros(lost.shape)

    monkeypatch.setattr(pick, "_loss_bounds", bounds)
    confidence, right = np.linspace(0, 1, 400), np.ones(400, bool)
    calibrate_thresholds(confidence, right, right, **COSTS, goal=Goal(max_loss=0.1))
    expected = [1.959964, *[NormalDist().inv_cdf(1 - 0.025 / 20)] * 20]
    assert seen[0][:, 0] == pytest.approx(expected)


def test_a_dearer_budget_that_gains_nothing_is_none_at_a_cost_either():
    confidence, right = np.linspace(0, 1, 200), np.ones(200, bool)
    costs = COSTS | {"gmacs_small": 79.0, "gmacs_confidence": 39.0}
    _, _, outcome = calibrate_thresholds(
        confidence, right, right, **costs, goal=Goal(target_gmacs=119.0)
    )
    assert outcome.warning == "it costs 118 GFLOPs, no less than the fixed budget's 80"


def test_a_promise_that_only_the_base_keeps_says_that_videos_are_missing():
    confidence, base = np.linspace(0, 1, 200), np.ones(200, bool)
    assert warning_of(confidence, ~base, base, Goal(max_loss=0.015)) == (
        "it costs 81 GFLOPs, no less than the fixed budget's 80, and no cheaper one is shown to "
        "lose at most 1.50 points on other videos: more videos tell more"
    )


def test_a_goal_out_of_reach_says_what_can_be_reached():
    with pytest.raises(ConfigError, match="30 GFLOPs is below 41"):
        calibrate_thresholds(*rows(10, 0), **COSTS, goal=Goal(target_gmacs=30.0))


def test_no_rows_and_confidences_that_are_no_numbers_are_refused():
    none = np.zeros(0, bool)
    with pytest.raises(ConfigError, match="needs rows"):
        calibrate_thresholds(
            none.astype(float), none, none, **COSTS, goal=Goal(max_loss=0.0, certainty=None)
        )
    one = np.array([True])
    with pytest.raises(ConfigError, match="not a number"):
        calibrate_thresholds(
            np.array([np.nan]), one, one, **COSTS, goal=Goal(max_loss=0.0, certainty=None)
        )


def draw(num, rng):
    """Sure rows never change at the small budget, and of the others one in 20 turns wrong."""
    confidence = rng.random(num)
    base = rng.random(num) < 0.8
    flips = rng.random(num) < np.where(confidence > 0.6, 0.0, 0.05)
    repairs = rng.random(num) < 0.01
    return confidence, np.where(base, ~flips, repairs), base


def loss_of(alpha, beta):
    """By what `draw` does: the share given the small budget, times what that loses there."""
    low, high = np.clip([alpha, beta], 0, 1)
    unsure = min(low, 0.6) + max(0.0, 0.6 - high)
    return unsure * 0.8 * 0.05 - (low + 1 - high) * 0.2 * 0.01


@pytest.mark.parametrize(("certainty", "held"), [(0.95, True), (None, False)])
def test_the_promised_loss_holds_on_other_videos_in_19_of_20_draws(certainty, held):
    """And it does not where the estimate on the drawn videos is taken for the truth."""
    rng = np.random.default_rng(0)
    goal, losses, shares = Goal(max_loss=0.01, certainty=certainty), [], []
    for _ in range(200):
        alpha, beta, outcome = calibrate_thresholds(*draw(800, rng), **COSTS, goal=goal)
        losses.append(loss_of(alpha, beta))
        shares.append(outcome.gmacs < outcome.base_gmacs)
    assert (np.mean(np.array(losses) <= 0.01) >= 0.95) == held
    assert np.mean(shares) > 0.8  # no promise is kept by doing nothing


def test_the_promise_holds_however_many_budgets_are_tried():
    """All that save much lose 0.0105, with much noise, by which one of them often looks good."""
    rng, kept = np.random.default_rng(0), []
    for _ in range(400):
        confidence, base = rng.random(800), rng.random(800) < 0.5
        sure = confidence > 0.9
        small = base ^ (rng.random(800) < np.where(sure, 0.21 * base, 0.3))
        goal = Goal(max_loss=0.01)
        _, beta, _ = calibrate_thresholds(confidence, small, base, **COSTS, goal=goal)
        given = 1 - max(beta, 0.9) if beta < 1 else 0.0  # of the sure ones; the others lose nothing
        kept.append(given * 0.5 * 0.21 <= 0.01)
    assert np.mean(kept) >= 0.95


def test_views_of_one_video_do_not_make_the_promise_surer():
    rng = np.random.default_rng(0)
    rows_, goal = draw(800, rng), Goal(max_loss=0.01)
    alone = calibrate_thresholds(*rows_, **COSTS, goal=goal)
    six = [np.repeat(values, 6) for values in rows_]
    assert calibrate_thresholds(*six, **COSTS, goal=goal, views=6)[:2] == pytest.approx(alone[:2])
    assert calibrate_thresholds(*six, **COSTS, goal=goal)[2].gmacs < alone[2].gmacs


def test_a_loss_that_the_videos_do_not_show_is_refused_and_says_what_they_do():
    right = np.ones((100, 1), bool)
    with pytest.raises(ConfigError, match=r"at most 1\.00 points.*sure to 95% is 2\.63 points"):
        calibrate_mass(
            np.array([0.5]), np.zeros((100, 1), int), right, right[:, 0],
            gmacs=np.array([1.0]), gmacs_base=2.0, goal=Goal(max_loss=0.01),
        )  # fmt: skip
