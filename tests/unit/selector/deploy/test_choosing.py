"""Choosing by measurement: expected values counted by hand on rows that are written here."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import ConfigError
from selector.deploy.choosing import Wanted, better_spread, choose
from selector.evaluation.report.table import Entry
from selector.training.files import selector_digest
from tests.evaluations import make_evaluation
from tests.unit.selector.budgets.test_rows import save_model

NUM = 40
HALF = np.arange(NUM) % 2 == 0


def line(method, ratio, gmacs, wrong):
    """A line that is wrong about the given videos, and right about all others."""
    right = np.ones((NUM, 1))
    right[list(wrong)] = 0.0
    return Entry(
        method=method,
        keep_ratio=ratio,
        num_kept=10.0,
        gmacs=gmacs,
        gmacs_backbone=gmacs or 0.0,
        clips_per_s=None,
        top1=right,
        top5=right,
    )


FULL = line("full", 1.0, 100.0, [0, 1])
LINES = [
    line("lite", 0.7, 60.0, [0]),
    line("lite", 0.5, 45.0, [0, 1, 2, 3]),
    line("uniform", 0.5, 44.0, [0, 1, 2, 3, 4]),
    line("lite", 0.2, 15.0, range(10)),
    line("oracle", 0.5, None, []),
]


def test_the_most_accurate_that_is_cheap_enough():
    choice = choose(LINES, FULL, Wanted(speedup=2.0), HALF)
    assert (choice.line.method, choice.line.keep_ratio) == ("lite", 0.5)
    assert choice.against_full.mean == pytest.approx(-2 / NUM)
    assert choice.against_full.low <= -2 / NUM <= choice.against_full.high
    assert choice.speedup == pytest.approx(100 / 45)
    assert choice.num_lines == 3
    other, gain = choice.next_best
    assert (other.method, gain.mean) == ("uniform", pytest.approx(1 / NUM))


def test_the_cheapest_that_loses_little_enough():
    for allowed, expected in ((0.0, 0.7), (2 / NUM, 0.5), (2.9 / NUM, 0.5), (8 / NUM, 0.2)):
        choice = choose(LINES, FULL, Wanted(max_loss=allowed), HALF)
        assert (choice.line.method, choice.line.keep_ratio) == ("lite", expected)
    # One wrong answer more is allowed, and the grid is a little cheaper.
    assert choose(LINES, FULL, Wanted(max_loss=3 / NUM), HALF).line.method == "uniform"


def test_equal_accuracies_go_to_the_cheaper():
    lines = [line("one", 0.5, 45.0, [0]), line("two", 0.5, 44.0, [1])]
    assert choose(lines, FULL, Wanted(speedup=2.0), HALF).line.method == "two"


def test_what_is_picked_on_one_half_is_judged_on_the_other():
    """Each line is perfect on one half and wrong about the other: picking by it flatters fully."""
    even, odd = range(0, NUM, 2), range(1, NUM, 2)
    lines = [line("one", 0.5, 40.0, list(even)[:12]), line("two", 0.5, 40.0, list(odd)[:11])]
    full = line("full", 1.0, 100.0, [])
    choice = choose(lines, full, Wanted(speedup=2.0), HALF)
    assert choice.line.method == "two"
    assert choice.against_full.mean == pytest.approx(-11 / NUM)
    # On the even videos "two" is best, and wrong about 11 of the odd; and the other way round.
    assert choice.expected.mean == pytest.approx(-(12 + 11) / NUM)


@pytest.mark.parametrize(
    ("wanted", "fault"),
    [
        (Wanted(speedup=8.0), "nothing that was evaluated is 8 times cheaper, the most is 6.67"),
        (Wanted(max_loss=0.0), "loses at most 0 points: the least is 5.00, by lite at keep ratio"),
    ],
)
def test_a_goal_out_of_reach_says_what_there_is(wanted, fault):
    lines = LINES[1:] if wanted.speedup is None else LINES
    with pytest.raises(ConfigError, match=fault):
        choose(lines, FULL, wanted, HALF)


def test_videos_of_a_group_are_one_draw():
    """Four of each: the interval is that of the groups alone, and too few groups are refused."""
    groups = np.repeat([f"g{i}" for i in range(NUM)], 4)
    full, lines = line("full", 1.0, 100.0, [0, 1]), [line("lite", 0.5, 45.0, [0, 1, 2, 3, 4])]
    alone = choose(lines, full, Wanted(speedup=2.0), HALF)
    for each in (full, *lines):
        object.__setattr__(each, "top1", np.repeat(each.top1, 4, axis=0))
    half = np.repeat(HALF, 4)
    found = choose(lines, full, Wanted(speedup=2.0), half, groups)
    assert found.num_videos == 4 * NUM
    assert found.against_full == pytest.approx(alone.against_full)
    narrow = choose(lines, full, Wanted(speedup=2.0), half).against_full
    assert narrow.high - narrow.low < 0.7 * (found.against_full.high - found.against_full.low)
    few = np.repeat(list("abcd"), 40)
    with pytest.raises(ConfigError, match="160 videos, of 4 groups, are left"):
        choose(lines, full, Wanted(speedup=2.0), few < "c", few)


def test_too_few_videos_to_tell():
    few = [line("lite", 0.5, 45.0, [])]
    for each in (few[0], cut := line("full", 1.0, 100.0, [])):
        object.__setattr__(each, "top1", each.top1[:29])
    with pytest.raises(ConfigError, match="29 videos are left to judge by"):
        choose(few, cut, Wanted(speedup=2.0), HALF[:29])


@pytest.mark.parametrize(
    "options",
    [{}, {"speedup": 2.0, "max_loss": 0.1}, {"speedup": 1.0}, {"max_loss": 1.0}, {"max_loss": -1}],
)
def test_goals_that_are_none(options):
    with pytest.raises(ConfigError):
        Wanted(**options)


def spread_rows(tmp_path, best, sampled, videos=120):
    """A model, and an evaluation in which its first so many videos are right."""
    model = save_model(tmp_path / "model")
    logits = np.zeros((videos, 3, 3))
    logits[:, 0, 0] = 5  # the full model is always right
    for column, num in ((1, best), (2, sampled)):
        logits[:num, column, 0] = 5
        logits[num:, column, 1] = 5
    evaluation = make_evaluation(
        tmp_path / "e",
        logits,
        [0] * videos,
        methods=("lite", "lite-spread"),
        keep_ratios=(1.0, 0.5),
        selector_digests={"lite": selector_digest(model)},
        shard_size=64,
    )
    return model, evaluation


@pytest.mark.parametrize(("best", "sampled", "better"), [(60, 90, 2.0), (90, 60, 0.0), (7, 7, 0.0)])
def test_the_spread_that_was_right_more_often(tmp_path, best, sampled, better):
    found = better_spread(*spread_rows(tmp_path, best, sampled), None)
    assert (found.better, found.keep_ratio, found.num_videos) == (better, 0.5, 120)
    assert found.gain.mean == pytest.approx((sampled - best) / 120)
    assert (found.gain.low > 0) == (sampled > best)


def test_export_takes_it_and_says_by_how_much(tmp_path):
    model, evaluation = spread_rows(tmp_path, 60, 90)

    def export(*options):
        command = ["export-lite", "--model", str(model), "--out", str(tmp_path / "out")]
        return CliRunner().invoke(app, [*command, "--eval", str(evaluation.root), *options])

    result = export()
    said = " ".join(result.output.split())
    assert "spread 2: at keep ratio 0.5 a sample by value (spread 2) is +25.0 points [" in said
    assert "some/checkpoint" in said  # which is not there, so that nothing was exported
    assert "give either --spread or --eval" in " ".join(export("--spread", "2").output.split())


def test_rows_that_are_not_there_name_the_command(tmp_path):
    model, evaluation = spread_rows(tmp_path, 60, 90)
    with pytest.raises(ConfigError, match="lite-pipeline evaluate .*--methods lite "):
        better_spread(model, evaluation, 0.3)
    other = save_model(tmp_path / "other", seed=1)
    with pytest.raises(ConfigError, match="has no rows of the model in"):
        better_spread(other, evaluation, None)
