"""How a model answers clips: by one budget for all, one for each, their content, or LITE++'s rule.

Axes: B clips, N tokens of the full grid, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from pipeline.backbones.precision import in_full_precision
from pipeline.backbones.tokens import Tokens, reduce
from selector.budgets.clip_budget import ThresholdBudget
from selector.budgets.confidence import Judgement
from selector.deploy.output import LiteOutput, joined, kept_mask
from selector.methods.base import ClipBatch
from selector.methods.keep import best_tokens, kept_counts, of_equal_counts

if TYPE_CHECKING:
    from selector.deploy.model import LiteModel


def fixed(
    model: LiteModel,
    pixel_values: torch.Tensor,
    tokens: Tokens,
    keep_ratio: float | Sequence[float] | torch.Tensor,
) -> LiteOutput:
    """Clips of equal budget run together."""
    num_tokens = model.backbone.grid.num_tokens
    # Not len(), which would fix the number of clips in an exported graph.
    nums = kept_counts(num_tokens, keep_ratio, tokens.values.shape[0])
    alike = _selected if model.config.selects else _reduced
    if isinstance(nums, int):
        return alike(model, pixel_values, tokens, nums)
    counts = torch.tensor(nums, dtype=torch.int64, device=tokens.values.device)
    if len(counts) == 0:
        return alike(model, pixel_values, tokens, num_tokens)
    parts = [
        (rows, alike(model, pixel_values[rows], tokens.rows(rows), num))
        for num, rows in of_equal_counts(counts)
    ]
    return parts[0][1] if len(parts) == 1 else joined(parts, len(counts))


def _selected(model: LiteModel, pixel_values: torch.Tensor, tokens: Tokens, num: int) -> LiteOutput:
    """The selector's best `num` tokens of every clip."""
    num_tokens = model.backbone.grid.num_tokens
    shape, device = (tokens.values.shape[0], num_tokens), tokens.values.device
    budget = torch.full(shape[:1], num, device=device)
    if num == num_tokens:
        kept = torch.ones(shape, dtype=torch.bool, device=device)
        return LiteOutput(logits=model.backbone.run(tokens), kept=kept, budget=budget)
    ranking, scores = model.rank(tokens)
    left = reduce(tokens, best_tokens(tokens, ranking, num))
    logits = model.backbone.run(left)
    kept = kept_mask(left, num_tokens)
    return LiteOutput(logits=logits, kept=kept, budget=budget, scores=scores)


def _reduced(model: LiteModel, pixel_values: torch.Tensor, tokens: Tokens, num: int) -> LiteOutput:
    """By any method, at the budget of keeping `num` tokens of every clip."""
    num_tokens = model.backbone.grid.num_tokens
    num_clips = tokens.values.shape[0]  # not len(), which would fix it in an exported graph
    if num == num_tokens:
        kept = torch.ones(num_clips, num_tokens, dtype=torch.bool, device=model.device)
        budget = torch.full((num_clips,), num, device=model.device)
        return LiteOutput(
            logits=model.backbone.run(tokens),
            kept=kept,
            budget=budget,
            group=tokens.tracked().group,
        )
    batch = ClipBatch.of_pixels(model.backbone, pixel_values, tokens)
    reducer = model.method.reducer(model.method.prepare(batch), model.setting(num))
    left = model.backbone.encode(tokens.tracked(), reducer)
    return LiteOutput(
        logits=model.backbone.head(left),
        kept=kept_mask(left, num_tokens),
        budget=torch.full((num_clips,), left.num - left.off_grid, device=model.device),
        group=left.group,
    )


def by_content(model: LiteModel, pixel_values: torch.Tensor, tokens: Tokens) -> LiteOutput:
    """Each clip keeps as many tokens as its content asks for; those of equally many together.

    How many is read back, which is not one graph for `torch.compile` and `torch.export`.
    """
    num_tokens, num_clips = model.backbone.grid.num_tokens, len(tokens)
    if num_clips == 0:
        return _reduced(model, pixel_values, tokens, num_tokens)
    batch = ClipBatch.of_pixels(model.backbone, pixel_values, tokens)
    whole = model.method.reducer(model.method.prepare(batch), model.setting(num_tokens))
    every = torch.arange(num_clips, device=tokens.values.device)
    parts = []
    for rows, reducer in whole.split() or [(every, whole)]:
        left = model.backbone.encode(tokens.rows(rows), reducer)
        budget = torch.full((len(rows),), left.num - left.off_grid, device=rows.device)
        logits = model.backbone.head(left)
        kept = kept_mask(left, num_tokens)
        parts.append((rows, LiteOutput(logits=logits, kept=kept, budget=budget)))
    return joined(parts, num_clips)


def adaptive(model: LiteModel, pixel_values: torch.Tensor, tokens: Tokens) -> LiteOutput:
    """Each clip gets the budget that the calibrated rule sets, by its confidence or its mass."""
    rule = model.config.budget
    ranking, scores = model.rank(tokens)
    if isinstance(rule, ThresholdBudget):
        assert model.confidence is not None
        judged: Judgement = model.confidence(pixel_values, tokens, ranking)
        budget = rule.counts(judged.confidence, ranking.shape[1])
        logits, kept = classify(model, tokens, ranking, budget, judged.answers)
        return LiteOutput(
            logits=logits,
            kept=kept,
            budget=budget,
            scores=scores,
            confidence=judged.confidence,
        )
    assert rule is not None
    budget = rule.counts(scores, ranking)
    logits, kept = classify(model, tokens, ranking, budget)
    return LiteOutput(logits=logits, kept=kept, budget=budget, scores=scores)


def classify(
    model: LiteModel,
    tokens: Tokens,
    ranking: torch.Tensor,
    budget: torch.Tensor,
    answers: Mapping[int, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Classify each clip from as many of its tokens as its budget allows.

    Clips of equal budget run together and none is padded, so a clip's result does not depend
    on its neighbours' budgets.

    Args:
        model: whose backbone answers.
        tokens: all tokens of the clips.
        ranking: (B, N), higher is kept first.
        budget: int64 (B,), 1..N.
        answers: as `Judgement.answers` has them; a budget that is among them runs nothing.

    Returns:
        Logits (B, C), in float32 at least, and the kept tokens, bool (B, N).
    """
    shape = (len(tokens), model.backbone.num_classes)
    logits = in_full_precision(tokens.values.new_empty(shape))
    kept = torch.zeros(ranking.shape, dtype=torch.bool, device=ranking.device)
    answers = answers or {}
    for num, rows in of_equal_counts(budget):
        some = tokens.rows(rows)
        left = reduce(some, best_tokens(some, ranking[rows], num))
        if num in answers:
            logits[rows] = answers[num][rows]
        else:
            logits[rows] = model.backbone.run(left)
        kept[rows] = kept_mask(left, ranking.shape[1])
    return logits, kept
