"""Finds the clip that kills its worker, at the cost of a few deaths and of no neighbour.

A dead process leaves no message, so the worker writes down what it is about to touch. From what it
wrote last, the driver narrows the search after every death:

    whole shard  ->  one batch (the worker now writes before every step)
                 ->  one clip (the batch's clips are tried one at a time)
                 ->  the same clip once more: the culprit, recorded as `worker_died`

Twice, so that a clip is not blamed for one unlucky kill (memory, a lost node). The notes live in
`runs/` and go when the shard is committed. They also survive the driver: if a clip kills the
process that drives as well, as it does without Ray, running the same command again narrows on.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline.shards.loader import Batch
from pipeline.store.layout import RUNS
from pipeline.store.root import Root

DEATHS_TO_BLAME = 2
MAX_CULPRITS = 8
"""More than this in one shard is no matter of poison clips; deaths then count as strikes."""

_NOTES = f"{RUNS}/isolation"


@dataclass(frozen=True)
class Findings:
    """What earlier deaths have taught about one shard; clips are named by `clip_id`."""

    suspects: frozenset[int] = frozenset()
    """In hand together at a death: to be tried one at a time."""
    deaths: dict[int, int] = field(default_factory=dict)
    """How often each clip killed its worker while it was tried alone."""

    @property
    def culprits(self) -> frozenset[int]:
        """Clips to leave out."""
        return frozenset(clip for clip, n in self.deaths.items() if n >= DEATHS_TO_BLAME)


@dataclass(frozen=True)
class Guard:
    """What the worker does about poison clips in one attempt; clips are named by position."""

    isolation: Isolation
    shard: int
    clip_ids: Sequence[int]
    findings: Findings
    cautious: bool
    """Whether a worker died with this shard in hand before."""

    @property
    def culprits(self) -> list[int]:
        """Positions to leave out, which fail as `worker_died`."""
        culprits = self.findings.culprits
        return [i for i, clip in enumerate(self.clip_ids) if clip in culprits]

    def parts(self, batch: Batch) -> Iterator[Batch]:
        """What to touch at once: all clips together, but suspects one at a time."""
        suspects = self.findings.suspects
        alone = [position for position in batch.facts if self.clip_ids[position] in suspects]
        together = [position for position in batch.facts if position not in alone]
        if together:
            yield batch.only(together)
        for position in alone:
            yield batch.only([position])

    @contextmanager
    def touching(self, positions: Collection[int]) -> Iterator[None]:
        """Around what these clips go through: a cautious attempt leaves a trace of them."""
        if not self.cautious:
            yield
            return
        self.isolation.touching(self.shard, [self.clip_ids[position] for position in positions])
        try:
            yield
        finally:
            self.isolation.touching(self.shard, [])  # a death from here on is no clip's doing


class Isolation:
    """The notes of one store or evaluation."""

    def __init__(self, root: Root) -> None:
        self._root = root

    @contextmanager
    def guarding(self, shard: int, clip_ids: Sequence[int], *, cautious: bool) -> Iterator[Guard]:
        """Worker: around one attempt at a shard, which ends with its commit.

        Args:
            shard: the shard.
            clip_ids: of its rows, in order.
            cautious: whether to leave a trace from the start; done anyway after a death.
        """
        findings = self.findings(shard)
        self.touching(shard, None)
        try:
            cautious = cautious or findings is not None
            yield Guard(self, shard, clip_ids, findings or Findings(), cautious)
        except BaseException:
            self.let_go(shard)  # this process lives: no clip is to blame
            raise
        self.committed(shard)

    def touching(self, shard: int, clips: Iterable[int] | None) -> None:
        """Worker: write down the clips in hand; None for the whole shard."""
        listed = None if clips is None else sorted(clips)
        self._root.put(_touching(shard), json.dumps(listed).encode())

    def let_go(self, shard: int) -> None:
        """Worker or driver: the shard ended without a death."""
        self._root.remove(_touching(shard))

    def committed(self, shard: int) -> None:
        """Worker or driver: forget everything about the shard."""
        self.let_go(shard)
        self._root.remove(_findings(shard))

    def findings(self, shard: int) -> Findings | None:
        """What is known of the shard; None if no worker died on it."""
        try:
            known = json.loads(self._root.get(_findings(shard)))
        except FileNotFoundError:
            return None
        deaths = {int(clip): int(n) for clip, n in known["deaths"].items()}
        return Findings(frozenset(known["suspects"]), deaths)

    def learn(self, shard: int) -> bool:
        """Driver: take in a death of the worker that had this shard; whether it was news."""
        try:
            clips = json.loads(self._root.get(_touching(shard)))
        except FileNotFoundError:
            return False
        known = self.findings(shard)
        suspects, deaths = (known.suspects, dict(known.deaths)) if known else (frozenset(), {})
        news = known is None
        if clips is not None and len(clips) == 1:
            news = len(known.culprits if known else ()) < MAX_CULPRITS
            deaths[clips[0]] = deaths.get(clips[0], 0) + 1
        elif clips:
            news = not suspects.issuperset(clips)
            suspects = suspects | frozenset(clips)
        note = {"suspects": sorted(suspects), "deaths": deaths}
        self._root.put(_findings(shard), json.dumps(note).encode())
        self.let_go(shard)
        return news

    def learn_from_the_last_run(self) -> list[int]:
        """Driver: take in what a killed run was touching; the shards concerned."""
        shards = self._touched()
        for shard in shards:
            self.learn(shard)
        return shards

    def let_go_of_all(self) -> None:
        """Driver: the run was stopped on purpose, and its workers with it."""
        for shard in self._touched():
            self.let_go(shard)

    def _touched(self) -> list[int]:
        names = [name for name in self._root.names(_NOTES) if name.startswith("touching-")]
        return [int(name.removeprefix("touching-").removesuffix(".json")) for name in names]


def _touching(shard: int) -> str:
    return f"{_NOTES}/touching-{shard:05d}.json"


def _findings(shard: int) -> str:
    return f"{_NOTES}/findings-{shard:05d}.json"
