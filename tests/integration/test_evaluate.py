"""`lite-pipeline evaluate` on real files: failures, resuming, the command, and what is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.backbones import load_backbone
from pipeline.cli import app
from pipeline.config import RunConfig
from pipeline.errors import BackboneError, ConfigError, ModelFailsError, StoreMismatchError
from selector.evaluation.files import Evaluation
from selector.evaluation.report.summary import summarise
from selector.evaluation.results import read_outcomes
from selector.evaluation.worker import EvalWorker
from selector.methods.rank import chance
from selector.report.findings import of_evaluation
from selector.training.config import TrainedOn
from selector.training.files import save_selector
from tests.builds import file_hashes, make_dataset, run_build
from tests.checkpoints import save_videomae
from tests.evaluations import run_evaluation
from tests.lite_models import make_selector
from tests.videos import write_video

NUM_VIDEOS, MISSING = 11, 3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three shards of 4 clips, the last one short; one video is not there."""
    return make_dataset(tmp_path_factory.mktemp("data"), NUM_VIDEOS, missing=(MISSING,))


@pytest.fixture(scope="module")
def backbone(tiny_backbone):
    return load_backbone(str(tiny_backbone))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data, tiny_backbone):
    out = tmp_path_factory.mktemp("evaluation")
    run_evaluation(out, data, tiny_backbone)
    return out


def test_a_missing_video_is_rows_with_a_status(finished):

    rows = Evaluation(str(finished)).rows()
    failed = rows[rows["status"] != "ok"]
    assert set(failed["clip_id"]) == {MISSING}
    assert set(failed["status"]) == {"missing_file"}
    assert len(failed) == 7


def test_a_missing_video_changes_no_other_row(finished, tmp_path, tiny_backbone):
    whole = make_dataset(tmp_path / "data", NUM_VIDEOS)
    result = run_evaluation(tmp_path / "out", whole, tiny_backbone)

    rows, before = result.evaluation.rows(), Evaluation(str(finished)).rows()
    assert (rows["status"] == "ok").all()
    others = rows["clip_id"] != MISSING
    assert rows[others].equals(before[others])


def test_short_videos_and_groups_are_known_from_the_folder_alone(tmp_path, tiny_backbone):
    data = make_dataset(tmp_path / "data", 6, missing=(3,))
    write_video(data / "v001.mp4", 2, 24, 32)  # of the 4 frames of a clip
    table = (data / "videos.csv").read_text().splitlines()
    groups = ["group", "a", "a", "b", "b", "", "c"]
    (data / "videos.csv").write_text(
        "".join(f"{row},{group}\n" for row, group in zip(table, groups, strict=True))
    )
    run_evaluation(tmp_path / "out", data, tiny_backbone, "uniform")
    outcomes = read_outcomes(Evaluation(str(tmp_path / "out")))
    assert outcomes.video_ids.tolist() == ["v000", "v001", "v002", "v004", "v005"]
    assert outcomes.groups.tolist() == ["a", "a", "b", "v004", "c"]
    assert outcomes.padded.tolist() == [False, True, False, False, False]
    said = CliRunner().invoke(app, ["evaluate", "--out", str(tmp_path / "out"), "--table-only"])
    shown = " ".join(said.stdout.split())
    assert "SHORT: 1 of these videos" in shown
    assert "FEW GROUPS: intervals of 4" in shown
    store = tmp_path / "store"
    assert run_build(store, data, tiny_backbone).num_padded == 1
    said = CliRunner().invoke(app, ["status", "--store", str(store)])
    assert "WARNING: 1 clips are of videos with fewer frames" in said.stderr


class Dies(EvalWorker):
    """Stops, as at Ctrl-C, when it is given its second shard."""

    runs = 0

    def run(self, shard, attempt):
        type(self).runs += 1
        if type(self).runs == 2:
            raise KeyboardInterrupt
        return super().run(shard, attempt)


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(
    finished, tmp_path, data, tiny_backbone
):
    Dies.runs = 0
    with pytest.raises(KeyboardInterrupt):
        run_evaluation(tmp_path, data, tiny_backbone, options={"worker_class": Dies})
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["shard-00000.parquet"]
    again = run_evaluation(tmp_path, data, tiny_backbone, run={"batch_size": 2})
    assert again.given_up == []
    assert again.evaluation.pending() == []
    assert file_hashes(tmp_path) == file_hashes(finished)


def test_a_finished_evaluation_computes_nothing(finished, data, tiny_backbone):
    def explode(*arguments):
        raise AssertionError

    run_evaluation(finished, data, tiny_backbone, options={"worker_class": explode})


def test_another_request_is_refused_with_the_difference(finished, data, tiny_backbone):
    with pytest.raises(StoreMismatchError, match="num_seeds: 2 -> 3"):
        run_evaluation(finished, data, tiny_backbone, num_seeds=3)


