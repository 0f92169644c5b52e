"""One shard in this process: rows, neighbours, model failures, retries."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.errors import LiteError, ModelFailsError
from pipeline.oracle.build import prepare
from pipeline.oracle.worker import OracleWorker, _classify
from pipeline.shards.executor import Attempt, Isolation
from pipeline.store.reader import open_store
from pipeline.store.root import Root
from pipeline.store.shard_writer import ShardWriter
from pipeline.store.verify import verify_store
from pipeline.store.writer import create_store
from tests.builds import (
    ask,
    file_hashes,
    make_dataset,
    make_run_config,
    make_video,
    run_build,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), 6)


@pytest.fixture
def make_worker(tmp_path, data, tiny_backbone):
    """A worker of a new store; options go to what is asked or the run configuration."""
    workers = []

    def make(asked=None, run=None):
        prepared = prepare(ask(tiny_backbone, **(asked or {})), make_run_config(data))
        store = Root(tmp_path / "store")
        with create_store(
            store,
            prepared.config,
            prepared.plan,
            prepared.grid,
            prepared.hidden_size,
            prepared.label_names,
        ):
            pass
        workers.append(OracleWorker(prepared.config, make_run_config(data, **(run or {})), store))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


def test_a_report_counts_the_clips_and_the_seconds(make_worker):
    report = make_worker().run(0, Attempt())
    assert (report.shard, report.num_clips, report.num_failed) == (0, 4, 0)
    assert set(report.seconds) == {"decode", "compute", "write"}
    assert all(seconds > 0 for seconds in report.seconds.values())


def test_running_a_shard_again_changes_no_byte(make_worker, tmp_path):
    worker = make_worker()
    worker.run(0, Attempt())
    before = file_hashes(tmp_path / "store")
    worker.run(0, Attempt(2, isolation=Isolation()))
    assert file_hashes(tmp_path / "store") == before


def test_rows_hold_what_the_model_said(make_worker, tmp_path):
    worker = make_worker()
    worker.run(0, Attempt())
    clips = open_store(tmp_path / "store").clips()
    assert clips["prediction"].tolist() == [top5[0] for top5 in clips["top5"]]
    np.testing.assert_allclose(clips["true_prob"], np.exp(-clips["loss"]), rtol=1e-6)
    right = clips["prediction"] == clips["label"]
    np.testing.assert_array_equal(clips["confidence"][right], clips["true_prob"][right])
    assert (clips["confidence"] >= clips["true_prob"]).all()


def test_classification_numbers_are_those_of_torch():
    logits = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32) * 5
    best, confidence, log_probs = _classify(logits)
    expected = torch.from_numpy(logits).double().log_softmax(-1)
    np.testing.assert_allclose(log_probs, expected, rtol=1e-12)
    np.testing.assert_allclose(confidence, expected.exp().max(-1).values, rtol=1e-12)
    np.testing.assert_array_equal(best, torch.from_numpy(logits).topk(5).indices)


def test_equal_logits_are_ranked_by_class_id():
    best, _, _ = _classify(np.zeros((1, 7), np.float32))
    assert best.tolist() == [[0, 1, 2, 3, 4]]


class FailsOn:
    """A scorer that raises whenever it gets one of some clips."""

    def __init__(self, scorer, *clip_ids, error=None):
        self.scorer, self.clip_ids = scorer, clip_ids
        self.error = error or ValueError("odd input")
        self.backbone = scorer.backbone

    def __call__(self, clips, labels, clip_ids):
        present = [i for clip, i in zip(clips, clip_ids, strict=True) if clip.any()]
        if set(present) & set(self.clip_ids):
            raise self.error
        return self.scorer(clips, labels, clip_ids)


def test_a_clip_the_model_raises_on_is_a_row_and_its_neighbour_keeps_its_bits(
    make_worker, tmp_path
):
    worker = make_worker()
    worker.run(0, Attempt())
    healthy = ShardWriter(Root(tmp_path / "store")).load(0)
    worker._scorer = FailsOn(worker._scorer, 1)
    report = worker.run(0, Attempt())
    assert report.counts == {"ok": 3, "model_error": 1}
    broken = ShardWriter(Root(tmp_path / "store")).load(0)
    assert broken.clips[1]["error"] == "ValueError: odd input"
    for row in (0, 2, 3):
        assert broken.clips[row] == healthy.clips[row]
        assert broken.cam[row].tobytes() == healthy.cam[row].tobytes()


def test_a_model_that_raises_on_everything_is_no_matter_of_clips(make_worker, tmp_path):
    worker = make_worker()
    worker._scorer = FailsOn(worker._scorer, *range(6))
    with pytest.raises(ModelFailsError, match="odd input"):
        worker.run(0, Attempt())
    assert open_store(tmp_path / "store").shards() == []


def test_our_own_errors_pass_through(make_worker):
    worker = make_worker()
    worker._scorer = FailsOn(worker._scorer, 1, error=LiteError("one clip does not fit"))
    with pytest.raises(LiteError, match="does not fit"):
        worker.run(0, Attempt())


def test_numbers_that_are_not_finite_are_model_errors(make_worker, tmp_path):
    worker = make_worker()
    scorer = worker._scorer

    def score(clips, labels, clip_ids):
        scored = scorer(clips, labels, clip_ids)
        scored.logits[0] = np.nan
        return scored

    score.backbone = scorer.backbone
    worker._scorer = score
    assert worker.run(0, Attempt()).counts == {"ok": 2, "model_error": 2}
    errors = open_store(tmp_path / "store").clips(status="model_error")["error"]
    assert errors.str.startswith("not finite").all()


def test_two_shards_at_once_change_no_byte(make_worker, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    worker = make_worker(run={"decode_workers": 0})
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda shard: worker.run(shard, Attempt()), [0, 1]))
    together = file_hashes(tmp_path / "store")
    for shard in (1, 0):
        worker.run(shard, Attempt())
    assert file_hashes(tmp_path / "store") == together


def test_several_views_of_a_video_are_rows_of_their_own(tmp_path, data, tiny_backbone):
    store = tmp_path / "views"
    result = run_build(
        store, data, tiny_backbone, asked={"num_segments": 2, "num_crops": 3, "shard_size": 8}
    )
    assert result.summary == {"ok": 36, "pending": 0}
    opened = open_store(store)
    rows = opened.clips()
    assert rows.groupby("video_id").size().tolist() == [6] * 6
    assert rows["segment"].tolist()[:6] == [0, 0, 0, 1, 1, 1]
    assert rows["crop"].tolist()[:6] == [0, 1, 2, 0, 1, 2]
    # Different pixels, hence different values.
    first = opened.cam()[:6].reshape(6, -1).astype(np.float32)
    assert len({row.tobytes() for row in first}) > 1
    assert verify_store(str(store)) == []


def test_retrying_failed_clips_ends_with_the_bytes_of_a_run_without_the_failure(
    tmp_path, tiny_backbone
):
    data = make_dataset(tmp_path / "data", 10, missing=(2, 5, 9))
    store = tmp_path / "store"
    result = run_build(store, data, tiny_backbone)
    assert result.summary == {"ok": 7, "missing_file": 3, "pending": 0}
    for number in (2, 5, 9):
        make_video(data / f"v{number:03d}.mp4", number)
    run_build(store, data, tiny_backbone)
    assert open_store(store).summary()["missing_file"] == 3, "only --retry-failed tries again"
    run_build(store, data, tiny_backbone, retry=("decode_error",))
    assert open_store(store).summary()["missing_file"] == 3, "only the status asked for"
    result = run_build(store, data, tiny_backbone, retry=("missing_file",))
    assert result.summary == {"ok": 10, "pending": 0}
    undisturbed = tmp_path / "undisturbed"
    run_build(undisturbed, data, tiny_backbone)
    assert file_hashes(store) == file_hashes(undisturbed)


def test_a_retry_decodes_nothing_but_what_failed(tmp_path, tiny_backbone):
    data = make_dataset(tmp_path / "data", 6, missing=(1,))
    store = tmp_path / "store"
    run_build(store, data, tiny_backbone)
    make_video(data / "v001.mp4", 1)
    for number in (0, 2, 3, 4, 5):
        (data / f"v{number:03d}.mp4").unlink()
    result = run_build(store, data, tiny_backbone, retry=("missing_file",))
    assert result.summary == {"ok": 6, "pending": 0}
