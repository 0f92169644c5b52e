"""A store of several oracles: each has arrays and columns of its own, and the first has the old."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import zarr

from pipeline.errors import ClipStatus, ConfigError, StoreError, StoreMismatchError
from pipeline.store import layout
from pipeline.store.commits import Commits, commit_bytes
from pipeline.store.reader import Store, open_store
from pipeline.store.result import ShardResult
from pipeline.store.root import Root
from pipeline.store.seal import digest
from pipeline.store.shard_writer import ShardWriter
from pipeline.store.verify import verify_store
from tests.stores import GRID, begin_store, file_hashes, make_config, make_result, make_store

FURTHER = ("hirescam@embeddings", "gradcam@blocks.1.output:predicted")
SUFFIXES = ("_hirescam_embeddings", "_gradcam_blocks_1_output_predicted")
FAILED = {6: ClipStatus.DECODE_ERROR}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Shards of 4; clip 5 is degenerate in the first oracle only, clip 6 failed."""
    return make_store(tmp_path / "s", 10, failed=FAILED, degenerate=(5,), further_oracles=FURTHER)


def test_the_first_oracle_is_stored_as_if_it_were_alone(store: Store, tmp_path: Path) -> None:
    alone = make_store(tmp_path / "alone", 10, failed=FAILED, degenerate=(5,))
    several, single = file_hashes(tmp_path / "s"), file_hashes(tmp_path / "alone")
    same = {name for name in single if single[name] == several.get(name)}
    arrays = {name for name in single if name.startswith("oracle.zarr/")}
    assert same == arrays | {"plan.parquet"}
    assert alone.oracles == ["gradcam@blocks.-1.output"]
    pd.testing.assert_frame_equal(store.tokens()[alone.tokens().columns], alone.tokens())
    pd.testing.assert_frame_equal(store.clips()[alone.clips().columns], alone.clips())


def test_every_oracle_has_two_arrays_a_score_and_its_statistics(store: Store) -> None:
    assert store.oracles == ["gradcam@blocks.-1.output", *FURTHER]
    group = zarr.open_group(Path(store.root.path) / "oracle.zarr", mode="r")
    names = {"scores", "cam", "embeddings", "embedding_index"}
    assert set(group.array_keys()) == names | {
        f"{n}{s}" for n in ("scores", "cam") for s in SUFFIXES
    }
    tokens = store.tokens()
    assert list(tokens.columns[-3:]) == ["score", *(f"score{suffix}" for suffix in SUFFIXES)]
    clips = store.clips()
    columns = [f"{n}{s}" for s in SUFFIXES for n in layout.MAP_COLUMNS]
    assert list(clips.columns) == [*layout.CLIPS_SCHEMA.names, *columns]
    assert not clips.loc[5, [f"degenerate{s}" for s in SUFFIXES]].any()
    assert clips.loc[5, "degenerate"]
    assert clips.loc[6, [f"cam_scale{s}" for s in SUFFIXES]].isna().all()


@pytest.mark.parametrize(("name", "suffix"), [*zip(FURTHER, SUFFIXES, strict=True)])
def test_readers_give_the_oracle_that_is_named(store: Store, name: str, suffix: str) -> None:
    """Against the files as pandas and Zarr see them."""
    folder = Path(store.root.path)
    plain = zarr.open_array(folder / "oracle.zarr" / f"scores{suffix}", mode="r")[:]
    np.testing.assert_array_equal(store.scores(name)[:], plain)
    assert not np.array_equal(store.scores()[:4], plain[:4])
    tokens = pd.read_parquet(folder / "tokens")
    ok = [clip for clip in range(10) if clip != 6]
    np.testing.assert_array_equal(tokens[f"score{suffix}"], plain[ok].ravel().astype(np.float32))
    stored = zarr.open_array(folder / "oracle.zarr" / f"cam{suffix}", mode="r")[4:8]
    scale = pd.read_parquet(folder / "clips")[f"cam_scale{suffix}"].to_numpy(np.float32)[4:8]
    data = store.read_shard(1, oracle=name)
    np.testing.assert_array_equal(data.cam, stored.astype(np.float32) * scale[:, None, None, None])
    np.testing.assert_array_equal(data.scores, plain[4:8].astype(np.float32))
    strong = store.tokens(min_score=0.5, oracle=name, columns=["clip_id"])
    assert len(strong) == (tokens[f"score{suffix}"] >= 0.5).sum() != (tokens["score"] >= 0.5).sum()
    assert store.column("gini", name) == f"gini{suffix}"


