"""VideoMAE as its authors' files hold it: names of tensors, and the forward pass written out."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SIZES = {"width": 24, "layers": 3, "inner": 48, "tubelet": 2, "patch": 8, "classes": 5}


def original_weights(*, mean_pooling: bool = True, seed: int = 0, **sizes: int) -> dict[str, Any]:
    """Random tensors of a fine-tuned model."""
    s = SIZES | sizes
    d = s["width"]
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (d, 3, s["tubelet"], s["patch"], s["patch"]),
        "patch_embed.proj.bias": (d,),
    }
    for i in range(s["layers"]):
        shapes |= {
            f"blocks.{i}.norm1.weight": (d,),
            f"blocks.{i}.norm1.bias": (d,),
            f"blocks.{i}.attn.q_bias": (d,),
            f"blocks.{i}.attn.v_bias": (d,),
            f"blocks.{i}.attn.qkv.weight": (3 * d, d),
            f"blocks.{i}.attn.proj.weight": (d, d),
            f"blocks.{i}.attn.proj.bias": (d,),
            f"blocks.{i}.norm2.weight": (d,),
            f"blocks.{i}.norm2.bias": (d,),
            f"blocks.{i}.mlp.fc1.weight": (s["inner"], d),
            f"blocks.{i}.mlp.fc1.bias": (s["inner"],),
            f"blocks.{i}.mlp.fc2.weight": (d, s["inner"]),
            f"blocks.{i}.mlp.fc2.bias": (d,),
        }
    last = "fc_norm" if mean_pooling else "norm"
    shapes |= {f"{last}.weight": (d,), f"{last}.bias": (d,)}
    shapes |= {"head.weight": (s["classes"], d), "head.bias": (s["classes"],)}
    generator = torch.Generator().manual_seed(seed)
    return {k: 0.2 * torch.randn(shape, generator=generator) for k, shape in shapes.items()}


def original_logits(
    weights: dict[str, Tensor], pixels: Tensor, heads: int, last_eps: float = 1e-6
) -> Tensor:
    """Logits (B, C) in float64, token by token and head by head.

    Args:
        weights: see `original_weights`.
        pixels: normalised (B, T, 3, H, W).
        heads: attention heads.
        last_eps: of the norm before the classifier.
    """
    w = {key: value.double() for key, value in weights.items()}
    d = len(w["patch_embed.proj.bias"])
    stride = w["patch_embed.proj.weight"].shape[2:]
    cut = F.conv3d(
        pixels.double().transpose(1, 2),
        w["patch_embed.proj.weight"],
        w["patch_embed.proj.bias"],
        stride=tuple(stride),
    )
    x = cut.flatten(2).transpose(1, 2)
    x = x + torch.tensor([_position(n, d) for n in range(x.shape[1])], dtype=torch.float64)
    layers = len({key.split(".")[1] for key in w if key.startswith("blocks.")})
    for i in range(layers):

        def norm(name: str, x: Tensor, i: int = i) -> Tensor:
            at = f"blocks.{i}.{name}"
            return F.layer_norm(x, (d,), w[f"{at}.weight"], w[f"{at}.bias"], 1e-6)

        def linear(name: str, x: Tensor, i: int = i) -> Tensor:
            at = f"blocks.{i}.{name}"
            return x @ w[f"{at}.weight"].T + w[f"{at}.bias"]

        normed = norm("norm1", x)
        q, k, v = (normed @ part.T for part in w[f"blocks.{i}.attn.qkv.weight"].split(d))
        q, v = q + w[f"blocks.{i}.attn.q_bias"], v + w[f"blocks.{i}.attn.v_bias"]
        size = d // heads
        seen = []
        for h in range(heads):
            own = slice(h * size, (h + 1) * size)
            logits = q[..., own] @ k[..., own].transpose(1, 2) / math.sqrt(size)
            seen.append(logits.softmax(-1) @ v[..., own])
        x = x + linear("attn.proj", torch.cat(seen, dim=-1))
        x = x + linear("mlp.fc2", F.gelu(linear("mlp.fc1", norm("norm2", x))))
    if "fc_norm.weight" in w:
        read = F.layer_norm(x.mean(1), (d,), w["fc_norm.weight"], w["fc_norm.bias"], last_eps)
    else:
        read = F.layer_norm(x, (d,), w["norm.weight"], w["norm.bias"], 1e-6)[:, 0]
    return read @ w["head.weight"].T + w["head.bias"]


def _position(n: int, d: int) -> list[float]:
    """Sines at even channels, cosines at odd ones."""
    angles = [n / 10000 ** (2 * (i // 2) / d) for i in range(d)]
    # Both implementations hold the table in float32.
    return [
        torch.tensor((math.sin, math.cos)[i % 2](angle), dtype=torch.float32).item()
        for i, angle in enumerate(angles)
    ]
