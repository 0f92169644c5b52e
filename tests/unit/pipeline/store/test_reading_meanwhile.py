"""Reading a shard while a run does it again: one state or the other, and never called damaged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ClipStatus, StoreError
from pipeline.store import layout
from pipeline.store.reader import Store, open_store
from pipeline.store.root import Root
from pipeline.store.shard_writer import ShardWriter
from pipeline.store.verify import verify_store
from tests.stores import GRID, make_result, make_store

FAILED = {5: ClipStatus.MISSING_FILE}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Shard 1 has a failed clip, and a retry is at hand that mends it."""
    return make_store(tmp_path / "s", 10, failed=FAILED)


def retry(store: Store) -> None:
    ShardWriter(store.root).write(1, make_result(store, 1))


def take_away(store: Store) -> None:
    """As a retry does first."""
    store.root.remove(layout.clips_path(1))
    store.root.put("oracle.zarr/cam/c.1.0.0.0", b"half of a retry")


@pytest.fixture
def just_before(monkeypatch: pytest.MonkeyPatch, store: Store) -> Any:
    """Lets something happen once, just before a reader opens a certain file."""

    def arrange(path: str, happen: Callable[[Store], None]) -> None:
        todo = [happen]

        def watched(method: Any) -> Any:
            def call(self: Root, rels: Any) -> Any:
                asked = [rels] if isinstance(rels, str) else rels
                if todo and path in asked:
                    todo.pop()(store)
                return method(self, rels)

            return call

        monkeypatch.setattr(Root, "get", watched(Root.get))
        monkeypatch.setattr(Root, "get_each", watched(Root.get_each))

    return arrange


def test_a_shard_that_is_taken_away_is_left_out(store: Store, just_before: Any) -> None:
    just_before(layout.clips_path(1), take_away)
    assert store.clips()["clip_id"].tolist() == [0, 1, 2, 3, 8, 9]


def test_its_tokens_too(store: Store, just_before: Any) -> None:
    just_before(layout.tokens_path(1), take_away)
    store.root.put(layout.tokens_path(1), b"of the retry")
    assert sorted(set(store.tokens()["clip_id"])) == [0, 1, 2, 3, 8, 9]


def test_tokens_that_are_done_again_are_read_again(store: Store, just_before: Any) -> None:
    just_before(layout.tokens_path(1), retry)
    assert sorted(set(store.tokens()["clip_id"])) == list(range(10))


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("array", ["scores/c.1.0.0.0", "embeddings/c.1.0.0"])
def test_arrays_that_are_done_again_are_read_again(
    store: Store, just_before: Any, array: str, before: bool
) -> None:
    """Also those that this reader has read before, and does not hash again."""
    if before:
        assert store.read_shard(1).clips["status"].iloc[1] == "missing_file"
    just_before(f"oracle.zarr/{array}", retry)
    data = store.read_shard(1)
    assert data.clips["status"].tolist() == ["ok"] * 4
    np.testing.assert_array_equal(data.scores, make_result(store, 1).scores)
    np.testing.assert_array_equal(data.embeddings, make_result(store, 1).embeddings)


def test_a_shard_in_the_middle_of_it_is_not_there(store: Store, just_before: Any) -> None:
    just_before("oracle.zarr/scores/c.1.0.0.0", take_away)
    with pytest.raises(StoreError, match="shard 1 of .* is not committed .* wait for the run"):
        store.read_shard(1)


def test_verify_calls_it_missing_and_not_damaged(store: Store, just_before: Any) -> None:
    just_before("oracle.zarr/scores/c.1.0.0.0", take_away)
    problems = [problem for problem in verify_store(store.root) if not problem.harmless]
    assert [problem.what for problem in problems] == ["1 of 3 shards (4 clips) are missing: 1"]


def test_damage_is_still_called_damage(store: Store) -> None:
    for path in (layout.tokens_path(1), "oracle.zarr/scores/c.1.0.0.0"):
        store.root.put(path, b"garbage")
    with pytest.raises(StoreError, match=r"tokens/shard-00001\.parquet is damaged"):
        store.tokens()
    with pytest.raises(StoreError, match=r"c\.1\.0\.0\.0 is damaged"):
        store.read_shard(1)


def test_a_storm_of_retries(store: Store) -> None:
    """Whatever is read is one of the two states whole."""
    ended, writer = threading.Event(), ShardWriter(store.root)
    states = [make_result(store, 1, FAILED), make_result(store, 1)]
    ok_tokens = {3 * GRID.num_tokens: [4, 6, 7], 4 * GRID.num_tokens: [4, 5, 6, 7]}
    failures: list[BaseException] = []

    def storm() -> None:
        try:
            for turn in range(24):
                writer.write(1, states[turn % 2])
                time.sleep(0.02)
        except BaseException as error:
            failures.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=storm)
    thread.start()
    seen: set[str] = set()
    try:
        while not ended.is_set():
            reader = open_store(store.root)
            assert len(reader.clips(["clip_id"])) in (6, 10)
            tokens = reader.tokens(clips=range(4, 8))["clip_id"]
            assert not len(tokens) or sorted(set(tokens)) == ok_tokens[len(tokens)]
            try:
                data = reader.read_shard(1)
            except StoreError as error:
                seen.add(str(error).partition(str(store.root))[2].strip()[:16])
                continue
            status = data.clips["status"].iloc[1]
            seen.add(status)
            wanted = states[status == "ok"]
            np.testing.assert_array_equal(data.scores, wanted.scores)
            np.testing.assert_array_equal(data.embeddings, wanted.embeddings)
            np.testing.assert_array_equal(data.embedding_index, wanted.embedding_index)
    finally:
        thread.join()
    assert not failures
    assert {"ok", "missing_file"} <= seen <= {"ok", "missing_file", "is not committed"}
