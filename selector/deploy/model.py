"""The deployable model: backbone, selector and budget behind one call.

    model = LiteModel.from_pretrained("selectors/ssv2")
    output = model(pixel_values, keep_ratio=0.3)        # or adaptive=True
    output.logits, output.kept, output.budget

Axes: B clips, T frames, N tokens of the full grid, K kept tokens, D channels, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.backbones import load_backbone
from pipeline.backbones.base import Backbone
from pipeline.backbones.tokens import Tokens
from pipeline.errors import ConfigError
from selector.budgets.confidence import Confidence
from selector.budgets.confidence_names import load_confidence
from selector.deploy import answers
from selector.deploy.config import LiteConfig
from selector.deploy.files import load_parts
from selector.deploy.output import LiteOutput
from selector.deploy.saving import push_model, save_model
from selector.methods.base import Method, Setting
from selector.methods.cost import CostModel, ViewCost
from selector.methods.keep import num_kept
from selector.methods.names import LITE
from selector.methods.rank.lite import rank_by_selector
from selector.methods.registry import Parts, make_method, parse_method
from selector.methods.spread import spread_offsets
from selector.training.model import TokenSelector


class LiteModel(nn.Module):
    """A frozen video transformer that sees only the tokens its selector picks (LITE, LITE++).

    Or that a method of `selector.methods.registry` leaves it, before or inside its blocks.

    Args:
        backbone: frozen, in evaluation mode.
        selector: trained for this backbone; None for a method that needs none.
        config: budgets.
        backbone_name: the checkpoint `backbone` was loaded from, for `save_pretrained`.
        revision: hub revision of that checkpoint.

    Raises:
        ConfigError: the selector belongs to another backbone, the method cannot serve it or be part
            of a model in use, or the confidence cannot be loaded.
    """

    def __init__(
        self,
        backbone: Backbone,
        selector: TokenSelector | None,
        config: LiteConfig | None = None,
        backbone_name: str | None = None,
        revision: str | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.selector: TokenSelector | None = None
        if selector is not None:
            selector.config.check_fits(backbone)
            self.selector = selector.to(backbone.device).eval().requires_grad_(False)
        self._offsets: torch.Tensor
        self.register_buffer("_offsets", None, persistent=False)
        self.confidence: Confidence | None = None
        self._confidence_name: str | None = None
        self.config = config or LiteConfig()
        self.backbone_name, self.revision = (
            (backbone_name, revision)
            if backbone_name is not None
            else self.config.backbone_of(selector.config if selector is not None else None)
        )

    @property
    def config(self) -> LiteConfig:
        """How the model selects unless told otherwise; another one may be set at any time.

        Raises:
            ConfigError: on setting, the method cannot be made or the confidence not loaded.
        """
        return self._config

    @config.setter
    def config(self, config: LiteConfig) -> None:
        kept = self.confidence if self._confidence_name == config.confidence else None
        if config.needs_confidence and kept is None:
            kept = load_confidence(config.confidence, self.backbone)
        self.confidence = kept if config.needs_confidence else None
        self._confidence_name = config.confidence if config.needs_confidence else None
        self._offsets = spread_offsets(self.backbone.grid, config.spread).to(self.device)
        self._method = self._make_method(config)
        self._config = config

    def _make_method(self, config: LiteConfig) -> Method:
        selectors = {} if self.selector is None else {LITE: self.selector}
        parts = Parts(self.backbone, selectors=selectors, spread=config.spread)
        method = make_method(parse_method(config.method), parts)
        if method.unseen is not None:
            raise ConfigError(
                f"method {config.method} needs {method.unseen}, which a model in use does not see: "
                "it can be evaluated only"
            )
        return method

    @property
    def method(self) -> Method:
        """What makes clips cheaper, as the configuration names it."""
        return self._method

    @property
    def by_content(self) -> bool:
        """Whether each clip's content decides how many of its tokens stay (RLT), and no budget."""
        return self.method.by_content

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """What `.to`, `.half` and their like call: a cast reaches all but the selector.

        It ranks in single precision, and rounded weights would rank otherwise.
        """

        def moved(tensor: torch.Tensor) -> torch.Tensor:
            new = fn(tensor)
            return new if new.dtype == tensor.dtype else tensor.to(new.device)

        parts, offsets = dict(self._modules), self._buffers.pop("_offsets")
        selector = self._modules.pop("selector", None)
        super()._apply(fn, recurse)
        self._modules.clear()  # their order is that of the weights
        self._modules.update(parts)
        self._buffers["_offsets"] = None if offsets is None else moved(offsets)
        if selector is not None:
            selector._apply(moved)
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the backbone; logits and scores are float32 in any."""
        return self.backbone.dtype

    @property
    def id2label(self) -> dict[int, str]:
        """Class names by class id; `LABEL_0` and so on where the checkpoint names none."""
        names = self.backbone.label_names
        return {i: names[i] if names else f"LABEL_{i}" for i in range(self.backbone.num_classes)}

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        device: str = "cpu",
        precision: str | None = None,
        backbone: str | None = None,
        spread: float | None = None,
        method: str | None = None,
    ) -> LiteModel:
        """Load a model from the folder that `train-selector` or `save_pretrained` wrote.

        Args:
            name_or_path: that folder, or a hub id.
            revision: commit, tag or branch of a hub id.
            device: torch device.
            precision: `fp32`, `bf16` or `fp16`, of the backbone; default the folder's own.
            backbone: checkpoint to use in place of the one the folder holds or names.
            spread: to use in place of the folder's; an adaptive budget that was calibrated with
                another one is forgotten.
            method: to use in place of the folder's, as for `from_backbone`.

        Raises:
            ConfigError: there is no selector, or it was trained for another backbone.
            BackboneError: the backbone is not found or does not load faithfully.
        """
        loaded, selector, config, place = load_parts(
            str(name_or_path), revision, device, precision, backbone, method
        )
        if spread is not None:
            config = config.with_spread(spread)
        return cls(loaded, selector, config, *place)

    @classmethod
    def from_backbone(
        cls,
        name_or_path: str | Path,
        method: str = "uniform",
        *,
        keep_ratio: float = 0.5,
        sampling: str | None = None,
        revision: str | None = None,
        device: str = "cpu",
        precision: str = "fp32",
    ) -> LiteModel:
        """Make a model from a checkpoint alone, with a method that needs no training.

        Args:
            name_or_path: a folder that `save_pretrained` wrote, a hub id, or `synthetic`.
            method: `tome`, `uniform`, `evs` ...; `lite-pipeline methods` lists them.
            keep_ratio: budget unless told otherwise.
            sampling: frames of a clip; default `uniform`.
            revision: commit, tag or branch of a hub id.
            device: torch device.
            precision: `fp32`, `bf16` or `fp16`.

        Raises:
            ConfigError: the method needs a selector, or cannot serve this backbone.
            BackboneError: the backbone is not found or does not load faithfully.
        """
        config = LiteConfig(method=method, keep_ratio=keep_ratio, sampling=sampling)
        backbone = load_backbone(str(name_or_path), revision, device, precision)
        return cls(backbone, None, config, str(name_or_path), revision)

    def save_pretrained(
        self,
        folder: str | Path,
        with_backbone: bool = True,
        max_shard_size: str | int | None = None,
    ) -> None:
        """Make the model in a folder this one, as it is in memory; `from_pretrained` reads it.

        All of an earlier model there is replaced, or nothing. A backbone that was trained or cast
        since it was loaded is written as it is, and gets an identity of its own.

        Args:
            folder: made if needed; files of others in it are left alone.
            with_backbone: also write the backbone, into `backbone/`; otherwise only the name of its
                checkpoint is kept, which is small, and enough where the checkpoint is at hand.
            max_shard_size: `5GB` and the like: write the backbone anew, in files of at most that.

        Raises:
            ConfigError: a part cannot be written as it is in memory, or the folder has something
                else in it, such as a checkpoint; the folder is as before.
            BackboneError: that part is the backbone.
        """
        save_model(self, Path(folder).expanduser(), with_backbone, max_shard_size)

    @property
    def sampling(self) -> str:
        """Frames of a clip, `uniform` or `stride:N`, unless asked otherwise."""
        return self.config.sampling_of(None if self.selector is None else self.selector.config)

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, with_backbone: bool = True
    ) -> str:
        """Upload what `save_pretrained` writes; returns the address of the commit.

        Raises:
            ConfigError: the hub is out of reach, or refuses, or the model cannot be written.
        """
        return push_model(self, repo_id, private, with_backbone)

    def forward(
        self,
        pixel_values: torch.Tensor,
        keep_ratio: float | Sequence[float] | torch.Tensor | None = None,
        adaptive: bool | None = None,
        labels: torch.Tensor | None = None,
    ) -> LiteOutput:
        """Classify clips.

        Args:
            pixel_values: (B, T, 3, H, W) normalised frames, from `model.backbone.pixel_values` or
                the checkpoint's Hugging Face processor; moved and cast as the model needs them.
            keep_ratio: share of the tokens kept, of every clip or one for each of the B; default
                the configuration's. With 1, the selector does not run and the logits are the plain
                model's. A model that is `by_content` takes that one only.
            adaptive: give each clip the budget that the calibrated rule sets (LITE++); default the
                configuration's, and not with a keep ratio. Where the
                clips' budgets differ, they are read back to group clips of equal budget, which is
                not one graph for `torch.compile` and `torch.export`; one for all clips is.
            labels: int64 (B,) class ids, for the loss.

        Raises:
            ConfigError: another shape or type, a keep ratio outside (0, 1], or no calibrated
                budget.
        """
        adaptive = self.config.adapts(keep_ratio, adaptive)
        self._check(keep_ratio, adaptive)
        pixel_values = self.backbone.checked(pixel_values)
        tokens = self.backbone.embed(pixel_values)
        if adaptive:
            output = answers.adaptive(self, pixel_values, tokens)
        elif self.by_content and keep_ratio is None:
            output = answers.by_content(self, pixel_values, tokens)
        else:
            ratio = self.config.keep_ratio if keep_ratio is None else keep_ratio
            output = answers.fixed(self, pixel_values, tokens, ratio)
        if labels is not None:
            output.loss = F.cross_entropy(output.logits, labels.to(output.logits.device))
        return output

    def setting(self, num: int) -> Setting:
        """What the budget of keeping `num` tokens buys of the method."""
        return self.method.setting(num / self.backbone.grid.num_tokens, self.costs)

    def rank(self, tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
        """What decides which tokens stay, and what they are predicted to be worth.

        Args:
            tokens: all tokens of the clips.

        Returns:
            The ranking, higher is kept first, and the scores in [0, 1], both (B, N).
        """
        assert self.selector is not None
        found = rank_by_selector(self.selector, self.backbone, tokens, self._offsets)
        assert found.predicted is not None
        return found.scores, found.predicted

    def cost(self, num_tokens_kept: int, adaptive: bool = False) -> ViewCost:
        """What one view that keeps so many tokens costs, with this model's selector.

        Args:
            num_tokens_kept: as `LiteOutput.budget` has it.
            adaptive: whether the budget was set by the adaptive rule, whose cost is then included.
        """
        if not adaptive:
            ranked = None if self.config.needs_selector else False
            return self.costs.at(num_tokens_kept, ranked=ranked)
        asked = self.confidence
        confidence = asked.extra_gmacs(num_tokens_kept) if asked is not None else 0.0
        return self.costs.at(num_tokens_kept, confidence=confidence, ranked=True)

    def cost_of(self, keep_ratio: float | None = None) -> ViewCost:
        """What one view costs with this model's method at a budget.

        Args:
            keep_ratio: as `forward` has it, for all clips; default the configuration's.

        Raises:
            UnreachableBudgetError: the method cannot get so cheap.
            ConfigError: each clip's content decides; `cost` says what its budget cost.
        """
        num_tokens = self.backbone.grid.num_tokens
        num = num_kept(num_tokens, self.config.keep_ratio if keep_ratio is None else keep_ratio)
        if self.config.selects or num == num_tokens:
            return self.costs.at(num)
        setting = self.setting(num)
        counts = self.method.course(setting, self.costs.flow)
        extra = self.method.overhead(setting, self.costs.flow)
        return replace(self.costs.at(counts, ranked=False), selector=extra or 0.0)

    @cached_property
    def costs(self) -> CostModel:
        """Counts what views cost."""
        return CostModel(self.backbone, self.selector)

    def _check(self, keep_ratio: object, adaptive: bool) -> None:
        if adaptive and keep_ratio is not None:
            raise ConfigError("give either keep_ratio or adaptive, not both")
        if self.by_content and isinstance(keep_ratio, int | float) and keep_ratio == 1:
            return
        if self.by_content and keep_ratio is not None:
            raise ConfigError(
                f"method {self.config.method} takes no keep ratio but 1 (all tokens): each clip's "
                "content decides. Its threshold is its own, as in rlt[tau=0.2]; evs is the same "
                "rule at a given keep ratio"
            )
        if adaptive and self.config.budget is None:
            raise ConfigError(
                "this model has no adaptive budget yet: run `lite-pipeline calibrate` on it, or "
                "give a keep_ratio"
            )

    def __prepare_scriptable__(self) -> None:
        """What torch.jit.script asks first."""
        raise ConfigError(
            "TorchScript cannot compile this model; use torch.export.export or torch.compile, "
            "which can"
        )
