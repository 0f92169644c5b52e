"""The token selector: patch embeddings in, one logit per token out (paper, Sec. 4.2 and 4.4).

Architectures; the sigmoid of each token's logit imitates the oracle's score:

* `mlp`, `mlp4`, `mlp5`: 3, 4 or 5 fully connected layers on each token alone (Eq. 6).
* `global`: the first layer's features pass through 3-D convolutions over the token grid and then
  self-attention, and are added to the token's own before the last two layers. It needs all tokens
  of a clip: on a sample, the convolutions would see holes in training and none in use.
* `transformer`: a projection, transformer blocks, one output layer. It takes a sample as well as
  the whole: embeddings carry their position, and attention averages over whatever is there.

Width, activation and normalisation are not public. Ours: GELU; inputs standardised per channel
with statistics of the training store (raw patch embeddings differ in scale by orders of magnitude
between channels), kept as buffers beside the weights.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from pipeline.backbones.precision import as_precise_as_given
from pipeline.clips.grid import TokenGrid
from pipeline.errors import ConfigError
from selector.training.config import SelectorConfig


class TokenSelector(nn.Module):
    """Predicts the oracle's score of each token from its patch embedding.

    Args:
        config: what was built and for which backbone.

    Attributes:
        prior: (N,) float32, mean target per place of the grid over the training clips; not used by
            the network. None until a training ends, and where an earlier release ended it.
    """

    mean: torch.Tensor
    std: torch.Tensor
    prior: torch.Tensor | None = None

    def __init__(self, config: SelectorConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.hidden_size))
        self.register_buffer("std", torch.ones(config.hidden_size))
        self.body = _build(config)

    def forward(
        self, tokens: torch.Tensor, token_index: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits of the tokens; their sigmoid is the predicted score.

        Args:
            tokens: (B, K, D) patch embeddings with position, `z = E x + e_pos`, any float dtype.
            token_index: (B, K) int64, the tokens' places on the grid; None when K is the whole
                grid in its own order. Only `global` reads it.

        Returns:
            (B, K) float.

        Raises:
            ConfigError: `global` without all tokens of each clip.
        """
        x = (tokens.to(self.mean.dtype) - self.mean) / self.std
        with as_precise_as_given(x):
            logits: torch.Tensor = self.body(x, token_index).squeeze(-1)
        return logits

    @torch.no_grad()
    def set_statistics(self, mean: torch.Tensor, std: torch.Tensor, base_rate: float) -> None:
        """Takes over the training set's statistics before the first step.

        Args:
            mean: (D,) per-channel mean of the embeddings.
            std: (D,) per-channel standard deviation; a constant channel's 0 becomes 1.
            base_rate: mean target score; the output starts there and not at 1/2.
        """
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 0, std, 1.0))
        rate = torch.tensor(base_rate).clamp(1e-4, 1 - 1e-4)
        output = [m for m in self.body.modules() if isinstance(m, nn.Linear)][-1]
        output.bias.fill_(torch.logit(rate))

    def macs_per_token(self, num_tokens: int | None = None) -> float:
        """Multiply-accumulates per token, counted by `torch.utils.flop_counter` on no data.

        Args:
            num_tokens: tokens per clip, which attention's cost depends on; default the whole grid.
        """
        num = num_tokens or self.config.grid.num_tokens
        twin = copy.deepcopy(self).to("meta").eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            twin(torch.empty(1, num, self.config.hidden_size, device="meta"))
        return counter.get_total_flops() / 2 / num


class _Mlp(nn.Sequential):
    """Fully connected layers on each token alone: D -> width -> ... -> width -> 1."""

    def __init__(self, hidden_size: int, width: int, num_layers: int) -> None:
        layers: list[nn.Module] = []
        for i in range(num_layers - 1):
            layers += [nn.Linear(width if i else hidden_size, width), nn.GELU()]
        super().__init__(*layers, nn.Linear(width if num_layers > 1 else hidden_size, 1))

    def forward(self, x: torch.Tensor, token_index: torch.Tensor | None = None) -> torch.Tensor:
        """(B, K, D) -> (B, K, 1)."""
        return super().forward(x)


class _Attention(nn.Module):
    """Pre-norm multi-head self-attention with its residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # Heads of about 32 channels, of equal size.
        self.num_heads = next(n for n in range(max(1, width // 32), 0, -1) if width % n == 0)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, K, W) -> (B, K, W)."""
        qkv = self.qkv(self.norm(x)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        added: torch.Tensor = x + self.out(mixed.transpose(1, 2).flatten(2))
        return added


class _Transformer(nn.Module):
    """Projection, `num_blocks` pre-norm transformer blocks, one output layer."""

    def __init__(self, hidden_size: int, width: int, num_blocks: int) -> None:
        super().__init__()
        self.project = nn.Linear(hidden_size, width)
        self.attention = nn.ModuleList(_Attention(width) for _ in range(num_blocks))
        self.mlp = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(),
                nn.Linear(4 * width, width),
            )
            for _ in range(num_blocks)
        )  # fmt: skip
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor, token_index: torch.Tensor | None = None) -> torch.Tensor:
        """(B, K, D) -> (B, K, 1)."""
        x = self.project(x)
        for attention, mlp in zip(self.attention, self.mlp, strict=True):
            x = attention(x)
            x = x + mlp(x)
        logits: torch.Tensor = self.out(self.norm(x))
        return logits


class _Global(nn.Module):
    """The token's own features plus a global branch: 3-D convolutions, then self-attention."""

    def __init__(self, hidden_size: int, width: int, num_convs: int, grid: TokenGrid) -> None:
        super().__init__()
        self.grid = grid
        self.project = nn.Sequential(nn.Linear(hidden_size, width), nn.GELU())
        # Depthwise and pointwise: a dense 3x3x3 kernel would cost 27 fully connected layers.
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(width, width, 3, padding=1, groups=width), nn.GELU(),
                nn.Conv3d(width, width, 1),
            )
            for _ in range(num_convs)
        )  # fmt: skip
        self.attention = _Attention(width)
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))

    def forward(self, x: torch.Tensor, token_index: torch.Tensor | None = None) -> torch.Tensor:
        """(B, N, D) -> (B, N, 1), N the whole grid in any order that `token_index` gives."""
        if x.shape[1] != self.grid.num_tokens:
            raise ConfigError(
                f"the global selector needs all {self.grid.num_tokens} tokens of a clip, "
                f"got {x.shape[1]}"
            )
        if token_index is not None:
            x = x.gather(1, token_index.argsort(1)[..., None].expand_as(x))
        local = self.project(x)
        branch = local.transpose(1, 2).unflatten(2, tuple(self.grid))
        for conv in self.convs:
            branch = branch + conv(branch)
        logits: torch.Tensor = self.head(local + self.attention(branch.flatten(2).transpose(1, 2)))
        if token_index is not None:
            logits = logits.gather(1, token_index[..., None])
        return logits


def _build(config: SelectorConfig) -> nn.Module:
    size, width, layers = config.hidden_size, config.width, config.num_layers
    if config.arch == "transformer":
        return _Transformer(size, width, layers)
    if config.arch == "global":
        return _Global(size, width, layers, config.grid)
    return _Mlp(size, width, layers)
