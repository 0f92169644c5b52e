"""How the frames of a video are to be shown: its display matrix, in all eight orientations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from pipeline.errors import ClipStatus, DecodeError

Array = TypeVar("Array", bound=np.ndarray[Any, Any])

# As far from a multiple of 90 degrees as FFmpeg's own players let pass for one.
_TOLERANCE = math.tan(math.radians(1))


@dataclass(frozen=True)
class Orientation:
    """A quarter turn, a mirroring, or both, as three steps: transpose, then flip.

    The rule of FFmpeg's command line (`-autorotate`). A scale in the matrix (a pixel that is not
    square) is left out, as everywhere in this package.
    """

    transpose: bool = False
    """Rows become columns."""
    flip_x: bool = False
    """Then left and right change places."""
    flip_y: bool = False
    """And top and bottom."""

    @classmethod
    def of(cls, frame: Any) -> Orientation:
        """Read the display matrix of a decoded PyAV frame.

        Raises:
            DecodeError: `REFUSED` for a turn by anything but a multiple of 90 degrees.
        """
        side_data = frame.side_data.get("DISPLAYMATRIX")
        if side_data is None:
            return cls()
        # A point (x, y) of the decoded frame is shown at (ax + cy, bx + dy), up to an offset.
        (a, b), (c, d) = np.frombuffer(side_data, np.int32).reshape(3, 3)[:2, :2].tolist()
        if not any((a, b, c, d)):
            return cls()  # no matrix at all: players ignore it
        transpose = abs(b) > abs(a)
        x, y, *rest = (c, b, a, d) if transpose else (a, d, b, c)
        if max(map(abs, rest)) > _TOLERANCE * min(abs(x), abs(y)) or not (x and y):
            raise DecodeError(
                ClipStatus.REFUSED,
                "its display matrix turns or shears the picture by something else than a multiple "
                "of 90 degrees: re-encode the video upright",
            )
        return cls(transpose, flip_x=x < 0, flip_y=y < 0)

    @property
    def is_mirrored(self) -> bool:
        """Whether turning alone does not make the picture upright."""
        return self.transpose ^ self.flip_x ^ self.flip_y

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width as shown, of a frame that was decoded with these."""
        return (width, height) if self.transpose else (height, width)

    def upright(self, frame: Array) -> Array:
        """A view of a decoded frame, (H, W, ...), as it is shown."""
        shown: Any = frame.swapaxes(0, 1) if self.transpose else frame
        return shown[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]  # type: ignore[no-any-return]

    def points(self, y: Array, x: Array, height: int, width: int) -> tuple[Array, Array]:
        """Where points of a decoded frame of this height and width lie in the shown one."""
        if self.transpose:
            y, x, height, width = x, y, width, height
        shown: tuple[Any, Any] = (
            height - y if self.flip_y else y,
            width - x if self.flip_x else x,
        )
        return shown
