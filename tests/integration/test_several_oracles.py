"""Several oracles in one pass, from video files to what learns and reads from one of them."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline import open_store
from pipeline.cli import app
from pipeline.config import OracleName
from pipeline.store.verify import verify_store
from tests.builds import make_dataset, run_build
from tests.checkpoints import save_videomae

ORACLES = ("gradcam", "hirescam@embeddings", "gradcam:predicted", "occlusion:predicted")
NAMES = (
    "gradcam@blocks.2.output",
    "hirescam@embeddings",
    "gradcam@blocks.2.output:predicted",
    "occlusion@embeddings:predicted",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), 9, missing=(3,))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """Grid 2 x 4 x 4: more than one box of occlusion."""
    return save_videomae(tmp_path_factory.mktemp("backbone"), image_size=32)


def run(*args):
    """Exit code and everything printed."""
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, re.sub(r"\s+", " ", result.output)


@pytest.fixture(scope="module")
def build(data, backbone):
    def with_options(store, *args):
        return run(
            *("build-oracle", "--dataset", "csv", "--split", "all", "--data-root", data),
            *("--store", store, "--backbone", backbone, "--embeddings-per-clip", "all"),
            *("--shard-size", "4", "--batch-size", "2", "--decode-workers", "0", *args),
        )

    return with_options


@pytest.fixture(scope="module")
def store(build, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several") / "s"
    code, said = build(folder, *(word for name in ORACLES for word in ("--oracle", name)))
    assert code == 0, said
    return folder


def test_each_map_is_that_of_a_build_of_its_own(store, data, backbone, tmp_path):
    several = open_store(store)
    assert several.oracles == list(NAMES)
    for name in NAMES:
        oracle = OracleName.parse(name)
        asked = oracle._asdict() | {"embeddings_per_clip": -1}
        run_build(tmp_path / oracle.suffix, data, backbone, asked=asked)
        alone = open_store(tmp_path / oracle.suffix)
        assert alone.oracles == [name]
        assert several.scores(name)[:].tobytes() == alone.scores()[:].tobytes()
        assert several.cam(name)[:].tobytes() == alone.cam()[:].tobytes()
        columns = ["cam_scale", "degenerate", "top10_share", "gini"]
        ours = several.clips()[[several.column(column, name) for column in columns]]
        pd.testing.assert_frame_equal(ours.set_axis(columns, axis=1), alone.clips()[columns])
        ours = several.tokens()[several.column("score", name)]
        pd.testing.assert_series_equal(ours, alone.tokens()["score"], check_names=False)


def test_the_store_is_sound_and_says_what_it_holds(store):
    assert verify_store(str(store)) == []
    code, said = run("status", "--store", store)
    assert code == 0
    assert "hirescam of the label class at embeddings" in said
    assert "occlusion of the predicted class at embeddings" in said


def test_a_selector_and_an_analysis_take_the_oracle_that_is_named(store, tmp_path):
    trained = {}
    for name in (None, NAMES[0], NAMES[1]):
        out = tmp_path / f"selector-{name}"
        option = [] if name is None else ["--oracle", name]
        train = ("train-selector", "--store", store, "--held-out", "0.5", "--epochs", "1")
        code, said = run(*train, "--out", out, *option)
        assert code == 0, said
        trained[name] = json.loads((out / "config.json").read_text())["oracle"]
    assert trained[None] == trained[NAMES[0]] == "gradcam of blocks.2.output, label"
    assert trained[NAMES[1]] == "hirescam of embeddings, label"
    first, second = ((tmp_path / f"selector-{name}") for name in (None, NAMES[0]))
    for file in ("selector.safetensors", "config.json", "metrics.json"):
        assert (first / file).read_bytes() == (second / file).read_bytes()

    means = {}
    for name in NAMES:
        result = CliRunner().invoke(
            app, ["analyze", "--store", str(store), "--oracle", name, "--json"]
        )
        means[name] = json.loads(result.stdout)["pooled"]["mean"]
        column = f"score{OracleName.parse(name).suffix}" if name != NAMES[0] else "score"
        plain = pd.read_parquet(store / "tokens")[column]
        assert means[name] == pytest.approx(plain.mean(), rel=1e-6)
    assert len(set(means.values())) == len(NAMES)


def test_a_folder_of_a_selector_of_another_oracle_is_refused(store, tmp_path):
    train = ("train-selector", "--store", store, "--out", tmp_path, "--held-out", "0.5")
    assert run(*train, "--epochs", "1", "--oracle", NAMES[1])[0] == 0
    code, said = run(*train, "--epochs", "1", "--oracle", NAMES[2])
    assert code == 1
    assert f"oracle {NAMES[1]} -> {NAMES[2]}" in said


def test_going_on_with_other_oracles_is_refused(store, build):
    code, said = build(store, "--oracle", "gradcam", "--oracle", "hirescam@embeddings")
    assert code == 1
    assert f"further_oracles: {', '.join(NAMES[1:])} -> {NAMES[1]}" in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("gradcam", "gradcam@blocks.-1.output"), f"the oracle {NAMES[0]} is asked for more than"),
        (("gradcam", "hirescam@blocks.7.mlp"), "layer 'blocks.7.mlp' does not exist"),
        (("occlusion@blocks.1.mlp",), "looks at no layer, got 'blocks.1.mlp'"),
    ],
)
def test_what_only_the_backbone_tells_is_refused_before_anything_is_written(
    build, tmp_path, args, said
):
    code, output = build(tmp_path / "s", *(word for name in args for word in ("--oracle", name)))
    assert code == 1
    assert said in output
    assert not (tmp_path / "s").exists()
