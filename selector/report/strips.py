"""Film strips: frames of clips beside their oracle maps and the tokens that are kept.

Which clips is decided by a rule, never by hand: the best, the median and the worst by the
probability of the true class, and further ones by a seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import StoreError
from pipeline.store.reader import Store
from selector.analysis.videos import Frames, Videos
from selector.deploy.overlay import MIDDLE_GREY, heat, veil_dropped

if TYPE_CHECKING:
    from selector.deploy.model import LiteModel

Mask = npt.NDArray[np.bool_]

KEEP_RATIO = 0.3
"""Share of the tokens that the strips keep."""


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One clip; every picture is uint8 (T', H, W, 3), a frame of every token row in time.

    Attributes:
        title: why this clip, and which it is.
        pictures: what is shown of the frames, by what it is; `frames` first.
        heat: which of them is a heat map, from 0 to 1.
    """

    title: str
    pictures: dict[str, Frames]
    heat: str


def choose(clips: pd.DataFrame, seed: int = 0, num_seeded: int = 2) -> dict[str, int]:
    """Clips to show, by the rule of the module.

    Args:
        clips: ok clips, with `clip_id` and `true_prob`; a clip without a label has none.
        seed: of those by chance.
        num_seeded: how many.

    Returns:
        Reason to clip id; no clip twice. Fewer where there are few clips.
    """
    ranked = clips.dropna(subset=["true_prob"]).sort_values(["true_prob", "clip_id"])
    ids = [int(clip) for clip in ranked["clip_id"]]
    found: dict[str, int] = {}
    if ids:
        for why, clip in (("best", ids[-1]), ("worst", ids[0]), ("median", ids[len(ids) // 2])):
            if clip not in found.values():
                found[why] = clip
    others = sorted(set(clips["clip_id"]) - set(found.values()))
    drawn = np.random.default_rng(seed).permutation(others)[:num_seeded]
    return found | {f"by seed {seed}, no. {i}": int(c) for i, c in enumerate(drawn, start=1)}


def strip(
    store: Store,
    clip_id: int,
    why: str,
    videos: Videos,
    model: LiteModel | None = None,
    oracle: str | None = None,
) -> Strip:
    """Decode a clip and draw what is known of its tokens.

    Args:
        store: that holds it, with status ok.
        clip_id: its number.
        why: the reason it was chosen.
        videos: the store's.
        model: also show the tokens that it keeps of `KEEP_RATIO`.
        oracle: whose map.

    Raises:
        StoreError: no such clip, or it has no map.
        DecodeError: the video.
    """
    clip, scores, cam = _read(store, clip_id, oracle)
    frames = videos.frames(clip)
    name = _heat_name(store, scores, oracle)
    pictures = {
        "frames": frames,
        name: heat(frames, scores),
        f"best {KEEP_RATIO:.0%} by the oracle": veil_dropped(frames, top(cam)),
    }
    if model is not None:
        import torch

        with torch.no_grad():
            output = model(model.backbone.pixel_values(frames[None]), KEEP_RATIO, False)
        kept = output.kept[0].reshape(tuple(store.grid)).cpu().numpy()
        pictures[f"kept by the model at {KEEP_RATIO:.0%}"] = veil_dropped(frames, kept)
    chance = np.random.default_rng(clip_id).random(cam.shape)
    pictures[f"random {KEEP_RATIO:.0%}"] = veil_dropped(frames, top(chance))
    step = len(frames) // store.grid.t
    title = _title(store, clip, why)
    shown = [index + 1 for index in videos.indices(clip)[::step]]
    title += f"; frames {_listed(shown)} of {clip['num_frames_total']}"
    return Strip(title=title, pictures={n: p[::step] for n, p in pictures.items()}, heat=name)


def bare_strip(store: Store, clip_id: int, why: str, oracle: str | None = None) -> Strip:
    """What is known of a clip's tokens without its video: the map, on the grey of its scale.

    Args:
        store: that holds it, with status ok.
        clip_id: its number.
        why: the reason it was chosen.
        oracle: whose map.

    Raises:
        StoreError: no such clip, or it has no map.
    """
    clip, scores, cam = _read(store, clip_id, oracle)
    side = 16  # pixels of a token, as most backbones have it
    t, h, w = scores.shape
    grey = np.full((t, h * side, w * side, 3), MIDDLE_GREY, np.uint8)
    light = np.full_like(grey, 200)
    name = _heat_name(store, scores, oracle)
    pictures = {
        name: heat(grey, scores),
        f"best {KEEP_RATIO:.0%} by the oracle": veil_dropped(light, top(cam)),
    }
    return Strip(title=_title(store, clip, why), pictures=pictures, heat=name)


def _read(
    store: Store, clip_id: int, oracle: str | None
) -> tuple[pd.Series, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """A clip's row, scores and signed map."""
    shard = store.read_shard(shard_of(store, clip_id), embeddings=False, oracle=oracle)
    row = clip_id % store.config.shard_size
    clip = shard.clips.iloc[row]
    if clip["status"] != "ok":
        raise StoreError(f"clip {clip_id} has no map: {clip['status']} ({clip['error']})")
    return clip, shard.scores[row], shard.cam[row]


def _heat_name(store: Store, scores: npt.NDArray[np.float32], oracle: str | None) -> str:
    flat = "" if scores.any() else "; flat: no token stands out"
    return f"oracle {oracle or store.oracles[0]}: 0 is dark, 1 is the best of the clip{flat}"


def _title(store: Store, clip: pd.Series, why: str) -> str:
    names = dict(enumerate(store.label_names))
    label, said = (names.get(int(clip[c]), f"class {clip[c]}") for c in ("label", "prediction"))
    title = f"{why}: clip {clip['clip_id']} of video {clip['video_id']}; "
    labelled = f"label {label}, probability {clip['true_prob']:.2f}"
    title += labelled if clip["label"] >= 0 else "no label"
    title += f"; predicted {said}, probability {clip['confidence']:.2f}"
    return title + ("; shorter than a clip, which repeats frames" if clip["padded"] else "")


def _listed(numbers: list[int]) -> str:
    """All of a few; of many the first ones and the last."""
    if len(numbers) > 8:
        return f"{numbers[0]}, {numbers[1]}, ..., {numbers[-1]}"
    return ", ".join(map(str, numbers))


def shard_of(store: Store, clip_id: int) -> int:
    """The shard of a clip.

    Raises:
        StoreError: the store has no such clip.
    """
    if not 0 <= clip_id < store.num_clips:
        raise StoreError(f"{store.root} has no clip {clip_id}: they are 0 to {store.num_clips - 1}")
    return clip_id // store.config.shard_size


def top(values: npt.NDArray[np.floating]) -> Mask:
    """The `KEEP_RATIO` of the tokens with the highest values, ties to the first; (t, y, x)."""
    number = max(1, int(values.size * KEEP_RATIO))
    kept = np.zeros(values.size, bool)
    kept[np.argsort(-values.ravel(), kind="stable")[:number]] = True
    return kept.reshape(values.shape)
