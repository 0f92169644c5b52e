"""Streaming a store: every clip once, in an order that follows from the seed, in bounded memory."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest
import torch
import zarr

from pipeline.errors import ClipStatus, ConfigError, StoreError
from pipeline.store.shard_writer import ShardWriter
from selector.training import data
from selector.training.data import TokenStream
from selector.training.split import HELD_OUT, TRAIN, is_held_out, split_store
from selector.training.targets import clean_scores
from tests.learnable import GRID, HIDDEN_SIZE, make_learnable_store
from tests.stores import make_store


def epoch_cams(stream, epoch=0, batch_tokens=60, first_block=0):
    """The cams of an epoch's clips, which tell them apart."""
    blocks = stream.blocks(epoch, batch_tokens, first_block)
    return torch.cat([batch.cam for batches in blocks for batch in batches])


def sampled_cams(store, role, split):
    """The same straight from the store, in order of clip id."""
    rows = np.concatenate([split.roles[s] == role for s in store.shards()])
    clips = store.clips()
    cam = store.cam()[:].reshape(store.num_clips, -1).astype(np.float32)
    cam *= clips["cam_scale"].to_numpy()[:, None]
    return np.take_along_axis(cam, store.embedding_index[:].astype(int), 1)[rows]


def test_an_epoch_holds_every_training_clip_once_and_no_other(tmp_path):
    store = make_learnable_store(tmp_path / "s", failed=(3, 17))
    split = split_store(store, 0.3)
    got = epoch_cams(TokenStream(store, split)).numpy()
    expected = sampled_cams(store, TRAIN, split)
    assert len(got) == split.count(TRAIN)
    np.testing.assert_array_equal(np.sort(got[:, 0]), np.sort(expected[:, 0]))


def test_held_out_clips_are_the_rest_and_do_not_depend_on_the_seed(tmp_path):
    store = make_learnable_store(tmp_path / "s", failed=(3, 17))
    split = split_store(store, 0.3)
    batches = [
        torch.cat([b.cam for b in TokenStream(store, split, seed=seed).held_out(100)])
        for seed in (0, 1)
    ]
    assert torch.equal(*batches)
    assert len(batches[0]) == split.count(HELD_OUT)
    assert split.count(TRAIN) + split.count(HELD_OUT) == 58
    expected = sampled_cams(store, HELD_OUT, split)
    np.testing.assert_array_equal(np.sort(batches[0][:, 0]), np.sort(expected[:, 0]))


def test_the_scores_of_the_oracle_that_is_named_are_learnt(tmp_path):
    """A clip counts for one oracle where another found no token."""
    other = "hirescam@embeddings"
    store = make_learnable_store(tmp_path / "s", further_oracles=(other,))
    result = ShardWriter(store.root).load(0)
    result.arrays["scores_hirescam_embeddings"][2] = 0
    result.clips[2]["degenerate_hirescam_embeddings"] = True
    ShardWriter(store.root).write(0, result)
    first, named = split_store(store, 0.3), split_store(store, 0.3, oracle=other)
    assert (first.num_degenerate, named.num_degenerate) == (0, 1)
    role = first.roles[0][2]
    assert first.count(role) == named.count(role) + 1
    stream = TokenStream(store, named, oracle=other)
    batches = [batch for block in stream.blocks(0, 60) for batch in block]
    got = torch.cat([batch.score for batch in batches]).numpy()
    rows = np.concatenate([named.roles[s] == TRAIN for s in store.shards()])
    scores = store.scores(other)[:].reshape(store.num_clips, -1).astype(np.float32)
    expected = np.take_along_axis(scores, store.embedding_index[:].astype(int), 1)[rows]
    np.testing.assert_array_equal(np.sort(got, axis=0), np.sort(expected, axis=0))
    place_means = scores[rows].mean(axis=0)
    np.testing.assert_allclose(stream.place_means(), place_means, rtol=1e-5)


def test_all_views_of_a_video_are_on_the_same_side():
    ids = [f"v{i}" for i in range(2000)]
    sides = [is_held_out(video, 0.1) for video in ids]
    assert sides == [is_held_out(video, 0.1) for video in ids]
    assert 140 < sum(sides) < 260
    assert all(is_held_out(v, 0.2) for v, out in zip(ids, sides, strict=True) if out)


