"""Making a model of transformers that is in memory cheaper, in place, and undoing it.

    import selector as lite

    lite.apply(model, method="tome", keep_ratio=0.5)
    model(pixel_values=..., labels=...)  # the same class, fewer tokens
    lite.remove(model)

Nothing is trained, and no weight is touched: the model gets another `forward`, which runs the same
layers on fewer tokens. What it is saved as, is the plain model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.backbones import adapt
from pipeline.errors import ConfigError
from selector.deploy.config import LiteConfig

Model = TypeVar("Model", bound=nn.Module)

_STATE = "_lite_applied"


@dataclass
class _Applied:
    """What an applied method needs; a plain attribute, so that it adds no weights to the model."""

    lite: Any
    """The `LiteModel` over the same layers."""
    added: tuple[str, ...]
    """Modules that the adapter gave the model."""


class _Reduced:
    """Goes in front of a model's own class."""

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        pixel_values_videos: torch.Tensor | None = None,
    ) -> Any:
        """As the class's own forward, on fewer tokens; see it for the arguments.

        Raises:
            ConfigError: attentions or hidden states are asked for, which have not all tokens; no
                frames are given; or labels of another kind than class ids.
        """
        from transformers.modeling_outputs import ImageClassifierOutput

        if output_attentions or output_hidden_states:
            raise ConfigError(
                "with fewer tokens there are no attentions and hidden states of all: call "
                "selector.remove(model) first"
            )
        frames = pixel_values if pixel_values is not None else pixel_values_videos
        if frames is None:
            raise ConfigError("the model needs frames: pixel_values (B, T, 3, H, W)")
        state: _Applied = getattr(self, _STATE)
        logits = state.lite(frames).logits.to(state.lite.dtype)
        loss = None if labels is None else _loss(logits, labels)
        output = ImageClassifierOutput(loss=loss, logits=logits)
        return output.to_tuple() if return_dict is False else output


def apply(model: Model, method: str = "uniform", keep_ratio: float = 0.5) -> Model:
    """Make a model cheaper from now on; `remove` undoes it.

    Args:
        model: a video classifier of transformers (VideoMAE, TimeSformer, ViViT, V-JEPA 2), in any
            precision, on any device, in training or evaluation mode. It is changed in place; one
            that a method was applied to before gets the new one.
        method: one that needs no trained selector: `uniform`, `tome`, `evs` ...; `lite-pipeline
            methods` lists them.
        keep_ratio: share of the tokens kept; for a method that merges, what keeping it would cost;
            for `rlt` nothing, as each clip's content decides.

    Returns:
        The same object: its class is a subclass of what it was, of the same name.

    Raises:
        BackboneError: no video classifier of a known kind.
        ConfigError: an unknown method, one that needs a selector or cannot serve this model, or a
            ratio that it cannot reach or that is outside (0, 1].
    """
    from selector.deploy.model import LiteModel
    from selector.methods.registry import parse_method

    if parse_method(method).selected_by is not None:
        raise ConfigError(
            f"method {method} ranks by a selector that was trained for a checkpoint: load both "
            "with LiteModel.from_pretrained, or make them with `lite-pipeline accelerate`"
        )
    if hasattr(model, _STATE):
        remove(model)
    before = {name for name, _ in model.named_modules()}
    backbone = adapt(model)
    added = tuple(name for name, _ in model.named_modules() if name not in before)
    try:
        config = LiteConfig(method=method, keep_ratio=keep_ratio)
        lite = LiteModel(backbone, None, config, backbone_name="a model in memory")
        if not lite.by_content:
            lite.cost_of()  # a budget out of reach says so now
    except Exception:
        _delete(model, added)
        raise
    plain = type(model)
    setattr(model, _STATE, _Applied(lite, added))
    names = {"__module__": plain.__module__, "__doc__": plain.__doc__}
    model.__class__ = type(plain.__name__, (_Reduced, plain), names)
    return model


def remove(model: Model) -> Model:
    """Give a model its own forward back; one that no method was applied to stays as it is.

    Returns:
        The same object.
    """
    state = model.__dict__.pop(_STATE, None)
    if state is not None:
        _delete(model, state.added)
        model.__class__ = type(model).__mro__[2]  # behind the subclass and `_Reduced`
    return model


def _delete(model: nn.Module, names: tuple[str, ...]) -> None:
    for name in reversed(names):
        parent, _, last = name.rpartition(".")
        delattr(model.get_submodule(parent), last)


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    if labels.dtype not in (torch.int64, torch.int32) or labels.dim() != 1:
        raise ConfigError(
            f"labels must be class ids, integers (B,), got {labels.dtype} {tuple(labels.shape)}"
        )
    return F.cross_entropy(logits.float(), labels.long().to(logits.device))
