"""What a server takes on, and what it says of what it does not."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pipeline.config import RunConfig
from pipeline.errors import ConfigError, LiteError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on memory, disk and time.

    Raises:
        ConfigError: one is not above 0.
    """

    max_requests: int = 32
    """Videos that are uploaded, decoded or classified at once; more are refused (503)."""
    max_upload_bytes: int = 100 * 1000**2
    """Largest body of a request."""
    max_frames: int = RunConfig.max_frames
    """Longest video, in frames."""
    max_pixels: int = RunConfig.max_pixels
    """Largest frame, in pixels."""
    deadline_s: float = 60.0
    """Seconds from a request's headers to its answer."""
    idle_s: float = 5.0
    """Seconds in which nothing arrives of a request that is not complete."""
    max_batch: int = 8
    """Videos in one forward pass."""
    window_s: float = 0.01
    """Seconds that a batch waits for more videos."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0 and field.name != "window_s":
                raise ConfigError(f"{field.name} must be above 0, got {value!r}")
        if self.window_s < 0:
            raise ConfigError(f"window_s must not be negative, got {self.window_s!r}")


class Refusal(LiteError):
    """A request that is answered with an error.

    Attributes:
        code: HTTP status, 4xx where the request is at fault and 503 where it may be sent again.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
