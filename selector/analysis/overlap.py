"""Whether value lies where something moves, on edges, and on who acts.

Of a seeded sample of clips, whose videos are decoded as the oracle saw them. Each map is compared
with a uniform one, with maps of the same values put elsewhere by chance, and with the map of
another video: value that merely likes some place of the frame overlaps as much there. Videos of one
group (cut from one recording, say) are alike, so that other is of another group, all clips of a
group are put elsewhere in the same way, and intervals are over groups.

Axes: C clips, A areas, M measures, K maps laid over a clip (its own, another video's, shuffled
ones), N tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from datasets_spec.errors import DatasetSpecError
from datasets_spec.synthetic.masks import RenderedVideos, labelled_and_other
from pipeline.errors import ClipStatus, ConfigError, DecodeError, StoreError
from pipeline.store.reader import Store
from selector.analysis import areas
from selector.analysis.places import OnProgress
from selector.analysis.videos import Frames, Videos
from selector.analysis.within import within_videos
from selector.statistics import Groups, draws, interval, mean_interval

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

AREAS = ("motion", "edges", "actor", "other actors")
MEASURES = ("value_share", "top10_share", "auc", "spearman")
NUM_CLIPS = 200
"""Clips that are sampled unless asked otherwise."""

_BEST = 0.1
_NUM_SHUFFLES = 100
_NUM_DRAWS = 500
_COLUMNS = (
    *("area", "measure", "num_clips", "num_videos", "value", "low", "high", "uniform", "ratio"),
    *("ratio_low", "ratio_high", "shuffled", "shuffled_low", "shuffled_high", "other_video"),
)


@dataclass(frozen=True)
class Overlap:
    """How value and areas go together.

    Attributes:
        table: a row for each of `AREAS` that there is and each of `MEASURES`:

            * `value_share` of the value, and `top10_share` of the best tenth of the tokens (by the
              signed map), that lie on the area;
            * `auc`: the probability that a token on the area has more value than one off it;
            * `spearman`: rank correlation of the value with how much a token has of what makes the
              area (motion, edges, cover).

            `value` is the mean over videos, `low` and `high` its 95 % interval (bootstrap of them,
            or of their groups where the dataset says some);
            `uniform` what a map of equal values has (for shares that of the tokens on the area),
            `ratio` to it with its interval (shares alone); `shuffled` the mean of shuffled maps,
            and in 95 % of the shuffles it lies in [`shuffled_low`, `shuffled_high`];
            `other_video` the mean with the map of another video of the sample, of another group.
            `num_clips` are those that have the area.
        notes: what was sampled, left out, and cannot be said.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]


