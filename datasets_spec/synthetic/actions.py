"""The actions of the benchmark: what moves how, and what each becomes in a mirror or backwards.

Every action is a motion, so that no single frame tells it. Time runs from 0 to `DURATION` sampled
frames and lengths are pixels at the model's input (`SIDE` x `SIDE`), whatever size the video has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

DURATION = 16.0
"""Length of every video in frames as the model samples them."""
SIDE = 48.0
"""Side of the square the model sees, in its pixels."""


@dataclass(frozen=True)
class Tempo:
    """How one actor performs its action."""

    begin: float
    """Time the motion begins, in sampled frames."""
    end: float
    """Time the motion ends."""
    speed: float
    """Pixels per sampled frame."""
    angle: float
    """Direction of free motions, or tilt of the directed ones, in radians."""
    phase: float
    """Where a periodic motion is at the middle of its window, in radians."""
    period: float
    """Sampled frames per period of a shaking or blinking."""

    def progress(self, time: np.ndarray) -> np.ndarray:
        """Share of the motion that is done at each time, in [0, 1]."""
        return np.clip((time - self.begin) / (self.end - self.begin), 0.0, 1.0)


@dataclass(frozen=True)
class Path:
    """Where one body is at each time; arrays of float64 with one value per time."""

    x: np.ndarray
    """Pixels from the actor's own origin, to the right."""
    y: np.ndarray
    """Pixels from the actor's own origin, downwards."""
    scale: np.ndarray
    """Size as a share of the actor's radius."""
    opacity: np.ndarray
    """0 hidden, 1 fully there."""


Motion = Callable[[Tempo, np.ndarray], tuple[Path, ...]]


class Difficulty(NamedTuple):
    """How hard the videos of an action are; each field is a range that is drawn from evenly."""

    radius: tuple[float, float]
    """Of the labelled actor, in pixels."""
    duration: tuple[float, float]
    """Of its motion, in sampled frames."""
    rivalry: tuple[float, float]
    """Salience of its competitors; the labelled actor's is 1."""


EASY = Difficulty(radius=(6.5, 9.0), duration=(10.0, 13.0), rivalry=(0.20, 0.85))
MEDIUM = Difficulty(radius=(5.5, 8.0), duration=(8.5, 11.5), rivalry=(0.35, 0.93))
HARD = Difficulty(radius=(4.5, 7.0), duration=(7.0, 10.0), rivalry=(0.45, 0.96))
"""The ranges overlap, so that the size of an actor in one frame tells little about its class."""


@dataclass(frozen=True)
class Action:
    """One class of the benchmark."""

    difficulty: Difficulty
    """Equal for an action, its mirror image and its reverse. Competitors in a video perform actions
    of the same difficulty: otherwise strong competition itself would tell which of two is meant."""
    name: str
    template: str
    """Label in SSv2's style, with [something] in brackets."""
    mirrored: str
    """Name of the action seen in a mirror."""
    reversed: str
    """Name of the action played backwards."""
    motion: Motion

    @property
    def class_name(self) -> str:
        """The template without brackets, as SSv2's class list spells it."""
        return self.template.replace("[", "").replace("]", "")


def _path(
    time: np.ndarray,
    x: float | np.ndarray = 0.0,
    y: float | np.ndarray = 0.0,
    scale: float | np.ndarray = 1.0,
    opacity: float | np.ndarray = 1.0,
) -> Path:
    return Path(
        *(np.broadcast_to(np.asarray(v, float), time.shape) for v in (x, y, scale, opacity))
    )


def _move(direction: float, tempo: Tempo, time: np.ndarray) -> tuple[Path, ...]:
    travel = tempo.speed * (tempo.end - tempo.begin) * (tempo.progress(time) - 0.5)
    heading = direction + tempo.angle
    return (_path(time, travel * np.cos(heading), travel * np.sin(heading)),)


def _there_and_back(direction: float, tempo: Tempo, time: np.ndarray) -> tuple[Path, ...]:
    out = 1.0 - np.abs(2.0 * tempo.progress(time) - 1.0)
    travel = tempo.speed * (tempo.end - tempo.begin) / 2.0 * (out - 0.5)
    heading = direction + tempo.angle
    return (_path(time, travel * np.cos(heading), travel * np.sin(heading)),)


def _resize(towards: bool, tempo: Tempo, time: np.ndarray) -> tuple[Path, ...]:
    progress = tempo.progress(time)
    return (_path(time, scale=0.45 + 0.85 * (progress if towards else 1.0 - progress)),)


def _pair(closer: bool, tempo: Tempo, time: np.ndarray) -> tuple[Path, ...]:
    progress = tempo.progress(time)
    travel = min(tempo.speed * (tempo.end - tempo.begin), 13.0)
    distance = 6.0 + travel * (1.0 - progress if closer else progress)
    x, y = distance * np.cos(tempo.angle), distance * np.sin(tempo.angle)
    return (_path(time, x, y, scale=0.7), _path(time, -x, -y, scale=0.7))


