"""Low-rank adapters (Hu et al., 2021) through `peft`, in place of all weights of blocks and head.

They are added to the weights at the end, so that what comes out is an ordinary model.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from pipeline.backbones.base import Backbone
from pipeline.errors import ConfigError


class LoraAdapters:
    """Adapters on every linear layer among some weights; a fresh one changes nothing.

    Args:
        backbone: frozen; its layers are wrapped in place until `unload`.
        names: parameters that may change; the weights of linear layers among them are adapted.
        rank: of each adapter.
        seed: of the first factors; the second are zero.

    Attributes:
        parameters: by name, the only ones that train: for a layer from n to m channels
            `rank * (n + m)` numbers.

    Raises:
        ConfigError: `peft` is missing, or no linear layer is among them.
    """

    def __init__(self, backbone: Backbone, names: Collection[str], rank: int, seed: int) -> None:
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise ConfigError(
                "low-rank adapters need peft: pip install 'lite-pipeline[lora]', or leave out "
                "--lora"
            ) from error
        layers = [
            name
            for name, module in backbone.named_modules()
            if isinstance(module, nn.Linear) and f"{name}.weight" in names
        ]
        if not layers:
            raise ConfigError("this backbone has no linear layer to put an adapter on")
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=layers)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inject_adapter_in_model(config, backbone)
        self._backbone = backbone
        self.parameters: dict[str, torch.Tensor] = {
            name: parameter
            for name, parameter in backbone.named_parameters()
            if parameter.requires_grad
        }

    def check_gradients(self) -> None:
        """After a backward pass: an adapter that a model's code passes by would never learn.

        Raises:
            ConfigError: names the first.
        """
        passed_by = [name for name, p in self.parameters.items() if p.grad is None]
        if passed_by:
            raise ConfigError(
                f"{len(passed_by)} adapters have no part in this backbone's answer, {passed_by[0]} "
                "first: its code reads the weights past the layer. Adapt without --lora"
            )

    def unload(self, *, add: bool) -> None:
        """Take the adapters away, and before that add them to the weights or not."""
        from peft.tuners.lora import LoraLayer

        for name, module in list(self._backbone.named_modules()):
            if isinstance(module, LoraLayer):
                layer: Any = module
                if add:
                    layer.merge()
                parent, _, child = name.rpartition(".")
                setattr(self._backbone.get_submodule(parent), child, layer.get_base_layer())
