"""Error messages that are the same on every machine, because they end up in committed files."""

from __future__ import annotations


def reason_of(error: Exception) -> str:
    """One line that says what a library's exception means.

    Of FFmpeg's errors only FFmpeg's own words: PyAV adds the open file's descriptor, which varies.
    """
    text = getattr(error, "strerror", None) or str(error)
    return text.strip().split("\n", 1)[0][:200] or "no further message"