@pytest.mark.parametrize(
    "ask",
    [
        lambda store, name: store.scores(name),
        lambda store, name: store.cam(name),
        lambda store, name: store.column("score", name),
        lambda store, name: store.read_shard(0, oracle=name),
        lambda store, name: store.tokens(oracle=name),
    ],
)
def test_an_oracle_that_is_not_there_is_refused_with_those_that_are(
    store: Store, ask: Callable[[Store, str], object]
) -> None:
    there = ", ".join(("gradcam@blocks.-1.output", *FURTHER))
    with pytest.raises(StoreError, match=f"no oracle 'hirescam@blocks.1.mlp'; it has {there}"):
        ask(store, "hirescam@blocks.1.mlp")
    with pytest.raises(ConfigError, match="METHOD@LAYER:TARGET"):
        ask(store, "score_hirescam_embeddings@")


@pytest.mark.parametrize(
    ("begun", "asked", "said"),
    [
        ((), FURTHER, f"further_oracles: none -> {', '.join(FURTHER)}"),
        (FURTHER, (), f"further_oracles: {', '.join(FURTHER)} -> none"),
        (FURTHER, FURTHER[:1], f"further_oracles: {', '.join(FURTHER)} -> {FURTHER[0]}"),
        (FURTHER, FURTHER[::-1], f"-> {', '.join(FURTHER[::-1])}"),
    ],
)
def test_going_on_with_other_oracles_is_refused_by_field(
    tmp_path: Path, begun: tuple[str, ...], asked: tuple[str, ...], said: str
) -> None:
    begin_store(tmp_path / "s", further_oracles=begun).close()
    begin_store(tmp_path / "s", further_oracles=begun).close()
    with pytest.raises(StoreMismatchError) as caught:
        begin_store(tmp_path / "s", further_oracles=asked)
    lines = str(caught.value).splitlines()
    assert said in lines[1]
    assert "Ask for the stored values" in lines[2]


def test_a_folder_named_like_a_further_column_is_refused(tmp_path: Path) -> None:
    """DuckDB would take it for the value of that column."""
    place = tmp_path / f"gini{SUFFIXES[0]}=3" / "s"
    with pytest.raises(StoreError, match=f"the column 'gini{SUFFIXES[0]}'"):
        begin_store(place, further_oracles=FURTHER)
    begin_store(place).close()


def test_a_map_that_is_not_finite_fails_the_clip_whichever_oracle_it_is(tmp_path: Path) -> None:
    result = ShardResult(1, GRID, 0, 2, ("", *SUFFIXES))
    maps = np.ones((3, GRID.num_tokens), np.float32)
    maps[2, 7] = np.inf
    decoded = {"num_frames_total": 9, "padded": False, "damaged": False}
    result.set_ok(
        0,
        **{"scores": np.ones_like(maps), "cam": maps, "prediction": 0, "top5": [0]},
        **{"confidence": 1.0, "true_prob": None, "loss": None, **decoded},
        decoder="pyav",
        decoder_version="",
    )
    clip = result.clips[0]
    assert clip is not None
    assert clip["status"] == ClipStatus.MODEL_ERROR
    assert clip["error"].endswith(f": cam{SUFFIXES[1]}")
    assert all(np.isnan(array).all() for array in result.arrays.values())


def test_a_shard_that_lacks_a_map_is_not_committed(tmp_path: Path) -> None:
    with begin_store(tmp_path / "s", further_oracles=FURTHER) as writer:
        writer_of = ShardWriter(writer.root)
        result = make_result(writer, 0)
        result.arrays[f"scores{SUFFIXES[0]}"][2, 0, 0, 0] = np.nan
        with pytest.raises(StoreError, match=f"scores{SUFFIXES[0]} must be numbers exactly where"):
            writer_of.write(0, result)
        del result.arrays[f"cam{SUFFIXES[1]}"]
        with pytest.raises(StoreError, match=f"cam{SUFFIXES[1]} is None instead of"):
            writer_of.write(0, result)


