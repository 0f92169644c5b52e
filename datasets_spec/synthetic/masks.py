"""Where the actors of rendered videos are, pixel by pixel: drawn again from the folder's recipe.

No mask is stored: a scene follows from the seed and the video's number alone.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from datasets_spec.errors import DatasetSpecError
from datasets_spec.synthetic.annotations import video_id_of
from datasets_spec.synthetic.benchmark import RECIPE, VERSION
from datasets_spec.synthetic.render import actor_cover
from datasets_spec.synthetic.scene import Scene, draw_scene


class RenderedVideos:
    """The scenes of a folder that `datasets make synthetic` made.

    Args:
        root: the folder.

    Raises:
        DatasetSpecError: no rendered videos are there, or those of another version.
    """

    def __init__(self, root: str | Path) -> None:
        path = Path(root) / RECIPE
        if not path.is_file():
            raise DatasetSpecError(
                f"no {RECIPE} in {root}: only videos made by `datasets make synthetic` have masks"
            )
        try:
            recipe = json.loads(path.read_text())
            self._seed, self._num = int(recipe["seed"]), int(recipe["num_videos"])
            version = recipe["version"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DatasetSpecError(f"{path} is damaged: {error!r}") from error
        if version != VERSION:
            raise DatasetSpecError(
                f"{root} was rendered by version {version} of the benchmark, and this program "
                f"draws version {VERSION}: its masks would lie elsewhere; render the videos anew"
            )
        self._root = root

    def scene(self, video_id: str) -> Scene:
        """The scene of a video.

        Raises:
            DatasetSpecError: the folder has no such video.
        """
        index = int(video_id) - 1 if video_id.isdecimal() else -1
        if not 0 <= index < self._num or video_id_of(index) != video_id:
            raise DatasetSpecError(f"{self._root} has no rendered video {video_id!r}")
        return draw_scene(self._seed, index)


def labelled_and_other(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel shows the labelled actor, and how much any other.

    The labelled one is drawn on top, so the others have what it leaves.

    Returns:
        Two of float32 `(num_frames, height, width)` in [0, 1].
    """
    labelled, *others = (actor_cover(scene, actor) for actor in scene.actors)
    rest = np.max(others, axis=0) if others else np.zeros_like(labelled)
    return labelled, np.minimum(rest, 1 - labelled)
