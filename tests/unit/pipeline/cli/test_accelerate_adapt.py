"""`accelerate --adapt`: what is compared with what, and when the trained model is taken."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.cli.accelerate_adapt import compare, parse_minutes, told
from pipeline.cli.accelerate_steps import Judged
from pipeline.errors import ConfigError
from selector.deploy.choosing import Wanted, choose
from selector.evaluation.report.table import Entry

NUM = 200
VIDEOS = [f"v{i}" for i in range(NUM)]


def line(method, right, gmacs, ratio=0.25):
    top1 = np.asarray(right, np.float64)[:, None]
    return Entry(
        method=method, keep_ratio=ratio, num_kept=9.0, gmacs=gmacs, gmacs_backbone=gmacs,
        clips_per_s=None, top1=top1, top5=top1,
    )  # fmt: skip


def shares(*parts):
    """Right where it says 1: (how many videos, 0 or 1), one after the other."""
    return np.concatenate([np.full(num, right) for num, right in parts])


def adapted(right_after, best_step=3, videos=VIDEOS):
    full = line("full", shares((160, 1), (40, 0)), 4.0, 1.0)
    chosen = line("lite-spread", shares((140, 1), (60, 0)), 1.0)
    half = np.arange(NUM) % 2 == 0
    choice = choose([chosen], full, Wanted(speedup=4), half)
    after_full = line("full", shares((150, 1), (50, 0)), 4.0, 1.0)
    other = line("lite", shares((NUM, 0)), 0.5, 0.1)  # of another budget
    after = [after_full, other, line("lite", right_after, 1.0)]
    rows = [VIDEOS.index(video) for video in videos]
    after = [
        line(e.method, e.top1[rows, 0], e.gmacs, e.keep_ratio) for e in after
    ]  # another evaluation, which may lack some videos
    result = SimpleNamespace(num_steps=9, num_train=70, seconds=90.0, best_step=best_step)
    before = Judged([full, chosen], VIDEOS, None)
    found = compare(None, result, None, before, choice, Judged(after, list(videos), None))
    return found, choice


def test_it_is_taken_where_it_is_shown_to_be_better():
    found, choice = adapted(shares((156, 1), (44, 0)))
    assert found.is_better
    # 16 of 200 won over the choice, 4 lost to the full model, 10 lost with all tokens
    assert (found.gain.mean, found.against_full.mean, found.price.mean) == pytest.approx(
        (0.08, -0.02, -0.05)
    )
    said = told(found, choice, "top-1")
    assert said[0].startswith("adapted to the masks of lite for 1.5 minutes (9 steps on 70 videos)")
    assert "top-1 78.0 %, +8.0 points [" in said[0]
    assert "against lite-spread without adapting" in said[0]
    assert said[1].startswith("with all tokens the adapted backbone has 75.0 % of 80.0 %, -5.0")


def test_it_is_not_taken_where_it_may_be_chance_and_its_price_is_not_ours():
    found, choice = adapted(shares((141, 1), (59, 0)))
    assert not found.is_better
    (said,) = told(found, choice, "top-1")
    assert "200 videos do not show to be better" in said
    assert "no step was better than none" in told(adapted(shares((140, 1), (60, 0)), 0)[0],
                                                  choice, "top-1")[0]  # fmt: skip


def test_only_videos_that_both_could_do_are_compared_each_with_itself():
    """Of the 60 that the choice has wrong, the adapted one has the first 16 right."""
    found, _ = adapted(shares((156, 1), (44, 0)), videos=VIDEOS[:9:-1])
    assert found.num_videos == 190
    assert found.gain.mean == pytest.approx(16 / 190)
    assert found.price.mean == pytest.approx(-10 / 190)


def test_times_are_read():
    assert [parse_minutes(t) for t in ("10m", "90s", "0.5h", "3", " .5 m")] == [10, 1.5, 30, 3, 0.5]
    for text in ("", "m", "0m", "ten", "-3m", "5d"):
        with pytest.raises(ConfigError, match="--adapt takes a time such as 10m"):
            parse_minutes(text)
