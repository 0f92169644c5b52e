"""The processor of a deployable model in transformers: from a video file to what the model takes.

Files are decoded and sampled as `lite-pipeline predict` does it, so that both answer alike; frames
that were decoded elsewhere are resized, cropped and normalised as the backbone's own processor has
it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.image_utils import PILImageResampling
from transformers.video_processing_utils import BaseVideoProcessor

from pipeline.decode import DecodeRequest, decode_video
from pipeline.errors import ConfigError, DecodeError
from selector.deploy.transformers_config import LiteVideoConfig

if TYPE_CHECKING:
    from selector.deploy.model import LiteModel


class LiteVideoProcessor(BaseVideoProcessor):
    """Frames of videos, (B, T, 3, H, W) float32, as `pixel_values`.

    Args:
        sampling: frames of a clip, `uniform` or `stride:N`.
        min_frames: fewer in a file are an error.
        **others: sizes and statistics, as in any video processor of transformers.
    """

    resample = PILImageResampling.BILINEAR
    default_to_square = False
    do_resize = True
    do_center_crop = True
    # Mean and deviation are on the scale of 0..255, on which `predict` subtracts and divides.
    do_rescale = False
    do_normalize = True
    do_convert_rgb = True
    do_sample_frames = False
    model_input_names = ["pixel_values"]  # noqa: RUF012

    # Set by the base class.
    num_frames: Any
    size: Any
    crop_size: Any

    def __init__(self, sampling: str = "uniform", min_frames: int = 1, **others: Any) -> None:
        super().__init__(**others)
        self.sampling = sampling
        self.min_frames = min_frames

    def preprocess(self, videos: Any, **options: Any) -> Any:
        """Decode and sample what is a file, and do with frames what the backbone's processor does.

        Args:
            videos: paths, or frames as transformers takes them; one or a list.
            **options: as the base class has them.

        Raises:
            ConfigError: an address on the net, or another number of frames than the model takes.
            DecodeError: a file cannot be read.
        """
        several = videos if isinstance(videos, list | tuple) else [videos]
        if several and all(isinstance(video, str | Path) for video in several):
            wanted = options.pop("num_frames", None)
            if wanted not in (None, self.num_frames):
                raise ConfigError(
                    f"the model takes {self.num_frames} frames of a clip, not {wanted}"
                )
            videos = [self._decoded(str(path)) for path in several]
            options |= dict.fromkeys(("do_sample_frames", "do_resize", "do_center_crop"), False)
        batch = super().preprocess(videos, **options)
        batch["pixel_values"] = batch.pop("pixel_values_videos")
        return batch

    def _decoded(self, path: str) -> Any:
        """The model's frames of a file, (T, H, W, 3) uint8, resized and cropped."""
        if "://" in path:
            raise ConfigError(f"{path} is an address: download the video and give the file")
        request = DecodeRequest(
            path=path,
            num_frames=self.num_frames,
            size=self.crop_size["height"],
            short_side=self.size["shortest_edge"],
            sampling=self.sampling,
            decoder="pyav",
            min_frames=self.min_frames,
        )
        try:
            return decode_video(request).clips[0]
        except DecodeError as error:
            raise DecodeError(error.status, f"{path}: {error}") from error


def register() -> None:
    """Makes `AutoVideoProcessor`, and so the pipeline, take ours."""
    from transformers import AutoVideoProcessor

    AutoVideoProcessor.register(LiteVideoConfig, LiteVideoProcessor, exist_ok=True)


def video_processor(model: LiteModel) -> LiteVideoProcessor:
    """The processor of a model as it is in memory."""
    backbone, done = model.backbone, model.backbone.preprocessing
    return LiteVideoProcessor(
        sampling=model.sampling,
        min_frames=backbone.tubelet_size,
        num_frames=backbone.num_frames,
        size={"shortest_edge": done.short_side},
        crop_size={"height": done.crop_size, "width": done.crop_size},
        image_mean=list(done.mean),
        image_std=list(done.std),
    )
