"""The deployable model: equal to the plain one where it must be, whatever the batch looks like."""

from __future__ import annotations

import pytest
import torch
from transformers import VideoMAEForVideoClassification

from pipeline.backbones import load_backbone
from pipeline.errors import ConfigError
from selector.budgets.rules import MassBudget, ThresholdBudget
from selector.deploy.config import LiteConfig
from selector.deploy.model import LiteModel
from selector.methods.keep import top_tokens
from tests.lite_models import make_model, make_pixels, make_selector
from tests.plain import plain_logits

MASS = LiteConfig(budget=MassBudget(mass=0.5, levels=(0.125, 0.25, 0.5, 1.0)))


def thresholds(confidences: torch.Tensor) -> LiteConfig:
    """Both budgets in one batch: the middle of `confidences` gets the base."""
    low, high = confidences.sort().values[[1, -2]].tolist()
    rule = ThresholdBudget(base_ratio=0.5, small_ratio=0.25, alpha=low, beta=high)
    return LiteConfig(budget=rule, confidence="backbone:0.2")


@pytest.fixture(scope="module")
def model(tiny_backbone):
    return make_model(tiny_backbone)


def test_keeping_all_tokens_is_the_plain_hugging_face_model(model, tiny_backbone):
    plain = VideoMAEForVideoClassification.from_pretrained(tiny_backbone).eval()
    output = model(make_pixels(3), keep_ratio=1.0)
    with torch.no_grad():
        expected = plain(make_pixels(3)).logits
    assert (output.logits - expected).abs().max() < 1e-5
    assert output.kept.all()
    assert output.budget.tolist() == [8, 8, 8]


def test_ranking_changes_nothing_while_all_tokens_are_kept(model):
    tokens = model.backbone.embed(make_pixels(3))
    logits, kept = model.classify(tokens, model.selector(tokens.values), torch.full((3,), 8))
    assert (logits - model(make_pixels(3), keep_ratio=1.0).logits).abs().max() < 1e-5
    assert kept.all()


def test_the_best_tokens_are_kept_in_their_order(model):
    output = model(make_pixels(3), keep_ratio=0.4)
    tokens = model.backbone.embed(make_pixels(3))
    index = top_tokens(model.selector(tokens.values), 3)
    kept = torch.stack([clip[places] for clip, places in zip(tokens.values, index, strict=True)])
    expected = plain_logits(model.backbone, kept)
    torch.testing.assert_close(output.logits, expected)
    for row, positions in enumerate(index):
        assert output.kept[row].nonzero().squeeze(1).tolist() == positions.tolist()
    assert output.budget.tolist() == [3, 3, 3]
    best = output.scores.gather(1, index).amin(1)
    assert (output.scores.masked_fill(output.kept, -1).amax(1) <= best).all()


def test_the_default_keep_ratio_is_the_configurations(tiny_backbone):
    model = make_model(tiny_backbone, LiteConfig(keep_ratio=0.25))
    assert model(make_pixels(1)).budget.tolist() == [2]


def test_uneven_budgets_are_what_each_clip_gets_alone(model):
    tokens = model.backbone.embed(make_pixels(5))
    ranking, budget = model.selector(tokens.values), torch.tensor([1, 8, 3, 1, 5])
    logits, kept = model.classify(tokens, ranking, budget)
    assert kept.sum(1).tolist() == budget.tolist()
    for i in range(5):
        row = slice(i, i + 1)
        alone, alone_kept = model.classify(tokens.rows(row), ranking[row], budget[row])
        assert (alone - logits[row]).abs().max() < 1e-5
        assert torch.equal(alone_kept, kept[row])


@pytest.mark.parametrize("rule", ["mass", "threshold"])
def test_a_clip_alone_and_in_a_batch_of_uneven_budgets_agree(model, tiny_backbone, rule):
    pixels = make_pixels(8) * torch.linspace(0.2, 3, 8).reshape(-1, 1, 1, 1, 1)
    config = MASS
    if rule == "threshold":
        probe = make_model(tiny_backbone, thresholds(torch.linspace(0, 1, 4)))
        config = thresholds(probe(pixels, adaptive=True).confidence)
    adaptive = make_model(tiny_backbone, config)
    together = adaptive(pixels, adaptive=True)
    assert len(together.budget.unique()) > 1
    for i in range(8):
        alone = adaptive(pixels[i : i + 1], adaptive=True)
        assert (alone.logits - together.logits[i]).abs().max() < 1e-5
        assert alone.budget.item() == together.budget[i]
        assert torch.equal(alone.kept[0], together.kept[i])


def test_the_threshold_rule_goes_by_the_backbone_on_few_tokens(model, tiny_backbone):
    pixels = make_pixels(6)
    adaptive = make_model(tiny_backbone, thresholds(torch.tensor([0.1, 0.21, 0.22, 0.9])))
    output = adaptive(pixels, adaptive=True)
    expected = model(pixels, keep_ratio=0.2).logits.softmax(-1).amax(-1)
    torch.testing.assert_close(output.confidence, expected)
    assert output.budget.tolist() == adaptive.config.budget.counts(expected, 8).tolist()


