"""Ranking by the motion vectors that a compressed video carries anyway.

They are the encoder's, chosen for a small file and not for true motion, and exist in few codecs:
H.264 and the MPEG family up to MPEG-4. FFmpeg gives none for VP8, VP9 (so none for the webm files
of Something-Something V2), HEVC and AV1; clips of those are not available to this ranking.

How vectors become token scores is not public. Ours: a token's score is the mean length of the
vectors whose blocks lie on it, weighted by the area that they cover of it, in pixels of the
resized frame. All frames of a tubelet's stretch of the video count, the unsampled ones too.
Frames and blocks without vectors (intra-coded) say nothing, and are not taken for rest.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt
import torch
from av.codec.context import Flags2

from pipeline.backbones.base import Backbone
from pipeline.clips.grid import TokenGrid
from pipeline.clips.views import View, crop_box, frame_indices, resized_shape
from pipeline.decode.container import check_count, open_video
from pipeline.decode.orientation import Orientation
from pipeline.decode.request import DecodeRequest
from pipeline.errors import ClipStatus, ConfigError, DecodeError
from selector.methods.rank.base import ClipBatch, Ranking, RankingMethod

Floats = npt.NDArray[np.float32]

_LEAST_COVER = 1e-4
"""Of a token's area, what vectors must cover for them to say something of it; less is rounding."""

WITHOUT_VECTORS = ("vp8", "vp9", "hevc", "av1")
"""Codecs of which it is known beforehand; others are decoded and looked at."""


def require_motion_vectors(paths: Iterable[str]) -> None:
    """Refuses videos none of which can have vectors, going by their codecs alone.

    Left to itself every clip would fail, one by one, and no video would be left to compare on.

    Args:
        paths: some videos of the dataset; files that cannot be opened say nothing.

    Raises:
        ConfigError: all that can be opened are of codecs without vectors.
    """
    codecs = []
    for path in paths:
        try:
            with open_video(DecodeRequest(path=path)) as (_, stream):
                codecs.append(stream.codec_context.codec.canonical_name)
        except DecodeError:
            continue
    if codecs and set(codecs) <= set(WITHOUT_VECTORS):
        raise ConfigError(_not_available(", ".join(sorted(set(codecs)))))


class MotionVectorMethod(RankingMethod):
    """Mean length of the compressed domain's motion vectors on each token.

    Every video is decoded a second time for it, in this process and with vectors (about 1.5 times
    a plain decoding); no multiply-accumulate is counted.

    Args:
        backbone: tells the frames and the grid.
        sampling: as the clips' frames were sampled.
        timeout_s: seconds one video may take.
    """

    unseen = "the compressed file"
    ties = True

    def __init__(
        self,
        backbone: Backbone,
        sampling: str = "uniform",
        timeout_s: float = DecodeRequest.timeout_s,
    ) -> None:
        self._grid = backbone.grid
        self._template: dict[str, Any] = {
            "num_frames": backbone.num_frames,
            "size": backbone.image_size,
            "short_side": backbone.short_side,
            "sampling": sampling,
            "timeout_s": timeout_s,
        }

    def __str__(self) -> str:
        return "motion-vectors"

    def rank(self, batch: ClipBatch) -> Ranking:
        """Mean lengths in pixels, (B, N) float32; NaN, with a reason, for one without vectors."""
        maps = np.full((len(batch), self._grid.num_tokens), np.nan, np.float32)
        reasons: dict[int, str] = {}
        for path, found in groupby(range(len(batch)), key=lambda i: batch.paths[i]):
            if path is None:
                continue
            rows = list(found)
            views = tuple(batch.views[i] for i in rows)
            request = DecodeRequest(path=path, views=views, **self._template)
            try:
                vectors = read_vectors(request)
                for row, view in zip(rows, views, strict=True):
                    maps[row] = pool_vectors(vectors, view, request, self._grid).ravel()
            except DecodeError as error:
                unset = [row for row in rows if np.isnan(maps[row]).any()]
                reasons |= dict.fromkeys(unset, str(error))
        return Ranking(torch.from_numpy(maps), reasons)


@dataclass(frozen=True)
class Vectors:
    """All motion vectors of a video, one element each, in the shown (upright) frame's pixels."""

    shape: tuple[int, int]
    """Height and width of the shown frame."""
    num_frames: int
    frame: npt.NDArray[np.int64]
    """Ordinal of the frame a vector belongs to."""
    y: Floats
    """Centre of its block."""
    x: Floats
    dy: Floats
    """Displacement; the sign is not kept apart, only lengths are used."""
    dx: Floats
    height: Floats
    """Of its block."""
    width: Floats


