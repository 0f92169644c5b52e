"""The classes are told apart by motion alone, and mirrors and reversals are what they claim."""

import numpy as np
import pytest

from datasets_spec.synthetic.actions import ACTIONS, DURATION, MIRRORED, REVERSED, Path, Tempo

TIME = (np.arange(160) + 0.5) / 10
TEMPOS = [
    Tempo(begin=b, end=b + n, speed=s, angle=a, phase=p, period=4.5)
    for b, n, s in [(1.0, 12.0, 2.0), (3.0, 10.5, 3.0)]
    for a in (-0.2, 0.2)
    for p in (0.3, 2.0, 4.4)
]


def describe(paths):
    """The gist of a motion, from its paths alone: what a viewer would name it by."""
    first, last = paths[0], -1
    x, y = first.x, first.y
    turn = np.sum((x[:-1] - x.mean()) * np.diff(y) - (y[:-1] - y.mean()) * np.diff(x))
    steps = np.hypot(np.diff(x), np.diff(y))
    length = steps.sum()
    net = np.array([x[last] - x[0], y[last] - y[0]])
    half = len(x) // 2
    sideways = np.abs(np.diff(x)).sum() > np.abs(np.diff(y)).sum()
    if len(paths) == 2:
        apart = np.hypot(paths[0].x - paths[1].x, paths[0].y - paths[1].y)
        return ("pair", np.sign(apart[last] - apart[0]))
    if np.ptp(first.opacity) > 0.5:
        changes = (np.abs(np.diff((first.opacity > 0.5).astype(int)))).sum()
        return ("blink",) if changes > 1 else ("fade", np.sign(first.opacity[last] - 0.5))
    if np.ptp(first.scale) > 0.2:
        return ("size", np.sign(first.scale[last] - first.scale[0]))
    if abs(turn) > 100:
        return ("circle", np.sign(turn))
    if np.hypot(*net) > 0.9 * length:
        axis = int(np.abs(net[1]) > np.abs(net[0]))
        return ("move", axis, np.sign(net[axis]))
    swings = (np.diff(np.sign(np.diff(x if sideways else y)[steps > 0])) != 0).sum()
    if swings > 1:
        return ("shake", bool(sideways))
    out = (x if sideways else y)[half - 5 : half + 5].mean() - (x if sideways else y)[0]
    return ("there and back", bool(sideways), np.sign(out))


def played_backwards(paths):
    return tuple(Path(p.x[::-1], p.y[::-1], p.scale[::-1], p.opacity[::-1]) for p in paths)


def in_a_mirror(paths):
    return tuple(Path(-p.x, p.y, p.scale, p.opacity) for p in paths)


def centred(tempo):
    """The same tempo with its window in the middle, so that a turning point is there too."""
    length = tempo.end - tempo.begin
    begin = (DURATION - length) / 2
    return Tempo(begin, begin + length, tempo.speed, tempo.angle, tempo.phase, tempo.period)


@pytest.mark.parametrize("tempo", TEMPOS)
def test_every_action_is_told_by_its_motion(tempo):
    tempo = centred(tempo)
    kinds = [describe(action.motion(tempo, TIME)) for action in ACTIONS]
    assert len(set(kinds)) == len(ACTIONS) >= 16


@pytest.mark.parametrize("tempo", TEMPOS)
@pytest.mark.parametrize("index", range(len(ACTIONS)), ids=[a.name for a in ACTIONS])
def test_an_action_played_backwards_is_the_action_it_says(index, tempo):
    tempo = centred(tempo)
    reversed_paths = played_backwards(ACTIONS[index].motion(tempo, TIME))
    assert describe(reversed_paths) == describe(ACTIONS[REVERSED[index]].motion(tempo, TIME))


@pytest.mark.parametrize("tempo", TEMPOS)
@pytest.mark.parametrize("index", range(len(ACTIONS)), ids=[a.name for a in ACTIONS])
def test_an_action_in_a_mirror_is_the_action_it_says(index, tempo):
    tempo = centred(tempo)
    mirrored = in_a_mirror(ACTIONS[index].motion(tempo, TIME))
    assert describe(mirrored) == describe(ACTIONS[MIRRORED[index]].motion(tempo, TIME))


@pytest.mark.parametrize("label_map", [MIRRORED, REVERSED])
def test_twice_mirrored_or_reversed_is_the_action_itself(label_map):
    assert [label_map[label_map[i]] for i in range(len(ACTIONS))] == list(range(len(ACTIONS)))


def test_names_and_templates_are_unique_and_in_ssv2_style():
    assert len({a.name for a in ACTIONS}) == len({a.class_name for a in ACTIONS}) == len(ACTIONS)
    assert all("[something]" in a.template for a in ACTIONS)
