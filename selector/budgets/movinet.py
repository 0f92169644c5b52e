"""MoViNet A0 to A2, base (Kondratyuk et al., 2021): the confidence model of the paper's LITE++.

Of the PyTorch release's state dicts (Atze00/MoViNet-pytorch: base, converted from TensorFlow):
TensorFlow's padding in space, none causal, BatchNorm with epsilon 1e-3.

Axes: B clips, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ConfigError

FIRST_KEY = "conv1.conv_1.conv3d.weight"
"""Of every base model, by which a wrapper's prefix is known."""
_DEPTH_DIVISOR = 8


class Block(NamedTuple):
    """One block: kernel in time and in space, and the width between expanding and projecting."""

    time: int
    space: int
    expanded: int


class Stage(NamedTuple):
    """Blocks of one width; the first of them halves the frame where `stride` is 2."""

    width: int
    stride: int
    blocks: tuple[Block, ...]


class Variant(NamedTuple):
    """One published size.

    Attributes:
        stem: channels after the first convolution.
        stages: in order.
        last: channels of the last convolution.
        image_size: side of the published input, in pixels.
    """

    stem: int
    stages: tuple[Stage, ...]
    last: int
    image_size: int


def _stage(width: int, stride: int, *blocks: tuple[int, int, int]) -> Stage:
    return Stage(width, stride, tuple(Block(*block) for block in blocks))


VARIANTS = {
    "A0": Variant(
        8,
        (
            _stage(8, 2, (1, 5, 24)),
            _stage(32, 2, (3, 3, 80), (3, 3, 80), (3, 3, 80)),
            _stage(56, 2, (5, 3, 184), (3, 3, 112), (3, 3, 184)),
            _stage(56, 1, (5, 3, 184), (3, 3, 184), (3, 3, 184), (3, 3, 184)),
            _stage(104, 2, (5, 3, 384), (1, 5, 280), (1, 5, 280), (1, 5, 344)),
        ),
        480,
        172,
    ),
    "A1": Variant(
        16,
        (
            _stage(16, 2, (1, 5, 40), (3, 3, 40)),
            _stage(40, 2, (3, 3, 96), (3, 3, 120), (3, 3, 96), (3, 3, 96)),
            _stage(64, 2, (5, 3, 216), (3, 3, 128), (3, 3, 216), (3, 3, 168), (3, 3, 216)),
            _stage(
                64, 1,
                (5, 3, 216), (3, 3, 216), (3, 3, 216), (3, 3, 128), (1, 5, 128), (3, 3, 216),
            ),
            _stage(
                136, 2,
                (5, 3, 456), (1, 5, 360), (1, 5, 360), (1, 5, 360), (1, 5, 456), (3, 3, 456),
                (1, 3, 544),
            ),
        ),
        600,
        172,
    ),
    "A2": Variant(
        16,
        (
            _stage(16, 2, (1, 5, 40), (3, 3, 40), (3, 3, 64)),
            _stage(40, 2, (3, 3, 96), (3, 3, 120), (3, 3, 96), (3, 3, 96), (3, 3, 120)),
            _stage(72, 2, (5, 3, 240), (3, 3, 160), (3, 3, 240), (3, 3, 192), (3, 3, 240)),
            _stage(
                72, 1,
                (5, 3, 240), (3, 3, 240), (3, 3, 240), (3, 3, 240), (1, 5, 144), (3, 3, 240),
            ),
            _stage(
                144, 2,
                (5, 3, 480), (1, 5, 384), (1, 5, 384), (1, 5, 480), (1, 5, 480), (3, 3, 480),
                (1, 3, 576),
            ),
        ),
        640,
        224,
    ),
}  # fmt: skip


