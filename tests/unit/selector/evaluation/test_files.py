"""An evaluation's folder: identity, continuation, damage."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipeline.errors import StoreError, StoreMismatchError, StoreNotFoundError
from pipeline.store.root import Root
from selector.evaluation.files import Evaluation, EvaluationInfo, begun
from selector.evaluation.timing import Timing
from tests.evaluations import make_evaluation, make_info, make_plan

LABELS = [0, 1, 2, 0, 1, 2]
LOGITS = np.random.default_rng(0).normal(size=(6, 3, 3))


def test_evaluation_json_reads_back_as_it_was():
    info = make_info(make_plan(LABELS), 3, methods=("random", "oracle[embeddings,fem]"))
    assert EvaluationInfo.from_json(info.to_json(), "") == info


def test_an_evaluation_of_two_selectors_reads_back_and_is_known_by_their_digests(tmp_path):
    logits = np.random.default_rng(0).normal(size=(6, 3, 3))
    settings = {
        "methods": ("lite", "lite[x]"),
        "selectors": {"lite": "a/folder", "lite[x]": "another"},
        "selector_digests": {"lite": "1" * 64, "lite[x]": "2" * 64},
    }
    mass = np.tile([np.nan, 0.7, 0.8], (6, 1))
    written = make_evaluation(tmp_path, logits, LABELS, mass=mass, **settings)
    read = Evaluation(str(tmp_path))
    assert read.info == written.info
    rows = read.rows(["method", "mass"]).drop_duplicates().set_index("method")["mass"]
    assert np.isnan(rows["full"])
    assert (rows["lite"], rows["lite[x]"]) == (np.float32(0.7), np.float32(0.8))

    settings["selector_digests"] = {"lite": "1" * 64, "lite[x]": "3" * 64}
    changed = "selector_digests: lite 1{12}, lite.x. 2{12} -> lite 1{12}, lite.x. 3{12}\\n"
    with pytest.raises(StoreMismatchError, match=changed):
        make_evaluation(tmp_path, logits, LABELS, **settings)


def test_a_folder_of_another_schema_is_refused_by_its_number(tmp_path):
    make_evaluation(tmp_path, LOGITS, LABELS)
    path = tmp_path / "evaluation.json"
    path.write_text(path.read_text().replace('"schema_version": 4', '"schema_version": 1'))
    with pytest.raises(StoreError, match=r"evaluation.json has schema version 1, .* reads 4"):
        Evaluation(str(tmp_path))


def test_shards_are_listed_and_what_is_missing_is_pending(tmp_path):
    evaluation = make_evaluation(tmp_path, LOGITS, LABELS, shards=[1])
    assert evaluation.shards() == [1]
    assert evaluation.pending() == [0]
    rows = Evaluation(str(tmp_path)).rows(["clip_id", "method"], methods=["full"])
    assert rows.to_dict("list") == {"clip_id": [4, 5], "method": ["full", "full"]}


def test_rows_are_what_pandas_reads_too(tmp_path):
    pandas = pytest.importorskip("pandas")
    evaluation = make_evaluation(tmp_path, LOGITS, LABELS)
    direct = pandas.read_parquet(tmp_path / "results")
    pandas.testing.assert_frame_equal(evaluation.rows(), direct)
    assert len(direct) == 6 * 3


def test_another_configuration_is_refused_with_the_fields_that_differ(tmp_path):
    make_evaluation(tmp_path, LOGITS, LABELS)
    plan = make_plan(LABELS)
    info = make_info(plan, 3)
    other = dataclasses.replace(
        info,
        config=dataclasses.replace(info.config, keep_ratios=(1.0, 0.5, 0.3), decoder="decord"),
    )
    with pytest.raises(StoreMismatchError) as refused, begun(Root(str(tmp_path)), other, plan):
        pass
    lines = str(refused.value).splitlines()[1:-1]
    assert lines == ["  decoder: pyav -> decord", "  keep_ratios: 1.0, 0.5 -> 1.0, 0.5, 0.3"]


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    plan = make_plan(LABELS)
    with (
        pytest.raises(StoreError, match="notes.txt"),
        begun(Root(str(tmp_path)), make_info(plan, 3), plan),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_two_runs_at_once_are_refused(tmp_path):
    plan = make_plan(LABELS)
    info = make_info(plan, 3)
    with (
        begun(Root(str(tmp_path)), info, plan),
        pytest.raises(StoreError, match="another run is writing"),
        begun(Root(str(tmp_path)), info, plan),
    ):
        pass
    with begun(Root(str(tmp_path)), info, plan) as evaluation:
        assert evaluation.config == info.config


def test_a_start_killed_before_evaluation_json_is_begun_again(tmp_path):
    make_evaluation(tmp_path, LOGITS, LABELS, shards=[])
    (tmp_path / "evaluation.json").unlink()
    assert make_evaluation(tmp_path, LOGITS, LABELS).pending() == []


def test_temporary_files_of_a_killed_run_are_removed(tmp_path):
    make_evaluation(tmp_path, LOGITS, LABELS, shards=[0])
    left = tmp_path / "results" / f".shard-00001.parquet.{'0123' * 8}.tmp"
    left.write_bytes(b"half")
    assert Evaluation(str(tmp_path)).shards() == [0]
    make_evaluation(tmp_path, LOGITS, LABELS)
    assert not left.exists()


def test_no_evaluation_says_how_to_begin_one(tmp_path):
    with pytest.raises(StoreNotFoundError, match="lite-pipeline evaluate --out"):
        Evaluation(str(tmp_path))


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"null", b'{"schema_version": 2}'])
def test_a_damaged_evaluation_json_is_an_error(tmp_path, text):
    make_evaluation(tmp_path, LOGITS, LABELS)
    (tmp_path / "evaluation.json").write_bytes(text)
    with pytest.raises(StoreError, match="damaged"):
        Evaluation(str(tmp_path))


def test_a_changed_configuration_does_not_pass_as_the_old_one(tmp_path):
    make_evaluation(tmp_path, LOGITS, LABELS)
    path = tmp_path / "evaluation.json"
    path.write_text(path.read_text().replace('"num_seeds": 2', '"num_seeds": 3'))
    with pytest.raises(StoreError, match="not as it was written"):
        Evaluation(str(tmp_path))


def test_a_damaged_or_short_shard_is_an_error_that_names_it(tmp_path):
    evaluation = make_evaluation(tmp_path, LOGITS, LABELS)
    path = tmp_path / evaluation.info.commit_path(0)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match="shard-00000"):
        evaluation.read_shard(0)
    path.write_bytes((tmp_path / evaluation.info.commit_path(1)).read_bytes())
    with pytest.raises(StoreError, match="the file of another shard"):
        evaluation.read_shard(0)


def read_all(folder):
    evaluation = Evaluation(str(folder))
    return evaluation.plan(), [evaluation.read_shard(shard) for shard in evaluation.shards()]


def test_no_flipped_bit_of_the_folder_escapes_a_reader(tmp_path):
    evaluation = make_evaluation(tmp_path, LOGITS, LABELS)
    rng = np.random.default_rng(0)
    for name in ("evaluation.json", "plan.parquet", evaluation.info.commit_path(0)):
        path, data = tmp_path / name, (tmp_path / name).read_bytes()
        for at in rng.choice(len(data), 40, replace=False):
            changed = bytearray(data)
            changed[at] ^= 1 << int(rng.integers(8))
            path.write_bytes(changed)
            with pytest.raises(StoreError, match=name.rpartition("/")[2]):
                read_all(tmp_path)
        path.write_bytes(data)


def test_a_damaged_plan_is_written_anew(tmp_path):
    make_evaluation(tmp_path, LOGITS, LABELS, shards=[0])
    sound = (tmp_path / "plan.parquet").read_bytes()
    for damage in (b"", sound[:-1], None):
        (tmp_path / "plan.parquet").unlink()
        if damage is not None:
            (tmp_path / "plan.parquet").write_bytes(damage)
        assert make_evaluation(tmp_path, LOGITS, LABELS).pending() == []
        assert (tmp_path / "plan.parquet").read_bytes() == sound


def test_timings_add_up_and_their_absence_is_no_error(tmp_path):
    evaluation = make_evaluation(tmp_path, LOGITS, LABELS)
    assert evaluation.timing() == Timing()
    assert evaluation.timing().clips_per_s(evaluation.config) == [None] * 3
    half = Timing(clips=5, embed=1, rank={"random": 4.0}, forward={"0": 1.0, "1": 1.0, "2": 7.0})
    for shard in (0, 1):
        evaluation.root.put(f"runs/timings/shard-0000{shard}.json", half.to_json())
    # Clips over embedding, one seed's share of the ranking, and the condition's own forward.
    assert evaluation.timing().clips_per_s(evaluation.config) == [10 / 4, 10 / 8, 10 / 20]