def test_scores_that_are_not_numbers_fail_that_method_only(
    tmp_path, data, tiny_backbone, monkeypatch
):
    real = chance.RandomMethod.rank

    def broken(self, batch):
        ranking = real(self, batch)
        for slot, clip in enumerate(batch.clip_ids):
            if clip == 5:
                ranking.scores[slot, 2] = np.nan
        return ranking

    monkeypatch.setattr(chance.RandomMethod, "rank", broken)
    rows = run_evaluation(tmp_path, data, tiny_backbone, "random,uniform").evaluation.rows()
    failed = rows[(rows["status"] != "ok") & (rows["clip_id"] != MISSING)]
    assert set(zip(failed["clip_id"], failed["method"], strict=True)) == {(5, "random")}
    assert set(failed["error"]) == {"the scores of random are not finite"}


def test_a_clip_that_a_ranking_raises_on_costs_its_own_rows(
    finished, tmp_path, data, tiny_backbone, monkeypatch
):
    real = chance.RandomMethod.rank

    def broken(self, batch):
        present = [c for c, path in zip(batch.clip_ids, batch.paths, strict=True) if path]
        if 5 in present:
            raise ValueError("odd input")
        return real(self, batch)

    healthy = run_evaluation(finished, data, tiny_backbone).evaluation.rows()
    monkeypatch.setattr(chance.RandomMethod, "rank", broken)
    rows = run_evaluation(tmp_path, data, tiny_backbone).evaluation.rows()
    own = rows[rows["clip_id"] == 5]
    assert set(own["status"]) == {"model_error"}
    assert set(own["error"]) == {"ValueError: odd input"}
    others = [frame[frame["clip_id"] != 5] for frame in (rows, healthy)]
    pd.testing.assert_frame_equal(*others)


def test_a_ranking_that_raises_on_everything_is_no_matter_of_clips(
    tmp_path, data, tiny_backbone, monkeypatch
):
    def broken(self, batch):
        raise ValueError("a bug")

    monkeypatch.setattr(chance.RandomMethod, "rank", broken)
    with pytest.raises(ModelFailsError, match="a bug"):
        run_evaluation(tmp_path, data, tiny_backbone)
    assert not Evaluation(str(tmp_path)).shards()


