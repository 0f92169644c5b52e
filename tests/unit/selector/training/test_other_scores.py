"""Scores of another backbone's store: of the same view of the same video, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from pipeline.backbones import backbone_digest
from pipeline.cli import app
from pipeline.clips.grid import TokenGrid
from pipeline.clips.plan import plan_digest
from pipeline.errors import BackboneError, ClipStatus, ConfigError, StoreError, StoreMismatchError
from pipeline.store import layout
from pipeline.store.reader import Store, open_store
from pipeline.store.shard_writer import ShardWriter
from pipeline.store.writer import create_store
from selector.deploy.card import _learnt
from selector.report.commands import train_command
from selector.training.config import TrainConfig
from selector.training.data import TokenStream
from selector.training.files import read_config, read_record
from selector.training.other_scores import OtherScores, SharedVideos
from selector.training.split import HELD_OUT, TRAIN, is_held_out, split_store
from selector.training.train import train_selector
from tests.checkpoints import save_timesformer, save_videomae
from tests.stores import make_config, make_result

GRID = TokenGrid(2, 2, 2)
NAMES = [f"video{i:02d}" for i in range(20)]
HELD_OUT_SHARE = 0.3
ASKED = TrainConfig(epochs=1, held_out=HELD_OUT_SHARE)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of one grid: 4 frames in tubelets of 2, or 2 frames; and one that crops more away."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        "here": save_videomae(folder / "here"),
        "there": save_timesformer(folder / "there", num_frames=2),
        "cropping": save_videomae(folder / "cropping", seed=1, short_side=20),
    }


def known_scores(video: str, segment: int, crop: int, oracle: int = 0) -> np.ndarray:
    """Multiples of 1/1024, which float16 holds: a different map for each view of each video."""
    rng = np.random.default_rng([*video.encode(), segment, crop, oracle])
    return (rng.permutation(1024)[: GRID.num_tokens] / 1024).astype(np.float32)


def make(
    path: Path,
    backbone: Path,
    names: list[str],
    *,
    failed: tuple[str, ...] = (),
    degenerate: tuple[str, ...] = (),
    shards: list[int] | None = None,
    grid: TokenGrid = GRID,
    hidden_size: int = 6,
    edit: Callable[[dict[str, list[Any]]], None] = lambda columns: None,
    frames: Callable[[str], int] = lambda name: 30 + int(name[-2:]),
    **config_changes: Any,
) -> Store:
    """A store of two crops a video, its videos in the order given; cams are scores - 1/4."""
    rows = [(name, crop) for name in names for crop in (0, 1)]
    changes = {"embeddings_per_clip": 5, "num_crops": 2} | config_changes
    config = make_config(
        backbone=str(backbone), backbone_digest=backbone_digest(str(backbone)), **changes
    )
    columns: dict[str, list[Any]] = {
        "clip_id": list(range(len(rows))),
        "shard": [i // config.shard_size for i in range(len(rows))],
        "video_id": [name for name, _ in rows],
        "path": [f"{name}.mp4" for name, _ in rows],
        "label": [int(name[-2:]) % 3 for name, _ in rows],
        "split": ["train"] * len(rows),
        "segment": [0] * len(rows),
        "crop": [crop for _, crop in rows],
    }
    edit(columns)
    plan = pa.table(columns).cast(layout.PLAN_SCHEMA)
    config = replace(config, plan_digest=plan_digest(plan))
    with create_store(str(path), config, plan, grid, hidden_size, ["a", "b", "c"]) as writer:
        for shard in writer.pending() if shards is None else shards:
            start = writer.info.rows(shard).start
            own = rows[writer.info.rows(shard)]
            statuses = {
                start + i: ClipStatus.DECODE_ERROR
                for i, (name, _) in enumerate(own)
                if name in failed
            }
            result = make_result(writer, shard, statuses)
            for i, (name, crop) in enumerate(own):
                if name in failed:
                    continue
                clip = result.clips[i]
                clip["num_frames_total"] = frames(name)
                clip["degenerate"] = name in degenerate
                for number, suffix in enumerate(writer.info.suffixes):
                    if grid == GRID:
                        scores = known_scores(name, 0, crop, number).reshape(GRID)
                        result.arrays["scores" + suffix][i] = scores
                        result.arrays["cam" + suffix][i] = scores - 0.25
                    clip["cam_scale" + suffix] = 1.0
            ShardWriter(writer.root).write(shard, result)
    return open_store(writer.root)


def seen(stream: TokenStream, store: Store) -> dict[tuple[str, int], list[np.ndarray]]:
    """(video, crop) -> tokens' places, target, score and cam, found by the embeddings alone."""
    assert store.embeddings is not None
    plan, embeddings = store.plan(), store.embeddings[:].reshape(store.num_clips, -1)
    found = {}
    batches = [batch for block in stream.blocks(0, 60) for batch in block]
    for batch in [*batches, *stream.held_out(60)]:
        for i in range(len(batch.tokens)):
            same = (embeddings == batch.tokens[i].numpy().reshape(-1)).all(1)
            (clip,) = np.flatnonzero(same)
            key = plan["video_id"][clip], int(plan["crop"][clip])
            assert key not in found
            values = batch.token_index, batch.target, batch.score, batch.cam
            found[key] = [value[i].numpy() for value in values if value is not None]
    return found


