"""The deployable model: equal to the plain one where it must be, whatever the batch looks like."""

from __future__ import annotations

import copy
import importlib
import io
import warnings

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves
from transformers import VideoMAEForVideoClassification

from pipeline.backbones import load_backbone
from pipeline.errors import ConfigError
from selector.budgets.clip_budget import MassBudget, ThresholdBudget
from selector.deploy.answers import classify
from selector.deploy.config import LiteConfig
from selector.deploy.model import LiteModel
from selector.deploy.output import LiteOutput
from selector.methods.keep import kept_counts, top_tokens
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
    logits, kept = classify(model, tokens, model.selector(tokens.values), torch.full((3,), 8))
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
    logits, kept = classify(model, tokens, ranking, budget)
    assert kept.sum(1).tolist() == budget.tolist()
    for i in range(5):
        row = slice(i, i + 1)
        alone, alone_kept = classify(model, tokens.rows(row), ranking[row], budget[row])
        assert (alone - logits[row]).abs().max() < 1e-5
        assert torch.equal(alone_kept, kept[row])


def test_clips_that_keep_all_do_not_run_the_selector(model, monkeypatch):
    seen = []
    forward = model.selector.forward
    monkeypatch.setattr(model.selector, "forward", lambda x: (seen.append(len(x)), forward(x))[1])
    pixels = make_pixels(3)
    plain = model.backbone(pixels)
    for ratios in (1.0, [1.0, 1.0, 1.0], torch.ones(3)):
        output = model(pixels, keep_ratio=ratios)
        assert torch.equal(output.logits, plain)
        assert output.scores is None
    assert seen == []
    mixed = model(pixels, keep_ratio=[1.0, 0.5, 1.0])
    assert seen == [1]
    assert mixed.budget.tolist() == [8, 4, 8]
    assert mixed.scores.isnan().all(1).tolist() == [True, False, True]
    assert (mixed.logits[[0, 2]] - plain[[0, 2]]).abs().max() < 1e-5


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


@pytest.mark.parametrize(
    "asked", [{"keep_ratio": 0.5}, {"keep_ratio": 1}, {"keep_ratio": []}, {"adaptive": True}]
)
@pytest.mark.parametrize("rule", ["mass", "threshold"])
def test_no_clips_get_no_answers(tiny_backbone, rule, asked):
    config = MASS if rule == "mass" else thresholds(torch.linspace(0, 1, 4))
    output = make_model(tiny_backbone, config)(make_pixels(0), **asked)
    assert output.logits.shape == (0, 5)
    assert output.kept.shape == (0, 8)
    assert output.budget.shape == (0,)


def test_clips_may_have_ratios_of_their_own(model):
    pixels, ratios = make_pixels(4), [0.25, 1.0, 0.5, 0.25]
    expected = [model(pixels[i : i + 1], keep_ratio=ratio) for i, ratio in enumerate(ratios)]
    for given in (ratios, tuple(ratios), torch.tensor(ratios), torch.tensor(ratios).bfloat16()):
        output = model(pixels, keep_ratio=given)
        assert output.budget.tolist() == [2, 8, 4, 2]
        for i, alone in enumerate(expected):
            assert (output.logits[i] - alone.logits).abs().max() < 1e-5
            assert torch.equal(output.kept[i : i + 1], alone.kept)


def test_a_ratio_in_single_precision_means_its_decimal():
    """In float32, 0.29 is 0.28999999: 28 tokens of 100 instead of 29."""
    every = torch.arange(1, 101) / 100
    assert kept_counts(100, every, 100) == list(range(1, 101))
    assert kept_counts(100, torch.tensor(0.29), 7) == 29
    assert kept_counts(100, 0.29, 7) == 29


def test_labels_give_the_loss(model):
    pixels, labels = make_pixels(3), torch.tensor([4, 0, 2])
    output = model(pixels, keep_ratio=0.5, labels=labels)
    probability = np.exp(output.logits.numpy().astype(np.float64))
    probability /= probability.sum(axis=1, keepdims=True)
    expected = -np.log(probability[[0, 1, 2], [4, 0, 2]]).mean()
    assert output.loss.item() == pytest.approx(expected, rel=1e-5)
    assert model(pixels).loss is None


def test_the_output_is_read_by_name_key_and_place(model):
    output = model(make_pixels(2), keep_ratio=0.5)
    assert output["logits"] is output.logits is output[0]
    assert list(output) == ["logits", "kept", "budget", "scores"]
    leaves = zip(tree_leaves(output), output.values(), strict=True)
    assert all(leaf is value for leaf, value in leaves)


def test_it_says_where_it_is_and_what_its_classes_are_called(model):
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    assert model.id2label == {i: f"class {i}" for i in range(5)}


