"""Ranking by the attention that tokens receive: what the backbone itself looks at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pipeline.backbones.base import Backbone
from pipeline.errors import ConfigError
from selector.methods.cost import count_gmacs, without_data
from selector.methods.rank.base import ClipBatch, Ranker


class AttentionRanker(Ranker):
    """Attention received, averaged over queries, heads and blocks.

    The paper's baseline, "the magnitude of the attention of each token", names no block; ours
    takes all. It needs the full model on all tokens, so it shows what such a cue is worth and can
    save nothing: its cost is that of the blocks.

    Args:
        backbone: must attend through `torch.nn.functional.scaled_dot_product_attention`.
    """

    def __init__(self, backbone: Backbone) -> None:
        twin = without_data(backbone)
        size = (1, backbone.grid.num_tokens, backbone.hidden_size)
        tokens = torch.empty(size, dtype=backbone.dtype, device="meta")
        self.gmacs = count_gmacs(lambda z: _run_blocks(twin, z), tokens)

    def scores(self, batch: ClipBatch) -> torch.Tensor:
        """Mean attention probability, (B, N) float32; each row sums to 1.

        Raises:
            ConfigError: the backbone attends in another way.
        """
        with _Received() as received:
            _run_blocks(batch.backbone, batch.tokens)
        if not received.maps:
            raise ConfigError(
                f"method attention cannot see into {type(batch.backbone).__name__}: it does not "
                "use PyTorch's scaled_dot_product_attention; leave the method out"
            )
        return torch.stack(received.maps).mean(dim=0)


class _Received(TorchFunctionMode):
    """Within it, every scaled dot-product attention leaves a (B, N) map behind.

    The fused kernel never forms the probabilities, so they are computed beside it, clip by clip
    because one clip's are already heads x N x N.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[torch.Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            query, key = args[:2] if len(args) > 1 else (kwargs["query"], kwargs["key"])
            scale = kwargs.get("scale") or query.shape[-1] ** -0.5
            pairs = zip(query, key, strict=True)
            self.maps.append(torch.stack([_received(q, k, scale) for q, k in pairs]))
        return func(*args, **kwargs)


def _received(query: torch.Tensor, key: torch.Tensor, scale: float) -> torch.Tensor:
    """(heads, N, d) of one clip -> (N,) float32, mean probability over heads and queries."""
    logits = query.float() @ key.float().transpose(-1, -2) * scale
    return logits.softmax(dim=-1).mean(dim=(0, 1))


def _run_blocks(backbone: Backbone, tokens: torch.Tensor) -> torch.Tensor:
    for block in backbone.blocks:
        tokens = block(tokens)
    return tokens
