"""The masks of rendered videos: they hold what the actors change of the pixels, and no more."""

from dataclasses import replace

import numpy as np
import pytest

from datasets_spec.errors import DatasetSpecError
from datasets_spec.synthetic.benchmark import RECIPE, VERSION
from datasets_spec.synthetic.masks import RenderedVideos, labelled_and_other
from datasets_spec.synthetic.render import render
from datasets_spec.synthetic.scene import draw_scene


@pytest.mark.parametrize("index", [0, 4, 9])
def test_the_mask_is_where_taking_the_actor_away_changes_the_video(index: int):
    scene = draw_scene(7, index)
    labelled, rest = labelled_and_other(scene)
    assert labelled.shape == (scene.num_frames, scene.height, scene.width)
    whole = render(scene).astype(int)
    without = render(replace(scene, actors=scene.actors[1:])).astype(int)
    changed = np.abs(whole - without).max(axis=-1) > 3
    assert changed.sum() > 1000
    assert not changed[labelled < 0.01].any()
    assert changed[labelled > 0.9].mean() > 0.9  # a body may have the background's colour
    alone = render(replace(scene, actors=scene.actors[:1])).astype(int)
    others = np.abs(whole - alone).max(axis=-1) > 3
    assert not others[rest < 0.01].any()
    assert (labelled + rest).max() <= 1


def test_only_the_folder_that_was_rendered_so_has_masks(tmp_path):
    with pytest.raises(DatasetSpecError, match="only videos made by `datasets make synthetic`"):
        RenderedVideos(tmp_path)
    recipe = tmp_path / RECIPE
    for text, said in (
        ("{", "damaged"),
        (f'{{"version": {VERSION + 1}, "num_videos": 3, "seed": 7}}', "draws version"),
    ):
        recipe.write_text(text)
        with pytest.raises(DatasetSpecError, match=said):
            RenderedVideos(tmp_path)
    recipe.write_text(f'{{"version": {VERSION}, "num_videos": 3, "seed": 7}}')
    found = RenderedVideos(tmp_path).scene("3")
    assert np.array_equal(render(found), render(draw_scene(7, 2)))
    text = f'{{"version": {VERSION}, "num_videos": 3, "seed": 7, "competitors": false}}'
    recipe.write_text(text)
    alone = RenderedVideos(tmp_path).scene("2")
    assert np.array_equal(render(alone), render(draw_scene(7, 1, competitors=False)))
    assert not np.array_equal(render(alone), render(draw_scene(7, 1)))
    recipe.write_text(text.replace("competitors", "weather"))
    with pytest.raises(DatasetSpecError, match="weather"):
        RenderedVideos(tmp_path)
    recipe.write_text(text)
    for foreign in ("0", "4", "clip", "03"):
        with pytest.raises(DatasetSpecError, match="no rendered video"):
            RenderedVideos(tmp_path).scene(foreign)
