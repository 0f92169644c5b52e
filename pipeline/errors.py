"""Every error this package raises on purpose, in one tree, and the outcomes a clip can have.

A message says what is wrong (with the value), where (path, video, shard) and what to do next.
What it quotes is foreign: `printable` and `without_passwords` make that safe to show.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path


class ClipStatus(StrEnum):
    """What became of a clip; the `status` column of the store. Everything but `OK` is a failure."""

    OK = "ok"
    MISSING_FILE = "missing_file"  # no file at that path
    UNREADABLE = "unreadable"  # permission denied, a directory, a named pipe, a device
    DECODE_ERROR = "decode_error"  # not a video, no video stream, no decodable or damaged frames
    DECODE_TIMEOUT = "decode_timeout"  # the decoder did not finish within its time limit
    DECODER_DIED = "decoder_died"  # the decoder's process crashed on this video
    TOO_SHORT = "too_short"  # fewer frames than one tubelet holds
    TOO_LARGE = "too_large"  # more pixels or frames than the configured cap
    REFUSED = "refused"  # a container this decoder is known to read wrongly
    MODEL_ERROR = "model_error"  # the backbone raised or returned non-finite values
    WORKER_DIED = "worker_died"  # the worker process died on this clip every time


class LiteError(Exception):
    """Base of all errors raised on purpose; the command line prints it without a traceback."""


class ConfigError(LiteError, ValueError):
    """An option, or a combination of options, that cannot work."""


class UnreachableBudgetError(ConfigError):
    """A method cannot make a clip as cheap as asked."""


class BackboneError(LiteError, ValueError):
    """A checkpoint that cannot be loaded faithfully, or does not fit the dataset."""


class HubError(LiteError, OSError):
    """The Hugging Face hub lacks what was asked for, refuses it, or is out of reach."""


class DecodeError(LiteError):
    """A video that could not be decoded.

    Attributes:
        status: the `ClipStatus` to record for its clips.
    """

    def __init__(self, status: ClipStatus, message: str) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type[DecodeError], tuple[ClipStatus, str]]:
        return type(self), (self.status, str(self))  # keeps the status across a process boundary


class LostProcessError(LiteError, RuntimeError):
    """A process was ended from outside, again and again, while it worked.

    Nobody's video or option is at fault, so nothing may be recorded of what the process was doing.
    The same work can succeed later: with more memory, or on another machine.
    """


class StoreError(LiteError):
    """A store that is missing, unfinished, damaged or of another schema."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """No store at that place."""


class StoreMismatchError(StoreError, ValueError):
    """A store made by another configuration; the message lists the fields that differ."""


class NoOutcomesError(StoreError):
    """An evaluation without one video that every method could do, so that it tells nothing."""


class DiskFullError(StoreError):
    """No space is left, or no quota, where results are written; what is committed stays."""


class DriverError(LiteError, RuntimeError):
    """The run as a whole cannot go on: workers fail to start, or the cluster lacks resources."""


class ShardError(LiteError):
    """A shard that cannot be done, and that another try would not help."""


class UnfitWorkerError(LiteError):
    """A worker that cannot do what the run can elsewhere: its node has lost the videos."""


class NothingWorksError(LiteError):
    """Not one clip of a whole shard works, which is more likely the run's fault than the clips'."""


class NoReadableVideoError(NothingWorksError):
    """Not one video of a whole shard could be decoded."""


class ModelFailsError(NothingWorksError):
    """The model works on no clip of a whole shard."""


def reason_of(error: Exception) -> str:
    """One line that says what a library's exception means, the same on every machine.

    Of FFmpeg's errors only FFmpeg's own words: PyAV adds the open file's descriptor, which varies,
    and the text ends up in committed files.
    """
    text = getattr(error, "strerror", None) or str(error)
    return text.strip().split("\n", 1)[0][:200] or "no further message"


def printable(text: object) -> str:
    r"""The text on one line, with everything that a terminal would not show as itself escaped.

    A file name may hold line breaks that forge a line of a report, terminal codes, controls that
    turn the writing direction, and bytes that are no UTF-8 (lone surrogates). They become what a
    Python literal has: `\n`, `\x1b`, `\u202e`, `\udcff`.
    """
    return "".join(
        char
        if char.isprintable() or unicodedata.category(char) == "Zs"  # spaces of other widths
        else char.encode("unicode_escape", "surrogatepass").decode()
        for char in str(text)
    )


# A password may hold `@`, `:` and `/`; what follows a host's colon may be a port and a path.
_SECRETS = re.compile(
    r"""(?ix)
    (://[^\s:/@'"]*:) (?!\d+(?:/|$|\s)) [^\s'"]* (?=@)       # scheme://user:PASSWORD@host
    | (https?://) [^\s:/@'"]+ (?=@)                           # https://TOKEN@host
    | ([?&](?:[\w.-]*(?:password|secret|signature|token|credential|key)|sig)=) [^\s&#'"]+
    """
)


def without_passwords(text: str) -> str:
    """The text with `***` in place of passwords, and of keys in the query part of URLs."""
    return _SECRETS.sub(lambda match: "".join(filter(None, match.groups())) + "***", text)


@contextmanager
def naming(place: str | Path | None) -> Iterator[None]:
    """Adds the file's name to an error of the system that has none, as that of a full disk."""
    try:
        yield
    except OSError as error:
        if place is not None and error.errno is not None and error.filename is None:
            error.filename = str(place)
        raise
