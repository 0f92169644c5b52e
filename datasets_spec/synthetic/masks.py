"""Where the actors of rendered videos are, pixel by pixel: drawn again from the folder's recipe.

No mask is stored: a scene follows from the seed and the video's number alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets_spec.errors import DatasetSpecError
from datasets_spec.synthetic.annotations import video_id_of
from datasets_spec.synthetic.benchmark import RECIPE, VERSION, Recipe
from datasets_spec.synthetic.render import actor_cover
from datasets_spec.synthetic.scene import Scene


class RenderedVideos:
    """The scenes of a folder that `datasets make synthetic` made.

    Args:
        root: the folder.

    Raises:
        DatasetSpecError: no rendered videos are there, or those of another version.
    """

    def __init__(self, root: str | Path) -> None:
        if not (Path(root) / RECIPE).is_file():
            raise DatasetSpecError(
                f"no {RECIPE} in {root}: only videos made by `datasets make synthetic` have masks"
            )
        self._recipe = recipe = Recipe.read(Path(root))
        if recipe.version != VERSION:
            raise DatasetSpecError(
                f"{root} was rendered by version {recipe.version} of the benchmark, and this "
                f"program draws version {VERSION}: its masks would lie elsewhere; render the "
                "videos anew"
            )
        self._root = root

    def scene(self, video_id: str) -> Scene:
        """The scene of a video.

        Raises:
            DatasetSpecError: the folder has no such video.
        """
        index = int(video_id) - 1 if video_id.isdecimal() else -1
        if not 0 <= index < self._recipe.num_videos or video_id_of(index) != video_id:
            raise DatasetSpecError(f"{self._root} has no rendered video {video_id!r}")
        return self._recipe.scene(index)


def labelled_and_other(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel shows the labelled actor, and how much any other.

    The labelled one is drawn on top, so the others have what it leaves.

    Returns:
        Two of float32 `(num_frames, height, width)` in [0, 1].
    """
    labelled, *others = (actor_cover(scene, actor) for actor in scene.actors)
    rest = np.max(others, axis=0) if others else np.zeros_like(labelled)
    return labelled, np.minimum(rest, 1 - labelled)
