"""The videos of a store, decoded as its oracle saw them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.clips.views import View, frame_indices
from pipeline.decode import DecodePool, DecodeRequest
from pipeline.decode.resize import ClipFiller
from pipeline.errors import ClipStatus, ConfigError, DecodeError
from pipeline.store.reader import Store

Frames = npt.NDArray[np.uint8]


class Videos:
    """Gives the frames of clips, which are rows of the clips table.

    Args:
        store: whose clips.
        data_root: folder that its paths are relative to.

    Raises:
        ConfigError: the backbone that is loaded is not the store's.
    """

    def __init__(self, store: Store, data_root: str) -> None:
        from pipeline.backbones import load_backbone

        self._config, self._data_root = store.config, Path(data_root)
        config = store.config
        # Opened once: its digest reads the whole checkpoint.
        self.backbone = load_backbone(config.backbone, config.revision, device="meta")
        if self.backbone.digest != config.backbone_digest:
            raise ConfigError(
                f"the backbone at {config.backbone} is not the one that this store was built by, "
                "so its frames may be others"
            )

    def frames(self, clip: pd.Series) -> Frames:
        """The frames of a clip: uint8 (T, H, W, 3).

        Raises:
            DecodeError: the video.
        """
        [found] = self.each(clip.to_frame().T)
        if isinstance(found, DecodeError):
            raise found
        return found

    def indices(self, clip: pd.Series) -> list[int]:
        """Which frames of its video a clip shows: their numbers from 0, one for each of its T."""
        request = self._request(clip)
        [view] = request.views
        return frame_indices(
            int(clip["num_frames_total"]),
            request.num_frames,
            request.sampling,
            view.segment,
            view.num_segments,
        ).tolist()

    def each(self, clips: pd.DataFrame) -> Iterator[Frames | DecodeError]:
        """The frames of several clips, in their order, one at a time in memory.

        A video that has another number of frames than the store's is a `DecodeError`, too: under
        its name lies another one by now, to which the store's map does not belong.
        """
        with DecodePool(num_workers=0) as pool:  # decord gets a process of its own
            requests = (self._request(clip) for _, clip in clips.iterrows())
            for found, path, number in zip(
                pool.imap(requests), clips["path"], clips["num_frames_total"], strict=True
            ):
                if isinstance(found, DecodeError):
                    yield found
                elif found.num_frames_total != number:
                    yield DecodeError(
                        ClipStatus.REFUSED,
                        f"{path} has {found.num_frames_total} frames, and had {number} when the "
                        "store was built: it is another video now",
                    )
                else:
                    yield found.clips[0]

    def as_clip(self, clip: pd.Series, video: Frames) -> Frames:
        """What the clip would show of another video of the same shape, such as a mask.

        Args:
            clip: whose frames and crop are taken.
            video: uint8 (num_frames, height, width, 3), all frames of it.

        Returns:
            uint8 (T, H, W, 3), resized as decoded frames are.
        """
        request = self._request(clip)
        slots = request.slots(len(video))
        filler = ClipFiller(request, slots)
        filler.set_first_shape(*video.shape[1:3])
        for index in slots:
            filler.add(index, video[index])
        found: Frames = filler.whole_clips()[0]
        return found

    def _request(self, clip: pd.Series) -> DecodeRequest:
        config = self._config
        view = View(int(clip["segment"]), int(clip["crop"]), *config.views)
        return DecodeRequest(
            path=str(self._data_root / str(clip["path"])),
            views=(view,),
            sampling=config.sampling,
            decoder=config.decoder,
            **self.backbone.clip_format,
        )
