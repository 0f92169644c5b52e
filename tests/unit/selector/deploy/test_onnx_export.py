"""The ONNX file answers as the model does, in another runtime, for any number of clips."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from pipeline.errors import ConfigError
from selector.deploy import onnx_export
from selector.deploy.config import LiteConfig
from selector.deploy.onnx_export import export_onnx
from tests.checkpoints import save_timesformer, save_videomae, save_vivit, save_vjepa2
from tests.lite_models import make_model, make_pixels

onnxruntime = pytest.importorskip(
    "onnxruntime", reason="NO ONNX: pip install 'lite-pipeline[onnx]'"
)
pytest.importorskip("onnxscript", reason="NO ONNX: pip install 'lite-pipeline[onnx]'")

# The exporter's own, of the packages that it is built from.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


FAMILIES = {
    "timesformer": save_timesformer,
    "timesformer divided": lambda folder: save_timesformer(
        folder, attention_type="divided_space_time"
    ),
    "vivit": save_vivit,
    "vjepa2": save_vjepa2,
}


SLOW_METHODS = ("uniform", "evs", "motion", "prior", "uniform-frame", "lite-frame", "lite+tome")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Eight tubelets of four tokens."""
    return save_videomae(
        tmp_path_factory.mktemp("checkpoint"), image_size=32, num_frames=16, num_hidden_layers=2
    )


def answers(path, pixels):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits, kept = session.run(["logits", "kept"], {"pixel_values": pixels.numpy()})
    return torch.from_numpy(logits), torch.from_numpy(kept), session.get_modelmeta()


@pytest.fixture(scope="module")
def model(tiny_backbone):
    return make_model(tiny_backbone, LiteConfig(spread=2.0, keep_ratio=0.3))


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(model, path)
    assert [entry.name for entry in path.parent.iterdir()] == ["model.onnx"]
    return path


@pytest.mark.parametrize("num_clips", [1, 2, 5])
def test_onnx_runtime_gives_the_same_answers(model, file, num_clips):
    logits, kept, _ = answers(file, make_pixels(num_clips))
    expected = model(make_pixels(num_clips))
    torch.testing.assert_close(logits, expected.logits, rtol=0, atol=1e-4)
    assert torch.equal(kept, expected.kept)


def test_the_file_says_what_it_wants_and_what_its_classes_are(file):
    found = json.loads(answers(file, make_pixels(1))[2].custom_metadata_map["lite"])
    assert found["labels"] == [f"class {i}" for i in range(5)]
    assert found["mean_0_to_255"] == found["std_0_to_255"] == [127.5] * 3
    assert (found["keep_ratio"], found["kept_tokens"], found["token_grid"]) == (0.3, 2, [2, 2, 2])


@pytest.mark.parametrize(
    "family",
    ["vjepa2", *(pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES if f != "vjepa2")],
)
def test_every_family_of_backbones_can_be_written(family, tmp_path):
    model = make_model(FAMILIES[family](tmp_path / "checkpoint"), LiteConfig(keep_ratio=0.5))
    export_onnx(model, tmp_path / "model.onnx")
    for num_clips in (1, 3):
        logits, kept, _ = answers(tmp_path / "model.onnx", make_pixels(num_clips))
        expected = model(make_pixels(num_clips))
        torch.testing.assert_close(logits, expected.logits, rtol=0, atol=1e-4)
        assert torch.equal(kept, expected.kept)


@pytest.mark.parametrize(
    "method",
    [
        *("fluxvit", "tome"),
        *(pytest.param(m, marks=pytest.mark.slow) for m in (*SLOW_METHODS,)),
    ],
)
def test_other_methods_can_be_written(checkpoint, method, tmp_path):
    model = make_model(checkpoint, LiteConfig(method=method, keep_ratio=0.8))
    export_onnx(model, tmp_path / "model.onnx")
    pixels = torch.randn(5, 16, 3, 32, 32, generator=torch.Generator().manual_seed(7))
    logits, kept, _ = answers(tmp_path / "model.onnx", pixels)
    expected = model(pixels)
    torch.testing.assert_close(logits, expected.logits, rtol=0, atol=1e-4)
    assert torch.equal(kept, expected.kept)


@pytest.mark.parametrize(
    ("method", "fault"), [("rlt", "content sets its own"), ("random", "cannot write method random")]
)
def test_methods_that_cannot_be_written_say_so(checkpoint, method, fault, tmp_path):
    with pytest.raises(ConfigError, match=fault):
        export_onnx(make_model(checkpoint, LiteConfig(method=method)), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_that_answers_otherwise_is_refused(model, file):
    """As where an operator is translated wrongly: here the file keeps fewer tokens."""
    onnx_export._check(file, model, 0.3)
    with pytest.raises(ConfigError, match="does not answer as the model does with method lite"):
        onnx_export._check(file, model, 0.5)


def test_ties_go_to_the_same_tokens(tiny_backbone, tmp_path):
    model = make_model(tiny_backbone)
    with torch.no_grad():
        for weight in model.selector.body.parameters():
            weight.zero_()
    export_onnx(model, tmp_path / "model.onnx", 0.5)
    _, kept, _ = answers(tmp_path / "model.onnx", make_pixels(3))
    assert kept.tolist() == [[True] * 4 + [False] * 4] * 3


@pytest.mark.parametrize(
    ("name", "ratio", "fault"),
    [("model.pt", 0.5, "must end in .onnx"), ("model.onnx", 0, r"\(0, 1\]")],
)
def test_what_cannot_be_written_is_refused(tiny_backbone, tmp_path, name, ratio, fault):
    model = make_model(tiny_backbone)
    with pytest.raises(ConfigError, match=fault):
        export_onnx(model, tmp_path / name, ratio)
    model.backbone.to(torch.bfloat16)
    with pytest.raises(ConfigError, match="written from fp32, and this model is torch.bfloat16"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named(tiny_backbone, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"pip install 'lite-pipeline\[onnx\]'"):
        export_onnx(make_model(tiny_backbone), tmp_path / "model.onnx")