def read_vectors(request: DecodeRequest) -> Vectors:
    """Decodes a whole video for its vectors.

    Raises:
        DecodeError: no vectors in this codec or in this file, or it cannot be decoded.
    """
    deadline = time.monotonic() + request.timeout_s
    parts, shape, orientation, num_frames = [], (0, 0), Orientation(), 0
    with open_video(request) as (container, stream):
        codec = stream.codec_context.codec.canonical_name
        if codec in WITHOUT_VECTORS:
            raise DecodeError(ClipStatus.REFUSED, _not_available(codec))
        stream.codec_context.flags2 |= Flags2.export_mvs
        for frame in _frames(container, stream):
            if time.monotonic() > deadline:
                message = f"not decoded within {request.timeout_s:g} s"
                raise DecodeError(ClipStatus.DECODE_TIMEOUT, message)
            if num_frames == 0:
                orientation = Orientation.of(frame)
                shape = frame.height, frame.width
            side = frame.side_data.get("MOTION_VECTORS")
            if side is not None:
                parts.append((num_frames, side.to_ndarray()))
            num_frames += 1
            check_count(num_frames, request)
    if not parts:
        raise DecodeError(ClipStatus.REFUSED, _not_available(codec))
    field = np.concatenate([found for _, found in parts])
    y, x = field["dst_y"].astype(np.float32), field["dst_x"].astype(np.float32)
    dy, dx = (field[f"motion_{a}"] / field["motion_scale"].clip(1) for a in "yx")
    y, x = orientation.points(y, x, *shape)
    high, wide = field["h"].astype(np.float32), field["w"].astype(np.float32)
    if orientation.transpose:
        dy, dx, high, wide = dx, dy, wide, high
    return Vectors(
        shape=orientation.shape(*shape),
        num_frames=num_frames,
        frame=np.repeat([n for n, _ in parts], [len(found) for _, found in parts]),
        y=y,
        x=x,
        dy=dy.astype(np.float32),
        dx=dx.astype(np.float32),
        height=high,
        width=wide,
    )


def pool_vectors(vectors: Vectors, view: View, request: DecodeRequest, grid: TokenGrid) -> Floats:
    """Mean vector length on each token of one view, (t, y, x) in pixels of the resized frame.

    A token without any vector takes the mean of its place over time, else that of the clip.

    Raises:
        DecodeError: there is no vector within the clip.
    """
    height, width = resized_shape(*vectors.shape, request.short_side)
    scale_y, scale_x = height / vectors.shape[0], width / vectors.shape[1]
    top, left = crop_box(height, width, request.size, view.crop, view.num_crops)
    rows = _covered(vectors.y * scale_y - top, vectors.height * scale_y, grid.h, request.size)
    columns = _covered(vectors.x * scale_x - left, vectors.width * scale_x, grid.w, request.size)
    length = np.hypot(vectors.dy * scale_y, vectors.dx * scale_x)
    starts = _tubelet_starts(vectors.num_frames, view, request, grid.t)
    t = np.searchsorted(starts, vectors.frame, side="right") - 1
    weight, total = np.zeros(grid), np.zeros(grid)
    for tubelet in range(grid.t):
        now = t == tubelet
        weight[tubelet] = rows[now].T @ columns[now]
        total[tubelet] = rows[now].T @ (columns[now] * length[now, None])
    weight[weight < _LEAST_COVER] = 0
    total[weight == 0] = 0
    if not weight.any():
        raise DecodeError(ClipStatus.REFUSED, "no motion vectors within this clip")
    place, place_weight = total.sum(axis=0), weight.sum(axis=0)
    everywhere = np.full_like(place, total.sum() / weight.sum())
    fallback = np.divide(place, place_weight, out=everywhere, where=place_weight > 0)
    maps = np.broadcast_to(fallback, grid).copy()
    return np.divide(total, weight, out=maps, where=weight > 0).astype(np.float32)


def _covered(centre: Floats, side: Floats, num_tokens: int, size: int) -> npt.NDArray[np.float64]:
    """How much of each token's side a block covers along one axis, (n, num_tokens), 1 is all of it.

    Args:
        centre: of the blocks, in pixels of the crop.
        side: of the blocks, in the same pixels.
        num_tokens: along the axis.
        size: of the crop in pixels.
    """
    low, high = ((centre + end * side) * (num_tokens / size) for end in (-0.5, 0.5))
    at = np.arange(num_tokens)
    covered = np.minimum(high[:, None], at + 1) - np.maximum(low[:, None], at)
    return np.clip(covered, 0, None).astype(np.float64)


def _tubelet_starts(
    num_total: int, view: View, request: DecodeRequest, num_tubelets: int
) -> npt.NDArray[np.int64]:
    """First frame of each tubelet's stretch, and the end of the last one: (t + 1,)."""
    indices = frame_indices(
        num_total, request.num_frames, request.sampling, view.segment, view.num_segments
    )
    step = indices[-1] - indices[-2] if len(indices) > 1 else 1
    starts = indices[:: request.num_frames // num_tubelets]
    return np.append(starts, min(indices[-1] + max(step, 1), num_total))


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """All frames in output order; what is damaged is skipped."""
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            continue
        except av.error.EOFError:
            return


def _not_available(codec: str) -> str:
    return (
        f"method motion-vectors is not available for {codec} video: FFmpeg gives no vectors for "
        "the codec, or the file holds none (H.264 and MPEG-1/2/4 do); leave the method out, or "
        "re-encode"
    )