def two_stores(tmp_path: Path, checkpoints: dict[str, Path], **there: Any) -> tuple[Store, Store]:
    """Another order, another size of shards and no embeddings there; see the test that uses all."""
    here = make(tmp_path / "here", checkpoints["here"], NAMES, failed=(NAMES[3],))
    order = np.random.default_rng(1).permutation(NAMES).tolist()
    options = {"embeddings_per_clip": 0, "shard_size": 3, "hidden_size": 4} | there
    other = make(
        tmp_path / "there", checkpoints["there"], options.pop("names", order), **options
    )  # fmt: skip
    return here, other


def test_each_token_gets_the_score_of_its_view_of_its_video(tmp_path, checkpoints):
    """A backbone of another frame count; clips in another order, in shards of another size."""
    order = np.random.default_rng(1).permutation([*NAMES[:18], "video97", "video98", "video99"])
    here = make(
        tmp_path / "here",
        checkpoints["here"],
        NAMES,
        failed=(NAMES[3],),
        degenerate=(NAMES[4],),  # of an oracle that is not learnt
    )
    there = make(
        tmp_path / "there",
        checkpoints["there"],
        order.tolist(),
        failed=(NAMES[5], NAMES[3]),
        degenerate=(NAMES[6],),
        embeddings_per_clip=0,
        shard_size=3,
        hidden_size=4,
    )
    other = OtherScores(here, there)
    split = split_store(here, HELD_OUT_SHARE, other=other)
    stream = TokenStream(here, split, other=other)
    found = seen(stream, here)
    left = set(NAMES[:18]) - {NAMES[3], NAMES[5], NAMES[6]}
    assert found.keys() == {(name, crop) for name in left for crop in (0, 1)}
    for (name, crop), (places, target, score, cam) in found.items():
        expected = known_scores(name, 0, crop)[places]
        np.testing.assert_array_equal(target, expected)
        np.testing.assert_array_equal(score, expected)
        np.testing.assert_array_equal(cam, expected - 0.25)
    trained = [n for n in sorted(left) if not is_held_out(n, HELD_OUT_SHARE)]
    assert split.count(TRAIN) == 2 * len(trained)
    assert split.count(HELD_OUT) == 2 * (len(left) - len(trained))
    means = np.mean([known_scores(n, 0, crop) for n in trained for crop in (0, 1)], axis=0)
    np.testing.assert_allclose(stream.place_means(), means, rtol=1e-6)
    assert other.videos == SharedVideos(num_both=18, num_only_here=2, num_only_there=3)
    assert split.failed == {"decode_error": 4}
    assert (split.num_degenerate, split.num_missing) == (2, 0)


def test_an_oracle_is_one_of_the_other_store(tmp_path, checkpoints):
    name = "hirescam@embeddings"
    here, there = two_stores(tmp_path, checkpoints, further_oracles=(name,))
    other = OtherScores(here, there, name)
    stream = TokenStream(here, split_store(here, HELD_OUT_SHARE, other=other), other=other)
    for (video, crop), (places, _, score, _) in seen(stream, here).items():
        np.testing.assert_array_equal(score, known_scores(video, 0, crop, 1)[places])
    with pytest.raises(StoreError, match=r"oracle.*gradcam@blocks.-1.mlp.*gradcam@blocks"):
        OtherScores(here, there, "gradcam@blocks.-1.mlp")


def test_a_shard_reads_only_the_maps_that_it_needs(tmp_path, checkpoints, monkeypatch):
    here, there = two_stores(tmp_path, checkpoints, names=NAMES)
    other = OtherScores(here, there)
    read = []
    read_shard = Store.read_shard

    def spy(self: Store, shard: int, **options: Any) -> Any:
        read.append((shard, options["embeddings"]))
        return read_shard(self, shard, **options)

    monkeypatch.setattr(Store, "read_shard", spy)
    other.maps(np.arange(8, 12))
    assert read == [(2, False), (3, False)]


