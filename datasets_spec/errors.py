"""The error of this package, which imports nothing of the others."""

from __future__ import annotations


class DatasetSpecError(ValueError):
    """A specification or annotation file that cannot be used; says which file, line and value."""