def overlap(
    store: Store,
    data_root: str,
    num_clips: int = NUM_CLIPS,
    seed: int = 0,
    oracle: str | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> Overlap:
    """Sample clips, decode them and compare.

    Args:
        store: with at least one ok clip.
        data_root: folder of its videos.
        num_clips: how many are sampled at most.
        seed: of the sample and of the shuffles.
        oracle: whose maps; None for the first.
        on_progress: called with (clips done, clips in all).

    Raises:
        StoreError: no clip has a map.
        ConfigError: no clip's video can be read, or the backbone is another.
        BackboneError: the store's backbone, which says what frames a clip has, is not there.
    """
    rng = np.random.default_rng(seed)
    clips = store.clips(status=ClipStatus.OK.value, units=True)
    if clips.empty:
        raise StoreError(f"{store.root} holds no clip with status ok")
    chosen = np.sort(rng.permutation(len(clips))[:num_clips])
    clips = clips.iloc[chosen].reset_index(drop=True)
    scores, signed = _maps(store, clips, oracle)
    flat = ~(scores.sum(axis=1) > 0)
    of = f"{clips['video_id'].nunique()} videos"
    of += f" in {clips['unit'].nunique()} groups" if store.info.groups else ""
    notes = [f"{len(clips)} clips of {of}, sampled by seed {seed}."]
    if flat.any():
        notes.append(f"{flat.sum()} have no value anywhere and are left out.")
    clips, scores, signed = clips[~flat].reset_index(drop=True), scores[~flat], signed[~flat]
    if clips.empty:
        return Overlap(pd.DataFrame(columns=list(_COLUMNS)), tuple(notes))
    actors = _Actors(store, data_root)
    others = other_videos(clips["unit"].tolist())
    shuffles: dict[str, npt.NDArray[np.int16]] = {}
    videos, first_error = Videos(store, data_root), ""
    found = np.full((len(clips), len(AREAS), len(MEASURES), 2 + _NUM_SHUFFLES), np.nan)
    sizes = np.full((len(clips), len(AREAS)), np.nan)
    num_unread = 0
    for row, frames in enumerate(videos.each(clips)):
        on_progress(row, len(clips))
        clip = clips.iloc[row]
        if isinstance(frames, DecodeError):
            num_unread += 1
            first_error = first_error or f"{clip['path']}: {frames}"
            continue
        if clip["unit"] not in shuffles:
            shuffles[clip["unit"]] = shuffled_places(rng, scores.shape[1])
        maps = Maps.of(scores, signed, row, others[row], shuffles[clip["unit"]])
        for number, (area, evidence) in enumerate(_areas(store, videos, clip, frames, actors)):
            found[row, number] = maps.on(area.ravel(), evidence.ravel())
            if not np.isnan(found[row, number, 0, 0]):
                sizes[row, number] = area.mean()
    on_progress(len(clips), len(clips))
    if num_unread == len(clips):
        raise ConfigError(
            f"none of the {len(clips)} sampled clips can be read below {data_root} "
            f"({first_error}): give the folder that the store was built from as --data-root"
        )
    if num_unread:
        notes.append(f"{num_unread} cannot be read ({first_error}).")
    if actors.lacking:
        found[:, 2:] = np.nan  # of the clips before the one that showed it
        notes.append(f"On actors nothing is said: {actors.lacking}.")
    rows = [r for a in range(len(AREAS)) for r in _rows(a, clips, found, sizes)]
    present = {row[0] for row in rows}
    missing = [a for a in AREAS[: 2 if actors.lacking else None] if a not in present]
    notes += [f"No sampled clip has tokens both on and off {area}." for area in missing]
    return Overlap(pd.DataFrame(rows, columns=list(_COLUMNS)), tuple(notes))


@dataclass(frozen=True)
class Maps:
    """Maps that are laid over one clip; the first is its own, the second another video's.

    Attributes:
        value: (K, N) share of the map's value that each token has.
        best: (K, N) share of the best tenth of the tokens that each is; where several are as good
            as its last one, each is a part of it.
        rank: (K, N) of the signed values, 1 for the lowest, ties sharing their mean.
    """

    value: Floats
    best: Floats
    rank: Floats

    @classmethod
    def of(
        cls,
        scores: npt.NDArray[np.floating],
        signed: npt.NDArray[np.floating],
        own: int,
        other: int | None,
        places: npt.NDArray[np.int16],
    ) -> Maps:
        """Of two rows of maps (C, N), the scores not all 0; without another, its part is NaN.

        `places` are of `shuffled_places`.
        """
        kinds = []
        for shown in (_shares, _best_shares, rankdata):
            source = scores if shown is _shares else signed
            mine = shown(source[own].astype(np.float64))
            others = np.full_like(mine, np.nan)
            if other is not None:
                others = shown(source[other].astype(np.float64))
            kinds.append(np.concatenate([[mine, others], mine[places]]))
        return cls(*kinds)

    def on(self, area: Mask, evidence: Floats) -> Floats:
        """`MEASURES` of every map, (M, K); NaN where the area has no token, or all.

        Args:
            area: (N,) the tokens on it.
            evidence: (N,) how much of it each token has; the correlation is NaN where all have
                the same, or the map is constant.
        """
        num, size = len(area), int(area.sum())
        if not 0 < size < num:
            return np.full((len(MEASURES), len(self.value)), np.nan)
        above = self.rank @ area - size * (size + 1) / 2
        ranks = self.rank - (num + 1) / 2
        wanted = rankdata(evidence) - (num + 1) / 2
        with np.errstate(invalid="ignore"):
            length = np.sqrt((ranks**2).sum(axis=1) * (wanted**2).sum())
            alike = (ranks @ wanted) / np.where(length > 0, length, np.nan)
        return np.stack([self.value @ area, self.best @ area, above / (size * (num - size)), alike])


def shuffled_places(rng: np.random.Generator, num_tokens: int) -> npt.NDArray[np.int16]:
    """Orders of the tokens of a clip, drawn by chance: (shuffles, N), as small as a store's."""
    in_order = np.arange(num_tokens, dtype=np.int16)
    return rng.permuted(np.tile(in_order, (_NUM_SHUFFLES, 1)), axis=1)


def other_videos(units: list[str]) -> list[int | None]:
    """For each clip one of another unit, a long way down the list; None where there is none."""
    num = len(units)
    found: list[int | None] = []
    for row, own in enumerate(units):
        steps = ((row + num // 2 + step) % num for step in range(num))
        found.append(next((at for at in steps if units[at] != own), None))
    return found


class _Actors:
    """Where the actors of a clip are; `lacking` says why that is not known, where it is not."""

    def __init__(self, store: Store, data_root: str) -> None:
        self.lacking = ""
        self._size = store.grid
        try:
            self._rendered = RenderedVideos(data_root)
        except DatasetSpecError as error:
            self.lacking = str(error)

    def cover(self, videos: Videos, clip: pd.Series) -> list[Floats]:
        """Share of each token that the labelled actor and the others cover, (t, y, x) each."""
        if self.lacking:
            return []
        try:
            scene = self._rendered.scene(str(clip["video_id"]))
        except DatasetSpecError as error:
            self.lacking = str(error)
            return []
        if scene.num_frames != clip["num_frames_total"]:
            self.lacking = (
                f"video {clip['video_id']} has {clip['num_frames_total']} frames, and was rendered "
                f"with {scene.num_frames}: the folder says it holds other videos than it does"
            )
            return []
        covers = labelled_and_other(scene)
        picture = np.stack([*covers, np.zeros_like(covers[0])], axis=-1)
        shown = videos.as_clip(clip, (255 * picture).round().astype(np.uint8))
        return [areas.per_token(shown[..., part] / 255, self._size) for part in (0, 1)]


def _areas(
    store: Store, videos: Videos, clip: pd.Series, frames: Frames, actors: _Actors
) -> Iterator[tuple[Mask, Floats]]:
    """The areas of a clip, in the order of `AREAS`, each with what makes it."""
    std = videos.backbone.preprocessing.std
    for evidence in (areas.motion(frames, store.grid, std), areas.edges(frames, store.grid)):
        yield areas.busiest(evidence), evidence
    for cover in actors.cover(videos, clip):
        yield cover >= areas.COVERED, cover


def _maps(
    store: Store, clips: pd.DataFrame, oracle: str | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Scores and signed maps of some clips, sorted by their number: (C, N) each."""
    scores, signed = [], []
    for shard, some in clips.groupby("shard", sort=True):
        data = store.read_shard(int(str(shard)), embeddings=False, oracle=oracle)
        at = some["clip_id"].to_numpy() % store.config.shard_size
        scores.append(data.scores[at].reshape(len(at), -1))
        signed.append(data.cam[at].reshape(len(at), -1))
    return np.concatenate(scores), np.concatenate(signed)


def _shares(scores: Floats) -> Floats:
    return np.asarray(scores / scores.sum())


def _best_shares(signed: Floats) -> Floats:
    number = max(1, round(_BEST * len(signed)))
    last = np.sort(signed)[-number]
    above, level = signed > last, signed == last
    weight = above + level * ((number - above.sum()) / level.sum())
    return np.asarray(weight / number)


def _rows(
    area: int, clips: pd.DataFrame, found: Floats, sizes: Floats
) -> Iterator[tuple[object, ...]]:
    """The rows of one area; none where no clip has it."""
    for number, measure in enumerate(MEASURES):
        each = found[:, area, number]
        known = ~np.isnan(each[:, 0])
        if not known.any():
            continue
        columns = np.column_stack([each[known], sizes[known, area]])
        by_video, units = within_videos(clips[known], columns)
        own, other, shuffled = by_video[:, 0], by_video[:, 1], by_video[:, 2:-1].mean(axis=0)
        is_share = measure.endswith("_share")
        uniform = by_video[:, -1] if is_share else np.full(len(own), measure == "auc") / 2
        bounds = (-1.0, 1.0) if measure == "spearman" else (0.0, 1.0)
        low, high = mean_interval(own[:, None], bounds, num_draws=_NUM_DRAWS, groups=units)[:, 0]
        yield (
            *(AREAS[area], measure, int(known.sum()), len(own), float(own.mean()), low, high),
            float(uniform.mean()),
            *(_ratio(own, uniform, units) if is_share else (math.nan,) * 3),
            float(shuffled.mean()),
            *np.quantile(shuffled, [0.025, 0.975]).tolist(),
            float(other.mean()),
        )


def _ratio(own: Floats, uniform: Floats, units: Groups) -> tuple[float, float, float]:
    """The ratio of two means over videos, and its 95 % interval over units of these."""
    both = np.stack([own, uniform], axis=1)
    drawn = draws(len(own), _NUM_DRAWS, groups=units)
    means = np.concatenate([weights @ both for weights in drawn])
    low, high = interval((means[:, 0] / means[:, 1])[:, None])[:, 0]
    return float(own.mean() / uniform.mean()), float(low), float(high)