def test_the_split_does_not_follow_how_a_plan_was_limited():
    """`--limit` draws by a hash of the id too; once it was the same hash, and all were held out."""
    ids = sorted((f"v{i}" for i in range(5000)), key=lambda v: hashlib.sha256(v.encode()).digest())
    assert 20 < sum(is_held_out(video, 0.1) for video in ids[:400]) < 70


def test_tokens_and_scores_of_a_batch_belong_together(tmp_path):
    store = make_learnable_store(tmp_path / "s")
    stream = TokenStream(store, split_store(store, 0.3), clean=("edges", "sharpen"))
    tokens = store.embeddings[:].reshape(store.num_clips, -1)
    cleaned = clean_scores(torch.from_numpy(store.scores()[:].astype(np.float32)), stream._clean)
    for batches in stream.blocks(0, 100):
        for batch in batches:
            for i in range(len(batch.tokens)):
                flat = batch.tokens[i].numpy().reshape(-1)
                clip = int(np.flatnonzero((tokens == flat).all(1))[0])
                at = torch.from_numpy(store.embedding_index[clip].astype(np.int64))
                assert torch.equal(batch.token_index[i], at)
                assert torch.equal(batch.target[i], cleaned[clip].flatten()[at])
                raw = torch.from_numpy(store.scores()[clip].astype(np.float32)).flatten()[at]
                assert torch.equal(batch.score[i], raw)


def test_the_order_follows_from_seed_and_epoch_and_may_be_taken_up_at_any_block(tmp_path):
    store = make_learnable_store(tmp_path / "s")
    split = split_store(store, 0.3)
    stream = TokenStream(store, split, seed=1, block_bytes=1)
    assert torch.equal(
        epoch_cams(stream), epoch_cams(TokenStream(store, split, seed=1, block_bytes=1))
    )
    assert not torch.equal(epoch_cams(stream), epoch_cams(stream, epoch=1))
    other = TokenStream(store, split, seed=2, block_bytes=1)
    assert not torch.equal(epoch_cams(stream), epoch_cams(other))
    tail = epoch_cams(stream, first_block=3)
    assert 0 < len(tail) < split.count(TRAIN)
    assert torch.equal(epoch_cams(stream)[-len(tail) :], tail)
    assert list(stream.blocks(0, 60, stream.num_blocks)) == []


def test_a_block_mixes_clips_of_several_shards(tmp_path):
    store = make_learnable_store(tmp_path / "s")
    split = split_store(store, 0.3)
    cams = sampled_cams(store, TRAIN, split)
    shard_of = {
        float(cam[0]): shard
        for cam, shard in zip(
            cams,
            np.concatenate([[s] * split.count(TRAIN, s) for s in store.shards()]),
            strict=True,
        )
    }
    order = [shard_of[float(c)] for c in epoch_cams(TokenStream(store, split))[:, 0]]
    changes = sum(a != b for a, b in pairwise(order))
    assert changes > 2 * len(store.shards())


def test_batches_of_a_block_are_of_nearly_equal_size_within_the_limit(tmp_path):
    store = make_learnable_store(tmp_path / "s")
    stream = TokenStream(store, split_store(store, 0.3))
    sizes = [b.target.numel() for batches in stream.blocks(0, 100) for b in batches]
    assert max(sizes) <= 100
    assert max(sizes) - min(sizes) <= stream.embeddings_per_clip


def test_no_more_than_two_blocks_are_read_before_the_first_is_used(tmp_path, monkeypatch):
    store = make_learnable_store(tmp_path / "s")
    stream = TokenStream(store, split_store(store, 0.3), block_bytes=1)
    read = []
    monkeypatch.setattr(
        stream,
        "_read_all",
        lambda shards, inner=stream._read_all: read.append(shards) or inner(shards),
    )
    blocks = stream.blocks(0, 100)
    next(blocks)
    assert len(read) <= 2
    blocks.close()


def test_held_out_clips_are_capped_to_what_may_be_kept_in_memory(tmp_path, monkeypatch):
    store = make_learnable_store(tmp_path / "s")
    split = split_store(store, 0.3)
    monkeypatch.setattr(data, "HELD_OUT_BYTES", 5 * 2 * 12 * HIDDEN_SIZE)
    batches = TokenStream(store, split).held_out(1000)
    assert sum(len(b.target) for b in batches) == 5 < split.count(HELD_OUT)


