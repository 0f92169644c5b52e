"""A model with a fixed budget as one ONNX file, for runtimes without PyTorch."""

from __future__ import annotations

import json
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
            or too large for one file, or a ratio is outside (0, 1].
    """
    path = Path(path)
    ratio = model.config.keep_ratio if keep_ratio is None else keep_ratio
    kept = num_kept(model.backbone.grid.num_tokens, ratio)
    if not model.config.selects:
        raise ConfigError(
            f"ONNX is written of models whose selector alone chooses, and this one's method is "
            f"{model.config.method}"
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
        dim = dim % 2  # of scores (B, N) and positions (B, K)
        every = opset18.Shape(values, start=dim, end=dim + 1)
        return opset18.TopK(values, every, axis=dim, largest=int(descending), sorted=1)

    backbone = model.backbone
    side = backbone.image_size
    # Two clips, as an exporter takes a dimension of one for a constant.
    example = torch.zeros(2, backbone.num_frames, 3, side, side, device=backbone.device)
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
        written.replace(path)


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