class ConvUnit(nn.Module):
    """Convolution, BatchNorm, swish; keys as in the release: `conv_1.conv3d`, `conv_1.norm`."""

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: tuple[int, int] = (1, 1),
        *,
        stride: int = 1,
        groups: int = 1,
        norm: bool = True,
        swish: bool = True,
    ) -> None:
        super().__init__()
        time, space = kernel
        conv = nn.Conv3d(
            channels,
            out,
            (time, space, space),
            stride=(1, stride, stride),
            padding=((time - 1) // 2, 0, 0),
            groups=groups,
            bias=not norm,
        )
        parts = {"conv3d": conv} | ({"norm": nn.BatchNorm3d(out, eps=1e-3)} if norm else {})
        self.conv_1 = nn.ModuleDict(parts)
        self._space, self._stride, self._swish = space, stride, swish

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, out, T, H / stride, W / stride), rounded up."""
        for part in self.conv_1.values():
            x = part(_padded(x, self._space, self._stride) if isinstance(part, nn.Conv3d) else x)
        return F.silu(x) if self._swish else x


def _padded(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's SAME: as many outputs as strides fit; an odd pixel goes right and below."""
    sides = []
    for size in (x.shape[-1], x.shape[-2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides)


class SqueezeExcite(nn.Module):
    """Weighs channels by what their means over the clip say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = _rounded(channels / 4)
        self.fc1 = ConvUnit(channels, squeezed, norm=False)
        self.fc2 = ConvUnit(squeezed, channels, norm=False, swish=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> the same shape."""
        return x * self.fc2(self.fc1(x.mean(dim=(2, 3, 4), keepdim=True))).sigmoid()


def _rounded(width: float) -> int:
    """To the nearest multiple of 8, at least 8, and never below 0.9 of it."""
    near = max(_DEPTH_DIVISOR, int(width + _DEPTH_DIVISOR / 2) // _DEPTH_DIVISOR * _DEPTH_DIVISOR)
    return near + _DEPTH_DIVISOR if near < 0.9 * width else near


class Pool(nn.Module):
    """Mean of 3 x 3 pixels, every second one, over those that are there."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C, T, H / 2, W / 2), rounded up."""
        ones = torch.ones_like(x[:1, :1, :1])
        total, there = (
            F.avg_pool3d(_padded(each, 3, 2), (1, 3, 3), stride=(1, 2, 2)) for each in (x, ones)
        )
        return total / there


class BottleneckBlock(nn.Module):
    """Expand, convolve each channel, weigh the channels, project; a learnt share is added."""

    def __init__(self, channels: int, width: int, block: Block, stride: int) -> None:
        super().__init__()
        inner, kernel = block.expanded, (block.time, block.space)
        self.expand = ConvUnit(channels, inner)
        self.deep = ConvUnit(inner, inner, kernel, stride=stride, groups=inner)
        self.se = SqueezeExcite(inner)
        self.project = ConvUnit(inner, width, swish=False)
        self.res: nn.Module | None = None
        if stride > 1:
            self.res = nn.Sequential(Pool(), ConvUnit(channels, width, swish=False))
        elif channels != width:
            self.res = nn.Sequential(ConvUnit(channels, width, swish=False))
        self.alpha = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, T, H, W) -> (B, width, T, H / stride, W / stride), rounded up."""
        beside = x if self.res is None else self.res(x)
        added: Tensor = self.project(self.se(self.deep(self.expand(x))))
        return beside + self.alpha * added


class MoViNet(nn.Module):
    """A base MoViNet; a fresh one ignores its blocks until training moves each `alpha` from 0.

    Args:
        variant: one of `VARIANTS`.
        num_classes: length of the logits.
        hidden: width of the classifier's first layer.
    """

    def __init__(self, variant: Variant, num_classes: int, hidden: int = 2048) -> None:
        super().__init__()
        channels = variant.stem
        self.conv1 = ConvUnit(3, channels, (1, 3), stride=2)
        self.blocks = nn.ModuleDict()
        for s, stage in enumerate(variant.stages):
            for number, block in enumerate(stage.blocks):
                stride = 1 if number else stage.stride
                made = BottleneckBlock(channels, stage.width, block, stride)
                self.blocks[f"b{s}_l{number}"] = made
                channels = stage.width
        self.conv7 = ConvUnit(channels, variant.last)
        self.classifier = nn.Sequential(
            ConvUnit(variant.last, hidden, norm=False),
            nn.Identity(),  # the swish, which is in the unit here
            nn.Dropout(0.2),
            ConvUnit(hidden, num_classes, norm=False, swish=False),
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Logits (B, num_classes) of frames (B, 3, T, H, W) in 0..1, not normalised."""
        x = self.conv1(frames)
        for block in self.blocks.values():
            x = block(x)
        x = self.conv7(x).mean(dim=(2, 3, 4), keepdim=True)
        logits: Tensor = self.classifier(x).flatten(1)
        return logits


def load_movinet(name: str, state: Mapping[str, Tensor]) -> MoViNet:
    """A base MoViNet with these weights, in evaluation mode.

    Args:
        name: one of `VARIANTS`.
        state: every tensor of the model, and no other.

    Raises:
        ConfigError: no such model, a streaming checkpoint, or one of another model.
    """
    if name not in VARIANTS:
        raise ConfigError(f"there is no MoViNet {name!r} here; known are {', '.join(VARIANTS)}")
    if any(".conv2d." in key or "temporal_conv" in key for key in state):
        raise ConfigError(
            "this is a streaming MoViNet (causal, with 2-D convolutions), which remembers frames "
            f"from call to call: take the base checkpoint of {name}"
        )
    ends = ("classifier.3.conv_1.conv3d.weight", "classifier.0.conv_1.conv3d.weight")
    if not all(end in state for end in ends):
        raise ConfigError(f"this is no MoViNet: it has no {' or '.join(ends)}")
    with torch.device("meta"):
        model = MoViNet(VARIANTS[name], *(len(state[end]) for end in ends))
    expected = model.state_dict()
    faults = {
        "missing": expected.keys() - state.keys(),
        "unexpected": state.keys() - expected.keys(),
        "of another shape": {
            key for key in expected.keys() & state.keys() if expected[key].shape != state[key].shape
        },
    }
    said = [f"{what}: {_first(sorted(keys))}" for what, keys in faults.items() if keys]
    if said:
        hint = "".join(f"; it is {other}" for other in VARIANTS if _is_of(other, state))
        raise ConfigError(f"this is not MoViNet {name} ({'; '.join(said)}){hint}")
    model.load_state_dict(state, assign=True)
    return model.float().eval()


def _is_of(name: str, state: Mapping[str, Tensor]) -> bool:
    with torch.device("meta"):
        keys = MoViNet(VARIANTS[name], 1).state_dict().keys()
    return keys == state.keys()


def _first(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + f" and {len(keys) - 3} more" * (len(keys) > 3)