def relabel(columns: dict[str, list[Any]]) -> None:
    columns["label"][columns["video_id"].index(NAMES[7])] = 0


def move(columns: dict[str, list[Any]]) -> None:
    columns["path"][columns["video_id"].index(NAMES[7])] = "elsewhere/x.mp4"


@pytest.mark.parametrize(
    ("here", "there", "backbone", "said"),
    [
        ({}, {"dataset": "huge"}, "there", "dataset tiny -> huge"),
        ({}, {"sampling": "stride:2"}, "there", "sampling uniform -> stride:2"),
        ({}, {"num_segments": 2}, "there", "num_segments 1 -> 2"),
        ({}, {"num_crops": 3}, "there", "num_crops 2 -> 3"),
        (
            {},
            {"grid": TokenGrid(2, 2, 3)},
            "there",
            r"token grid \(2, 2, 2\) -> \(2, 2, 3\)",
        ),
        (
            {"sampling": "stride:2"},
            {"sampling": "stride:2"},
            "there",
            r"frames of a clip \(with sampling stride:2, its length in the video\) 4 -> 2",
        ),
        ({}, {}, "cropping", "crop of the short side 16 of 16 pixels -> 16 of 20 pixels"),
        ({}, {"edit": relabel}, "there", "label of video 'video07' 1 -> 0"),
        ({}, {"edit": move}, "there", "path of video 'video07' video07.mp4 -> elsewhere/x.mp4"),
        (
            {},
            {"frames": lambda name: 30 + int(name[-2:]) + (name == NAMES[9])},
            "there",
            "frames of video 'video09' 39 -> 40",
        ),
    ],
)
def test_what_differs_is_refused_by_name(tmp_path, checkpoints, here, there, backbone, said):
    store = make(tmp_path / "here", checkpoints["here"], NAMES, **here)
    other = make(tmp_path / "there", checkpoints[backbone], NAMES, **there)
    with pytest.raises(StoreMismatchError, match=said):
        split_store(store, HELD_OUT_SHARE, other=OtherScores(store, other))


def test_the_same_strided_frames_are_accepted_of_two_checkpoints(tmp_path, checkpoints):
    twin = save_videomae(tmp_path / "twin", seed=2, hidden_size=12)
    store = make(tmp_path / "here", checkpoints["here"], NAMES, sampling="stride:2")
    other = make(tmp_path / "there", twin, NAMES, sampling="stride:2")
    assert OtherScores(store, other).videos.num_both == len(NAMES)


def test_unknown_frames_and_failed_clips_are_not_compared(tmp_path, checkpoints):
    store = make(tmp_path / "here", checkpoints["here"], NAMES, failed=(NAMES[3],))
    counts = {NAMES[3]: 7, NAMES[4]: -1}
    other = make(
        tmp_path / "there",
        checkpoints["there"],
        NAMES,
        frames=lambda name: counts.get(name, 30 + int(name[-2:])),
    )
    split = split_store(store, HELD_OUT_SHARE, other=OtherScores(store, other))
    assert split.count(TRAIN) + split.count(HELD_OUT) == 2 * (len(NAMES) - 1)


def test_a_checkpoint_that_is_gone_or_another_is_refused(tmp_path, checkpoints):
    twin = save_videomae(tmp_path / "twin", seed=2)
    store = make(tmp_path / "here", checkpoints["here"], NAMES)
    other = make(tmp_path / "there", twin, NAMES)
    save_videomae(twin, seed=3)
    with pytest.raises(BackboneError, match="not the one that built .*there"):
        OtherScores(store, other)
    twin.rename(tmp_path / "moved")
    with pytest.raises(BackboneError, match="without the checkpoint that built .*there"):
        OtherScores(store, other)


@pytest.mark.parametrize(("num_shared", "accepted"), [(5, True), (4, False)])
def test_half_of_the_shorter_list_must_be_shared(tmp_path, checkpoints, num_shared, accepted):
    names = NAMES[:num_shared] + [f"video{i}" for i in range(50, 60 - num_shared)]
    here, there = two_stores(tmp_path, checkpoints, names=names)
    if accepted:
        videos = OtherScores(here, there).videos
        assert videos == SharedVideos(num_both=5, num_only_here=15, num_only_there=5)
        return
    with pytest.raises(StoreMismatchError, match=r"20 videos and .*there 10, and only 4 are"):
        OtherScores(here, there)


