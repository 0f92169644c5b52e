"""Streams a store's tokens to the trainer in bounded memory.

A store of embeddings is far larger than memory and slow to read row by row, so an epoch is
block-shuffled: the shards are shuffled, whole shards are read into a block of fixed size, and the
clips of a block are shuffled and cut into batches, while a thread reads the next block. Memory is
that of two blocks and of the held-out clips, whatever the store's size.

Everything an epoch yields follows from (seed, epoch, block), so a run that stopped after a block
goes on with exactly what would have come.

Axes: B clips of a batch, K tokens per clip (a sample, or the whole grid), D channels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from selector.training.split import HELD_OUT, TRAIN, StoreSplit
from selector.training.targets import check_finite, clean_scores

if TYPE_CHECKING:
    from pipeline.store.reader import Store
    from selector.training.other_scores import OtherScores

BLOCK_BYTES = 256 << 20
"""Embeddings in one shuffle block; at least one shard."""
HELD_OUT_BYTES = 256 << 20
"""Embeddings of the held-out clips that are kept in memory; at least one clip."""
STATISTICS_CLIPS = 2048
"""Training clips whose tokens give the input statistics."""


class TokenBatch(NamedTuple):
    """Some clips' tokens and what the oracle says of them."""

    tokens: torch.Tensor
    """(B, K, D) float16, patch embeddings with position."""
    token_index: torch.Tensor | None
    """(B, K) int64, places on the grid; None when K is the whole grid in order."""
    target: torch.Tensor
    """(B, K) float32 in [0, 1], the cleaned score: what is learnt."""
    score: torch.Tensor
    """(B, K) float32 in [0, 1], the oracle's score as stored: what is judged against."""
    cam: torch.Tensor
    """(B, K) float32, the oracle's signed cam."""

    def to(self, device: torch.device) -> TokenBatch:
        """The same batch on `device`."""
        index = None if self.token_index is None else self.token_index.to(device)
        return self._replace(
            tokens=self.tokens.to(device),
            token_index=index,
            target=self.target.to(device),
            score=self.score.to(device),
            cam=self.cam.to(device),
        )


class InputStatistics(NamedTuple):
    """What the selector's input and output are standardised by."""

    mean: torch.Tensor
    """(D,) float32, per channel."""
    std: torch.Tensor
    """(D,) float32, per channel."""
    base_rate: float
    """Mean target."""


@dataclass(frozen=True)
class _ShardRows:
    """One shard in memory; `rows` are the clips that are used, the others lie idle."""

    rows: np.ndarray  # (m,) positions within the shard
    tokens: np.ndarray  # (n, K, D) float16, as read: selecting rows here would copy it all
    token_index: np.ndarray  # (m, K) int64
    target: np.ndarray  # (m, K) float32
    score: np.ndarray  # (m, K) float32
    cam: np.ndarray  # (m, K) float32


