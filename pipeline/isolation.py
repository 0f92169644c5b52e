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
from collections.abc import Iterable
from dataclasses import dataclass, field

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


class Isolation:
    """The notes of one store."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def touching(self, shard: int, clips: Iterable[int] | None) -> None:
        """Worker: write down the clips of the next step; None for the whole shard."""
        listed = None if clips is None else sorted(clips)
        self._root.put(_touching(shard), json.dumps(listed).encode())

    def let_go(self, shard: int) -> None:
        """Worker or driver: the shard ended without a death."""
        self._root.remove(_touching(shard))

    def committed(self, shard: int) -> None:
        """Worker: forget everything about the shard."""
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
