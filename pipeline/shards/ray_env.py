"""Settings that Ray reads when it is imported, and so must be made before."""

from __future__ import annotations

import os
import sys


def settle_ray_env(address: str | None) -> None:
    """Keep Ray quiet; what the user's environment already says stays.

    Args:
        address: of the cluster to join, or None for a local Ray. A cluster's authentication mode is
            its own affair; a local Ray has a token either way, and warns unless that is said aloud.
    """
    if "ray" in sys.modules:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Older releases warn that they will stop hiding the GPUs from workers that asked for none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