def test_statistics_are_those_of_the_training_tokens(tmp_path):
    store = make_learnable_store(tmp_path / "s")
    split = split_store(store, 0.3)
    stats = TokenStream(store, split).statistics()
    rows = np.concatenate([split.roles[s] == TRAIN for s in store.shards()])
    tokens = store.embeddings[:][rows].reshape(-1, HIDDEN_SIZE).astype(np.float64)
    np.testing.assert_allclose(stats.mean, tokens.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats.std, tokens.std(0), rtol=1e-5)


def test_a_store_of_all_tokens_gives_whole_grids_without_an_index(tmp_path):
    store = make_learnable_store(tmp_path / "s", embeddings_per_clip=-1)
    batch = next(next(TokenStream(store, split_store(store, 0.3)).blocks(0, 100)))
    assert batch.token_index is None
    assert batch.tokens.shape[1] == GRID.num_tokens


def test_failed_and_degenerate_clips_are_left_out_and_counted(tmp_path):
    store = make_store(
        tmp_path / "s",
        40,
        failed={3: ClipStatus.TOO_SHORT, 9: ClipStatus.TOO_SHORT},
        degenerate=(5,),
    )
    split = split_store(store, 0.3)
    assert split.failed == {"too_short": 2}
    assert split.num_degenerate == 1
    assert split.count(TRAIN) + split.count(HELD_OUT) == 37
    assert len(epoch_cams(TokenStream(store, split))) == split.count(TRAIN)


def test_an_unfinished_store_is_refused_unless_allowed_and_then_counted(tmp_path):
    store = make_learnable_store(tmp_path / "s", shards=[0, 2, 3, 5])
    with pytest.raises(StoreError, match="32 of 60 clips"):
        split_store(store, 0.3)
    split = split_store(store, 0.3, allow_unfinished=True)
    assert split.num_missing == 28
    assert len(epoch_cams(TokenStream(store, split))) == split.count(TRAIN)


def test_a_store_without_embeddings_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(StoreError, match="--embeddings-per-clip 128"):
        split_store(make_learnable_store(tmp_path / "s", embeddings_per_clip=0))


def test_a_store_with_no_clip_that_worked_is_refused(tmp_path):
    store = make_learnable_store(tmp_path / "s", 8, failed=tuple(range(8)))
    with pytest.raises(StoreError, match="8 failed"):
        split_store(store)


def test_too_few_videos_for_both_sides_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="--held-out"):
        split_store(make_learnable_store(tmp_path / "s", 2), 0.01)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, float("nan")])
def test_a_held_out_share_outside_0_to_1_is_refused(tmp_path, fraction):
    with pytest.raises(ConfigError, match="held_out"):
        split_store(make_learnable_store(tmp_path / "s", 8), fraction)


@pytest.mark.parametrize("name", ["cam", "embeddings"])
def test_nan_in_a_clip_that_is_ok_is_refused_by_clip_id(tmp_path, name):
    """A fault of whoever wrote it: the file is as it was committed."""
    store = make_learnable_store(tmp_path / "s", 16)
    split = split_store(store, 0.3)
    writer = ShardWriter(store.root)
    result = writer.load(0)
    getattr(result, name)[4, 0] = np.nan
    writer.write(0, result)
    side = HELD_OUT if split.roles[0][4] == HELD_OUT else TRAIN
    stream = TokenStream(store, split)
    with pytest.raises(StoreError, match=rf"{name} of clip 4 .* verify"):
        stream.held_out(100) if side == HELD_OUT else epoch_cams(stream)


@pytest.mark.parametrize("name", ["scores", "cam", "embeddings", "embedding_index"])
def test_a_changed_array_is_refused_by_its_file(tmp_path, name):
    store = make_learnable_store(tmp_path / "s", 16)
    split = split_store(store, 0.3)
    zarr.open_array(f"{store.root}/oracle.zarr", path=name, mode="r+")[4, 0] = 0.125
    with pytest.raises(StoreError, match=rf"{name}/c\.0\.0.* is damaged.* verify"):
        epoch_cams(TokenStream(store, split))
