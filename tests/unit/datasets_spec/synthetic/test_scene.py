"""What a video shows: the labelled actor leads, the others do something else."""

import numpy as np
import pytest

from datasets_spec.synthetic.actions import ACTIONS, SIDE
from datasets_spec.synthetic.render import render, visible_boxes
from datasets_spec.synthetic.scene import MAX_FRAMES, MIN_FRAMES, draw_scene

SCENES = [draw_scene(7, i) for i in range(60)]


def test_a_scene_depends_on_seed_and_index_alone():
    again, other = draw_scene(7, 3), draw_scene(8, 3)
    assert np.array_equal(render(again), render(SCENES[3]))
    assert again.texture_seed != other.texture_seed


def test_the_labelled_actor_is_the_most_salient_and_no_other_shares_its_action():
    for scene in SCENES:
        leader, *others = scene.actors
        assert leader.action == scene.label
        assert leader.salience == 1
        assert all(actor.salience < 1 and actor.action != scene.label for actor in others)
        assert all(actor.radius <= leader.radius for actor in others)


def test_competitors_are_common_and_nearly_as_salient_ones_occur():
    rivals = [a.salience for s in SCENES for a in s.actors[1:] if a.action is not None]
    assert len(rivals) > len(SCENES) / 2
    assert max(rivals) > 0.85
    assert min(rivals) < 0.4


def test_without_competitors_all_the_rest_is_the_same():
    """Also the background and the bystanders, which are drawn after the competitors."""
    dropped = 0
    for scene in SCENES:
        alone = draw_scene(7, scene.index, competitors=False)
        kept = [a for a in scene.actors if a.action is None or a.salience == 1]
        dropped += len(scene.actors) - len(kept)
        assert len(alone.actors) == len(kept)
        for left, right in zip(alone.actors, kept, strict=True):
            assert (left.action, left.colour, left.radius) == (
                right.action,
                right.colour,
                right.radius,
            )
            assert np.array_equal(left.paths[0].x, right.paths[0].x)
        assert (alone.texture_seed, alone.drift) == (scene.texture_seed, scene.drift)
    assert dropped > len(SCENES) / 2


def test_lengths_sizes_and_classes_vary():
    assert all(MIN_FRAMES <= s.num_frames <= MAX_FRAMES for s in SCENES)
    assert len({s.num_frames for s in SCENES}) > 10
    assert len({s.height for s in SCENES}) == 3
    assert len({s.label for s in SCENES}) == len(ACTIONS)


def test_frames_are_uint8_rgb_of_the_scene_size():
    scene = SCENES[0]
    frames = render(scene)
    assert frames.dtype == np.uint8
    assert frames.shape == (scene.num_frames, scene.height, scene.width, 3)


@pytest.mark.parametrize("scene", SCENES[:12], ids=lambda scene: str(scene.index))
def test_boxes_hold_all_the_pixels_an_actor_changes(scene):
    """Rendered with and without its last-drawn actor, a video differs inside the boxes alone."""
    actor = scene.actors[0]
    without = type(scene)(**{**scene.__dict__, "actors": scene.actors[1:]})
    changed = (render(scene) != render(without)).any(axis=3)
    inside = np.zeros_like(changed)
    for path in actor.paths:
        for frame, (x0, y0, x1, y1) in zip(inside, visible_boxes(scene, actor, path), strict=True):
            if not np.isnan(x0):
                left, top = (max(int(v) - 1, 0) for v in (x0, y0))
                frame[top : int(y1) + 2, left : int(x1) + 2] = True
    faint = np.stack([path.opacity < 0.1 for path in actor.paths]).any(axis=0)
    assert not (changed & ~inside)[~faint].any()
    seen = ~faint
    assert changed[seen].any(axis=(1, 2)).mean() > 0.95
    assert (changed & inside)[seen].sum() > 0.25 * inside[seen].sum()


def test_motion_shows_between_two_sampled_frames():
    """A moving actor covers 2-4 pixels of the model's input per sampled frame."""
    moving = [a for s in SCENES for a in s.actors[:1] if ACTIONS[a.action].name in ("left", "up")]
    for actor in moving:
        path = actor.paths[0]
        speed = np.hypot(np.diff(path.x), np.diff(path.y)) * len(path.x) / 16
        assert 1.9 < speed.max() < 4.0
        assert np.ptp(path.x) + np.ptp(path.y) < 2 * SIDE