def cascade(alpha: float, beta: float) -> LiteConfig:
    """The confidence comes from as many tokens as the small budget has."""
    rule = ThresholdBudget(base_ratio=0.5, small_ratio=0.25, alpha=alpha, beta=beta)
    return LiteConfig(budget=rule, confidence="backbone:0.25")


def test_the_small_clips_of_a_cascade_are_not_classified_twice(model, tiny_backbone, monkeypatch):
    pixels = make_pixels(6) * torch.linspace(0.2, 3, 6).reshape(-1, 1, 1, 1, 1)
    small = model(pixels, keep_ratio=0.25)
    low, high = small.logits.softmax(-1).amax(-1).sort().values[[2, 4]].tolist()
    cascading = make_model(tiny_backbone, cascade(low, high))
    ran = []
    run = cascading.backbone.run
    monkeypatch.setattr(
        cascading.backbone,
        "run",
        lambda tokens: (ran.append((len(tokens), tokens.num)), run(tokens))[1],
    )
    output = cascading(pixels, adaptive=True)
    assert ran == [(6, 2), (3, 4)]  # the small budget for all, the base's for those in between
    is_small = output.budget == 2
    assert is_small.sum() == 3
    base = model(pixels, keep_ratio=0.5)
    for rows, expected in ((is_small, small), (~is_small, base)):
        assert (output.logits[rows] - expected.logits[rows]).abs().max() < 1e-5
        assert torch.equal(output.kept[rows], expected.kept[rows])


def test_a_cascade_costs_the_small_budget_for_all_and_the_bases_blocks_for_some(tiny_backbone):
    model = make_model(tiny_backbone, cascade(0.2, 0.8))
    assert model.cost(2, adaptive=True) == model.cost(2)
    between = model.cost(4, adaptive=True)
    assert between.confidence == model.cost(2).blocks
    assert between.total == pytest.approx(model.cost(4).total + model.cost(2).blocks)


def test_the_cost_counts_what_runs(tiny_backbone):
    model = make_model(tiny_backbone, thresholds(torch.linspace(0, 1, 4)))
    full, half = model.cost(8), model.cost(4)
    assert full.selector == 0
    assert half.selector > 0
    assert half.blocks < full.blocks
    adaptive = model.cost(4, adaptive=True)
    assert adaptive.confidence == model.cost(1).blocks
    assert adaptive.total == half.total + adaptive.confidence
    assert model.cost(8, adaptive=True).selector == half.selector


def test_no_gradient_is_recorded(model):
    assert not model(make_pixels(1)).logits.requires_grad


def test_an_empty_batch_gives_empty_results(tiny_backbone):
    output = make_model(tiny_backbone, MASS)(make_pixels(0), adaptive=True)
    assert output.logits.shape == (0, 5)
    assert output.kept.shape == (0, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(torch.zeros(1, 3, 4, 16, 16)), r"must be \(B, 4, 3, 16, 16\)"),
        (lambda m: m(make_pixels(1)[0]), "pixel_values must be"),
        (lambda m: m(make_pixels(1), keep_ratio=0.0), r"\(0, 1\]"),
        (lambda m: m(make_pixels(1), keep_ratio=1.01), r"\(0, 1\]"),
        (lambda m: m(make_pixels(1), keep_ratio=float("nan")), r"\(0, 1\]"),
        (lambda m: m(make_pixels(1), adaptive=True), "calibrate"),
        (lambda m: m(make_pixels(1), keep_ratio=0.5, adaptive=True), "either"),
    ],
)
def test_calls_that_cannot_work_are_refused(model, call, message):
    with pytest.raises(ConfigError, match=message):
        call(model)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("keep_ratio", [1.0, 0.5])
def test_the_fixed_budget_compiles_to_one_graph(model, backend, keep_ratio):
    torch.compiler.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    got, expected = compiled(make_pixels(2), keep_ratio), model(make_pixels(2), keep_ratio)
    torch.testing.assert_close(got.logits, expected.logits)
    assert torch.equal(got.kept, expected.kept)


def test_the_adaptive_budget_runs_under_compile(tiny_backbone):
    torch.compiler.reset()
    model = make_model(tiny_backbone, MASS)
    compiled = torch.compile(model, backend="eager")
    got = compiled(make_pixels(4), adaptive=True)
    expected = model(make_pixels(4), adaptive=True)
    torch.testing.assert_close(got.logits, expected.logits)
    assert torch.equal(got.budget, expected.budget)


@pytest.mark.slow
def test_inductor_gives_the_same_logits(model):
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True)
    expected = model(make_pixels(2)).logits
    torch.testing.assert_close(compiled(make_pixels(2)).logits, expected, atol=1e-4, rtol=1e-4)


def test_half_precision_keeps_the_scores_and_logits_single(tiny_backbone):
    backbone = load_backbone(str(tiny_backbone), precision="bf16")
    selector = make_selector(backbone, "tiny")
    model = LiteModel(backbone, selector, MASS)
    pixels = make_pixels(4).to(torch.bfloat16)
    for output in (model(pixels, keep_ratio=0.5), model(pixels, adaptive=True)):
        assert output.logits.dtype == output.scores.dtype == torch.float32
        assert torch.isfinite(output.logits).all()
