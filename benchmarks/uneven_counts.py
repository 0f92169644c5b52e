"""Clips that keep different numbers of tokens: buckets of equal counts, packed rows, or padding.

    OMP_NUM_THREADS=1 python benchmarks/uneven_counts.py --rounds 5

Each way runs the same blocks over the same clips, in turns, on one core's processor time. Buckets
call each block once for every distinct number of tokens; packed rows run everything but the
attention on all clips at once; nested tensors leave that to PyTorch; padding masks its own tokens.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from pipeline.backbones import load_backbone
from pipeline.backbones.attention import split_heads

Clips = list[Tensor]
"""(K, D) each, of any K."""
Attention = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""Queries, keys and values (b, heads, K, d) and their scale to (b, K, heads d)."""


def layer_with(layer: Any, x: Tensor, attention: Attention) -> Tensor:
    """A block of VideoMAE with another way to attend."""
    own = layer.attention.attention
    normed = layer.layernorm_before(x)
    heads = (
        split_heads(project(normed), own.num_attention_heads)
        for project in (own.query, own.key, own.value)
    )
    x = layer.attention.output.dense(attention(*heads, own.scaling)) + x
    return layer.output(layer.intermediate(layer.layernorm_after(x)), x)


def buckets(layers: Any, clips: Clips) -> Tensor:
    """Clips of equal counts together; means over the tokens, (B, D)."""
    found = [Tensor()] * len(clips)
    for num in {len(clip) for clip in clips}:
        which = [i for i, clip in enumerate(clips) if len(clip) == num]
        x = torch.stack([clips[i] for i in which])
        for layer in layers:
            x = layer(x)
        for i, mean in zip(which, x.mean(1), strict=True):
            found[i] = mean
    return torch.stack(found)


def packed(layers: Any, clips: Clips, *, nested: bool = False) -> Tensor:
    """All tokens in one row, attention clip by clip, or by nested tensors."""
    nums = [len(clip) for clip in clips]
    offsets = torch.tensor([0, *nums]).cumsum(0)

    def one_by_one(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        parts = zip(query.split(nums, 2), key.split(nums, 2), value.split(nums, 2), strict=True)
        seen = [F.scaled_dot_product_attention(q, k, v, scale=scale) for q, k, v in parts]
        return torch.cat(seen, 2).transpose(1, 2).flatten(2)

    def jagged(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        rows = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
        made = (torch.nested.nested_tensor_from_jagged(x, offsets).transpose(1, 2) for x in rows)
        seen = F.scaled_dot_product_attention(*made, scale=scale)
        return seen.transpose(1, 2).values().flatten(1)[None]

    x = torch.cat(clips)[None]
    for layer in layers:
        x = layer_with(layer, x, jagged if nested else one_by_one)
    return torch.stack([clip.mean(0) for clip in x[0].split(nums)])


def padded(layers: Any, clips: Clips) -> Tensor:
    """As long as the longest, with a mask over the keys."""
    nums = torch.tensor([len(clip) for clip in clips])
    filled = torch.arange(int(nums.max())) < nums[:, None]

    def masked(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        mask = filled[:, None, None]
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
        return seen.transpose(1, 2).flatten(2)

    x = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    for layer in layers:
        x = layer_with(layer, x, masked)
    return (x * filled[..., None]).sum(1) / nums[:, None]


WAYS: dict[str, Callable[[Any, Clips], Tensor]] = {
    "buckets": buckets,
    "packed": packed,
    "nested": lambda layers, clips: packed(layers, clips, nested=True),
    "padded": padded,
}


def compare(name: str, layers: Any, width: int, clips: Clips, rounds: int) -> None:
    """Print what each way takes beside buckets, and how far its answers are from theirs."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    answers = {}
    for _ in range(rounds):
        for way, run in WAYS.items():
            began = time.thread_time()
            answers[way] = run(layers, clips)
            seconds[way].append(time.thread_time() - began)
    for way, spent in seconds.items():
        pairs = zip(spent, seconds["buckets"], strict=True)
        ratio = statistics.median(own / base for own, base in pairs)
        far = float((answers[way] - answers["buckets"]).abs().max())
        print(f"| {name}, {width} wide, {len(clips)} clips | {way} | {ratio:.2f} | {far:.0e} |")


def main() -> None:
    """The shipped backbone, and two blocks of VideoMAE-B's shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = VideoMAEConfig(num_frames=16, num_hidden_layers=2)
    print("| model | way | time / buckets | largest difference |\n|---|---|---|---|")
    for name, model, tokens, num in (
        ("shipped", load_backbone("synthetic").model, 288, 16),
        ("B, 2 blocks", VideoMAEForVideoClassification(config).eval(), 1568, 4),
    ):
        width = model.config.hidden_size
        draw = torch.Generator().manual_seed(0)
        counts = torch.randint(tokens // 8, tokens + 1, (num,), generator=draw).tolist()
        clips = [torch.randn(count, width, generator=draw) for count in counts]
        with torch.inference_mode():
            compare(name, model.videomae.encoder.layer, width, clips, options.rounds)


if __name__ == "__main__":
    main()
