"""A process that drives and works by itself is killed, at every point; then the same command.

Each run is a real process: a fork of this one, which spares it the seconds that imports take.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.store.reader import Store, open_store
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


def _array(store: Store, name: str) -> np.ndarray:
    found = getattr(store, name)
    return (found() if callable(found) else found)[:]


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
    assert not (store / "runs/in-work.json").exists()


@pytest.mark.parametrize(
    "at",
    [
        "score",
        "rename:scores_hirescam_embeddings/c.1",
        "renamed:cam_hirescam_embeddings/c.1",
        "renamed:tokens/shard-00001",
    ],
)
def test_killed_in_the_midst_of_two_oracles_it_ends_with_the_same_bytes(
    tmp_path, data, tiny_backbone, at
):
    asked = {"further_oracles": ("hirescam@embeddings",)}
    run_build(tmp_path / "undisturbed", data, tiny_backbone, asked=asked)
    store, worker = tmp_path / "store", chaos(tmp_path / "chaos", Order(at, shard=1))
    code = in_a_process(
        lambda: run_build(store, data, tiny_backbone, asked=asked, worker_class=worker)
    )
    assert code == -signal.SIGKILL
    assert open_store(store).shards() == [0]
    assert run_build(store, data, tiny_backbone, asked=asked).complete
    assert file_hashes(store) == file_hashes(tmp_path / "undisturbed")
    assert verify_store(str(store)) == []


def test_what_was_in_work_is_done_last_and_then_in_a_process_of_its_own(
    tmp_path, data, tiny_backbone
):
    store = tmp_path / "store"
    worker = chaos(tmp_path / "chaos", Order("score", shard=0, times=2))
    for lost in ([0], [0, 0]):
        in_a_process(lambda: run_build(store, data, tiny_backbone, worker_class=worker))
        assert json.loads((store / "runs/in-work.json").read_text()) == lost
    assert open_store(store).shards() == [1, 2], "the second run did the others first"
    run_build(store, data, tiny_backbone)
    log = max((store / "runs").glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    [done] = [event for event in events if event["event"] == "committed"]
    assert done["shard"] == 0
    assert done["pid"] != os.getpid()


@pytest.mark.parametrize(
    "point",
    [
        "clip:6",
        *(
            pytest.param(point, marks=pytest.mark.slow)
            for point in ("score", "commit", "rename:cam/c.1", "rename:clips/shard-00001")
        ),
    ],
)
def test_a_driver_killed_nine_times_at_one_point_blames_nobody(
    tmp_path, data, tiny_backbone, undisturbed, point
):
    """The same victim each time, as a machine with too little memory would have it."""
    store = tmp_path / "store"
    order = Order(point, shard=None if point == "clip:6" else 1, act="kill driver", times=9)
    worker = chaos(tmp_path / "chaos", order)
    codes = [
        in_a_process(lambda: run_build(store, data, tiny_backbone, worker_class=worker))
        for _ in range(10)
    ]
    assert codes == [-signal.SIGKILL] * 9 + [0]
    assert count(tmp_path / "chaos") == 9
    assert file_hashes(store) == undisturbed
    assert verify_store(str(store)) == []


@pytest.mark.slow
def test_a_child_killed_ten_times_on_one_clip_blames_nobody(
    tmp_path, data, tiny_backbone, undisturbed
):
    store = tmp_path / "store"
    worker = chaos(tmp_path / "chaos", Order("clip:6", times=12))
    codes = [
        in_a_process(lambda: run_build(store, data, tiny_backbone, worker_class=worker))
        for _ in range(3)
    ]
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 0]
    assert count(tmp_path / "chaos") == 12
    assert file_hashes(store) == undisturbed


@pytest.mark.slow
def test_a_clip_that_is_always_killed_keeps_its_shard_for_the_next_run(
    tmp_path, data, tiny_backbone, undisturbed
):
    store = tmp_path / "store"
    worker = chaos(tmp_path / "chaos", Order("clip:6", times=ALWAYS))
    for _ in range(2):
        in_a_process(lambda: run_build(store, data, tiny_backbone, worker_class=worker))
    result = run_build(store, data, tiny_backbone, worker_class=worker)
    assert open_store(store).shards() == [0, 2]
    [loss] = result.given_up
    assert loss.shard == 1
    assert "killed from outside 12 times" in loss.reason
    assert "--accept-killed" in loss.reason
    assert run_build(store, data, tiny_backbone).complete
    assert file_hashes(store) == undisturbed


@pytest.mark.slow
def test_a_clip_that_is_always_killed_can_be_accepted_as_failed(tmp_path, data, tiny_backbone):
    store = tmp_path / "store"
    worker = chaos(tmp_path / "chaos", Order("clip:6", times=ALWAYS))
    for _ in range(2):
        in_a_process(lambda: run_build(store, data, tiny_backbone, worker_class=worker))
    result = run_build(store, data, tiny_backbone, worker_class=worker, run={"accept_killed": True})
    assert result.summary == {"ok": 8, "missing_file": 1, "worker_died": 1, "pending": 0}
    assert open_store(store).clips(status="worker_died")["clip_id"].tolist() == [6]


@pytest.mark.slow
def test_killed_again_and_again_it_still_ends_with_the_same_bytes(
    tmp_path, data, tiny_backbone, undisturbed
):
    store = tmp_path / "store"
    worker = chaos(tmp_path / "chaos", *KILL_POINTS)
    codes = [-signal.SIGKILL]
    while codes[-1] == -signal.SIGKILL:
        codes.append(
            in_a_process(lambda: run_build(store, data, tiny_backbone, worker_class=worker))
        )
    assert codes[-1] == 0
    assert count(tmp_path / "chaos") == len(KILL_POINTS)
    assert file_hashes(store) == undisturbed


@pytest.mark.parametrize(
    "clip", [6, *(pytest.param(clip, marks=pytest.mark.slow) for clip in (0, 3))]
)
def test_a_clip_that_crashes_every_time_is_found_and_its_neighbours_are_untouched(
    tmp_path, data, tiny_backbone, clip
):
    store = tmp_path / "store"
    worker = chaos(tmp_path / "chaos", Order(f"clip:{clip}", act="crash", times=ALWAYS))

    def go_on() -> int:
        return in_a_process(lambda: run_build(store, data, tiny_backbone, worker_class=worker))

    assert [go_on() for _ in range(3)] == [-signal.SIGSEGV, -signal.SIGSEGV, 0]
    # Twice in a run's own process, in a batch, alone, alone once more; then it is left out.
    assert count(tmp_path / "chaos") == 5
    clips = open_store(store).clips()
    assert clips.query("status == 'worker_died'")["clip_id"].tolist() == [clip]
    assert (clips["status"] == "ok").sum() == 8
    reference = tmp_path / "reference"
    run_build(reference, data, tiny_backbone)
    ours, theirs = open_store(store), open_store(reference)
    others = [i for i in range(10) if i != clip]
    for name in ("scores", "cam", "embeddings", "embedding_index"):
        mine, wanted = (_array(store, name)[others] for store in (ours, theirs))
        assert mine.tobytes() == wanted.tobytes()
    assert verify_store(str(store)) == []
    assert not (store / "runs/in-work.json").exists()


@pytest.mark.slow
def test_the_found_clip_can_be_tried_again_and_then_gives_the_undisturbed_bytes(
    tmp_path, data, tiny_backbone, undisturbed
):
    store = tmp_path / "store"
    worker = chaos(tmp_path / "chaos", Order("clip:6", act="crash", times=5))
    for _ in range(3):
        in_a_process(lambda: run_build(store, data, tiny_backbone, worker_class=worker))
    assert open_store(store).summary()["worker_died"] == 1
    run_build(store, data, tiny_backbone, retry=("worker_died",))
    assert file_hashes(store) == undisturbed


@pytest.mark.slow
def test_a_crash_that_does_not_come_again_blames_nobody(tmp_path, data, tiny_backbone, undisturbed):
    # Twice in a run's own process, in a batch, and once while it is alone.
    store = tmp_path / "store"
    worker = chaos(tmp_path / "chaos", Order("clip:6", act="crash", times=4))
    for _ in range(3):
        in_a_process(lambda: run_build(store, data, tiny_backbone, worker_class=worker))
    assert count(tmp_path / "chaos") == 4
    assert file_hashes(store) == undisturbed


def test_a_clip_that_crashes_an_evaluation_is_found_and_its_neighbours_are_untouched(
    tmp_path, data, tiny_backbone, undisturbed_evaluation
):
    options = {"worker_class": poisoned(6)}

    def go_on() -> int:
        return in_a_process(lambda: run_evaluation(tmp_path, data, tiny_backbone, options=options))

    assert [go_on() for _ in range(3)] == [-signal.SIGSEGV, -signal.SIGSEGV, 0]
    check_that_only_it_failed(tmp_path, undisturbed_evaluation, 6)
