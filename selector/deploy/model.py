"""The deployable model: backbone, selector and budget behind one call.

    model = LiteModel.from_pretrained("selectors/ssv2")
    output = model(pixel_values, keep_ratio=0.3)        # or adaptive=True
    output.logits, output.kept, output.budget

Axes: B clips, T frames, N tokens of the full grid, K kept tokens, D channels, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from pipeline.backbones.base import Backbone
from pipeline.backbones.tokens import Tokens, reduce
from pipeline.errors import ConfigError
from selector.budgets.confidence import Confidence, Judgement
from selector.budgets.confidence_names import load_confidence
from selector.budgets.rules import ThresholdBudget
from selector.deploy.config import LiteConfig
from selector.deploy.files import load_parts, push_folder, save_parts
from selector.methods.cost import CostModel, ViewCost
from selector.methods.keep import best_tokens, num_kept
from selector.methods.spread import spread_offsets
from selector.training.model import TokenSelector


@dataclass(frozen=True)
class LiteOutput:
    """What one call gives.

    Attributes:
        logits: float32 (B, C).
        kept: bool (B, N), the tokens that entered block 1.
        budget: int64 (B,), how many they are.
        scores: float (B, N) in [0, 1], predicted; None where all tokens are kept, unranked.
        confidence: float32 (B,), what a threshold budget went by; else None.
    """

    logits: torch.Tensor
    kept: torch.Tensor
    budget: torch.Tensor
    scores: torch.Tensor | None = None
    confidence: torch.Tensor | None = None


class LiteModel(nn.Module):
    """A frozen video transformer that sees only the tokens its selector picks (LITE, LITE++).

    Args:
        backbone: frozen, in evaluation mode.
        selector: trained for this backbone.
        config: budgets.
        backbone_name: the checkpoint `backbone` was loaded from, for `save_pretrained`.
        revision: hub revision of that checkpoint.

    Raises:
        ConfigError: the selector belongs to another backbone, or the confidence cannot be loaded.
    """

    def __init__(
        self,
        backbone: Backbone,
        selector: TokenSelector,
        config: LiteConfig | None = None,
        backbone_name: str | None = None,
        revision: str | None = None,
    ) -> None:
        super().__init__()
        selector.config.check_fits(backbone)
        self.backbone = backbone
        self.selector = selector.to(backbone.device).eval().requires_grad_(False)
        self.config = config or LiteConfig()
        self._offsets: torch.Tensor
        offsets = spread_offsets(backbone.grid, self.config.spread).to(backbone.device)
        self.register_buffer("_offsets", offsets, persistent=False)
        self.backbone_name, self.revision = (
            (backbone_name, revision)
            if backbone_name is not None
            else self.config.backbone_of(selector.config)
        )
        self.confidence: Confidence | None = (
            load_confidence(self.config.confidence, backbone)
            if self.config.needs_confidence
            else None
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        device: str = "cpu",
        precision: str = "fp32",
        backbone: str | None = None,
        spread: float | None = None,
    ) -> LiteModel:
        """Load a model from the folder that `train-selector` or `save_pretrained` wrote.

        Args:
            name_or_path: that folder, or a hub id.
            revision: commit, tag or branch of a hub id.
            device: torch device.
            precision: `fp32` or `bf16`, of the backbone.
            backbone: checkpoint to use in place of the one the folder holds or names.
            spread: to use in place of the folder's; an adaptive budget that was calibrated with
                another one is forgotten.

        Raises:
            ConfigError: there is no selector, or it was trained for another backbone.
            BackboneError: the backbone is not found or does not load faithfully.
        """
        loaded, selector, config, place = load_parts(
            str(name_or_path), revision, device, precision, backbone
        )
        if spread is not None:
            config = config.with_spread(spread)
        return cls(loaded, selector, config, *place)

    def save_pretrained(self, folder: str | Path, with_backbone: bool = True) -> None:
        """Write a folder that `from_pretrained` reads anywhere.

        Args:
            folder: made if needed.
            with_backbone: copy the checkpoint's files into `backbone/`; otherwise only its name
                and digest are kept, which is small, and enough where the checkpoint is at hand.
        """
        place = (self.backbone_name, self.revision)
        save_parts(Path(folder), self.selector, self.config, place, with_backbone)

    @property
    def sampling(self) -> str:
        """Frames of a clip, `uniform` or `stride:N`, unless asked otherwise."""
        learnt = self.selector.config.trained_on
        return self.config.sampling or (learnt.sampling if learnt is not None else "uniform")

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, with_backbone: bool = True
    ) -> str:
        """Upload what `save_pretrained` writes; returns the address of the commit."""
        return push_folder(repo_id, private, lambda f: self.save_pretrained(f, with_backbone))

    def forward(
        self,
        pixel_values: torch.Tensor,
        keep_ratio: float | None = None,
        adaptive: bool = False,
    ) -> LiteOutput:
        """Classify clips.

        Args:
            pixel_values: (B, T, 3, H, W) normalised frames, from `model.backbone.pixel_values` or
                the checkpoint's Hugging Face processor.
            keep_ratio: share of the tokens kept in every clip; default the configuration's. With
                1, the selector does not run and the logits are the plain model's.
            adaptive: give each clip the budget that the calibrated rule sets (LITE++). The
                decisions are read back to group clips of equal budget, so this path is not one
                graph for `torch.compile`; the fixed one is.

        Raises:
            ConfigError: another shape, a keep ratio outside (0, 1], or no calibrated budget.
        """
        self._check(pixel_values, keep_ratio, adaptive)
        tokens = self.backbone.embed(pixel_values)
        num_tokens = self.backbone.grid.num_tokens
        if adaptive:
            return self._adaptive(pixel_values, tokens)
        num = num_kept(num_tokens, self.config.keep_ratio if keep_ratio is None else keep_ratio)
        device = tokens.values.device
        budget = torch.full((len(tokens),), num, device=device)
        if num == num_tokens:
            kept = torch.ones((len(tokens), num_tokens), dtype=torch.bool, device=device)
            return LiteOutput(self.backbone.run(tokens), kept, budget)
        ranking, scores = self.rank(tokens)
        left = reduce(tokens, best_tokens(tokens, ranking, num))
        return LiteOutput(self.backbone.run(left), _mask(left, num_tokens), budget, scores)

    def rank(self, tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
        """What decides which tokens stay, and what they are predicted to be worth.

        Args:
            tokens: all tokens of the clips.

        Returns:
            The ranking, higher is kept first, and the scores in [0, 1], both (B, N).
        """
        logits = self.selector(tokens.on_grid)
        return logits + self._offsets, logits.sigmoid()

    def classify(
        self,
        tokens: Tokens,
        ranking: torch.Tensor,
        budget: torch.Tensor,
        answers: Mapping[int, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Classify each clip from as many of its tokens as its budget allows.

        Clips of equal budget run together and none is padded, so a clip's result does not depend
        on its neighbours' budgets.

        Args:
            tokens: all tokens of the clips.
            ranking: (B, N), higher is kept first.
            budget: int64 (B,), 1..N.
            answers: as `Judgement.answers` has them; a budget that is among them runs nothing.

        Returns:
            float32 logits (B, C) and the kept tokens, bool (B, N).
        """
        shape = (len(tokens), self.backbone.num_classes)
        logits = torch.empty(shape, dtype=torch.float32, device=ranking.device)
        kept = torch.zeros(ranking.shape, dtype=torch.bool, device=ranking.device)
        answers = answers or {}
        for num in budget.unique().tolist():
            rows = (budget == num).nonzero().squeeze(1)
            some = tokens.rows(rows)
            left = reduce(some, best_tokens(some, ranking[rows], num))
            if num in answers:
                logits[rows] = answers[num][rows]
            else:
                logits[rows] = self.backbone.run(left)
            kept[rows] = _mask(left, ranking.shape[1])
        return logits, kept

    def cost(self, num_tokens_kept: int, adaptive: bool = False) -> ViewCost:
        """What one view that keeps so many tokens costs, with this model's selector.

        Args:
            num_tokens_kept: as `LiteOutput.budget` has it.
            adaptive: whether the budget was set by the adaptive rule, whose cost is then included.
        """
        if not adaptive:
            return self.costs.at(num_tokens_kept)
        asked = self.confidence
        confidence = asked.extra_gmacs(num_tokens_kept) if asked is not None else 0.0
        return self.costs.at(num_tokens_kept, confidence=confidence, ranked=True)

    @cached_property
    def costs(self) -> CostModel:
        """Counts what views cost."""
        return CostModel(self.backbone, self.selector)

    def _adaptive(self, pixel_values: torch.Tensor, tokens: Tokens) -> LiteOutput:
        rule = self.config.budget
        ranking, scores = self.rank(tokens)
        if isinstance(rule, ThresholdBudget):
            assert self.confidence is not None
            judged: Judgement = self.confidence(pixel_values, tokens, ranking)
            budget = rule.counts(judged.confidence, ranking.shape[1])
            logits, kept = self.classify(tokens, ranking, budget, judged.answers)
            return LiteOutput(logits, kept, budget, scores, judged.confidence)
        assert rule is not None
        budget = rule.counts(scores, ranking)
        logits, kept = self.classify(tokens, ranking, budget)
        return LiteOutput(logits, kept, budget, scores)

    def _check(self, pixels: torch.Tensor, keep_ratio: float | None, adaptive: bool) -> None:
        side, num_frames = self.backbone.image_size, self.backbone.num_frames
        if pixels.dim() != 5 or pixels.shape[1:] != (num_frames, 3, side, side):
            raise ConfigError(
                f"pixel_values must be (B, {num_frames}, 3, {side}, {side}), "
                f"got {tuple(pixels.shape)}"
            )
        if adaptive and keep_ratio is not None:
            raise ConfigError("give either keep_ratio or adaptive, not both")
        if adaptive and self.config.budget is None:
            raise ConfigError(
                "this model has no adaptive budget yet: run `lite-pipeline calibrate` on it, or "
                "give a keep_ratio"
            )


def _mask(left: Tokens, num_tokens: int) -> torch.Tensor:
    """Which tokens of the grid are left, bool (B, N)."""
    place = left.place[:, left.off_grid :]
    mask = torch.zeros((len(left), num_tokens), dtype=torch.bool, device=place.device)
    return mask.scatter(1, place, True)
