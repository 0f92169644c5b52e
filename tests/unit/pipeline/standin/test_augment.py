"""Augmentation changes pixels, labels and token actions together."""

import pytest
import torch

from datasets_spec.synthetic.actions import ACTIONS, MIRRORED, REVERSED
from datasets_spec.synthetic.actors import NO_ACTION
from pipeline.standin.augment import augment
from pipeline.standin.config import BackboneConfig
from pipeline.standin.model import to_patches

CONFIG = BackboneConfig()
NUM_CLIPS = 64


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (NUM_CLIPS, 16, 48, 48, 3), generator=generator)
    labels = torch.arange(NUM_CLIPS) % len(ACTIONS)
    actions = torch.randint(NO_ACTION, len(ACTIONS), (NUM_CLIPS, 8, 6, 6), generator=generator)
    return frames.to(torch.uint8), labels, actions


def test_every_clip_is_one_of_the_four_with_its_own_label(batch):
    frames, labels, actions = batch
    new_frames, new_labels, new_actions = augment(*batch, torch.Generator().manual_seed(5))
    seen = set()
    for i in range(NUM_CLIPS):
        for mirror in (False, True):
            for back in (False, True):
                x, a, label = frames[i], actions[i], int(labels[i])
                if mirror:
                    x, label = x.flip(2), MIRRORED[label]
                    a = _relabel(a.flip(2), MIRRORED)
                if back:
                    x, label = x.flip(0), REVERSED[label]
                    a = _relabel(a.flip(0), REVERSED)
                # The channels may be in any order; their sorted values may not change.
                if torch.equal(x.sort(3).values, new_frames[i].sort(3).values):
                    seen.add((mirror, back))
                    assert label == new_labels[i]
                    assert torch.equal(a, new_actions[i])
                    break
            else:
                continue
            break
        else:
            pytest.fail(f"clip {i} became none of its four versions")
    assert len(seen) == 4


def test_colours_are_permuted_alike_in_a_whole_clip(batch):
    frames = torch.zeros_like(batch[0])
    frames[..., 0], frames[..., 1], frames[..., 2] = 10, 20, 30
    changed, _, _ = augment(frames, batch[1], batch[2], torch.Generator().manual_seed(1))
    orders = {tuple(clip[0, 0, 0].tolist()) for clip in changed}
    assert len(orders) == 6
    for clip in changed:
        assert (clip == clip[0, 0, 0]).all()


def test_a_mirrored_clip_has_its_tokens_where_the_pixels_are(batch):
    """Token actions and patches follow the same grid."""
    frames = batch[0][:1]
    patches = to_patches(frames, CONFIG).reshape(1, 8, 6, 6, 3, 2, 8, 8)
    mirrored = to_patches(frames.flip(3), CONFIG).reshape(1, 8, 6, 6, 3, 2, 8, 8)
    assert torch.equal(mirrored, patches.flip(3).flip(7))


def _relabel(actions, label_map):
    return torch.tensor([*label_map, NO_ACTION])[actions]
