"""The deployable model on a GPU: the CPU's answers, and nothing that depends on the batch."""

from __future__ import annotations

import pytest
import torch

from pipeline.backbones import load_backbone
from selector.budgets.clip_budget import MassBudget
from selector.deploy.answers import classify
from selector.deploy.config import LiteConfig
from selector.deploy.model import LiteModel
from tests.lite_models import make_model, make_pixels, make_selector


@pytest.fixture(scope="module")
def models(tiny_backbone):
    config = LiteConfig(budget=MassBudget(mass=0.5, levels=(0.25, 0.5, 1.0)))
    on_cuda = load_backbone(str(tiny_backbone), device="cuda")
    selector = make_selector(on_cuda, str(tiny_backbone))
    return make_model(tiny_backbone, config), LiteModel(on_cuda, selector, config)


@pytest.mark.parametrize("call", [{"keep_ratio": 1.0}, {"keep_ratio": 0.5}, {"adaptive": True}])
def test_the_gpu_gives_the_cpus_answers(models, call):
    cpu, cuda = models
    got, expected = cuda(make_pixels(6).cuda(), **call), cpu(make_pixels(6), **call)
    assert torch.equal(got.kept.cpu(), expected.kept)
    assert torch.equal(got.budget.cpu(), expected.budget)
    torch.testing.assert_close(got.logits.cpu(), expected.logits, atol=1e-4, rtol=1e-4)


def test_a_clip_alone_and_in_a_batch_of_uneven_budgets_agree(models):
    _, model = models
    tokens = model.backbone.embed(make_pixels(4).cuda())
    ranking, budget = model.selector(tokens.values), torch.tensor([1, 8, 3, 1], device="cuda")
    logits, _ = classify(model, tokens, ranking, budget)
    for i in range(4):
        row = slice(i, i + 1)
        alone, _ = classify(model, tokens.rows(row), ranking[row], budget[row])
        torch.testing.assert_close(alone[0], logits[i], atol=1e-5, rtol=1e-5)


def test_the_fixed_budget_compiles_for_the_gpu(models):
    _, model = models
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True)
    pixels = make_pixels(2).cuda()
    torch.testing.assert_close(compiled(pixels).logits, model(pixels).logits, atol=1e-4, rtol=1e-4)


def test_costs_are_counted_as_on_the_cpu(models):
    cpu, cuda = models
    assert cuda.cost(4) == cpu.cost(4)