def _circle(turn: float, tempo: Tempo, time: np.ndarray) -> tuple[Path, ...]:
    radius = 7.0
    middle = (tempo.begin + tempo.end) / 2.0
    elapsed = np.clip(time, tempo.begin, tempo.end) - middle
    theta = turn * (tempo.speed / radius * elapsed + tempo.phase)
    return (_path(time, radius * np.cos(theta), radius * np.sin(theta)),)


def _shake(direction: float, tempo: Tempo, time: np.ndarray) -> tuple[Path, ...]:
    amplitude = tempo.speed * tempo.period / 6.0  # so that the mean speed is about `speed`
    middle = (tempo.begin + tempo.end) / 2.0
    elapsed = np.clip(time, tempo.begin, tempo.end) - middle
    swing = amplitude * np.cos(2.0 * np.pi * elapsed / tempo.period + tempo.phase)
    heading = direction + tempo.angle
    return (_path(time, swing * np.cos(heading), swing * np.sin(heading)),)


def _fade(appearing: bool, tempo: Tempo, time: np.ndarray) -> tuple[Path, ...]:
    # Visible for as long as the window is, and half of the change falls on its inner edge.
    seen = tempo.end - tempo.begin
    moment = DURATION - seen if appearing else seen
    ramp = np.clip((time - moment) / 1.5 + 0.5, 0.0, 1.0)
    return (_path(time, opacity=ramp if appearing else 1.0 - ramp),)


def _blink(tempo: Tempo, time: np.ndarray) -> tuple[Path, ...]:
    middle = (tempo.begin + tempo.end) / 2.0
    wave = np.cos(2.0 * np.pi * (time - middle) / tempo.period + tempo.phase)
    within = (time >= tempo.begin) & (time <= tempo.end)
    return (_path(time, opacity=np.where(within, np.clip(0.5 + 2.0 * wave, 0.0, 1.0), 1.0)),)


_LEFT, _RIGHT, _UP, _DOWN = np.pi, 0.0, -np.pi / 2, np.pi / 2

ACTIONS: tuple[Action, ...] = (
    Action(EASY, "left", "Moving [something] left", "right", "right", partial(_move, _LEFT)),
    Action(EASY, "right", "Moving [something] right", "left", "left", partial(_move, _RIGHT)),
    Action(EASY, "up", "Moving [something] up", "up", "down", partial(_move, _UP)),
    Action(EASY, "down", "Moving [something] down", "down", "up", partial(_move, _DOWN)),
    Action(
        EASY,
        "towards",
        "Moving [something] towards the camera",
        "towards",
        "away",
        partial(_resize, True),
    ),
    Action(
        EASY,
        "away",
        "Moving [something] away from the camera",
        "away",
        "towards",
        partial(_resize, False),
    ),
    Action(
        MEDIUM,
        "closer",
        "Moving [something] and [something] closer to each other",
        "closer",
        "apart",
        partial(_pair, True),
    ),
    Action(
        MEDIUM,
        "apart",
        "Moving [something] and [something] away from each other",
        "apart",
        "closer",
        partial(_pair, False),
    ),
    Action(
        HARD,
        "clockwise",
        "Circling [something] clockwise",
        "counterclockwise",
        "counterclockwise",
        partial(_circle, 1.0),
    ),
    Action(
        HARD,
        "counterclockwise",
        "Circling [something] counterclockwise",
        "clockwise",
        "clockwise",
        partial(_circle, -1.0),
    ),
    Action(
        HARD, "shake", "Shaking [something] sideways", "shake", "shake", partial(_shake, _RIGHT)
    ),
    Action(HARD, "nod", "Shaking [something] up and down", "nod", "nod", partial(_shake, _DOWN)),
    Action(
        MEDIUM, "appear", "Letting [something] appear", "appear", "vanish", partial(_fade, True)
    ),
    Action(
        MEDIUM, "vanish", "Letting [something] vanish", "vanish", "appear", partial(_fade, False)
    ),
    Action(MEDIUM, "blink", "Letting [something] blink", "blink", "blink", _blink),
    Action(
        HARD,
        "feint left",
        "Pretending to push [something] left",
        "feint right",
        "feint left",
        partial(_there_and_back, _LEFT),
    ),
    Action(
        HARD,
        "feint right",
        "Pretending to push [something] right",
        "feint left",
        "feint right",
        partial(_there_and_back, _RIGHT),
    ),
    Action(
        MEDIUM,
        "lift",
        "Lifting [something] and putting it back",
        "lift",
        "lift",
        partial(_there_and_back, _UP),
    ),
)

_INDEX = {action.name: index for index, action in enumerate(ACTIONS)}
MIRRORED: tuple[int, ...] = tuple(_INDEX[action.mirrored] for action in ACTIONS)
"""Class id of each class seen in a mirror."""
REVERSED: tuple[int, ...] = tuple(_INDEX[action.reversed] for action in ACTIONS)
"""Class id of each class played backwards."""
