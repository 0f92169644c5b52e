"""`open_store`: committed clips as pandas frames, arrays on demand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import ClipStatus, StoreError, StoreNotFoundError
from pipeline.store import layout
from pipeline.store.reader import Store, open_store
from tests.stores import GRID, LABEL_NAMES, make_store


def test_what_the_store_says_of_itself(tiny_store: Store) -> None:
    assert tiny_store.grid == GRID
    assert tiny_store.num_clips == 10
    assert tiny_store.num_shards == 3
    assert tiny_store.shards() == [0, 1, 2]
    assert tiny_store.label_names == LABEL_NAMES
    assert tiny_store.hidden_size == 6
    assert tiny_store.config.method == "gradcam"
    assert tiny_store.summary() == {"ok": 9, "decode_error": 1, "pending": 0}


def test_clips_are_rows_in_order_of_clip_id(tiny_store: Store) -> None:
    clips = tiny_store.clips()
    assert list(clips.columns) == layout.CLIPS_SCHEMA.names
    assert clips["clip_id"].tolist() == list(range(10))
    assert clips["status"].tolist() == ["ok"] * 3 + ["decode_error"] + ["ok"] * 6
    assert clips.loc[3, "error"] == "video0003: made to fail"
    assert clips["error"].notna().sum() == 1
    assert clips.index[clips["degenerate"]].tolist() == [5]
    assert np.isnan(clips.loc[[3, 5], "gini"]).all()


def test_types_do_not_depend_on_what_failed(tmp_path: Path, tiny_store: Store) -> None:
    whole = make_store(tmp_path / "whole", 4).clips()
    broken = make_store(
        tmp_path / "broken", 4, failed=dict.fromkeys(range(4), ClipStatus.TOO_SHORT)
    ).clips()
    empty = make_store(tmp_path / "empty", 4, shards=[]).clips()
    assert whole.dtypes.to_dict() == broken.dtypes.to_dict() == empty.dtypes.to_dict()
    assert str(whole["prediction"].dtype) == "int16"


def test_clips_can_be_narrowed(tiny_store: Store) -> None:
    assert list(tiny_store.clips(columns=["video_id", "loss"]).columns) == ["video_id", "loss"]
    assert tiny_store.clips(status="decode_error")["clip_id"].tolist() == [3]
    assert len(tiny_store.clips(status=[ClipStatus.OK, "decode_error"])) == 10
    # The filter's own column need not be asked for.
    assert tiny_store.clips(columns=["clip_id"], status="decode_error").shape == (1, 1)


def test_names_of_the_classes_are_joined(tiny_store: Store) -> None:
    clips = tiny_store.clips(columns=["label", "prediction"], names=True)
    assert clips["label_name"].tolist()[:4] == ["pushing", "pulling", "turning", "pushing"]
    assert pd.isna(clips.loc[3, "prediction_name"])


def test_what_does_not_exist_is_named(tiny_store: Store) -> None:
    with pytest.raises(StoreError, match="no column is called 'labels'; one of clip_id, shard"):
        tiny_store.clips(columns=["labels"])
    with pytest.raises(StoreError, match="no status is called 'bad'; one of ok, missing_file"):
        tiny_store.clips(status="bad")
    with pytest.raises(StoreError, match="shard 7 does not exist: the plan has 3"):
        tiny_store.read_shard(7)


def test_tokens_are_the_scores_in_long_form(tiny_store: Store) -> None:
    tokens = tiny_store.tokens()
    assert list(tokens.columns) == ["clip_id", "label", "t", "y", "x", "score"]
    assert len(tokens) == 9 * GRID.num_tokens  # the failed clip has none
    scores = np.asarray(tiny_store.scores())
    expected = scores[tokens["clip_id"], tokens["t"], tokens["y"], tokens["x"]]
    np.testing.assert_array_equal(tokens["score"], expected.astype(np.float32))
    labels = tiny_store.plan()["label"].to_numpy()
    np.testing.assert_array_equal(tokens["label"], labels[tokens["clip_id"]])
    assert tokens["score"].std() > 0  # Parquet's own float16 gives 0.0 here


def test_tokens_can_be_narrowed(tiny_store: Store) -> None:
    tokens = tiny_store.tokens()
    some = tiny_store.tokens(clips=[9, 0, 3])
    assert some["clip_id"].unique().tolist() == [0, 9]
    both = tiny_store.tokens(labels=[1], min_score=0.5)
    expected = tokens[(tokens["label"] == 1) & (tokens["score"] >= 0.5)]
    pd.testing.assert_frame_equal(both, expected.reset_index(drop=True))
    assert tiny_store.tokens(clips=[]).empty
    assert tiny_store.tokens(clips=[0], columns=["score"]).shape == (GRID.num_tokens, 1)


def test_arrays_are_opened_lazily_and_hold_the_clips(tiny_store: Store) -> None:
    assert tiny_store.scores().shape == (10, *GRID)
    assert tiny_store.embeddings is not None
    assert tiny_store.embedding_index is not None
    assert tiny_store.embeddings.shape == (10, 5, 6)
    assert np.isnan(np.asarray(tiny_store.scores()[3], np.float32)).all()
    assert np.asarray(tiny_store.embedding_index[3]).tolist() == [-1] * 5
    scale = tiny_store.clips(columns=["cam_scale"])["cam_scale"].to_numpy()
    data = tiny_store.read_shard(1)
    stored = np.asarray(tiny_store.cam()[4:8], np.float32)
    np.testing.assert_array_equal(data.cam, stored * scale[4:8, None, None, None])
    assert data.cam.dtype == data.scores.dtype == np.float32
    assert data.clips["clip_id"].tolist() == [4, 5, 6, 7]


def test_a_store_without_embeddings(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", 4, embeddings_per_clip=0)
    assert store.embeddings is None
    assert store.embedding_index is None
    assert store.read_shard(0).embeddings is None


def test_an_unfinished_store_shows_what_is_there(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", 10, shards=[])
    assert store.summary() == {"ok": 0, "pending": 10}
    assert store.clips().empty
    assert store.tokens().empty
    assert len(store.plan()) == 10
    with pytest.raises(StoreError, match=r"shard 0 of .* is not committed \(0 of 3 are\)"):
        store.read_shard(0)
    make_store(tmp_path / "s", 10, shards=[1])
    assert store.shards() == [1]  # an open store sees what another run commits


def test_no_store_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match="begin one with `lite-pipeline build-oracle"):
        open_store(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        open_store(tmp_path)
    (tmp_path / "video.mp4").touch()
    with pytest.raises(StoreNotFoundError, match=r"is no store.*found video\.mp4"):
        open_store(tmp_path)
    with pytest.raises(StoreNotFoundError, match="is no store"):
        open_store(tmp_path / "video.mp4")


def test_a_half_created_store_says_so(tmp_path: Path) -> None:
    make_store(tmp_path / "s", 4, shards=[])
    (tmp_path / "s" / "store.json").unlink()
    with pytest.raises(
        StoreNotFoundError, match="run the same `lite-pipeline build-oracle .* again"
    ):
        open_store(tmp_path / "s")


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b'{"schema_version": "1"}', b"\xff\xfe", b'{"schema_version": 2}'],
)
def test_a_damaged_store_json_is_no_traceback(tmp_path: Path, text: bytes) -> None:
    make_store(tmp_path / "s", 4, shards=[])
    (tmp_path / "s" / "store.json").write_bytes(text)
    with pytest.raises(StoreError, match=r"store\.json is damaged"):
        open_store(tmp_path / "s")


def test_an_edited_configuration_is_noticed(tmp_path: Path) -> None:
    make_store(tmp_path / "s", 4, shards=[])
    path = tmp_path / "s" / "store.json"
    path.write_text(path.read_text().replace('"method": "gradcam"', '"method": "hirescam"'))
    with pytest.raises(StoreError, match="it is not as it was written"):
        open_store(tmp_path / "s")


def test_damage_is_an_error_of_ours(tiny_store: Store) -> None:
    Path(tiny_store.root.join(layout.clips_path(1))).write_bytes(b"PAR1 no more")
    Path(tiny_store.root.join("oracle.zarr/cam/c.2.0.0.0")).write_bytes(b"garbage")
    with pytest.raises(StoreError, match=r"clips/shard-00001\.parquet is damaged"):
        tiny_store.clips()
    with pytest.raises(StoreError, match=r"c\.2\.0\.0\.0 is damaged.*see `lite-pipeline verify`"):
        tiny_store.read_shard(2)


def test_reading_imports_neither_torch_nor_ray(tiny_store: Store) -> None:
    script = (
        "import sys, pipeline\n"
        "store = pipeline.open_store(sys.argv[1])\n"
        "store.clips(); store.tokens(); store.read_shard(0); store.summary(); store.plan()\n"
        "bad = {'torch', 'ray', 'transformers', 'av', 'decord'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", script, tiny_store.root.url], check=True)
