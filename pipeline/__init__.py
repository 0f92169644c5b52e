"""Stage 1 of LITE Pipeline: videos in, an oracle store out. `open_store` reads one with pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.store.reader import open_store

__all__ = ["open_store"]


def __getattr__(name: str) -> Any:
    # Late, so that `lite-pipeline --help` does not pay for pandas, pyarrow and zarr.
    if name == "open_store":
        from pipeline.store.reader import open_store

        return open_store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
