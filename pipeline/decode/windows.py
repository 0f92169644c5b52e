"""Windows that slide over a long video or a live stream, at a memory that does not grow with it.

A window is so many consecutive frames, and its clips are sampled as if they were a whole video.
Frames are counted in the order in which the decoder puts them out, as everywhere in this package;
a length in seconds is the frames that the source's average rate makes of it.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import count
from typing import Any

from pipeline.decode.backends import decode_version
from pipeline.decode.container import Packets, check_not_short, is_cut, open_video
from pipeline.decode.live import check_live, open_live
from pipeline.decode.pyav import Frames, ToRGB
from pipeline.decode.request import DecodedVideo, DecodeRequest, Slots
from pipeline.decode.resize import ClipFiller
from pipeline.errors import ClipStatus, ConfigError, DecodeError

logger = logging.getLogger(__name__)

_MOST_OVERLAPPING = 64
"""Windows that may have one frame in common: each holds its clips until it ends."""
_ALIVE_EVERY_S = 1.0


@dataclass(frozen=True)
class Span:
    """A length of video, in frames or in seconds."""

    length: Fraction
    in_frames: bool

    @classmethod
    def parse(cls, text: str) -> Span:
        """Read `64f` (frames), `2.5s` or `2.5` (seconds).

        Raises:
            ConfigError: it is neither, or not above 0.
        """
        match = re.fullmatch(r"(?:(\d{1,9})f|(\d{1,9}(?:\.\d{1,6})?)s?)", text)
        length = Fraction(match[1] or match[2]) if match else Fraction(0)
        if match is None or length <= 0:
            raise ConfigError(
                f"a length of video is frames, such as 64f, or seconds, such as 2.5s, got {text!r}"
            )
        return cls(length, in_frames=match[1] is not None)

    def num_frames(self, rate: Fraction | None) -> int:
        """Its frames at a rate, at least one.

        Raises:
            ConfigError: it is in seconds, and the rate unknown.
        """
        if self.in_frames:
            return int(self.length)
        if not rate:
            raise ConfigError(
                "the video does not say how many frames a second it has: give the length of a "
                "window in frames, such as 64f"
            )
        return max(1, round(self.length * rate))


@dataclass(frozen=True, kw_only=True)
class WindowRequest:
    """One source, and the windows wanted of it.

    Raises:
        ConfigError: a decoder that cannot, or no address of a live source.
    """

    clip: DecodeRequest
    """The source as `path`, and the clips of every window. `timeout_s` is for one window;
    `max_frames` says nothing here."""
    window: Span
    """How long one is."""
    stride: Span | None = None
    """From the start of one to that of the next; None: they follow on each other."""
    live: bool = False
    """`path` is the address of a stream or a camera, see `pipeline.decode.live`."""

    def __post_init__(self) -> None:
        if self.clip.decoder != "pyav":
            raise ConfigError(
                f"windows are read by the decoder pyav, got {self.clip.decoder!r}, which decodes "
                "whole videos only"
            )
        if self.live:
            check_live(self.clip.path)

    def frames(self, rate: Fraction | None) -> tuple[int, int]:
        """Frames of a window, and from one's start to the next's.

        Raises:
            ConfigError: a window shorter than one tubelet, or too many that overlap.
        """
        length = self.window.num_frames(rate)
        step = length if self.stride is None else self.stride.num_frames(rate)
        if length < self.clip.min_frames:
            raise ConfigError(
                f"a window of {length} frame(s) is shorter than one tubelet of "
                f"{self.clip.min_frames}: give a longer one"
            )
        if length > _MOST_OVERLAPPING * step:
            raise ConfigError(
                f"windows of {length} frames every {step} are more than {_MOST_OVERLAPPING} at a "
                "time: give a longer stride"
            )
        return length, step


@dataclass(frozen=True, kw_only=True)
class Window:
    """The clips of one window, and where it lies."""

    decoded: DecodedVideo
    """Its clips; `num_frames_total` are the window's frames."""
    start_s: float
    """When its first frame is shown, since the first frame of the source."""
    end_s: float
    """When its last frame ends."""
    start_frame: int
    """Number of its first frame."""
    num_skipped: int = 0
    """Windows of a live source before it that were lost because nobody had time for them."""


def read_windows(request: WindowRequest) -> Iterator[Window | None]:
    """Read a source from its beginning to its end; None says that the work goes on.

    The frames of a file are counted first, by its packets: its last window is then known to be
    shorter. One that is shorter than a tubelet is left out, and in a live source every one.

    Yields:
        Windows by their ends; None about once a second in between.

    Raises:
        DecodeError: the source cannot be opened, breaks off or is no video.
        ConfigError: the windows do not fit it.
    """
    request = replace(request, clip=replace(request.clip, max_frames=2**62))
    total = None if request.live else (yield from _count(request))
    if total is not None:
        check_not_short(total, request.clip)
    with _opened(request) as (container, stream):
        reader = _Reader(request, container, stream, total)
        yield from reader.windows()
    check_not_short(reader.frames.num, request.clip)


def _opened(request: WindowRequest) -> AbstractContextManager[tuple[Any, Any]]:
    return open_live(request.clip) if request.live else open_video(request.clip)


def _count(request: WindowRequest) -> Generator[None, None, int]:
    """The frames of a file, one a packet; yields about once a second."""
    clip = request.clip
    with open_video(clip) as (container, stream):
        packets = Packets(container, stream, clip, time.monotonic() + clip.timeout_s)
        said = time.monotonic()
        for _ in packets:
            if (now := time.monotonic()) - said > _ALIVE_EVERY_S:
                said, packets.deadline = now, now + clip.timeout_s
                yield None
    return packets.num_shown


