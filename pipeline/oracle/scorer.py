"""The model half of a worker: a batch of uint8 clips in, everything the store keeps of them out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pipeline.backbones.loading import load_for_run
from pipeline.config import OracleConfig, RunConfig
from pipeline.oracle.base import scores_from_cam
from pipeline.oracle.together import values_together
from pipeline.store.layout import num_embeddings


@dataclass(frozen=True)
class Scored:
    """What the model says about a batch: B clips, M oracles, N tokens, C classes, k tokens kept."""

    cam: npt.NDArray[np.float32]
    """(B, M, N), signed."""
    scores: npt.NDArray[np.float32]
    """(B, M, N) in [0, 1]."""
    logits: npt.NDArray[np.float32]
    """(B, C)."""
    embeddings: npt.NDArray[np.float16] | None
    """(B, k, D), the embeddings kept; None where the store keeps none."""
    embedding_index: npt.NDArray[np.int16] | None
    """(B, k), their token numbers, ascending."""


class Scorer:
    """A loaded backbone and the settings of the oracles.

    Raises:
        BackboneError: the checkpoint does not load, or is not the one the store was begun with.
        ConfigError: CUDA was asked for and there is none.
    """

    def __init__(self, config: OracleConfig, run_config: RunConfig) -> None:
        self._config = config
        self.backbone = load_for_run(config, run_config)
        self.device = self.backbone.device
        self._num_kept = num_embeddings(self.backbone.grid, config.embeddings_per_clip)

    def __call__(
        self,
        clips: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        clip_ids: npt.NDArray[np.int64],
    ) -> Scored:
        """Score a batch.

        Args:
            clips: uint8 (B, T, H, W, 3).
            labels: int64 (B,), class ids; read by oracles whose target is the label.
            clip_ids: int64 (B,); they seed which embeddings are kept.
        """
        with torch.inference_mode(False), torch.no_grad():
            embedded = self.backbone.embed(self.backbone.pixel_values(clips))
            maps = values_together(
                self._config.oracles, self.backbone, embedded, torch.from_numpy(labels)
            )
            cam = torch.stack([one.cam for one in maps], dim=1)
            scores = torch.stack([scores_from_cam(one.cam) for one in maps], dim=1)
            logits = maps[0].logits
            del maps
            kept = index = None
            if self._num_kept:
                num_tokens = self.backbone.grid.num_tokens
                index = np.stack(
                    [
                        sample_tokens(self._config.seed, int(clip), num_tokens, self._num_kept)
                        for clip in clip_ids
                    ]
                )
                where = torch.from_numpy(index.astype(np.int64)).to(self.device)
                where = where[:, :, None].expand(-1, -1, self.backbone.hidden_size)
                shown = self.backbone.selector_input(embedded)
                kept = shown.gather(1, where).to(torch.float16).cpu().numpy()
            return Scored(
                cam=cam.cpu().numpy(),
                scores=scores.cpu().numpy(),
                logits=logits.cpu().numpy(),
                embeddings=kept,
                embedding_index=index,
            )


def sample_tokens(seed: int, clip_id: int, num_tokens: int, k: int) -> npt.NDArray[np.int16]:
    """Which `k` of `num_tokens` tokens of a clip are kept: int16 (k,), ascending.

    Every token has the same chance; the choice depends on the seed and the clip alone. It ranks
    uniform numbers instead of calling `Generator.choice`, whose stream NumPy may change.
    """
    if k == num_tokens:
        return np.arange(num_tokens, dtype=np.int16)
    uniform = np.random.Generator(np.random.PCG64([seed, clip_id])).random(num_tokens)
    return np.sort(np.argsort(uniform, kind="stable")[:k]).astype(np.int16)