def test_a_retry_keeps_every_map_of_the_good_clips(store: Store, tmp_path: Path) -> None:
    make_store(tmp_path / "good", 10, degenerate=(5,), further_oracles=FURTHER)
    shards = ShardWriter(store.root)
    result = shards.load(1)
    fresh = make_result(store, 1)
    assert result is not None
    for name, array in result.arrays.items():
        array[2] = fresh.arrays[name][2]
    result.clips[2] = fresh.clips[2]
    shards.write(1, result)
    assert file_hashes(tmp_path / "s") == file_hashes(tmp_path / "good")


def _edit_array(store: Store, name: str, change: Callable[[np.ndarray], None]) -> None:
    array = zarr.open_array(Path(store.root.path) / "oracle.zarr" / name, mode="r+")
    rows = np.asarray(array[4:8])
    change(rows)
    array[4:8] = rows


def _edit_clips(store: Store, column: str, value: object) -> None:
    """As a writer that was wrong would commit it: with sound digests."""
    root, info = Root(store.root.path), store.info
    commit = Commits(root, info).read(1)
    assert commit is not None
    rows = commit.table().to_pylist()
    if column:
        rows[0][column] = value
    table = pa.Table.from_pylist(rows, info.clips_schema)
    files = {rel: digest(root.get(rel)) for rel in commit.files}
    root.put(info.commit_path(1), commit_bytes(table, info, 1, files))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("array", "at", "value", "said"),
    [
        ("scores", (0, 0, 0, 0), np.nan, "NaN or infinite, though it is ok, at clip 4"),
        ("scores", (0, 0, 0, 0), 1.5, "outside [0, 1] at clip 4"),
        ("scores", (2, 0, 0, 0), 0.5, "not NaN, though it failed, at clip 6"),
        ("cam", (0,), 0.5, "its largest magnitude is not 1 at clip 4"),
    ],
)
def test_verify_looks_at_every_oracles_arrays(
    store: Store, suffix: str, array: str, at: tuple[int, ...], value: float, said: str
) -> None:
    _edit_array(store, f"{array}{suffix}", lambda rows: rows.__setitem__(at, value))
    _edit_clips(store, "", None)
    problems = verify_store(store.root)
    assert any(
        p.where == f"oracle.zarr/{array}{suffix}/c.1.0.0.0" and said in p.what for p in problems
    ), problems


def test_verify_compares_a_map_with_the_scores_of_its_own_oracle(store: Store) -> None:
    """The first oracle's maps in the place of the second's are sound by themselves."""
    folder = Path(store.root.path) / "oracle.zarr"
    first = zarr.open_array(folder / "cam", mode="r")[4:8]
    _edit_array(store, f"cam{SUFFIXES[0]}", lambda rows: np.copyto(rows, first))
    _edit_clips(store, "", None)
    said = [p.what for p in verify_store(store.root)]
    assert any("scores are not its positive part" in what for what in said), said


@pytest.mark.parametrize(
    ("column", "value"), [("gini", 0.123), ("top10_share", 0.9), ("degenerate", True)]
)
def test_verify_recounts_the_statistics_of_every_oracle(
    store: Store, column: str, value: object
) -> None:
    _edit_clips(store, f"{column}{SUFFIXES[1]}", value)
    [problem] = verify_store(store.root)
    assert problem.where == f"oracle.zarr/scores{SUFFIXES[1]}/c.1.0.0.0"
    assert "at clip 4" in problem.what


def test_verify_compares_every_score_column_with_its_array(store: Store) -> None:
    path = Path(store.root.path) / layout.tokens_path(1)
    table, name = pq.read_table(path), f"score{SUFFIXES[1]}"
    half = pc.multiply(table[name], pa.scalar(0.5, pa.float32()))
    changed = table.set_column(table.schema.get_field_index(name), table.schema.field(name), half)
    pq.write_table(changed, path)
    _edit_clips(store, "", None)
    [problem] = verify_store(store.root)
    assert problem.where == layout.tokens_path(1)
    assert problem.what.startswith(f"{name} not the same as")


def test_a_sound_store_of_several_is_sound_and_of_several_files(store: Store) -> None:
    assert verify_store(store.root) == []
    assert open_store(store.root).config == store.config
    assert store.config.further_oracles == FURTHER
    with pytest.raises(ConfigError, match="asked for more than once"):
        make_config(further_oracles=(FURTHER[0], FURTHER[0]))
