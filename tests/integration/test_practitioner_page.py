"""The lines of docs/practitioner.md run as printed, and what they give is the model's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from selector.deploy.config import LiteConfig
from tests.checkpoints import save_videomae
from tests.lite_models import make_model
from tests.videos import write_video

PAGE = Path(__file__).parents[2] / "docs" / "practitioner.md"


# Of the ONNX exporter and the trainer, of themselves.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")
def test_the_script_in_plain_transformers_code(tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime", reason="NO ONNX: pip install onnxruntime")
    pytest.importorskip("onnxscript", reason="NO ONNX: pip install 'lite-pipeline[onnx]'")
    pytest.importorskip("accelerate", reason="NO TRAINER: pip install accelerate")
    lite = make_model(save_videomae(tmp_path / "checkpoint"), LiteConfig(spread=2.0))
    lite.save_pretrained(tmp_path / "MODEL")
    write_video(tmp_path / "clip.mp4", 9, 48, 64)
    monkeypatch.chdir(tmp_path)
    script = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    assert len([line for line in script.splitlines() if line]) == 10
    names: dict = {}
    exec(script.replace("224, 224", "16, 16"), names)  # the tiny model's size
    batch = names["batch"]
    expected = lite(batch).logits
    assert torch.equal(names["model"](batch).logits, expected)
    assert {each["label"] for each in names["classes"]} == set(lite.id2label.values())
    loss = F.cross_entropy(expected[:1], torch.tensor([0]))
    assert names["measured"]["eval_loss"] == pytest.approx(loss.item(), abs=1e-5)
    one = torch.cat([batch, torch.randn(1, *batch.shape[1:])])  # three clips; two were traced
    expected = lite(one).logits
    found = names["program"].module()(one).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"pixel_values": one.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=0, atol=1e-4)
