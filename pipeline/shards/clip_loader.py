"""A worker's supply of clips: a shard's videos decoded ahead and handed over batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.backbones import Backbone
from pipeline.config import ClipConfig, RunConfig
from pipeline.decode.pool import DecodePool
from pipeline.errors import ClipStatus, DecodeError
from pipeline.shards.batches import Batch, assemble, group_by_video
from pipeline.shards.poison import Guard

_DIED = "the worker process died on this clip every time it was tried alone"


class Feed:
    """Decodes for one worker; may be used by two threads.

    Args:
        config: which frames and views, by which decoder.
        run_config: speed settings and limits.
        backbone: the shape of its clips.
    """

    def __init__(self, config: ClipConfig, run_config: RunConfig, backbone: Backbone) -> None:
        self._config, self._run_config = config, run_config
        self._template = {
            "num_frames": backbone.num_frames,
            "size": backbone.image_size,
            "short_side": backbone.short_side,
            "sampling": config.sampling,
            "decoder": config.decoder,
            "timeout_s": run_config.decode_timeout_s,
            "max_pixels": run_config.max_pixels,
            "max_frames": run_config.max_frames,
            "min_frames": backbone.tubelet_size,
        }
        self._clip_shape = (backbone.num_frames, backbone.image_size, backbone.image_size, 3)
        self._pool = DecodePool(run_config.decode_workers)
        # What killed a worker may have been a decoder within it; a cautious attempt never has one.
        self._safe_pool = self._pool if run_config.decode_workers else DecodePool(1)

    def batches(
        self,
        plan: Mapping[str, Sequence[Any]],
        wanted: Sequence[int],
        guard: Guard,
        on_failure: Callable[[int, DecodeError], None],
    ) -> Iterator[Batch]:
        """Decode some clips of a shard; the decoders begin with this call, not at the first batch.

        Args:
            plan: columns of the shard's rows of the plan.
            wanted: positions, ascending.
            guard: of this attempt; culprits are left out, suspects come alone.
            on_failure: called with the position of every clip that is in no batch, and why.
        """
        culprits = guard.culprits
        for position in culprits:
            if position in wanted:
                on_failure(position, DecodeError(ClipStatus.WORKER_DIED, _DIED))
        wanted = [position for position in wanted if position not in culprits]
        data_root, batch_size = self._run_config.data_root, self._run_config.batch_size
        groups = group_by_video(plan, wanted, data_root, self._config.views, self._template)
        pool = self._safe_pool if guard.cautious else self._pool
        decoded = pool.imap((group.request for group in groups), self._look_ahead())
        batches = assemble(
            groups, decoded, len(guard.clip_ids), batch_size, self._clip_shape, on_failure
        )
        return (part for batch in batches for part in guard.parts(batch))

    def close(self) -> None:
        """Stop the decoder processes."""
        self._pool.close()
        self._safe_pool.close()

    def _look_ahead(self) -> int:
        """Videos decoded ahead: two batches of them, or two per decoder, whichever is more."""
        batches = -(-2 * self._run_config.batch_size // self._config.num_views)
        return max(batches, 2 * self._run_config.decode_workers)
