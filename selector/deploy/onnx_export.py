"""A model with a fixed budget as one ONNX file, for runtimes without PyTorch."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipeline.errors import ConfigError
from selector.methods.keep import num_kept

if TYPE_CHECKING:
    from selector.deploy.model import LiteModel

METADATA_NAME = "lite"
logger = logging.getLogger(__name__)

_MOST_AWAY, _MOST_OTHERS = 0.05, 0.01
"""What rounding may do to the logits, in their deviation, and to the kept tokens, as a share."""
_MOST_BYTES = 2**31 - 2**24
"""What one file holds: its format counts in 31 bits."""


def export_onnx(model: LiteModel, path: str | Path, keep_ratio: float | None = None) -> None:
    """Write a model that takes any number of clips and keeps one share of their tokens.

    Input `pixel_values` float32 (B, T, 3, H, W), normalised; outputs `logits` float32 (B, C) and
    `kept` bool (B, N). What the frames must be is in the file's metadata, as JSON under `lite`.

    Args:
        model: in fp32.
        path: the file, `.onnx`, replaced whole or not at all.
        keep_ratio: share of the tokens kept; default the model's.

    Raises:
        ConfigError: the packages of the extra `onnx` are missing, the model is in another precision
            or too large for one file, its method cannot be written, or a ratio is outside (0, 1].
    """
    path = Path(path)
    ratio = model.config.keep_ratio if keep_ratio is None else keep_ratio
    kept = num_kept(model.backbone.grid.num_tokens, ratio)
    if model.by_content:
        raise ConfigError(
            f"ONNX is written for one budget, and with {model.config.method} each clip's content "
            "sets its own; evs is the same rule at a given budget"
        )
    if path.suffix != ".onnx":
        raise ConfigError(f"{path} must end in .onnx")
    if model.dtype != torch.float32:
        raise ConfigError(f"ONNX is written from fp32, and this model is {model.dtype}")
    size = sum(weight.numel() * weight.element_size() for weight in model.state_dict().values())
    if size > _MOST_BYTES:
        raise ConfigError(f"the model's {size / 2**30:.1f} GiB do not fit into one ONNX file")
    try:
        from onnxscript import opset18
    except ImportError as error:
        raise ConfigError("ONNX needs `pip install 'lite-pipeline[onnx]'`") from error

    def sort(
        values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False
    ) -> Any:
        """ONNX has no stable sort, but its TopK settles ties as one: the lower index first."""
        last = {} if dim == -1 else {"end": dim + 1}
        every = opset18.Shape(values, start=dim, **last)
        return opset18.TopK(values, every, axis=dim, largest=int(descending), sorted=1)

    model.cost_of(ratio)  # a budget out of reach says so now, and no graph is to count costs
    backbone = model.backbone
    side = backbone.image_size
    # Two clips, as an exporter takes a dimension of one for a constant.
    example = torch.zeros(2, backbone.num_frames, 3, side, side, device=backbone.device)
    try:
        program: Any = torch.onnx.export(
            _Fixed(model, ratio).eval(),
            (example,),
            dynamo=True,
            opset_version=18,
            input_names=["pixel_values"],
            output_names=["logits", "kept"],
            dynamic_shapes={"pixel_values": {0: "batch"}},
            custom_translation_table={torch.ops.aten.sort.stable: sort},
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise ConfigError(
            f"PyTorch's exporter cannot write method {model.config.method} as ONNX for any number "
            "of clips; docs/methods.md lists the methods it can"
        ) from error
    done = backbone.preprocessing
    program.model.metadata_props[METADATA_NAME] = json.dumps(
        {
            "keep_ratio": ratio,
            "kept_tokens": kept,
            "token_grid": list(backbone.grid),
            "labels": list(model.id2label.values()),
            "sampling": model.sampling,
            "short_side": done.short_side,
            "mean_0_to_255": done.mean,
            "std_0_to_255": done.std,
        }
    )
    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=".onnx-") as temporary:
        written = Path(temporary) / path.name
        program.save(str(written))
        _check(written, model, ratio)
        written.replace(path)


def _check(path: Path, model: LiteModel, ratio: float) -> None:
    """Refuse a file that does not answer as the model does, where there is a runtime to ask.

    An operator that is translated wrongly would go unseen: the file runs, and keeps other tokens.
    Two tokens whose scores differ by rounding alone may change places.

    Raises:
        ConfigError: it answers otherwise.
    """
    try:
        import onnxruntime
    except ImportError:
        logger.warning("not checked, for want of onnxruntime: the file may answer otherwise")
        return
    backbone, side = model.backbone, model.backbone.image_size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(3, backbone.num_frames, 3, side, side, generator=generator)
    with torch.inference_mode():
        expected = model(pixels.to(backbone.device), keep_ratio=ratio)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(["logits", "kept"], {"pixel_values": pixels.numpy()})
    logits, kept = (torch.from_numpy(value) for value in found)
    known = expected.logits.cpu()
    away = (logits - known).abs().max() / known.std().clamp_min(1e-6)
    others = (kept != expected.kept.cpu()).float().mean()
    if not (away < _MOST_AWAY and others < _MOST_OTHERS):
        raise ConfigError(
            f"ONNX Runtime does not answer as the model does with method {model.config.method}: "
            f"logits differ by {away:.2g} of their deviation, kept tokens by {others:.1%}; the "
            "file was not written"
        )


class _Fixed(nn.Module):
    """The model at one keep ratio, as a function of the frames alone."""

    def __init__(self, model: LiteModel, keep_ratio: float) -> None:
        super().__init__()
        self.model = model
        self.keep_ratio = keep_ratio

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and kept tokens of normalised frames."""
        output = self.model(pixel_values, keep_ratio=self.keep_ratio)
        return output.logits, output.kept
