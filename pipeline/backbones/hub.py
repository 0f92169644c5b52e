"""Fetching from the Hugging Face hub: the local cache first, patient with a network that stumbles.

A build starts hundreds of workers at once, which all ask for the same checkpoint: they must not ask
the hub when the files lie here, and not all again in the same second when it refuses.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from pipeline.errors import HubError

ATTEMPTS = 4
PATIENCE_S = 20.0
"""No other try begins after so long: newer clients try some calls several times by themselves."""
_BUSY = {408, 429, 500, 502, 503, 504}  # HTTP: try again later

T = TypeVar("T")


def cached(repo_id: str, revision: str | None, patterns: list[str]) -> Path | None:
    """The folder of a repository in the local cache; None where it is not.

    Older releases of the hub's client also give a folder that lacks some files of these patterns.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                repo_id, revision=revision, local_files_only=True, allow_patterns=patterns
            )
        )
    except Exception:  # the hub client raises a dozen unrelated types
        return None


def list_files(repo_id: str, revision: str | None) -> list[str]:
    """Names of a repository's files.

    Raises:
        HubError: it is not there, refused, or out of reach.
    """
    from huggingface_hub import HfApi

    return retried(repo_id, revision, lambda: HfApi().list_repo_files(repo_id, revision=revision))


def download(repo_id: str, revision: str | None, patterns: list[str]) -> Path:
    """The folder in the local cache that holds the repository's files of these patterns.

    Raises:
        HubError: it is not there, refused, or out of reach.
    """
    from huggingface_hub import snapshot_download

    return Path(
        retried(
            repo_id,
            revision,
            lambda: snapshot_download(repo_id, revision=revision, allow_patterns=patterns),
        )
    )


def retried(repo_id: str, revision: str | None, action: Callable[[], T]) -> T:
    """What `action` gives, tried again while the network or the hub is at fault.

    Args:
        repo_id: for the message.
        revision: for the message.
        action: talks to the hub; may be called several times.

    Raises:
        HubError: says what the hub said, and whether that was tried again.
    """
    start = time.monotonic()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except Exception as error:  # the hub client raises a dozen unrelated types
            where = f"{repo_id!r} (revision {revision or 'main'})"
            if not is_transient(error):
                raise HubError(f"{where}: {type(error).__name__}: {error}") from error
            seconds = time.monotonic() - start
            if attempt == ATTEMPTS or seconds > PATIENCE_S:
                raise HubError(
                    f"{where}: out of reach, tried {attempt} times in {seconds:.0f} s; last: "
                    f"{type(error).__name__}: {error}"
                ) from error
        time.sleep(random.uniform(0.5, 1.0) * 2**attempt)
    raise AssertionError("unreachable")


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed a moment later: the fault lies in network or server."""
    for cause in _chain(error):
        response = getattr(cause, "response", None)
        if response is not None:
            return getattr(response, "status_code", None) in _BUSY
        names = {base.__name__ for base in type(cause).__mro__}
        if "OfflineModeIsEnabled" in names:
            return False
        # Of httpx and of requests, whichever the installed client uses.
        if names & {"TransportError", "RequestException", "ConnectionError", "TimeoutError"}:
            return True
    return False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
