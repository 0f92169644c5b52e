"""Cleaning the oracle: what each step changes, and what it must leave alone."""

import pytest
import torch

from pipeline.errors import ConfigError
from selector.training.targets import (
    EDGE_FACTOR,
    clean_scores,
    damp_edges,
    parse_cleaning,
    remove_peaks,
    sharpen,
)


def test_edges_damp_the_outer_ring_of_every_frame_and_nothing_else():
    scores = torch.rand(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    cleaned = damp_edges(scores)
    torch.testing.assert_close(cleaned[:, :, 1:-1, 1:-1], scores[:, :, 1:-1, 1:-1])
    for border in (cleaned[..., 0, :], cleaned[..., -1, :], cleaned[..., 0], cleaned[..., -1]):
        assert border.max() <= EDGE_FACTOR
    torch.testing.assert_close(cleaned[:, :, 0], scores[:, :, 0] * EDGE_FACTOR)


def test_peaks_removes_a_lone_token_and_keeps_an_area_of_the_minimal_size():
    scores = torch.full((1, 4, 8, 8), 0.1)
    scores[0, 1, 1, 1] = 1.0  # alone
    scores[0, 2, 5:7, 5:7] = 0.9  # four tokens: kept
    cleaned = remove_peaks(scores)
    assert cleaned[0, 1, 1, 1] == pytest.approx(0.1)
    torch.testing.assert_close(cleaned[0, 2], scores[0, 2])


def test_peaks_counts_an_area_across_time_and_diagonals():
    scores = torch.zeros(1, 4, 6, 6)
    for t in range(4):
        scores[0, t, t, t] = 0.8  # a diagonal line through time: one area of four
    torch.testing.assert_close(remove_peaks(scores), scores)


def test_peaks_of_one_clip_do_not_see_those_of_another():
    a, b = torch.zeros(2, 2, 4, 4)
    a[:, 1:3, 1:3] = 0.9
    b[0, 0, 0] = 1.0
    both = remove_peaks(torch.stack([a, b]))
    torch.testing.assert_close(both[0], a)
    assert both[1].max() == 0


def test_sharpen_keeps_0_half_and_1_and_never_changes_the_order():
    scores = torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0])
    cleaned = sharpen(scores)
    torch.testing.assert_close(cleaned[[0, 2, 4]], scores[[0, 2, 4]])
    assert cleaned[1] < 0.2
    assert cleaned[3] > 0.8


def test_steps_are_applied_in_their_order():
    scores = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        clean_scores(scores, parse_cleaning("sharpen, edges")), damp_edges(sharpen(scores))
    )
    assert clean_scores(scores, parse_cleaning("none")) is scores


def test_an_unknown_step_is_refused_by_name():
    with pytest.raises(ConfigError, match="blur"):
        parse_cleaning("edges,blur")
