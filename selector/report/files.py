"""A picture as the bytes of a file."""

from __future__ import annotations

import io

from selector.report.draw import Picture

FORMATS = ("png", "svg", "pdf")
_DOTS_PER_INCH = 150


def picture_bytes(picture: Picture, kind: str) -> bytes:
    """The picture on white; the same each time, as no clock enters.

    Args:
        picture: drawn.
        kind: one of `FORMATS`.
    """
    from matplotlib import rc_context

    data = io.BytesIO()
    picture.patch.set(facecolor="white", alpha=1)
    clock = {"png": None, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    with rc_context({"svg.hashsalt": "lite-pipeline"}):
        picture.savefig(data, format=kind, dpi=_DOTS_PER_INCH, metadata=clock)
    return data.getvalue()
