"""What a build and an evaluation are made from is one thing, however it was spelt."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets_spec import list_specs, load_spec
from datasets_spec.synthetic import make
from pipeline.clips.inputs import read_inputs
from pipeline.config import ClipConfig, RunConfig
from pipeline.oracle.build import prepare as prepare_build
from selector.evaluation.run import prepare as prepare_evaluation
from tests.builds import ask as ask_build
from tests.builds import make_dataset, make_run_config
from tests.evaluations import ask as ask_evaluation


def test_a_split_is_stored_as_the_specification_spells_it(tmp_path):
    make(tmp_path / "data", 20, workers=0)
    asked = ClipConfig(dataset="synthetic", backbone="synthetic", shard_size=4)
    run, spec = RunConfig(data_root=str(tmp_path / "data")), load_spec("synthetic")
    found = [
        read_inputs(asked, run, spec, split, views=(1, 1), without_label=None).config
        for split in ("val", "validation")
    ]
    assert found[0].split == "validation"
    assert found[0].identity() == found[1].identity()


def test_the_views_that_are_published() -> None:
    views = {name: load_spec(name).eval_views for name in list_specs()}
    assert views == {
        "ssv2": (2, 3), "kinetics400": (5, 3), "ucf101": (5, 3), "hmdb51": (5, 3),
        "csv": (1, 1), "folder": (1, 1), "synthetic": (1, 1),
    }  # fmt: skip
    assert {load_spec(name).train_views for name in list_specs()} == {(1, 1)}


@pytest.mark.parametrize("asked", [(0, 0), (1, 1)])
def test_a_dataset_says_which_views_a_build_and_an_evaluation_take(
    tmp_path: Path, tiny_backbone: Path, asked: tuple[int, int]
) -> None:
    data = make_dataset(tmp_path / "data", 5)
    (tmp_path / "mine.yaml").write_text(
        "name: mine\nformat: csv\ntrain_views: 2x1\neval_views: 1x3\n"
    )
    changes = {
        "dataset": str(tmp_path / "mine.yaml"),
        "num_segments": asked[0],
        "num_crops": asked[1],
    }
    run = make_run_config(data)
    built = prepare_build(ask_build(tiny_backbone, **changes), run)
    judged, plan = prepare_evaluation(ask_evaluation(tiny_backbone, "random", **changes), run)
    assert built.config.views == (asked if all(asked) else (2, 1))
    assert judged.config.views == (asked if all(asked) else (1, 3))
    assert (built.plan.num_rows, plan.num_rows) == ((5, 5) if all(asked) else (10, 15))


def test_the_weights_are_left_to_the_workers(
    tmp_path: Path, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> None:
        raise AssertionError("the driver read the weights")

    monkeypatch.setattr("pipeline.backbones.huggingface.load_strictly", refuse)
    run = make_run_config(make_dataset(tmp_path / "data", 5))
    built = prepare_build(ask_build(tiny_backbone), run)
    judged, _ = prepare_evaluation(ask_evaluation(tiny_backbone, "random,tome"), run)
    assert built.config.backbone_digest == judged.config.backbone_digest != ""
