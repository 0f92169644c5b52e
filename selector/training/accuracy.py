"""Accuracy of the backbone on a selector's tokens: what a selector is for, and its loss is not.

The patch embeddings of the held-out clips are in the store, so no video is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.backbones.tokens import grid_tokens
from pipeline.clips.plan import UNKNOWN_LABEL
from pipeline.errors import ConfigError
from selector.methods.keep import num_kept
from selector.methods.rank.base import KeepBest
from selector.training.checkpoint import load_store_backbone
from selector.training.model import TokenSelector
from selector.training.split import HELD_OUT, StoreSplit

if TYPE_CHECKING:
    from pipeline.backbones import Backbone
    from pipeline.store.reader import Store

MOST_CLIPS = 512
JUDGED_BYTES = 512 << 20
"""Embeddings of the judged clips, which are kept in memory."""
_BATCH = 16


class AccuracyJudge:
    """Measures selectors of one store on its held-out clips, the same ones for every seed.

    Args:
        store: with the embeddings of whole clips.
        split: the role of each of its clips.
        keep_ratio: share of the tokens that the backbone gets.
        device: of the backbone, and of the selectors to come.

    Attributes:
        num_clips: that are judged on: at most `MOST_CLIPS`, an even sample.

    Raises:
        ConfigError: the store keeps a sample of each clip's tokens, or the keep ratio is no share.
        BackboneError: the store's checkpoint does not load, or is another one by now.
    """

    def __init__(
        self, store: Store, split: StoreSplit, keep_ratio: float, device: torch.device
    ) -> None:
        num_tokens = store.grid.num_tokens
        self._kept = num_kept(num_tokens, keep_ratio)
        assert store.embeddings is not None, "split_store refuses stores without embeddings"
        stored = store.embeddings.shape[1]
        if stored != num_tokens:
            raise ConfigError(
                f"accuracy needs all {num_tokens} tokens of a clip, and {store.root} keeps "
                f"{stored}: build a store with --embeddings-per-clip "
                "all, or leave the choice to the loss (--select-by loss)"
            )
        self._backbone = load_store_backbone(store, str(device), "accuracy cannot be judged")
        self._embeddings, self._labels = _held_out(store, split)
        self.num_clips = len(self._labels)

    @torch.no_grad()
    def __call__(self, model: TokenSelector) -> float:
        """Share of the clips whose label the backbone gives on the selector's best tokens.

        Where a clip has no label, the full model's prediction stands in.
        """
        backbone, right = self._backbone, 0
        empty = backbone.embed(_no_pixels(backbone))
        offset = backbone.selector_input(empty) - empty.on_grid  # of places alone
        for first in range(0, self.num_clips, _BATCH):
            stored = torch.from_numpy(self._embeddings[first : first + _BATCH]).to(offset.device)
            prefix = empty.values[:, : empty.off_grid].expand(len(stored), -1, -1)
            values = torch.cat([prefix, stored.to(offset.dtype) - offset], dim=1)
            x = grid_tokens(values, prefix=empty.prefix, off_grid=empty.off_grid)
            logits = backbone.run(x, KeepBest(model(stored), self._kept))
            labels = torch.from_numpy(self._labels[first : first + _BATCH]).to(logits.device)
            right += int((logits.argmax(1) == labels).sum())
        return right / self.num_clips


def _held_out(store: Store, split: StoreSplit) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings float16 (n, N, D) and classes int64 (n,)."""
    where = [
        (shard, row)
        for shard, roles in split.roles.items()
        for row in np.flatnonzero(roles == HELD_OUT)
    ]
    clip_bytes = 2 * store.grid.num_tokens * store.hidden_size
    num = min(len(where), MOST_CLIPS, max(1, JUDGED_BYTES // clip_bytes))
    chosen = [where[i] for i in np.linspace(0, len(where) - 1, num).round().astype(int)]
    embeddings, labels = [], []
    for shard in dict.fromkeys(shard for shard, _ in chosen):
        rows = [row for of, row in chosen if of == shard]
        data = store.read_shard(shard)
        assert data.embeddings is not None
        embeddings.append(data.embeddings[rows])
        clips = data.clips.iloc[rows]
        known = clips["label"] != UNKNOWN_LABEL
        labels.append(clips["label"].where(known, clips["prediction"]).to_numpy(np.int64))
    return np.concatenate(embeddings), np.concatenate(labels)


def _no_pixels(backbone: Backbone) -> torch.Tensor:
    side = backbone.image_size
    pixels = torch.zeros(1, backbone.num_frames, 3, side, side, device=backbone.device)
    return pixels.to(backbone.dtype)