def test_another_configuration_may_be_set_and_all_of_it_holds(model, tiny_backbone):
    changed = make_model(tiny_backbone, MASS)
    for config in (LiteConfig(spread=2.0), thresholds(torch.linspace(0.1, 0.9, 4)), MASS):
        changed.config = config
        fresh = make_model(tiny_backbone, config)
        for asked in ({"keep_ratio": 0.5}, {"adaptive": True} if config.budget else {}):
            got, expected = changed(make_pixels(4), **asked), fresh(make_pixels(4), **asked)
            assert torch.equal(got.logits, expected.logits)
            assert torch.equal(got.kept, expected.kept)
        assert (changed.confidence is None) == (fresh.confidence is None)


def test_it_exports_for_any_number_of_clips(model):
    batch = {0: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(
        model,
        (make_pixels(2),),
        {"keep_ratio": 0.5},
        dynamic_shapes={"pixel_values": batch, "keep_ratio": None},
    )
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for num in (1, 2, 5):
        got, expected = (m(make_pixels(num), keep_ratio=0.5) for m in (loaded, model))
        assert isinstance(got, LiteOutput)
        torch.testing.assert_close(got.logits, expected.logits, rtol=0, atol=1e-5)
        assert torch.equal(got.kept, expected.kept)
        assert torch.equal(got.budget, expected.budget)


def test_several_devices_can_share_a_batch(model, monkeypatch):
    """What nn.DataParallel does, on one device: copies of the weights, parts of the batch."""
    replicate = importlib.import_module("torch.nn.parallel.replicate")
    scatter_gather = importlib.import_module("torch.nn.parallel.scatter_gather")
    monkeypatch.setattr(
        replicate,
        "_broadcast_coalesced_reshape",
        lambda tensors, devices, detach: [[t.clone() for t in tensors] for _ in devices],
    )
    monkeypatch.setattr(
        scatter_gather.Gather, "apply", lambda device, dim, *parts: torch.cat(parts, dim)
    )
    pixels = make_pixels(4)
    copies = replicate.replicate(model, [0, 1], detach=True)
    parts = [copy(part, keep_ratio=0.5) for copy, part in zip(copies, pixels.chunk(2), strict=True)]
    whole, expected = scatter_gather.gather(parts, "cpu"), model(pixels, keep_ratio=0.5)
    torch.testing.assert_close(whole["logits"], expected.logits, rtol=0, atol=1e-6)
    assert torch.equal(whole["kept"], expected.kept)


def test_torchscript_is_refused_with_a_sentence(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated by itself
        with pytest.raises(ConfigError, match="use torch.export.export or torch.compile"):
            torch.jit.script(model)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(torch.zeros(1, 3, 4, 16, 16)), r"must be \(B, 4, 3, 16, 16\)"),
        (lambda m: m(make_pixels(1)[0]), "pixel_values must be"),
        (lambda m: m(make_pixels(1).to(torch.uint8)), "raw uint8 frames"),
        (lambda m: m(make_pixels(1), keep_ratio="0.5"), "must be a number"),
        (lambda m: m(make_pixels(1), keep_ratio=True), "must be a number"),
        (lambda m: m(make_pixels(1), keep_ratio={}), "must be a number"),
        (lambda m: m(make_pixels(2), keep_ratio=[0.5]), "got 1 for 2 clips"),
        (lambda m: m(make_pixels(2), keep_ratio=[0.5, 0]), r"\(0, 1\]"),
        (lambda m: m(make_pixels(2), keep_ratio=torch.full((2, 2), 0.5)), "got 4 for 2 clips"),
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


def test_one_compiled_graph_serves_any_number_of_clips(model):
    graphs = []

    def counting(graph, example):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counting)
    for num in (2, 3, 5):
        pixels = make_pixels(num)
        expected = model(pixels, keep_ratio=0.5).logits
        assert torch.equal(compiled(pixels, keep_ratio=0.5).logits, expected)
    assert len(graphs) == 1


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


@torch.no_grad()
def test_the_selector_ranks_in_single_precision_under_autocast(model):
    tokens = model.backbone.embed(make_pixels(3))
    expected, _ = model.rank(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = model.rank(tokens)
    assert torch.equal(found, expected)


@torch.no_grad()
def test_uneven_budgets_are_answered_in_double_precision(model):
    double = copy.deepcopy(model).double()
    tokens = double.backbone.embed(make_pixels(3).double())
    ranking, _ = double.rank(tokens)
    logits, _ = classify(double, tokens, ranking, torch.tensor([8, 2, 5]))
    whole = double.backbone.run(tokens)
    torch.testing.assert_close(logits[:1], whole[:1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("precision", "error"), [("bf16", 0.03), ("fp16", 0.004)])
def test_half_precision_stays_close_and_keeps_logits_and_scores_single(
    tiny_backbone, precision, error
):
    backbone = load_backbone(str(tiny_backbone), precision=precision)
    model = LiteModel(backbone, make_selector(backbone, "tiny"), MASS)
    full, pixels = make_model(tiny_backbone), make_pixels(4)
    for output in (model(pixels, keep_ratio=0.5), model(pixels, adaptive=True)):
        assert output.logits.dtype == output.scores.dtype == torch.float32
        assert torch.isfinite(output.logits).all()
    expected = full(pixels, keep_ratio=1).logits
    assert (model(pixels, keep_ratio=1).logits - expected).abs().max() < error * expected.std()
