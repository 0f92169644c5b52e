"""Groups of videos in a store: kept from plan to reader, and absent where there are none."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.errors import StoreError, StoreMismatchError
from pipeline.store import layout
from pipeline.store.verify import verify_store
from tests.stores import begin_store, make_store
from tests.unit.pipeline.store.test_verify_rows import commit_again

GROUPS = ["a", "a", "b", None, "b", "a", None, "c", "c", "c"]
UNITS = ["a", "a", "b", "video0003", "b", "a", "video0006", "c", "c", "c"]


def test_groups_are_in_the_plan_and_in_every_clips_table(tmp_path):
    store = make_store(tmp_path / "s", groups=GROUPS)
    assert store.plan()["group"].replace({np.nan: None}).tolist() == GROUPS
    clips = store.clips()
    assert list(clips.columns) == [*layout.PLAN_SCHEMA.names, "group", *layout.OUTCOME_COLUMNS]
    assert clips["group"].replace({np.nan: None}).tolist() == GROUPS
    assert verify_store(str(tmp_path / "s")) == []


def test_units_stand_beside_the_columns_that_are_asked_for(tmp_path):
    store = make_store(tmp_path / "s", groups=GROUPS)
    clips = store.clips(["label"], units=True)
    assert list(clips.columns) == ["label", "unit"]
    assert clips["unit"].tolist() == UNITS
    assert store.clips(units=True, shards=[1])["unit"].tolist() == UNITS[4:8]


def test_a_store_without_groups_says_none_and_its_units_are_its_videos(tmp_path):
    store = make_store(tmp_path / "s")
    assert "groups" not in json.loads((tmp_path / "s" / "store.json").read_text())
    for path in [tmp_path / "s" / "plan.parquet", *(tmp_path / "s" / "clips").iterdir()]:
        assert "group" not in pq.read_schema(path).names
    assert store.clips(["status"], units=True)["unit"].tolist() == [
        f"video{i:04d}" for i in range(10)
    ]
    with pytest.raises(StoreError, match="no column is called 'group'"):
        store.clips(["group"])


def test_a_store_is_not_continued_with_other_groups(tmp_path):
    make_store(tmp_path / "s", groups=GROUPS, shards=[0])
    for other in ([*GROUPS[:-1], "d"], None):
        with pytest.raises(StoreMismatchError, match=r"plan_digest: .*groups"):
            begin_store(tmp_path / "s", groups=other)


def test_verify_finds_a_group_that_is_not_the_plans(tmp_path):
    store = make_store(tmp_path / "s", groups=GROUPS)
    table = pq.read_table(tmp_path / "s" / layout.clips_path(1))
    rows = table.to_pylist()
    rows[0]["group"] = "c"
    commit_again(tmp_path / "s", table.from_pylist(rows, store.info.clips_schema))
    problems = verify_store(store.root)
    assert [p.what for p in problems] == ["group is not what the plan says"]