class TokenStream:
    """Batches of a store's training clips, and its held-out clips.

    Args:
        store: an opened store with embeddings.
        split: the role of each of its clips.
        clean: cleaning steps of the training target.
        seed: of the shuffling.
        block_bytes: embeddings per shuffle block; None takes `BLOCK_BYTES`.
        oracle: whose scores are learnt, by its name in the store; None for the first.
        other: the scores of another store, to be learnt in place of the store's own.
    """

    def __init__(
        self,
        store: Store,
        split: StoreSplit,
        clean: Sequence[str] = (),
        seed: int = 0,
        block_bytes: int | None = None,
        oracle: str | None = None,
        other: OtherScores | None = None,
    ) -> None:
        assert store.embeddings is not None, "split_store refuses stores without embeddings"
        self._store, self._split, self._clean, self._seed = store, split, tuple(clean), seed
        self._oracle, self._other = oracle, other
        self.embeddings_per_clip = int(store.embeddings.shape[1])
        clip_bytes = 2 * self.embeddings_per_clip * store.hidden_size
        shard_bytes = clip_bytes * store.config.shard_size
        self._block_shards = max(1, (block_bytes or BLOCK_BYTES) // shard_bytes)
        self._max_held_out = max(1, HELD_OUT_BYTES // clip_bytes)
        self._shards = [s for s in split.roles if split.count(TRAIN, s)]
        self.num_train = split.count(TRAIN)

    @property
    def num_blocks(self) -> int:
        """Blocks of an epoch."""
        return -(-len(self._shards) // self._block_shards)

    def blocks(
        self, epoch: int, batch_tokens: int, first_block: int = 0
    ) -> Iterator[Iterator[TokenBatch]]:
        """The blocks of an epoch from `first_block` on, each an iterator over its batches.

        Args:
            epoch: decides the order.
            batch_tokens: tokens per batch, rounded down to whole clips (at least one). A block is
                cut into equal batches of at most that size, so that none is a small remainder.
            first_block: where to start.

        Raises:
            StoreError: a clip that is ok holds NaN or infinity.
        """
        order = np.random.default_rng([self._seed, epoch]).permutation(self._shards).tolist()
        groups = [
            order[i : i + self._block_shards] for i in range(0, len(order), self._block_shards)
        ]
        batch_clips = max(1, batch_tokens // self.embeddings_per_clip)
        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
            coming = deque(groups[first_block:])
            ahead = reader.submit(self._read_all, coming.popleft()) if coming else None
            for block in range(first_block, len(groups)):
                assert ahead is not None
                shards = ahead.result()
                ahead = reader.submit(self._read_all, coming.popleft()) if coming else None
                rng = np.random.default_rng([self._seed, epoch, block])
                yield self._batches(shards, batch_clips, rng)
                del shards

    def held_out(self, batch_tokens: int) -> list[TokenBatch]:
        """Held-out clips up to `HELD_OUT_BYTES`, the same ones for every seed."""
        with_some = [s for s in self._split.roles if self._split.count(HELD_OUT, s)]
        order = np.random.default_rng(0).permutation(with_some).tolist()
        batches: list[TokenBatch] = []
        left = self._max_held_out
        batch_clips = max(1, batch_tokens // self.embeddings_per_clip)
        for shard in order:
            rows = self._read(shard, HELD_OUT, limit=left)
            left -= len(rows.rows)
            batches += self._batches([rows], batch_clips, None)
            if not left:
                break
        return batches

    def statistics(self) -> InputStatistics:
        """Mean and deviation of each channel, and the mean target, over a sample of clips."""
        order = np.random.default_rng([self._seed, 1]).permutation(self._shards).tolist()
        left, count, total_target = STATISTICS_CLIPS, 0, 0.0
        total = torch.zeros(self._store.hidden_size, dtype=torch.float64)
        squares, shift = torch.zeros_like(total), torch.zeros_like(total)
        for shard in order:
            rows = self._read(shard, TRAIN, limit=left)
            for batch in self._batches([rows], 64, None):
                z = batch.tokens.flatten(0, 1).double()
                if not count:
                    shift = z.mean(0)  # sums about a value in their midst keep their digits
                total += (z - shift).sum(0)
                squares += (z - shift).square().sum(0)
                total_target += float(batch.target.double().sum())
                count += len(z)
            left -= len(rows.rows)
            if not left:
                break
        variance = (squares / count - (total / count).square()).clamp_min(0)
        return InputStatistics(
            (shift + total / count).float(), variance.sqrt().float(), total_target / count
        )

    def place_means(self) -> torch.Tensor:
        """Mean target of each place of the grid over all training clips, (N,) float32."""
        total = torch.zeros(self._store.grid.num_tokens, dtype=torch.float64)
        for shard in self._shards:
            rows = np.flatnonzero(self._split.roles[shard] == TRAIN)
            if self._other is None:
                data = self._store.read_shard(shard, embeddings=False, oracle=self._oracle)
                scores = data.scores[rows]
            else:
                scores, _ = self._other.maps(self._clip_ids(shard, rows))
            target = clean_scores(torch.from_numpy(scores.astype(np.float32)), self._clean)
            total += target.double().flatten(1).sum(0)
        return (total / self.num_train).float()

    def _read_all(self, shards: list[int]) -> list[_ShardRows]:
        return [self._read(shard, TRAIN) for shard in shards]

    def _read(self, shard: int, role: int, limit: int | None = None) -> _ShardRows:
        data = self._store.read_shard(shard, oracle=self._oracle)
        rows = np.flatnonzero(self._split.roles[shard] == role)[:limit]
        assert data.embeddings is not None
        assert data.embedding_index is not None
        check_finite(str(self._store.root), data, rows, ("scores", "cam", "embeddings"))
        index = data.embedding_index[rows].astype(np.int64)
        if self._other is None:
            scores, cam = data.scores[rows], data.cam[rows]
        else:
            scores, cam = self._other.maps(self._clip_ids(shard, rows))
        target = clean_scores(torch.from_numpy(scores), self._clean).numpy()

        def at(maps: np.ndarray) -> np.ndarray:
            return np.take_along_axis(maps.reshape(len(rows), -1), index, axis=1)

        return _ShardRows(rows, data.embeddings, index, at(target), at(scores), at(cam))

    def _clip_ids(self, shard: int, rows: np.ndarray) -> np.ndarray:
        return self._store.info.rows(shard).start + rows

    def _batches(
        self, shards: list[_ShardRows], batch_clips: int, rng: np.random.Generator | None
    ) -> Iterator[TokenBatch]:
        """Cuts clips into batches of nearly equal size, shuffled where `rng` is given."""
        owner = np.concatenate([np.full(len(s.rows), i) for i, s in enumerate(shards)])
        place = np.concatenate([np.arange(len(s.rows)) for s in shards])
        order = np.arange(len(owner)) if rng is None else rng.permutation(len(owner))
        for picked in np.array_split(order, -(-len(order) // batch_clips)):
            yield self._gather(shards, owner[picked], place[picked])

    def _gather(self, shards: list[_ShardRows], owner: np.ndarray, place: np.ndarray) -> TokenBatch:
        """The clips at `place` among the used rows of shards `owner`, both (B,)."""

        def pick(name: str) -> torch.Tensor:
            values = [getattr(shard, name) for shard in shards]
            out = np.empty((len(owner), *values[0].shape[1:]), values[0].dtype)
            for i, shard in enumerate(shards):
                mine = np.flatnonzero(owner == i)
                out[mine] = values[i][shard.rows[place[mine]] if name == "tokens" else place[mine]]
            return torch.from_numpy(out)

        # The store lists tokens in ascending order, so that a whole grid stands in its own.
        whole = self.embeddings_per_clip == self._store.grid.num_tokens
        return TokenBatch(
            tokens=pick("tokens"),
            token_index=None if whole else pick("token_index"),
            target=pick("target"),
            score=pick("score"),
            cam=pick("cam"),
        )
