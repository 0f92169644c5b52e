"""What a dataset is: one YAML each, and the readers of the annotation formats."""

from datasets_spec.errors import DatasetSpecError
from datasets_spec.read import (
    canonical_split,
    default_split,
    list_splits,
    read_label_names,
    read_videos,
)
from datasets_spec.spec import list_specs, load_spec
from datasets_spec.types import DatasetSpec, Video

__all__ = [
    "DatasetSpec",
    "DatasetSpecError",
    "Video",
    "canonical_split",
    "default_split",
    "list_specs",
    "list_splits",
    "load_spec",
    "read_label_names",
    "read_videos",
]
