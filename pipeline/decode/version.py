"""The version of a decoder, as every row of a store records it."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

from pipeline.errors import ConfigError

# Distributions that install the module; the first that is installed names the version.
_DISTRIBUTIONS = {
    "decord": ("decord", "decord2", "eva-decord"),
    "torchcodec": ("torchcodec",),
}


@cache
def decode_version(decoder: str) -> str:
    """Name and version of the library, and of what decides the pixels beneath it.

    Raises:
        ConfigError: the library is not installed.
    """
    if decoder == "pyav":
        import av

        libraries = av.library_versions
        parts = (
            f"{name} {'.'.join(map(str, libraries[name]))}" for name in ("libavcodec", "libswscale")
        )
        return ", ".join((f"av {av.__version__}", *parts))
    for distribution in _DISTRIBUTIONS[decoder]:
        try:
            return f"{distribution} {version(distribution)}"
        except PackageNotFoundError:
            continue
    raise ConfigError(
        f"decoder {decoder!r} is not installed: pip install {decoder}, or use --decoder pyav"
    )
