"""How value and what is seen overlap, against maps and pixels whose answer is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from scipy import stats
from typer.testing import CliRunner

from datasets_spec.synthetic import make
from datasets_spec.synthetic.benchmark import RECIPE
from datasets_spec.synthetic.masks import RenderedVideos, labelled_and_other
from datasets_spec.synthetic.scene import draw_scene
from pipeline.backbones import load_backbone
from pipeline.cli import app
from pipeline.clips.grid import TokenGrid
from pipeline.clips.plan import plan_digest
from pipeline.clips.views import frame_indices
from pipeline.config import OracleConfig
from pipeline.store import layout
from pipeline.store.reader import Store, open_store
from pipeline.store.shard_writer import ShardWriter
from pipeline.store.writer import create_store
from selector.analysis import areas
from selector.analysis.overlap import Maps, other_videos, overlap, shuffled_places
from selector.report.contents import sections
from selector.report.page import render

RNG = np.random.default_rng(0)


def maps_of(scores: list[float], signed: list[float] | None = None) -> Maps:
    rows = np.array([scores, scores[::-1]], np.float32)
    other = rows if signed is None else np.array([signed, signed[::-1]], np.float32)
    return Maps.of(rows, other, 0, 1, shuffled_places(np.random.default_rng(0), len(scores)))


def test_measures_by_hand():
    """Ten tokens, the first two on the area, with 4 and 1 of the value 8; one is below the 2."""
    scores = [4.0, 1.0, 2.0, 1.0, 0, 0, 0, 0, 0, 0]
    area = np.arange(10) < 2
    found = maps_of(scores).on(area, area.astype(float))
    # Pairs on against off: the 4 wins all 8; the 1 loses one, ties one, wins six.
    expected = [5 / 8, 1.0, (8 + 6.5) / 16, stats.spearmanr(scores, area).statistic]
    assert found[:, 0] == pytest.approx(expected)
    assert found[:2, 1] == pytest.approx([0, 0])  # the other map has its value at the end
    assert found[0, 2:].mean() == pytest.approx(0.2, abs=0.06)
    assert found[2, 2:].mean() == pytest.approx(0.5, abs=0.06)


def test_equal_values_are_uniform_and_no_area_says_nothing():
    maps = maps_of([0.5] * 20)
    area = np.arange(20) < 5
    found = maps.on(area, RNG.random(20))
    assert found[:3, 0] == pytest.approx([0.25, 0.25, 0.5])  # equals share the best tenth
    assert np.isnan(found[3]).all()
    for nothing in (np.zeros(20, bool), np.ones(20, bool)):
        assert np.isnan(maps.on(nothing, RNG.random(20))).all()


def test_the_order_is_that_of_the_signed_map():
    found = maps_of([1.0, 0, 0, 0], [1.0, -0.1, -3, -2]).on(
        np.array([1, 1, 0, 0], bool), RNG.random(4)
    )
    assert found[:3, 0] == pytest.approx([1, 1, 1])


def test_the_other_map_is_of_another_video():
    assert other_videos(["a", "a", "b", "c"]) == [2, 3, 0, 1]
    assert other_videos(["a", "a", "a", "b"]) == [3, 3, 3, 1]
    assert other_videos(["a", "a"]) == [None, None]


def test_edges_of_a_ramp_and_motion_of_a_step():
    grid = TokenGrid(2, 2, 2)
    ramp = np.tile(3 * np.arange(8), (4, 8, 1))[..., None].repeat(3, axis=-1).astype(np.uint8)
    found = areas.edges(ramp, grid)
    # Sobel of a slope of 3 is 3 x 8, and half of it in the column where the border is repeated.
    assert found == pytest.approx(np.full(grid, (3 * 24 + 12) / 4), rel=1e-3)
    step = np.zeros((4, 8, 8, 3), np.uint8)
    step[2:, :4, :4] = 60
    found = areas.motion(step, grid, (10.0, 20.0, 30.0))
    assert found[:, 0, 0] == pytest.approx([(6 + 3 + 2) / 3] * 2)
    assert found.sum() == pytest.approx(2 * 11 / 3)
    assert areas.busiest(found).tolist() == [[[True, False], [False] * 2]] * 2
    assert not areas.busiest(np.ones(grid)).any()


NUM_VIDEOS = 6


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("overlap") / "videos"
    make(root, NUM_VIDEOS, 7, workers=0)
    return root


def make_covered_store(
    path: Path, videos: Path, flat: tuple[int, ...] = (), copies: int = 1
) -> Store:
    """A store of rendered videos whose value is how much of a token the labelled actor covers.

    The cover is taken from the frames as the renderer has them, each token by itself. With copies,
    each video stands there so many times under other names, in a group.
    """
    backbone = load_backbone("synthetic", None, device="meta")
    config = OracleConfig(
        dataset="synthetic", plan_digest="0" * 64, split="train", backbone="synthetic",
        backbone_digest=backbone.digest, sampling="uniform", num_segments=1, num_crops=1,
        layer="blocks.-1.output", embeddings_per_clip=0, shard_size=4,
    )  # fmt: skip
    ids = np.arange(NUM_VIDEOS * copies)
    number = ids // copies + 1
    scenes = [draw_scene(7, i - 1) for i in number]
    plan = pa.table(
        {
            "clip_id": ids, "shard": ids // 4, "video_id": [str(i + 1) for i in ids],
            "path": [f"20bn-something-something-v2/{i}.webm" for i in number],
            "label": [scene.label for scene in scenes], "split": ["train"] * len(ids),
            "segment": ids * 0, "crop": ids * 0,
        }
    ).cast(layout.PLAN_SCHEMA)  # fmt: skip
    if copies > 1:
        plan = plan.append_column(layout.GROUP, pa.array([f"recording {i}" for i in number]))
    config = replace(config, plan_digest=plan_digest(plan))
    grid = backbone.grid
    names = [f"class {i}" for i in range(18)]
    with create_store(str(path), config, plan, grid, backbone.hidden_size, names) as store:
        for shard in store.pending():
            result = ShardWriter(store.root).new_result(shard)
            rows = store.info.rows(shard)
            for row, clip in enumerate(range(rows.start, rows.stop)):
                scene = scenes[clip]
                mask = labelled_and_other(scene)[0]
                mask = mask[frame_indices(scene.num_frames, backbone.num_frames)]
                left = (scene.width - scene.height) // 2
                square = torch.from_numpy(mask[:, :, left : left + scene.height])[None, None]
                cover = torch.nn.functional.adaptive_avg_pool3d(square, tuple(grid))[0, 0].numpy()
                scores = cover / cover.max() * (clip not in flat)
                result.set_ok(
                    row, scores=[scores.ravel()], cam=[scores.ravel() - (clip in flat)],
                    prediction=0, top5=[0, 1, 2, 3, 4], confidence=0.5, true_prob=0.5, loss=0.7,
                    num_frames_total=scene.num_frames, padded=False, damaged=False,
                    decoder="pyav", decoder_version="0", embeddings=None, embedding_index=None,
                )  # fmt: skip
            ShardWriter(store.root).write(shard, result)
    return open_store(path)


@pytest.fixture(scope="module")
def covered(tmp_path_factory, videos: Path) -> Store:
    return make_covered_store(tmp_path_factory.mktemp("covered") / "store", videos, flat=(2,))


def test_value_that_is_the_actors_cover_lies_on_the_actor(covered, videos: Path):
    found = overlap(covered, str(videos))
    table = found.table.set_index(["area", "measure"])
    actor = table.loc["actor"]
    assert actor.loc["auc", "value"] == pytest.approx(1, abs=0.01)
    assert actor.loc["spearman", "value"] > 0.9
    assert actor.loc["value_share", "value"] > 0.75  # the rest is on tokens it covers less of
    assert actor.loc["value_share", "ratio"] > 5
    for measure in ("value_share", "top10_share"):
        row = actor.loc[measure]
        assert row["shuffled_low"] < row["uniform"] < row["shuffled_high"] < row["low"]
        assert row["other_video"] < row["low"]
    assert table.loc[("other actors", "value_share"), "value"] < 0.2
    assert (actor["num_videos"] == NUM_VIDEOS - 1).all()
    assert found.notes == (
        "6 clips of 6 videos, sampled by seed 0.",
        "1 have no value anywhere and are left out.",
    )
    fewer = overlap(covered, str(videos), num_clips=2, seed=3)
    assert fewer.notes[0] == "2 clips of 2 videos, sampled by seed 3."


def test_copies_of_a_video_in_one_group_say_nothing_new(covered, videos: Path, tmp_path: Path):
    """Not of the interval, not as the other video, not as shuffled maps that average out."""
    copied = make_covered_store(tmp_path / "store", videos, copies=3)
    single = make_covered_store(tmp_path / "single", videos)
    (tmp_path / "20bn-something-something-v2").symlink_to(videos / "20bn-something-something-v2")
    found, expected = (overlap(store, str(tmp_path)) for store in (copied, single))
    assert found.notes[0] == "18 clips of 18 videos in 6 groups, sampled by seed 0."
    counts, drawn = ["num_clips", "num_videos"], ["shuffled", "shuffled_low", "shuffled_high"]
    assert (found.table[counts] == 3 * expected.table[counts]).all(axis=None)
    rest = [table.drop(columns=[*counts, *drawn]) for table in (found.table, expected.table)]
    pd.testing.assert_frame_equal(*rest)
    width, wanted = (t["shuffled_high"] - t["shuffled_low"] for t in (found.table, expected.table))
    assert (width / wanted).mean() == pytest.approx(1, abs=0.2)  # 0.58 if they averaged out


def test_the_command_prints_it_and_refuses_a_wrong_folder(covered, videos: Path, tmp_path: Path):
    run = ["analyze", "--store", str(covered.root.url)]
    shown = CliRunner().invoke(app, [*run, "--data-root", str(videos)], catch_exceptions=False)
    assert "actor: " in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    as_json = CliRunner().invoke(app, [*run, "--data-root", str(videos), "--json"])
    rows = json.loads(as_json.stdout)["overlap"]["rows"]
    assert [row["area"] for row in rows[::4]] == ["motion", "edges", "actor", "other actors"]
    assert "needs the videos, --data-root" in CliRunner().invoke(app, run).stdout
    wrong = CliRunner().invoke(app, [*run, "--data-root", str(tmp_path)])
    assert wrong.exit_code != 0
    assert "none of the 5 sampled clips can be read" in wrong.output


def test_the_page_shows_it(covered, videos: Path):
    parts = sections(covered, data_root=str(videos))
    assert any("lies on the labelled actor, which has" in line for line in parts[0].text)
    [part] = [part for part in parts if part.title == "What value lies on"]
    assert [line.split(":")[0] for line in part.text[1:5]] == [
        "Motion",
        "Edges",
        "Actor",
        "Other actors",
    ]
    assert len(part.plots[0].picture.tips) == 4 * 4
    assert "nan" not in render("x", [part])


def test_of_videos_that_are_not_the_recipes_nothing_is_said_of_actors(
    covered, videos: Path, tmp_path: Path
):
    (tmp_path / "20bn-something-something-v2").symlink_to(videos / "20bn-something-something-v2")
    found = overlap(covered, str(tmp_path))
    assert set(found.table["area"]) == {"motion", "edges"}
    assert "only videos made by `datasets make synthetic`" in found.notes[-1]
    recipe = json.loads((videos / RECIPE).read_text()) | {"seed": 8}
    (tmp_path / RECIPE).write_text(json.dumps(recipe))
    assert RenderedVideos(tmp_path).scene("1").num_frames != draw_scene(7, 0).num_frames
    found = overlap(covered, str(tmp_path))
    assert set(found.table["area"]) == {"motion", "edges"}
    assert "and was rendered with" in found.notes[-1]
