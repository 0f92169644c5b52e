"""Ranking measures against values worked out by hand or by pandas."""

import math

import pytest
import torch

from pipeline.errors import ConfigError
from selector.methods.keep import num_kept, top_tokens
from selector.training.metrics import RankingMeter, mass_kept, rank_correlation, recall_at


def test_a_rank_correlation_is_0_for_a_constant_prediction_and_nan_for_a_constant_oracle():
    line, flat = torch.arange(8.0)[None], torch.ones(1, 8)
    assert rank_correlation(line, line).item() == pytest.approx(1)
    assert rank_correlation(flat, line).item() == 0
    assert math.isnan(rank_correlation(line, flat).item())
    assert math.isnan(rank_correlation(flat, flat).item())


def test_the_oracle_is_ranked_by_its_signed_cam_below_zero_too():
    cam = torch.tensor([[3.0, -1.0, -2.0, -3.0]])
    assert recall_at(cam, cam, 3).item() == 1
    assert recall_at(-cam, cam, 2).item() == 0  # keeps -3 and -2, not 3 and -1
    assert recall_at(cam.clamp_min(0), cam, 2).item() == 1  # the tie falls to the lower position


def test_equal_cams_at_the_border_count_as_hits():
    cam = torch.tensor([[2.0, 1.0, 1.0, 0.0]])
    assert recall_at(torch.tensor([[9.0, 0.0, 8.0, 1.0]]), cam, 2).item() == 1


def test_mass_is_the_share_of_the_score_and_nan_without_any():
    score = torch.tensor([[0.5, 1.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0]])
    kept = mass_kept(torch.tensor([[4.0, 3.0, 2.0, 1.0]]).expand(2, -1), score, 2)
    assert kept[0].item() == 0.75
    assert math.isnan(kept[1].item())


def test_kept_tokens_are_int_of_n_times_p_as_in_the_paper():
    assert [num_kept(1568, p) for p in (1, 0.9, 0.7, 0.5, 0.3)] == [1568, 1411, 1097, 784, 470]
    assert num_kept(100, 0.29) == 29  # int(100 * 0.29) is 28 in floating point
    assert num_kept(5, 0.01) == 1


@pytest.mark.parametrize("ratio", [0, -0.1, 1.01, float("nan")])
def test_keep_ratios_outside_0_to_1_are_refused(ratio):
    with pytest.raises(ConfigError, match="keep ratio"):
        num_kept(100, ratio)


def test_top_tokens_are_ascending_and_ties_go_to_the_lower_position():
    assert top_tokens(torch.tensor([[1.0, 5.0, 5.0, 5.0]]), 2).tolist() == [[1, 2]]
    assert top_tokens(torch.tensor([[9.0, 1.0, 2.0]]), 2).tolist() == [[0, 2]]


def test_the_meter_averages_clips_over_batches_and_skips_what_has_no_answer():
    meter = RankingMeter(keep_ratios=(0.5,))
    cam = torch.tensor([[4.0, 3.0, 2.0, 1.0], [-1.0, -2.0, -3.0, -4.0]])
    score = torch.tensor([[1.0, 0.5, 0.25, 0.25], [0.0, 0.0, 0.0, 0.0]])
    half = torch.full((1, 4), 0.5)
    meter.update(cam[:1], half, cam[:1], score[:1])
    meter.update(-cam[1:], half, cam[1:], score[1:])
    result = meter.result()
    assert result.num_clips == 2
    assert result.bce == pytest.approx(math.log(2))
    assert result.spearman == pytest.approx(0)
    assert result.recall == {0.5: pytest.approx(0.5)}
    assert result.mass == {0.5: pytest.approx(0.75)}


def test_a_meter_that_saw_nothing_says_so_with_nan():
    result = RankingMeter().result()
    assert result.num_clips == 0
    assert math.isnan(result.bce)
