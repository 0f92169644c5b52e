"""Flips and repairs counted by hand, from rows made up for the purpose."""

from __future__ import annotations

import numpy as np

from pipeline.cli.evaluate_report import echo_summary
from selector.evaluation.report.summary import summarise
from selector.methods.rank.oracle import wrong_class
from tests.evaluations import make_evaluation

ORACLE, SECOND, WRONG = (f"oracle{x}[embeddings,fem]" for x in ("", "-second", "-wrong"))
# Full model: first, second, their gap; then what `oracle-second` says. The label is always 0.
VIDEOS = [
    (0, 1, 0.2, 1),  # right, flipped
    (0, 1, 0.3, 0),  # right, stays
    (0, 2, 0.7, 2),  # right, flipped
    (0, 3, 3.0, 0),  # right, stays
    (1, 0, 0.4, 0),  # wrong, label second, repaired
    (1, 0, 1.5, 1),  # wrong, label second, not repaired
    (1, 2, 0.1, 2),  # wrong, label not second: neither
    (0, 1, 0.2, 3),  # right, to a third class: not flipped
]


def make(folder, methods, then, **changes):
    logits = np.zeros((len(VIDEOS), 1 + then.shape[1], 4))
    for video, (first, second, gap, _) in enumerate(VIDEOS):
        logits[video, 0, second], logits[video, 0, first] = 5, 5 + gap
        for column, said in enumerate(then[video]):
            logits[video, 1 + column, said] = 1
    return make_evaluation(folder, logits, [0] * len(VIDEOS), methods=methods, **changes)


def test_flips_and_repairs_by_gap(tmp_path, capsys):
    then = np.array([[0, said] for *_, said in VIDEOS])
    summary = summarise(make(tmp_path, (ORACLE, SECOND), then), num_draws=100)
    (found,) = summary.steering
    assert (found.method, found.keep_ratio) == (SECOND, 0.5)
    assert found.num_right == (3, 1, 0, 1, 5)
    assert found.flipped == (1, 1, 0, 0, 2)
    assert found.num_second == (1, 0, 1, 0, 2)
    assert found.repaired == (1, 0, 0, 0, 1)
    echo_summary(summary)
    text = " ".join(capsys.readouterr().out.split())
    assert "33 (3) / 100 (1) 100 (1) / - - / 0 (1) 0 (1) / - 40 (5) / 50 (2) +37.5 [" in text


def test_a_wrong_class_is_the_one_that_was_drawn(tmp_path):
    """Of two seeds, the first always reaches its class, the second never."""
    drawn = [wrong_class((0, f"v{i:05d}", 0, 0), [0, v[0]], 4) for i, v in enumerate(VIDEOS)]
    then = np.array([[said, 0] for said in drawn])
    (found,) = summarise(make(tmp_path, (WRONG,), then), num_draws=100).steering
    assert (found.num_right[-1], found.flipped[-1]) == (10, 5)
    assert found.num_second[-1] == 0


def test_views_that_failed_do_not_count(tmp_path):
    then = np.array([[0, said] for *_, said in VIDEOS])
    evaluation = make(tmp_path, (ORACLE, SECOND), then, failed=[(0, 2), (4, 0)])
    (found,) = summarise(evaluation, num_draws=100).steering
    assert (found.num_right[-1], found.flipped[-1]) == (4, 1)
    assert (found.num_second[-1], found.repaired[-1]) == (1, 0)


def test_an_oracle_without_its_control_is_said_to_be_one(tmp_path, capsys):
    evaluation = make(tmp_path, (ORACLE,), np.zeros((len(VIDEOS), 1), int))
    echo_summary(summarise(evaluation, num_draws=100))
    assert f"evaluate {SECOND} too" in " ".join(capsys.readouterr().out.split())