def test_an_unfinished_store_of_scores_is_refused_unless_allowed(tmp_path, checkpoints):
    here, there = two_stores(tmp_path, checkpoints, names=NAMES, shards=list(range(10)))
    other = OtherScores(here, there)
    with pytest.raises(StoreError, match=r"there is unfinished: 30 of 40 clips"):
        split_store(here, HELD_OUT_SHARE, other=other)
    split = split_store(here, HELD_OUT_SHARE, allow_unfinished=True, other=other)
    assert split.num_missing == 10
    found = seen(TokenStream(here, split, other=other), here)
    assert {name for name, _ in found} == set(NAMES[:15]) - {NAMES[3]}


def test_damage_is_told_of_the_store_that_has_it(tmp_path, checkpoints):
    here, there = two_stores(tmp_path, checkpoints)
    writer = ShardWriter(there.root)
    result = writer.load(4)
    result.arrays["cam"][1, 0] = np.nan
    writer.write(4, result)
    other = OtherScores(here, there)
    stream = TokenStream(here, split_store(here, HELD_OUT_SHARE, other=other), other=other)
    with pytest.raises(StoreError, match=r"cam of clip 13 in .*there holds NaN"):
        seen(stream, here)


def test_the_selector_says_whose_scores_it_learnt(tmp_path, checkpoints):
    name = "hirescam@embeddings"
    here, there = two_stores(tmp_path, checkpoints, further_oracles=(name,))
    out = tmp_path / "selector"
    result = train_selector(here, out, ASKED, oracle=name, scores_from=there)
    config = read_config(out)
    assert config.backbone_digest == here.config.backbone_digest
    assert config.store_fingerprint == here.config.fingerprint()
    assert config.oracle == "hirescam of embeddings, label"
    assert json.loads((out / "config.json").read_text())["scores_from"] == {
        "backbone": str(checkpoints["there"]),
        "backbone_digest": backbone_digest(str(checkpoints["there"])),
        "revision": None,
        "store_fingerprint": there.config.fingerprint(),
        "oracle": name,
    }
    weights = there.config.backbone_digest[:12]
    assert f"`{config.oracle}` of another backbone (`there`, weights {weights}" in _learnt(config)
    assert result.videos == SharedVideos(num_both=20, num_only_here=0, num_only_there=0)
    assert train_selector(here, out, ASKED, oracle=name, scores_from=there) == result
    record = read_record(out)
    assert record is not None
    command = train_command(record, "HERE", "OUT")
    assert "--scores-from OTHER_STORE" in command
    assert f"--oracle {name}" in command


def test_other_scores_are_another_training(tmp_path, checkpoints):
    here, there = two_stores(tmp_path, checkpoints)
    second = make(tmp_path / "second", checkpoints["there"], NAMES, layer="blocks.-1.mlp")
    out = tmp_path / "selector"
    train_selector(here, out, ASKED, scores_from=there)
    asked = there.config.fingerprint()
    with pytest.raises(ConfigError, match=f"scores_from {asked} -> None"):
        train_selector(here, out, ASKED)
    with pytest.raises(ConfigError, match=f"scores_from {asked} -> {second.config.fingerprint()}"):
        train_selector(here, out, ASKED, scores_from=second)
    own = tmp_path / "own"
    train_selector(here, own, ASKED)
    assert "scores_from" not in json.loads((own / "config.json").read_text())


def test_the_command(tmp_path, checkpoints):
    two_stores(tmp_path, checkpoints)
    words = ["--store", tmp_path / "here", "--held-out", HELD_OUT_SHARE, "--epochs", 1]

    def run(*more: Any) -> tuple[int, str]:
        asked = ["train-selector", *words, "--out", tmp_path / "out", *more]
        result = CliRunner().invoke(app, list(map(str, asked)))
        return result.exit_code, " ".join(result.output.split())

    code, said = run("--scores-from", tmp_path / "here")
    assert code == 1
    assert "leave --scores-from out" in said
    code, said = run("--scores-from", tmp_path / "there", "--oracle", "occlusion@embeddings")
    assert code == 1
    assert not (tmp_path / "out").exists()
    code, said = run("--scores-from", tmp_path / "there")
    assert code == 0
    assert f"scores: gradcam@blocks.-1.output of {checkpoints['there']}, for the 20 videos" in said
    assert "(0 only in --store are left out, 0 only in --scores-from)" in said