@dataclass
class _Open:
    """A window of which frames are still to come."""

    start: int
    length: int
    slots: Slots
    filler: ClipFiller
    errors_before: int
    start_s: float
    end_s: float = 0.0
    filled: dict[int, int] = field(default_factory=dict)
    """Number of a view -> the last position of its clip that has a frame."""

    @property
    def end(self) -> int:
        return self.start + self.length

    def add(self, index: int, rgb: Any) -> None:
        self.filler.add(index - self.start, rgb)
        for number, position, _ in self.slots[index - self.start]:
            self.filled[number] = position

    def needs(self, index: int) -> bool:
        return index - self.start in self.slots

    def repeat_last(self) -> bool:
        """Fill what was not reached with the last frame that was; False where a view has none."""
        if len(self.filled) < len(self.filler.clips):
            return False
        for number, position in self.filled.items():
            self.filler.clips[number, position + 1 :] = self.filler.clips[number, position]
        return True


class _Reader:
    """Decodes an open source once, and fills the windows that its frames belong to."""

    def __init__(
        self, request: WindowRequest, container: Any, stream: Any, total: int | None
    ) -> None:
        self._request, self._container, self._total = request, container, total
        self._rate: Fraction | None = stream.average_rate or None
        self._length, self._step = request.frames(self._rate)
        self._stream = stream
        self.frames = Frames(stream, request.clip, self._deadline())
        self._first_s: float | None = None
        self._latest_s = 0.0

    def windows(self) -> Iterator[Window | None]:
        """All of them; see `read_windows`."""
        request, clip, frames = self._request, self._request.clip, self.frames
        packets = Packets(self._container, self._stream, clip, math.inf)
        coming = self._starts()
        upcoming = next(coming, None)
        waiting: deque[_Open] = deque()
        to_rgb = ToRGB()
        shape = (0, 0)
        end_s = 0.0
        errors = 0
        said = time.monotonic()
        for index, frame in enumerate(frames.of(packets)):
            if index == 0:
                shape = to_rgb.begin(frame)
            start_s, end_s = self._times(index, frame)
            if upcoming is not None and index == upcoming[0]:
                waiting.append(self._open(*upcoming, shape, errors, start_s))
                upcoming = next(coming, None)
            errors = frames.num_errors
            wanting = [window for window in waiting if window.needs(index)]
            if wanting:
                to_rgb.check(frame)
                rgb = to_rgb(frame)
                for window in wanting:
                    window.add(index, rgb)
            for window in waiting:
                window.end_s = end_s if index < window.end else window.end_s
            # The last window of a file waits for what its end says.
            last = upcoming is None and len(waiting) == 1
            if waiting and index + 1 == waiting[0].end and not last:
                yield self._closed(waiting.popleft())
                frames.deadline = self._deadline()
            elif (now := time.monotonic()) - said > _ALIVE_EVERY_S:
                yield None
                said = now
                if request.live or not waiting:  # a stream comes when it comes
                    frames.deadline = self._deadline()
        if request.live and frames.num < self._length:
            raise DecodeError(
                ClipStatus.TOO_SHORT,
                f"it ended after {frames.num} frames, within its first window of {self._length}",
            )
        if request.live:  # its last window is never whole
            return
        cut = is_cut(self._container, self._stream, frames.num, frames.end)
        short = self._total is not None and frames.num < self._total
        if short:
            logger.warning(
                "%s has %d packets and makes %d frames: it ends sooner than its packets say",
                clip.path,
                self._total,
                frames.num,
            )
        for window in waiting:
            window.length = min(window.length, frames.num - window.start)
            if window.repeat_last():
                yield self._closed(window, damaged=cut or short or packets.is_broken)

    def _starts(self) -> Iterator[tuple[int, int]]:
        """First frame and length of every window; of a live source there is no end of them."""
        covered = 0
        for start in count(0, self._step):
            length = self._length
            if self._total is not None:
                length = min(length, self._total - start)
                if covered >= self._total or length < self._request.clip.min_frames:
                    return
            yield start, length
            covered = start + length

    def _open(
        self, start: int, length: int, shape: tuple[int, int], errors: int, start_s: float
    ) -> _Open:
        clip = self._request.clip
        slots = clip.slots(length)
        filler = ClipFiller(clip, slots)
        filler.set_first_shape(*shape)
        return _Open(start, length, slots, filler, errors, start_s)

    def _closed(self, window: _Open, damaged: bool = False) -> Window:
        decoded = DecodedVideo(
            clips=window.filler.clips,
            num_frames_total=window.length,
            padded=self._request.clip.is_padded(window.length),
            damaged=damaged or self.frames.num_errors > window.errors_before,
            decoder="pyav",
            decoder_version=decode_version("pyav"),
        )
        return Window(
            decoded=decoded,
            start_s=window.start_s,
            end_s=window.end_s,
            start_frame=window.start,
        )

    def _times(self, index: int, frame: Any) -> tuple[float, float]:
        """When a frame begins and ends, in seconds since the first began."""
        one = float(1 / self._rate) if self._rate else 0.0
        if frame.pts is None or frame.time_base is None:
            return index * one, (index + 1) * one
        begin = float(frame.pts * frame.time_base)
        if self._first_s is None:
            self._first_s = begin
        own = float(frame.duration * frame.time_base) if frame.duration else one
        if self._request.live and begin - self._first_s < self._latest_s:
            # Its clock was set back, as when a camera starts anew: ours goes on.
            self._first_s = begin - self._latest_s - own
        begin -= self._first_s
        self._latest_s = begin
        return begin, begin + own

    def _deadline(self) -> float:
        return time.monotonic() + self._request.clip.timeout_s
