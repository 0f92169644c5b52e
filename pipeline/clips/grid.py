"""The token grid: how many tokens a clip has along time, height and width."""

from __future__ import annotations

from typing import NamedTuple


class TokenGrid(NamedTuple):
    """Token counts along time, height and width; tokens are numbered row-major over (t, y, x)."""

    t: int
    h: int
    w: int

    @property
    def num_tokens(self) -> int:
        """Tokens per clip, `t * h * w` (1568 for VideoMAE-B on 16 frames of 224 pixels)."""
        return self.t * self.h * self.w
