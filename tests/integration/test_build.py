"""`build-oracle` from video files to pandas, through the command line; and what it refuses."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline import open_store
from pipeline.cli import app
from pipeline.config import DECODERS
from pipeline.decode import check_decoder
from pipeline.store.verify import verify_store
from tests.builds import file_hashes, make_dataset, run_build
from tests.checkpoints import save_videomae

NUM_VIDEOS, MISSING = 11, 3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), NUM_VIDEOS, missing=(MISSING,))


@pytest.fixture
def command(tmp_path, data, tiny_backbone):
    """`build-oracle` into `tmp_path/store`; returns (exit code, everything printed)."""

    def run(*args):
        options = [
            *("--dataset", "csv", "--split", "all", "--data-root", str(data)),
            *("--store", str(tmp_path / "store"), "--backbone", str(tiny_backbone)),
            *("--shard-size", "4", "--batch-size", "2", "--decode-workers", "0"),
        ]
        result = CliRunner().invoke(app, ["build-oracle", *options, *args])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result.exit_code, re.sub(r"\s+", " ", result.output)

    return run


def ask(*args):
    """Exit code and parsed JSON of a command."""
    result = CliRunner().invoke(app, [*args, "--json"])
    return result.exit_code, json.loads(result.stdout)


def test_from_video_files_to_pandas(command, tmp_path, data):
    store = tmp_path / "store"
    code, output = command()
    assert code == 0, output
    assert "ok 10" in output
    assert "missing_file 1" in output
    assert f"complete: {store}" in output

    clips = pd.read_parquet(store / "clips")
    assert len(clips) == NUM_VIDEOS
    assert clips["video_id"].tolist() == sorted(clips["video_id"])
    tokens = pd.read_parquet(store / "tokens")
    assert len(tokens) == (NUM_VIDEOS - 1) * 8
    assert tokens["score"].between(0, 1).all()
    opened = open_store(store)
    table = tokens.pivot(index="clip_id", columns=["t", "y", "x"], values="score")
    ok = table.index.to_numpy()
    np.testing.assert_array_equal(table.to_numpy(), opened.scores()[:][ok].reshape(len(ok), 8))

    code, facts = ask("status", "--store", str(store))
    assert code == 0
    assert facts["complete"]
    assert facts["clips"] == {
        "total": NUM_VIDEOS, "done": NUM_VIDEOS, "ok": 10, "missing_file": 1, "pending": 0,
    }  # fmt: skip
    assert facts["config"]["layer"] == "blocks.2.output", "stored by its absolute number"
    assert ask("verify", "--store", str(store)) == (
        0,
        {"sound": True, "problems": [], "notes": []},
    )
    code, rows = ask("failures", "--store", str(store))
    assert code == 0
    assert [(row["path"], row["status"]) for row in rows] == [("v003.mp4", "missing_file")]


def test_a_second_run_has_nothing_to_do_and_changes_nothing(command, tmp_path):
    command()
    before = file_hashes(tmp_path / "store")
    code, output = command("--batch-size", "3", "--threads", "2")
    assert code == 0, output
    assert file_hashes(tmp_path / "store") == before


def test_what_changes_the_results_is_refused_with_the_field(command, tmp_path):
    command()
    before = file_hashes(tmp_path / "store")
    for args, text in {
        ("--method", "hirescam"): "method: gradcam -> hirescam",
        ("--layer", "blocks.0.mlp"): "layer: blocks.2.output -> blocks.0.mlp",
        ("--target", "predicted"): "target: label -> predicted",
        ("--sampling", "stride:2"): "sampling: uniform -> stride:2",
        ("--limit", "5"): "plan_digest:",
        ("--seed", "1"): "seed: 0 -> 1",
    }.items():
        code, output = command(*args)
        assert code == 1
        assert text in output
    assert file_hashes(tmp_path / "store") == before


def test_another_checkpoint_is_refused(command, tmp_path):
    command()
    other = save_videomae(tmp_path / "other", seed=1)
    code, output = command("--backbone", str(other))
    assert code == 1
    assert "backbone_digest:" in output


def test_the_same_checkpoint_in_another_folder_goes_on(command, tmp_path):
    command()
    moved = save_videomae(tmp_path / "moved")
    code, output = command("--backbone", str(moved))
    assert code == 0, output


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--decoder", "opencv"], f"decoder must be one of {', '.join(DECODERS)}"),
        (["--method", "scorecam"], "method must be one of"),
        (["--layer", "blocks.7.mlp"], "layer 'blocks.7.mlp' does not exist"),
        (["--embeddings-per-clip", "9"], "more than the 8 tokens"),
        (["--embeddings-per-clip", "some"], "takes a number or `all`"),
        (["--views", "2"], "views must be SEGMENTSxCROPS"),
        (["--retry-failed", "oops"], "--retry-failed takes `all` or any of"),
        (["--address", "auto"], "needs Ray workers"),
        (["--shard-timeout", "5"], "use --workers 1"),
        (["--device", "cuda:99"], ""),
        (["--data-root", "nowhere"], "nowhere"),
        (["--backbone", "nowhere"], "nowhere"),
        (["--split", "test"], "test"),
        (["--limit", "0"], "limit must be at least 1"),
    ],
)
def test_options_that_cannot_work_are_one_line_and_no_traceback(command, args, text):
    code, output = command(*args)
    assert code == 1
    assert "error: " in output
    assert text in output
    assert "Traceback" not in output


def test_unlabelled_videos_have_no_label_to_explain(tmp_path, tiny_backbone, command):
    data = make_dataset(tmp_path / "unlabelled", 6)
    lines = (data / "videos.csv").read_text().replace(",class 0", ",")
    (data / "videos.csv").write_text(lines)
    names = "[" + ", ".join(f"class {i}" for i in range(5)) + "]"
    spec = tmp_path / "mine.yaml"
    spec.write_text(f"name: mine\nformat: csv\nlabels:\n  names: {names}\n")
    args = ["--dataset", str(spec), "--data-root", str(data)]
    code, output = command(*args)
    assert code == 1
    assert "2 of 6 clips of mine/all have no label to explain: use --target predicted" in output
    code, output = command(*args, "--target", "predicted")
    assert code == 0, output
    clips = open_store(tmp_path / "store").clips()
    assert clips["label"].tolist() == [-1, 1, 2, 3, 4, -1]
    assert clips["loss"].isna().tolist() == [True, False, False, False, False, True]
    assert verify_store(str(tmp_path / "store")) == []


def test_a_checkpoint_of_other_classes_is_refused(command, tmp_path):
    other = save_videomae(tmp_path / "other", num_labels=7)
    code, output = command("--backbone", str(other))
    assert code == 1
    assert "(5 classes) and checkpoint" in output
    assert "(7 classes) differ in number" in output


def test_names_that_disagree_are_refused_and_accepted_only_when_asked(command, tmp_path):
    other = save_videomae(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["id2label"]["3"] = "another"
    (other / "config.json").write_text(json.dumps(config))
    code, output = command("--backbone", str(other))
    assert code == 1
    assert "3 is 'class 3' in the dataset and 'another' in the checkpoint (1 differ)" in output
    assert not (tmp_path / "store").exists()
    code, output = command("--backbone", str(other), "--accept-classes")
    assert code == 0, output
    assert open_store(tmp_path / "store").config.class_agreement == "some_names_differ"
    shown = CliRunner().invoke(app, ["status", "--store", str(tmp_path / "store")]).stdout
    assert "SOME NAMES DIFFER" in shown


def test_a_table_of_ids_takes_the_checkpoints_names(command, tmp_path, data):
    numbered = tmp_path / "numbered"
    numbered.mkdir()
    for video in data.glob("*.mp4"):
        (numbered / video.name).symlink_to(video)
    lines = [f"{path.name},{i % 5}.0" for i, path in enumerate(sorted(data.glob("*.mp4")))]
    (numbered / "videos.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    code, output = command("--data-root", str(numbered))
    assert code == 0, output
    store = open_store(tmp_path / "store")
    assert store.label_names == [f"class {i}" for i in range(5)]
    assert store.clips()["label"].tolist() == [i % 5 for i in range(NUM_VIDEOS - 1)]


def test_failures_filter_by_status(command, tmp_path):
    command()
    store = str(tmp_path / "store")
    assert ask("failures", "--store", store, "--status", "too_short") == (0, [])
    result = CliRunner().invoke(app, ["failures", "--store", store])
    assert "missing_file  v003.mp4  no such file" in result.stdout
    assert "1 failed (1 missing_file)" in result.stdout
    result = CliRunner().invoke(app, ["failures", "--store", store, "--status", "nonsense"])
    assert result.exit_code == 1


def test_verify_of_a_damaged_store_exits_with_1(command, tmp_path):
    command()
    (tmp_path / "store/tokens/shard-00001.parquet").unlink()
    code, found = ask("verify", "--store", str(tmp_path / "store"))
    assert code == 1
    assert not found["sound"]
    assert found["problems"][0]["where"] == "tokens/shard-00001.parquet"


def test_status_of_no_store_says_so(tmp_path):
    result = CliRunner().invoke(app, ["status", "--store", str(tmp_path / "nothing")])
    assert result.exit_code == 1
    assert "no store at" in result.stderr


@pytest.mark.clips
def test_a_decoder_that_cannot_work_ends_the_run_before_there_is_a_store(
    command, tmp_path, monkeypatch
):
    def no_library(request):
        raise RuntimeError("libsomething.so.6: cannot open shared object file")

    monkeypatch.setattr("pipeline.decode.pyav.decode", no_library)
    check_decoder.cache_clear()
    code, output = command()
    assert code == 1
    assert "decoder 'pyav' does not work here" in output
    assert "libsomething.so.6" in output
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_real_clips_of_every_container_and_codec(clips_dir, tmp_path, tiny_backbone, decoder):
    suffixes = {".mp4", ".mkv", ".mov", ".avi", ".webm", ".gif", ".ts", ".mpg", ".h264"}
    found = [path for path in sorted(clips_dir.rglob("*")) if path.suffix in suffixes]
    lines = [f"{p.relative_to(clips_dir)},class {i % 5}" for i, p in enumerate(found)]
    data = tmp_path / "data"
    data.mkdir()
    for folder in clips_dir.iterdir():
        (data / folder.name).symlink_to(folder)
    (data / "videos.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    result = run_build(
        tmp_path / "store",
        data,
        tiny_backbone,
        asked={"decoder": decoder, "shard_size": 16},
        run={"decode_workers": 1, "batch_size": 8},
    )
    assert result.complete
    assert verify_store(result.store) == []
    clips = open_store(result.store).clips().set_index("path")
    assert clips.loc["formats/audio_only.mp4", "status"] == "decode_error"
    assert clips.loc["formats/one_frame.mp4", "status"] == "too_short"
    healthy = clips[clips["status"] == "ok"]
    assert (healthy["decoder"] == decoder).all()
    if decoder == "pyav":
        assert len(clips) - len(healthy) <= 3
    else:
        assert clips.loc["formats/mpeg4_bframes.avi", "status"] == "refused"
        assert len(healthy) >= 25
