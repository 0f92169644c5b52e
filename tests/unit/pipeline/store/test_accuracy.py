"""Labels that were mixed up are seen in the predictions; honest models are left in peace."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipeline.store.accuracy import (
    Exchanged,
    find_exchanged,
    hits_by_chance,
    is_near_chance,
)


def simulate(
    num_classes: int, num_videos: int, top1: float, seed: int = 0, weights: object = None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and predictions that are right with this probability and else any other class."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(num_classes, num_videos, p=weights)
    wrong = (labels + rng.integers(1, num_classes, num_videos)) % num_classes
    return labels, np.where(rng.random(num_videos) < top1, labels, wrong)


@pytest.mark.parametrize(
    ("labels", "predictions"),
    [
        ([0, 0, 1, 1, 2, 2, 2], [0, 1, 1, 2, 2, 2, 0]),
        ([0, 0, 0, 0, 0, 1], [0, 0, 1, 1, 3, 3]),
        ([4, 4, 4, 4], [4, 4, 4, 4]),
        ([0, 1], [1, 0]),
        ([3], [3]),
    ],
)
def test_chance_is_the_mean_over_all_permutations(
    labels: list[int], predictions: list[int]
) -> None:
    hits = [
        sum(a == b for a, b in zip(labels, dealt, strict=True))
        for dealt in itertools.permutations(predictions)
    ]
    mean, deviation = hits_by_chance(np.array(labels), np.array(predictions))
    assert mean == pytest.approx(np.mean(hits))
    assert deviation == pytest.approx(np.std(hits), abs=1e-7)


def derangement(num_classes: int, seed: int) -> np.ndarray:
    """The classes in another order, none in its own place."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(num_classes)
        if not (order == np.arange(num_classes)).any():
            return order


@pytest.mark.parametrize("mixed", ["another order", "one id too many", "reversed"])
@pytest.mark.parametrize(
    ("num_classes", "num_videos", "top1"),
    [
        (2, 150, 0.9),
        (10, 60, 0.8),
        (10, 500, 0.6),
        (51, 300, 0.6),
        (174, 1000, 0.7),
        (400, 60, 0.8),
    ],
)
def test_mixed_up_labels_are_found(
    num_classes: int, num_videos: int, top1: float, mixed: str
) -> None:
    for seed in range(20):
        labels, predictions = simulate(num_classes, num_videos, top1, seed)
        assert not is_near_chance(labels, predictions)
        assert find_exchanged(labels, predictions) == ()
        classes = np.arange(num_classes)
        order = {
            "another order": derangement(num_classes, seed),
            "one id too many": (classes + 1) % num_classes,
            "reversed": classes[::-1],
        }[mixed]
        found = find_exchanged(labels, order[predictions])
        assert is_near_chance(labels, order[predictions]) or found, seed


def test_numbers_in_the_order_of_text_are_found_though_some_are_in_place() -> None:
    """0 and 1 of twelve keep their places, which is too much for chance."""
    order = np.array([int(name) for name in sorted(map(str, range(12)))])
    labels, predictions = simulate(12, 600, 0.8)
    mixed = np.argsort(order)[labels]  # the id that a class gets where names are sorted as text
    assert (mixed == predictions).mean() > 0.1
    found = find_exchanged(mixed, predictions)
    assert {(e.label, e.prediction) for e in found} == {
        (place, number) for place, number in enumerate(order.tolist()) if place != number
    }
    assert find_exchanged(labels, predictions) == ()


def test_two_classes_exchanged_among_many() -> None:
    labels, predictions = simulate(50, 5000, 0.7)
    mixed = labels.copy()
    mixed[labels == 3], mixed[labels == 40] = 40, 3
    assert not is_near_chance(mixed, predictions)
    one, other = find_exchanged(mixed, predictions)
    assert (one.label, one.prediction, other.label, other.prediction) == (3, 40, 40, 3)
    assert (one.count, one.num_videos) == (
        int(((labels == 40) & (predictions == 40)).sum()), int((labels == 40).sum())
    )  # fmt: skip


@pytest.mark.parametrize(
    ("videos", "hits", "found"), [(4, 4, False), (5, 5, True), (18, 14, True), (18, 13, False)]
)
def test_how_many_videos_it_takes(videos: int, hits: int, found: bool) -> None:
    """Of two classes: 28 of 36 are three deviations above a half, sqrt(36) / 2 each."""
    of_one = [1] * hits + [0] * (videos - hits)
    labels = np.repeat([0, 1], videos)
    predictions = np.array(of_one + [1 - p for p in of_one])
    exchanged = (Exchanged(0, 1, hits, videos), Exchanged(1, 0, hits, videos))
    assert find_exchanged(labels, predictions) == (exchanged if found else ())


def test_classes_that_are_hard_to_tell_apart_are_no_mix_up() -> None:
    labels = np.repeat([0, 1, 2, 3], 50)
    assert find_exchanged(labels, np.repeat([1, 1, 2, 2], 50)) == ()
    assert find_exchanged(labels, np.repeat([1, 2, 2, 3], 50)) == ()  # a chain that ends well
    circle = find_exchanged(labels, np.repeat([1, 2, 0, 3], 50))
    assert [(e.label, e.prediction) for e in circle] == [(0, 1), (1, 2), (2, 0)]


@pytest.mark.parametrize(
    ("num_classes", "num_videos", "top1", "weights"),
    [
        (174, 2000, 0.15, None),  # a weak model
        (10, 200, 0.3, None),
        (2, 400, 0.7, None),
        (2, 2000, 0.95, [0.9, 0.1]),  # top-1 hardly above the share of the larger class
        (400, 100, 0.5, None),
    ],
)
def test_honest_models_are_left_in_peace(
    num_classes: int, num_videos: int, top1: float, weights: object
) -> None:
    for seed in range(50):
        labels, predictions = simulate(num_classes, num_videos, top1, seed, weights)
        assert not is_near_chance(labels, predictions)
        assert find_exchanged(labels, predictions) == ()


@pytest.mark.parametrize(
    ("labels", "predictions", "near"),
    [
        (np.arange(19) % 10, (np.arange(19) + 1) % 10, False),  # 19 videos: too few
        (np.arange(20) % 10, (np.arange(20) + 1) % 10, True),
        (np.zeros(500, int), np.ones(500, int), False),  # one class: nothing to compare
        (np.arange(60) % 2, 1 - np.arange(60) % 2, False),  # two classes need a hundred
        (np.arange(120) % 2, 1 - np.arange(120) % 2, True),
        (np.arange(500) % 10, np.zeros(500, int), True),  # one answer to everything
    ],
)
def test_what_is_too_little_to_tell(
    labels: np.ndarray, predictions: np.ndarray, near: bool
) -> None:
    assert is_near_chance(labels, predictions) is near
