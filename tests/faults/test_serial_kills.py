"""SIGKILL of the process that drives and works, at every point of a shard; then the same command.

Each run is a real process: a fork of this one, which spares it the seconds that imports take.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from pipeline.store.reader import open_store
from pipeline.store.verify import verify_store
from tests.builds import file_hashes, run_build
from tests.evaluations import run_evaluation
from tests.faults.chaos import ALWAYS, Order, chaos, count
from tests.faults.poison import check_that_only_it_failed, poisoned


def in_a_process(body: Callable[[], object]) -> int:
    """Run `body` in a fork; its exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        try:
            body()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


KILL_POINTS = [
    Order("prepare", shard=0),
    Order("prepare", shard=1),
    Order("score", shard=1),
    Order("commit", shard=1),
    Order("rename:scores/c.1", shard=1),
    Order("renamed:scores/c.1", shard=1),
    Order("rename:embedding_index/c.1", shard=1),
    Order("rename:tokens/shard-00001", shard=1),
    Order("renamed:tokens/shard-00001", shard=1),
    Order("rename:clips/shard-00001", shard=1),
    Order("renamed:clips/shard-00001", shard=1),
    Order("end", shard=2),
]


@pytest.mark.parametrize("order", KILL_POINTS, ids=lambda order: f"{order.at}@{order.shard}")
def test_killed_anywhere_the_same_command_ends_with_the_same_bytes(
    tmp_path, data, tiny_backbone, undisturbed, order
):
    store = tmp_path / "store"
    worker = chaos(tmp_path / "chaos", order)
    code = in_a_process(lambda: run_build(store, data, tiny_backbone, worker_class=worker))
    assert code == -signal.SIGKILL
    assert count(tmp_path / "chaos") == 1
    result = run_build(store, data, tiny_backbone)
    assert result.complete
    assert result.summary == {"ok": 9, "missing_file": 1, "pending": 0}
    assert file_hashes(store) == undisturbed
    assert verify_store(str(store)) == []


def test_killed_again_and_again_it_still_ends_with_the_same_bytes(
    tmp_path, data, tiny_backbone, undisturbed
):
    store = tmp_path / "store"
    worker = chaos(tmp_path / "chaos", *KILL_POINTS)

    def go_on() -> int:
        return in_a_process(lambda: run_build(store, data, tiny_backbone, worker_class=worker))

    codes = [go_on() for _ in range(len(KILL_POINTS) + 1)]
    assert codes == [-signal.SIGKILL] * len(KILL_POINTS) + [0]
    assert file_hashes(store) == undisturbed


@pytest.mark.parametrize("clip", [0, 3, 6])
def test_a_clip_that_kills_every_time_is_found_and_its_neighbours_are_untouched(
    tmp_path, data, tiny_backbone, clip
):
    store = tmp_path / "store"
    worker = chaos(tmp_path / "chaos", Order(f"clip:{clip}", times=ALWAYS))

    def go_on() -> int:
        return in_a_process(lambda: run_build(store, data, tiny_backbone, worker_class=worker))

    codes = [go_on() for _ in range(5)]
    # Whole shard, its batch, alone, alone once more; then the run ends.
    assert codes == [-signal.SIGKILL] * 4 + [0]
    clips = open_store(store).clips()
    assert clips.query("status == 'worker_died'")["clip_id"].tolist() == [clip]
    assert (clips["status"] == "ok").sum() == 8
    reference = tmp_path / "reference"
    run_build(reference, data, tiny_backbone)
    ours, theirs = open_store(store), open_store(reference)
    others = [i for i in range(10) if i != clip]
    for name in ("scores", "cam", "embeddings", "embedding_index"):
        mine, wanted = getattr(ours, name)[:][others], getattr(theirs, name)[:][others]
        assert mine.tobytes() == wanted.tobytes()
    assert verify_store(str(store)) == []
    assert not list((store / "runs").glob("isolation/*"))


def test_the_found_clip_can_be_tried_again_and_then_gives_the_undisturbed_bytes(
    tmp_path, data, tiny_backbone, undisturbed
):
    store = tmp_path / "store"
    worker = chaos(tmp_path / "chaos", Order("clip:6", times=4))
    for _ in range(5):
        in_a_process(lambda: run_build(store, data, tiny_backbone, worker_class=worker))
    assert open_store(store).summary()["worker_died"] == 1
    run_build(store, data, tiny_backbone, retry=("worker_died",))
    assert file_hashes(store) == undisturbed


def test_one_unlucky_kill_blames_nobody(tmp_path, data, tiny_backbone, undisturbed):
    # Killed three times with clip 6 in hand, once of these while it was alone.
    store = tmp_path / "store"
    worker = chaos(tmp_path / "chaos", Order("clip:6", times=3))
    for _ in range(4):
        in_a_process(lambda: run_build(store, data, tiny_backbone, worker_class=worker))
    assert file_hashes(store) == undisturbed


def test_a_clip_that_kills_an_evaluation_is_found_and_its_neighbours_are_untouched(
    tmp_path, data, tiny_backbone, undisturbed_evaluation
):
    options = {"worker_class": poisoned(6)}

    def go_on() -> int:
        return in_a_process(lambda: run_evaluation(tmp_path, data, tiny_backbone, options=options))

    assert [go_on() for _ in range(5)] == [-signal.SIGKILL] * 4 + [0]
    check_that_only_it_failed(tmp_path, undisturbed_evaluation, 6)
