"""What happens in one video: drawn from (seed, index) alone, before a pixel is rendered.

The labelled actor is the most salient one. Salience is area x contrast x duration, each relative to
the labelled actor; the competitors' share of it is drawn from the action's range of rivalry, which
for the hard ones ends just below 1: the label is a matter of degree, some videos truly ambiguous.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets_spec.synthetic.actions import ACTIONS, DURATION, SIDE, Difficulty, Path, Tempo

SIZES = ((64, 48), (80, 60), (96, 72))
"""Width and height of the videos, in pixels."""
MIN_FRAMES, MAX_FRAMES = 24, 60
SHAPES = ("disc", "square", "diamond", "triangle", "ring", "cross")
COLOURS = {
    "red": (225, 60, 50),
    "orange": (235, 145, 40),
    "yellow": (225, 215, 60),
    "green": (60, 180, 75),
    "blue": (60, 95, 225),
    "purple": (160, 70, 200),
    "white": (240, 240, 240),
    "black": (25, 25, 30),
}
NUM_COMPETITORS = (0.12, 0.48, 0.30, 0.10)
"""Probability of 0, 1, 2 and 3 competing actors."""


@dataclass(frozen=True)
class Actor:
    """One actor: how it looks, what it does, and where."""

    action: int | None
    """Class id of its action; None for a still bystander."""
    salience: float
    shape: str
    colour: str
    contrast: float
    radius: float
    tilt: float
    stripes: float
    paths: tuple[Path, ...]
    """Where each of its bodies is at each frame, in pixels of the model's input."""


@dataclass(frozen=True)
class Scene:
    """One video before rendering."""

    index: int
    label: int
    width: int
    height: int
    num_frames: int
    texture_seed: int
    drift: tuple[float, float]
    """Pixels per sampled frame the background moves by."""
    actors: tuple[Actor, ...]
    """The labelled actor first, then the competitors, then the bystanders."""


def draw_scene(seed: int, index: int, competitors: bool = True) -> Scene:
    """The scene of video `index`: the same for the same two numbers, in whatever order.

    Args:
        seed: of the folder.
        index: of the video.
        competitors: whether they are there; without them all the rest of the scene is the same.
    """
    rng = np.random.default_rng([seed, index])
    label = int(rng.integers(len(ACTIONS)))
    width, height = SIZES[int(rng.integers(len(SIZES)))]
    num_frames = MIN_FRAMES + int((MAX_FRAMES - MIN_FRAMES + 1) * rng.random() ** 2)
    time = (np.arange(num_frames) + 0.5) / num_frames * DURATION
    difficulty = ACTIONS[label].difficulty
    actors = [_draw_actor(rng, label, 1.0, difficulty, None, [], time)]
    others = [c for c, a in enumerate(ACTIONS) if c != label and a.difficulty is difficulty]
    for _ in range(int(rng.choice(len(NUM_COMPETITORS), p=NUM_COMPETITORS))):
        action = others.pop(int(rng.integers(len(others))))
        salience = float(rng.uniform(*difficulty.rivalry))
        actors.append(_draw_actor(rng, action, salience, difficulty, actors[0], actors, time))
    for _ in range(int(rng.integers(0, 3))):
        actors.append(_draw_actor(rng, None, 0.0, difficulty, actors[0], actors, time))
    if not competitors:
        actors = [a for a in actors if a.action in (label, None)]
    heading, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.35)
    return Scene(
        index=index,
        label=label,
        width=width,
        height=height,
        num_frames=num_frames,
        texture_seed=int(rng.integers(2**32)),
        drift=(float(speed * np.cos(heading)), float(speed * np.sin(heading))),
        actors=tuple(actors),
    )


def _draw_actor(
    rng: np.random.Generator,
    action: int | None,
    salience: float,
    difficulty: Difficulty,
    leader: Actor | None,
    placed: list[Actor],
    time: np.ndarray,
) -> Actor:
    """One actor whose area, contrast and duration together make its salience."""
    area, contrast, length = 1.0, 1.0, 1.0
    radius = rng.uniform(*difficulty.radius)
    if leader is not None:
        shares = rng.dirichlet((4.0, 1.0, 1.0))
        area, contrast, length = max(salience, 0.2) ** shares
        radius, contrast = leader.radius, contrast * leader.contrast
    else:
        contrast = rng.uniform(0.7, 1.0)
    radius = max(radius * np.sqrt(area), 3.0)
    tempo = _draw_tempo(rng, difficulty.duration, length)
    if action is None:
        paths: tuple[Path, ...] = (Path(*(np.full(time.shape, v) for v in (0.0, 0.0, 1.0, 1.0))),)
    else:
        paths = ACTIONS[action].motion(tempo, time)
    return Actor(
        action=action,
        salience=salience,
        shape=SHAPES[int(rng.integers(len(SHAPES)))],
        colour=list(COLOURS)[int(rng.integers(len(COLOURS)))],
        contrast=float(contrast),
        radius=float(radius),
        tilt=float(rng.uniform(0, 2 * np.pi)),
        stripes=float(rng.uniform(2.0, 4.0)),
        paths=_place(rng, paths, radius, placed),
    )


def _draw_tempo(rng: np.random.Generator, durations: tuple[float, float], length: float) -> Tempo:
    duration = rng.uniform(*durations) * length
    begin = rng.uniform(0.5, DURATION - 0.5 - duration)
    return Tempo(
        begin=begin,
        end=begin + duration,
        speed=rng.uniform(2.0, 3.0),
        angle=rng.uniform(-0.25, 0.25),
        phase=rng.uniform(0, 2 * np.pi),
        period=rng.uniform(4.0, 6.0),
    )


def _place(
    rng: np.random.Generator, paths: tuple[Path, ...], radius: float, placed: list[Actor]
) -> tuple[Path, ...]:
    """The paths moved to where, of a few random places, they cross the others' paths least."""
    reach = [(p.x.min(), p.x.max(), p.y.min(), p.y.max(), p.scale.max() * radius) for p in paths]
    low_x, high_x = (
        1 - min(r[0] - r[4] for r in reach),
        SIDE - 1 - max(r[1] + r[4] for r in reach),
    )
    low_y, high_y = (
        1 - min(r[2] - r[4] for r in reach),
        SIDE - 1 - max(r[3] + r[4] for r in reach),
    )
    best, least = None, np.inf
    for _ in range(12):
        x = rng.uniform(*sorted((low_x, high_x)))
        y = rng.uniform(*sorted((low_y, high_y)))
        moved = tuple(Path(p.x + x, p.y + y, p.scale, p.opacity) for p in paths)
        crossing = sum(_crossing(moved, radius, other) for other in placed)
        if crossing < least:
            best, least = moved, crossing
    assert best is not None
    return best


def _crossing(paths: tuple[Path, ...], radius: float, other: Actor) -> float:
    """How deep the bodies reach into one another, in pixels summed over the frames."""
    depth = 0.0
    for a in paths:
        for b in other.paths:
            apart = np.hypot(a.x - b.x, a.y - b.y)
            depth += float(np.maximum(a.scale * radius + b.scale * other.radius - apart, 0).sum())
    return depth
