"""Samples whose answer is known in closed form: the statistics find it within their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.integrate import quad

from selector.analysis import alternatives, shares, tails
from selector.analysis import distribution as dist
from selector.analysis.classes import compare_scores
from selector.analysis.jackknife import NUM_GROUPS, jackknife

NUM_CLIPS, NUM_TOKENS = 400, 500

Sample = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
# Sample in [0, 1], share of the value in the best p, Gini.
KNOWN: dict[str, tuple[Sample, Callable[[float], float], float]] = {
    "uniform": (lambda rng, size: rng.random(size), lambda p: 1 - (1 - p) ** 2, 1 / 3),
    "exponential": (
        lambda rng, size: rng.exponential(1 / 30, size),
        lambda p: p * (1 - math.log(p)),
        1 / 2,
    ),
    "pareto": (  # of exponent 4 in the density: the share is p^(1 - 1/3), the Gini 1 / (2 * 3 - 1)
        lambda rng, size: (1 + rng.pareto(3, size)) / 200,
        lambda p: p ** (2 / 3),
        1 / 5,
    ),
    "constant": (lambda rng, size: np.full(size, 0.5), lambda p: p, 0.0),
}


def group_counts(scores: np.ndarray) -> np.ndarray:
    by_group = np.zeros((NUM_GROUPS, dist.NUM_VALUES), np.int64)
    dist.count_into(by_group, np.arange(len(scores)) % NUM_GROUPS, scores)
    return by_group


@pytest.mark.parametrize("name", KNOWN)
def test_shares_and_gini_of_known_samples(name: str):
    """The interval of all tokens holds the truth in 4 of 5 samples at least."""
    draw, share, gini = KNOWN[name]
    known = {key: share(p) for key, p in shares.FRACTIONS.items()} | {"gini": gini}
    hits = dict.fromkeys(known, 0)
    for seed in range(5):
        scores = draw(np.random.default_rng(seed), (NUM_CLIPS, NUM_TOKENS))
        assert scores.max() <= 1
        table = shares.table(group_counts(scores), pd.DataFrame(columns=["label"]))
        assert set(table["over"]) == {"tokens"}
        for row in table.itertuples():
            # Between the interval's ends, give or take what float16 rounds off.
            hits[row.measure] += row.low - 1e-4 <= known[row.measure] <= row.high + 1e-4
            assert row.high - row.low < 0.03
    assert min(hits.values()) >= 4, hits


@pytest.mark.parametrize("name", KNOWN)
def test_shares_within_videos_of_known_samples(name: str):
    draw, share, gini = KNOWN[name]
    scores = draw(np.random.default_rng(1), (NUM_CLIPS, NUM_TOKENS)).astype(np.float32)
    ids = pd.Series([f"v{i}" for i in range(NUM_CLIPS)])
    labels = pd.Series(np.arange(NUM_CLIPS) % 2)
    videos = shares.of_videos(ids, labels, shares.of_clips(scores))
    table = shares.table(group_counts(scores), videos)
    assert len(table) == 5 + 5 + 2 * 5
    within = table[(table["over"] == "videos") & table["label"].isna()].set_index("measure")
    # A sample of n has on average (n - 1) / n of the Gini, and less in its best tokens.
    assert within.loc["gini", "value"] == pytest.approx(gini * (1 - 1 / NUM_TOKENS), abs=0.004)
    assert within.loc["top20_share", "value"] == pytest.approx(share(0.2), abs=0.004)
    of_class = table[table["label"] == 1].set_index("measure")["value"]
    assert of_class["gini"] == pytest.approx(videos.loc[videos["label"] == 1, "gini"].mean())


@pytest.mark.parametrize("name", ["uniform", "exponential", "pareto"])
def test_the_lorenz_curve_of_known_samples(name: str):
    draw, share, _ = KNOWN[name]
    scores = draw(np.random.default_rng(2), (NUM_CLIPS, NUM_TOKENS))
    tokens, value = dist.lorenz_curve(dist.count_scores(scores))
    for p in (0.02, 0.1, 0.3, 0.6, 0.9):
        assert np.interp(1 - p, tokens, value) == pytest.approx(1 - share(p), abs=0.01)


def test_the_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(100):
        low, high = jackknife(dist.gini, group_counts(rng.random((NUM_GROUPS, 20))))
        hits += low <= 1 / 3 <= high
    assert 88 <= hits <= 99  # 95 expected, 3 standard deviations are 6.5


def test_shares_within_clips_are_those_of_a_sort():
    rng = np.random.default_rng(4)
    scores = rng.random((3, 37)).astype(np.float32) ** 5
    scores[1], scores[2] = np.nan, 0
    found = shares.of_clips(scores)
    ordered = sorted(scores[0].tolist(), reverse=True)
    # 37 tokens: the best 1, 5, 10 and 20 %, rounded up, are 1, 2, 4 and 8.
    expected = [sum(ordered[:k]) / sum(ordered) for k in (1, 2, 4, 8)]
    assert found[0, :4] == pytest.approx(expected, rel=1e-6)
    differences = np.abs(scores[0][:, None] - scores[0][None]).mean()
    assert found[0, 4] == pytest.approx(differences / (2 * scores[0].mean()), rel=1e-5)
    assert np.isnan(found[1:]).all()


def histograms(values: np.ndarray) -> np.ndarray:
    rows = values[: len(values) // NUM_GROUPS * NUM_GROUPS].reshape(NUM_GROUPS, -1)
    return tails.count_values(rows.astype(np.float32), np.arange(NUM_GROUPS), NUM_GROUPS)


def law_of(values: np.ndarray) -> tuple[alternatives.PowerLaw, dict[str, alternatives.Ratio]]:
    counted = histograms(values)
    law = alternatives.fit_power_law(counted)
    assert law is not None
    return law, {ratio.alternative: ratio for ratio in alternatives.compare(counted, law)}


@pytest.mark.parametrize("exponent", [1.8, 2.5, 4.0])
def test_a_power_law_is_found_with_its_exponent(exponent: float):
    values = 1 + np.random.default_rng(5).pareto(exponent - 1, 100_000)
    law, ratios = law_of(values)
    assert law.low < exponent < law.high
    assert law.high - law.low < 0.1
    assert ratios["exponential"].low > 0
    for name in ("lognormal", "truncated_power_law"):  # which come as close as one likes
        assert abs(ratios[name].ratio) < 1e-3


def test_the_cut_off_is_where_the_power_law_begins():
    rng = np.random.default_rng(6)
    values = np.concatenate([3 * rng.random(80_000), 3 * (1 + rng.pareto(1.5, 20_000))])
    rng.shuffle(values)
    law, _ = law_of(values)
    # Chance makes some tail above it fit a little better, never one that begins in the body.
    assert 2.9 <= law.threshold <= 3.6
    assert 0.15 <= law.share <= 0.21
    assert law.low < 2.5 < law.high


def test_other_laws_beat_the_power_law_on_their_own_samples():
    """Each at the cut-off 1, against densities of SciPy at the parameters of the sample."""
    rng = np.random.default_rng(7)
    x = 1 + rng.pareto(0.8, 400_000)
    samples = {
        "exponential": (1 + rng.exponential(0.5, 100_000), lambda x: stats.expon(1, 0.5).logpdf(x)),
        "lognormal": (
            np.exp(np.abs(rng.normal(0, 0.7, 100_000))),  # half a log-normal is one cut off at 1
            lambda x: stats.lognorm(0.7).logpdf(x) + math.log(2),
        ),
        "truncated_power_law": (
            x[rng.random(len(x)) < np.exp(-0.3 * (x - 1))],
            lambda x: (
                -1.8 * np.log(x)
                - 0.3 * x
                - math.log(quad(lambda u: u**-1.8 * math.exp(-0.3 * u), 1, np.inf)[0])
            ),
        ),
    }
    for name, (values, log_density) in samples.items():
        counted = histograms(values)
        hill = 1 + len(values) / np.log(values).sum()
        law = alternatives.PowerLaw(1.0, len(values), 1.0, hill, math.nan, math.nan, math.nan)
        ratio = {r.alternative: r for r in alternatives.compare(counted, law)}[name]
        plain = math.log(hill - 1) - hill * np.log(values).mean()
        assert ratio.ratio == pytest.approx(plain - log_density(values).mean(), abs=2e-3), name
        assert ratio.low < ratio.ratio < ratio.high < 0


def test_distance_and_effect_of_two_known_samples():
    """Uniform on [0, 1] against its square: P(u < x) - P(u^2 < x) = x - sqrt(x), widest at 1/4."""
    rng = np.random.default_rng(8)
    by_group = np.zeros((2, NUM_GROUPS, dist.NUM_VALUES), np.int64)
    for kind, power in enumerate((1, 2)):
        scores = rng.random((NUM_CLIPS, NUM_TOKENS)) ** power
        dist.count_into(by_group[kind], np.arange(NUM_CLIPS) % NUM_GROUPS, scores)
    found = compare_scores(by_group).set_index("measure")
    assert found.loc["ks_distance", "low"] < 0.25 < found.loc["ks_distance", "high"]
    # P(u > v^2) = E sqrt(u) = 2 / 3
    assert found.loc["superiority", "low"] < 2 / 3 < found.loc["superiority", "high"]
    assert (found["high"] - found["low"] < 0.02).all()
    assert compare_scores(by_group * [[[1]], [[0]]]).empty


def test_superiority_is_the_rank_tests():
    rng = np.random.default_rng(9)
    a, b = (rng.integers(0, 5, n) / 4 for n in (60, 70))  # with ties
    u = stats.mannwhitneyu(a, b).statistic
    found = dist.superiority(dist.count_scores(a), dist.count_scores(b))
    assert found == pytest.approx(u / (60 * 70))
    distance = dist.ks_distance(dist.count_scores(a), dist.count_scores(b))
    assert distance == pytest.approx(stats.ks_2samp(a, b).statistic)
