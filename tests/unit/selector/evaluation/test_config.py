"""What an evaluation's settings mean and refuse."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.errors import ConfigError
from selector.evaluation.config import FULL, Condition, EvalConfig, parse_keep_ratios
from tests.evaluations import make_info, make_plan


def config(**changes) -> EvalConfig:
    return make_info(make_plan([0, 1]), 2, **changes).config


def test_every_clip_is_done_in_full_once_and_random_once_per_seed():
    made = config(
        methods=("random", "uniform"), keep_ratios=(1.0, 0.5, 0.1), num_seeds=2
    ).conditions
    assert made == (
        Condition(FULL, 0, 1.0),
        *(Condition("random", seed, ratio) for seed in (0, 1) for ratio in (0.5, 0.1)),
        *(Condition("uniform", 0, ratio) for ratio in (0.5, 0.1)),
    )


def test_the_full_model_is_done_even_if_ratio_1_is_not_asked_for():
    assert config(keep_ratios=(0.5,)).conditions[0] == Condition(FULL, 0, 1.0)


def test_names_of_files_are_not_part_of_the_identity_and_digests_are():
    one = config()
    assert dataclasses.replace(one, backbone="elsewhere").fingerprint() == one.fingerprint()
    assert dataclasses.replace(one, backbone_digest="x").fingerprint() != one.fingerprint()
    assert dataclasses.replace(one, keep_ratios=(0.5,)).fingerprint() != one.fingerprint()


def test_selectors_are_known_by_their_digests_and_not_by_their_folders():
    one = config(
        methods=("lite", "lite[x]"),
        selectors={"lite": "a", "lite[x]": "b"},
        selector_digests={"lite": "1", "lite[x]": "2"},
    )
    moved = dataclasses.replace(one, selectors={"lite": "c", "lite[x]": "d"})
    swapped = dataclasses.replace(one, selector_digests={"lite": "2", "lite[x]": "1"})
    assert moved.fingerprint() == one.fingerprint()
    assert swapped.fingerprint() != one.fingerprint()


@pytest.mark.parametrize(
    ("text", "ratios"),
    [("1,.9,.5", (1.0, 0.9, 0.5)), (".5, 1 ,0.9,.9", (1.0, 0.9, 0.5)), ("1e-2", (0.01,))],
)
def test_keep_ratios_are_read_in_any_order(text, ratios):
    assert parse_keep_ratios(text) == ratios


@pytest.mark.parametrize("text", ["0", "1.1", "-.5", "half", "", "nan", ".5,,.3", "inf"])
def test_keep_ratios_outside_their_range_are_refused(text):
    with pytest.raises(ConfigError, match="keep ratio"):
        parse_keep_ratios(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder": "mp"}, "decoder must be one of"),
        ({"precision": "fp8"}, "precision must be one of"),
        ({"num_seeds": 0}, "num_seeds must be at least 1"),
        ({"keep_ratios": ()}, "keep_ratios must descend"),
        ({"keep_ratios": (0.5, 0.9)}, "keep_ratios must descend"),
        ({"keep_ratios": (1.5, 0.9)}, "keep ratio must lie in"),
        ({"methods": ("lite",)}, "--selector"),
        ({"methods": ("lite", "lite[x]"), "selector_digests": {"lite": "d"}}, "selector x=DIR"),
        ({"selector_digests": {"lite": "d"}}, "none of the methods random"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        config(**changes)