def test_videos_that_a_selector_learnt_from_are_counted_and_said(
    tmp_path, data, backbone, tiny_backbone, caplog
):
    """Of the same split all but what it held out; of another one none."""
    learnt = TrainedOn(
        dataset="csv", split="all", plan_digest="", sampling="uniform", num_segments=1,
        num_crops=1, held_out=0.5,
    )  # fmt: skip
    for name, clips in (("a", learnt), ("b", replace(learnt, split="train"))):
        selector = make_selector(backbone, str(tiny_backbone))
        selector.config = replace(selector.config, trained_on=clips)
        save_selector(selector, tmp_path / name)
    done = lite(
        "--out", tmp_path / "out", "--data-root", data, "--dataset", "csv", "--split", "all",
        "--backbone", tiny_backbone, "--methods", "random,lite+tome,lite[b]", "--keep-ratios", ".5",
        "--selector", tmp_path / "a", "--selector", f"b={tmp_path / 'b'}", "--decode-workers", "0",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    videos = Evaluation(str(tmp_path / "out")).rows(["video_id"])["video_id"].unique()
    digests = [hashlib.sha256(b"held out" + video.encode()).digest() for video in videos]
    num = sum(digest[0] >= 128 for digest in digests)
    sentence = "lite+tome may have learnt from {} of the {} videos"
    assert sentence.format(num, NUM_VIDEOS) in caplog.text
    missing = next(d for v, d in zip(videos, digests, strict=True) if v.endswith(f"{MISSING:03d}"))
    num -= missing[0] >= 128
    assert 0 < num < NUM_VIDEOS - 1
    said = f"LEARNT FROM: {sentence.format(num, NUM_VIDEOS - 1)}"
    assert said in " ".join(done.stdout.split())
    assert said in lite("--out", tmp_path / "out", "--table-only", "--brief").stderr
    content = json.loads(lite("--out", tmp_path / "out", "--table-only", "--json").stdout)
    assert content["num_learnt"] == {"lite+tome": num}
    assert said in of_evaluation(summarise(Evaluation(str(tmp_path / "out"))))[0]


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_worker_refuses_any_selector_that_is_not_the_evaluations(
    tmp_path, data, backbone, tiny_backbone, damage
):
    folders = {m: str(tmp_path / m) for m in ("lite", "lite[x]")}
    for folder in folders.values():
        save_selector(make_selector(backbone, str(tiny_backbone)), folder)
    run_evaluation(tmp_path / "out", data, tiny_backbone, "lite,lite[x]", selectors=folders)
    evaluation = Evaluation(str(tmp_path / "out"))
    if damage == "gone":
        (tmp_path / "lite[x]" / "config.json").unlink()
    else:
        save_selector(make_selector(backbone, str(tiny_backbone), seed=2), folders["lite[x]"])
    run_config = RunConfig(data_root=str(data), decode_workers=0)
    with pytest.raises(ConfigError, match=r"selector of lite\[x\], .*every node needs the same"):
        EvalWorker(evaluation.config, run_config, evaluation.root)


def test_a_selector_that_changed_on_the_way_is_refused(tmp_path, data, backbone, tiny_backbone):
    folder = tmp_path / "selector"
    save_selector(make_selector(backbone, str(tiny_backbone)), folder)
    options = {"selectors": {"lite": str(folder)}}
    run_evaluation(tmp_path / "out", data, tiny_backbone, "lite", **options)
    weights = folder / "config.json"
    weights.write_text(weights.read_text() + " ")
    with pytest.raises(StoreMismatchError, match="selector_digests: lite "):
        run_evaluation(tmp_path / "out", data, tiny_backbone, "lite", **options)


def test_a_split_without_labels_is_refused(tmp_path, data, tiny_backbone):
    """As the test split of Something-Something V2 is."""
    table = (data / "videos.csv").read_text().replace("v000.mp4,class 0", "v000.mp4,")
    (tmp_path / "videos.csv").write_text(table)
    with pytest.raises(ConfigError, match=r"1 of 11 clips of csv/all have no label.*--split"):
        run_evaluation(tmp_path / "out", tmp_path, tiny_backbone)


def test_a_checkpoint_of_other_classes_is_refused(tmp_path, data):
    other = save_videomae(tmp_path / "other", num_labels=6)
    with pytest.raises(BackboneError, match="5 classes.*6 classes"):
        run_evaluation(tmp_path / "out", data, other)


def lite(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_the_command_prints_a_table_and_again_from_disk_alone(tmp_path, data, tiny_backbone):
    done = lite(
        "--out", tmp_path, "--data-root", data, "--dataset", "csv", "--split", "all",
        "--backbone", tiny_backbone, "--methods", "random,oracle", "--keep-ratios", "1,.5,.2",
        "--decode-workers", "0", "--shard-size", "8",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "10 videos" in done.stdout
    assert "oracle[blocks.-1.output,gradcam]" in done.stdout
    again = lite("--out", tmp_path, "--table-only")
    assert again.exit_code == 0, again.output
    assert again.stdout == done.stdout
    content = json.loads(lite("--out", tmp_path, "--table-only", "--json").stdout)
    assert len(content["table"]) == 1 + 2 + 2
    less = lite(
        "--out", tmp_path, "--table-only", "--json", "--target-gflops-share", ".6",
        "--without", "oracle[blocks.-1.output,gradcam]",
    )  # fmt: skip
    content = json.loads(less.stdout)
    assert [row["method"] for row in content["table"]] == ["full", "random", "random"]
    assert content["goal"] == {"max_loss": None, "gmacs_share": 0.6}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "magic"], "unknown method 'magic': the known ones are random"),
        (["--keep-ratios", "0,.5"], "keep ratio must lie in (0, 1]"),
        (["--methods", "lite"], "--selector DIR"),
        (["--methods", "lite[x]", "--selector", "y=d"], "--selector x=DIR"),
        (["--selector", "x=a", "--selector", "x=b"], "two selectors for method lite[x]"),
        (["--methods", "random", "--selector", "a"], "none of the methods random"),
        (["--views", "2"], "SEGMENTSxCROPS"),
        (["--split", "test"], "split 'test'"),
        (["--decoder", "mp"], "decoder must be one of pyav, decord, torchcodec"),
        (["--address", "auto"], "--workers N"),
    ],
)
def test_the_command_refuses_what_cannot_work(tmp_path, data, tiny_backbone, arguments, message):
    done = lite(
        "--out", tmp_path / "out", "--data-root", data, "--dataset", "csv",
        "--backbone", tiny_backbone, *arguments,
    )  # fmt: skip
    assert done.exit_code == 1
    assert message in done.output
    assert not (tmp_path / "out").exists()


def test_without_videos_there_is_only_the_table(tmp_path):
    done = lite("--out", tmp_path)
    assert done.exit_code == 1
    assert "--data-root DIR" in done.output


@pytest.mark.slow
@pytest.mark.ray
def test_ray_workers_write_the_same_bytes(finished, tmp_path, data, tiny_backbone):
    run_evaluation(tmp_path, data, tiny_backbone, run={"workers": 2, "decode_workers": 1})
    assert file_hashes(tmp_path) == file_hashes(finished)
