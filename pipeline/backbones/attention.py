"""Attention over the tokens of a clip by one fused kernel, and what a method may see of it.

Axes: B clips, K tokens, H heads, d channels of a head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.backbones.precision import as_precise_as_given, in_full_precision
from pipeline.backbones.tokens import (
    KEYS,
    PROBABILITIES,
    RECEIVED,
    Evidence,
    Tokens,
    Wanted,
)


def split_heads(values: Tensor, num_heads: int) -> Tensor:
    """(B, K, H d) -> (B, H, K, d)."""
    return values.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def attend(
    x: Tokens,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    *,
    by_size: bool,
    dropout: float,
) -> Tensor:
    """What each token takes from all others, (B, K, H d).

    Args:
        x: the tokens, for their sizes.
        query: (B, H, K, d).
        key: (B, H, K, d).
        value: (B, H, K, d).
        scale: of the products of queries and keys.
        by_size: add log(size) of each key's token to its attention logits.
        dropout: share of the attention to leave out at random, which a model in training may ask.
    """
    bias = None
    if by_size and x.size is not None:
        bias = x.size.log().to(query.dtype)[:, None, None, :]
    context = F.scaled_dot_product_attention(
        query, key, value, attn_mask=bias, dropout_p=dropout, scale=scale
    )
    return context.transpose(1, 2).flatten(2)


def attention_evidence(query: Tensor, key: Tensor, scale: float, want: Wanted) -> Evidence:
    """Evidence from (B, H, K, d) queries and keys, ignoring what the tokens weigh."""
    return evidence(_maps(query, key, scale), key, want)


def _maps(query: Tensor, key: Tensor, scale: float) -> Iterator[Tensor]:
    """(H, K, K) for each clip; nothing is done, and no batch is taken apart, until one is asked."""
    for q, k in zip(query, key, strict=True):
        logits = in_full_precision(q) @ in_full_precision(k).transpose(-1, -2) * scale
        yield logits.softmax(dim=-1)


def evidence(maps: Iterable[Tensor], key: Tensor, want: Wanted) -> Evidence:
    """Evidence from attention probabilities, in float32 at least.

    A fused kernel never forms the probabilities, so they are computed beside it, only if they are
    wanted, and clip by clip, because one clip's are already H x K x K.

    Args:
        maps: (H, K, K) for each clip, made when it is asked for.
        key: (B, H, K, d), before any rotation by position.
        want: what to show.
    """
    received, probabilities = [], []
    with as_precise_as_given(key):
        for each in maps if want & {RECEIVED, PROBABILITIES} else ():
            received.append(each.mean(dim=(0, 1)))
            probabilities.append(each.mean(dim=0))
    return Evidence(
        key if KEYS in want else None,
        torch.stack(received) if RECEIVED in want else None,
        torch.stack(probabilities) if PROBABILITIES in want else None,
    )
