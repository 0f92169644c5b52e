"""The side file of the actors: who is where on each frame, and which tokens that covers.

For analysis and for the training loss of the backbone only, never for selecting tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasets_spec.errors import DatasetSpecError
from datasets_spec.synthetic.annotations import SPLITS, split_of, video_id_of
from datasets_spec.synthetic.render import visible_boxes
from datasets_spec.synthetic.scene import Scene

NO_ACTION = -1
SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("width", pa.int16()),
        ("height", pa.int16()),
        ("actor", pa.int8()),  # 0 is the labelled one
        ("part", pa.int8()),  # a pair has two bodies
        ("action", pa.int16()),  # class id; -1 for a bystander, who does nothing
        ("salience", pa.float32()),  # the labelled actor's is 1
        ("boxes", pa.list_(pa.float32())),  # x0, y0, x1, y1 per frame in video pixels; NaN hidden
    ]
)


@dataclass(frozen=True)
class Body:
    """One moving body of a video."""

    actor: int
    """0 for the labelled actor, then the competitors and bystanders."""
    action: int
    """Class id of what it does; `NO_ACTION` for a bystander."""
    salience: float
    width: int
    height: int
    boxes: np.ndarray
    """float32 `(num_frames, 4)`: x0, y0, x1, y1 in video pixels, NaN where hidden."""


def actors_path(root: str | Path, split: str) -> Path:
    """The side file of a split."""
    return Path(root) / "actors" / f"{split}.parquet"


def write_actors(root: Path, scenes: Iterable[Scene]) -> None:
    """Writes the side file of every split."""
    rows: dict[str, list[dict[str, object]]] = {split: [] for split in SPLITS}
    for scene in scenes:
        rows[split_of(scene.index)].extend(_rows(scene))
    for split, listed in rows.items():
        path = actors_path(root, split)
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{path.name}")
        pq.write_table(pa.Table.from_pylist(listed, SCHEMA), temporary, compression="zstd")
        temporary.replace(path)


def read_actors(root: str | Path, split: str) -> dict[str, list[Body]]:
    """The bodies of every video of a split, the labelled actor's first.

    Raises:
        DatasetSpecError: the dataset has no such side file.
    """
    path = actors_path(root, split)
    if not path.is_file():
        raise DatasetSpecError(
            f"no actors at {path}: only datasets made by `datasets make synthetic` have them"
        )
    bodies: dict[str, list[Body]] = {}
    for row in pq.read_table(path).to_pylist():
        body = Body(
            actor=row["actor"],
            action=row["action"],
            salience=row["salience"],
            width=row["width"],
            height=row["height"],
            boxes=np.asarray(row["boxes"], np.float32).reshape(-1, 4),
        )
        bodies.setdefault(row["video_id"], []).append(body)
    return bodies


def token_cover(
    body: Body, frames: np.ndarray, grid: tuple[int, int, int], side: int | None = None
) -> np.ndarray:
    """Share of each token that a body's box covers, on the frame of its tubelet where it is most.

    The clip is the video's central square, as one centre crop sees it.

    Args:
        body: one body.
        frames: int `(num_frames,)`, the frames the clip samples.
        grid: token counts `(t, y, x)`; `num_frames` is a multiple of `t`.
        side: side of the square in video pixels; default the video's shorter side.

    Returns:
        float32 `(t, y, x)` in [0, 1].
    """
    t, h, w = grid
    side = side or min(body.width, body.height)
    left, top = (body.width - side) / 2.0, (body.height - side) / 2.0
    boxes = np.nan_to_num(body.boxes[frames], nan=-1e6)
    across = _overlap(boxes[:, 0] - left, boxes[:, 2] - left, w, side)
    down = _overlap(boxes[:, 1] - top, boxes[:, 3] - top, h, side)
    cover = down[:, :, None] * across[:, None, :]
    return cover.reshape(t, len(frames) // t, h, w).max(axis=1).astype(np.float32)


def _overlap(low: np.ndarray, high: np.ndarray, cells: int, side: int) -> np.ndarray:
    """Share of each of `cells` equal parts of `[0, side]` inside `[low, high]`: `(n, cells)`."""
    edges = np.linspace(0.0, side, cells + 1)
    inside = np.minimum(high[:, None], edges[1:]) - np.maximum(low[:, None], edges[:-1])
    return np.clip(inside / (side / cells), 0.0, 1.0)


def _rows(scene: Scene) -> Iterable[dict[str, object]]:
    for number, actor in enumerate(scene.actors):
        for part, path in enumerate(actor.paths):
            yield {
                "video_id": video_id_of(scene.index),
                "width": scene.width,
                "height": scene.height,
                "actor": number,
                "part": part,
                "action": NO_ACTION if actor.action is None else actor.action,
                "salience": actor.salience,
                "boxes": visible_boxes(scene, actor, path).ravel(),
            }
