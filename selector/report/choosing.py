"""Which clips of a store are drawn: by number, of a class, or those that go most wrong."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.clips.classes import class_of
from pipeline.errors import ClipStatus, StoreError
from pipeline.store.reader import Store


def clips_by_number(store: Store, numbers: Sequence[int]) -> dict[int, str]:
    """Clips that were asked for, each with why it is shown.

    Raises:
        StoreError: one is not in the store, not committed, or has no map.
    """
    known = store.clips(columns=["clip_id", "status", "error"]).set_index("clip_id")
    for number in numbers:
        if not 0 <= number < store.num_clips:
            raise StoreError(
                f"{store.root} has no clip {number}: they are 0 to {store.num_clips - 1}"
            )
        if number not in known.index:
            raise StoreError(f"clip {number} of {store.root} is not done yet")
        status, error = known.loc[number]
        if status != ClipStatus.OK:
            raise StoreError(f"clip {number} has no map: {status} ({error})")
    return dict.fromkeys(numbers, "as asked")


def clips_of_class(store: Store, name: str, limit: int) -> dict[int, str]:
    """The first clips of a class that have a map.

    Args:
        store: where.
        name: as `class_of` takes it.
        limit: how many at most.

    Raises:
        ConfigError: no such class.
        StoreError: no clip of it has a map.
    """
    class_id = _class_id(store, name)
    clips = store.clips(columns=["clip_id", "label"], status=ClipStatus.OK.value)
    found = clips.loc[clips["label"] == class_id, "clip_id"].head(limit)
    if found.empty:
        raise StoreError(f"no clip of class {name!r} in {store.root} has a map")
    return {int(clip): f"class {name}" for clip in found}


def worst_clips(store: Store, number: int) -> dict[int, str]:
    """The clips with a label whose true class the model finds least probable, worst first.

    Raises:
        StoreError: no clip with a map has a label.
    """
    clips = store.clips(columns=["clip_id", "label", "true_prob"], status=ClipStatus.OK.value)
    ranked = clips[clips["label"] >= 0].sort_values(["true_prob", "clip_id"]).head(number)
    if ranked.empty:
        raise StoreError(f"no clip of {store.root} has both a map and a label")
    return {
        int(clip): f"worst no. {i} by the true class"
        for i, clip in enumerate(ranked["clip_id"], start=1)
    }


def without_map(store: Store, class_name: str | None = None) -> dict[str, int]:
    """Clips that cannot be drawn because they failed, by status.

    Args:
        store: where.
        class_name: count those of this class only, as `clips_of_class` takes it.
    """
    clips = store.clips(columns=["label", "status"])
    clips = clips[clips["status"] != ClipStatus.OK.value]
    if class_name is not None:
        clips = clips[clips["label"] == _class_id(store, class_name)]
    return {str(status): int(num) for status, num in clips["status"].value_counts().items()}


def _class_id(store: Store, name: str) -> int:
    names = store.label_names or [str(n) for n in range(int(store.plan()["label"].max()) + 1)]
    return class_of(name, dict(enumerate(names)))
