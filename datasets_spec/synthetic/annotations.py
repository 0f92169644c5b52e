"""The benchmark's annotation files: SSv2's own names and fields."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datasets_spec.synthetic.actions import ACTIONS
from datasets_spec.synthetic.scene import Scene

VIDEO_FOLDER = "20bn-something-something-v2"
ANNOTATION_FOLDER = "labels"
SPLITS = ("train", "validation", "test")
_TRAIN_OF_20, _VALIDATION_OF_20 = 14, 5


def split_of(index: int) -> str:
    """Split of a video: of every 20 in a row 14 train, 5 validate and 1 tests."""
    place = index % 20
    if place < _TRAIN_OF_20:
        return "train"
    return "validation" if place < _TRAIN_OF_20 + _VALIDATION_OF_20 else "test"


def video_id_of(index: int) -> str:
    """SSv2's ids are numbers from 1."""
    return str(index + 1)


def video_path(root: Path, index: int, extension: str = "webm") -> Path:
    """Where video `index` lies."""
    return root / VIDEO_FOLDER / f"{video_id_of(index)}.{extension}"


def write_annotations(root: Path, scenes: Iterable[Scene]) -> None:
    """Writes `labels.json` and one file per split; as in SSv2, the test split shows no labels."""
    entries: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    answers = []
    for scene in scenes:
        split = split_of(scene.index)
        entry = _entry(scene)
        if split == "test":
            answers.append(f"{entry['id']};{ACTIONS[scene.label].class_name}\n")
            entry = {"id": entry["id"]}
        entries[split].append(entry)
    folder = root / ANNOTATION_FOLDER
    folder.mkdir(exist_ok=True)
    names = {action.class_name: str(index) for index, action in enumerate(ACTIONS)}
    write_text(folder / "labels.json", json.dumps(names, indent=1))
    write_text(folder / "test-answers.csv", "".join(answers))
    for split, listed in entries.items():
        write_text(folder / f"{split}.json", json.dumps(listed, indent=1))


def write_text(path: Path, text: str) -> None:
    """Writes a file that is there whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _entry(scene: Scene) -> dict[str, Any]:
    template = ACTIONS[scene.label].template
    actor = scene.actors[0]
    thing = f"{actor.colour} {actor.shape}"
    return {
        "id": video_id_of(scene.index),
        "label": template.replace("[something]", thing).lower(),
        "template": template,
        "placeholders": [thing] * template.count("[something]"),
    }
