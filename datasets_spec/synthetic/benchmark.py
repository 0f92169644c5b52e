"""Renders the whole benchmark into a folder: in parallel, resumable, the same bytes every time."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from datasets_spec.errors import DatasetSpecError
from datasets_spec.synthetic.actors import write_actors
from datasets_spec.synthetic.annotations import (
    VIDEO_FOLDER,
    video_path,
    write_annotations,
    write_text,
)
from datasets_spec.synthetic.encode import DEFAULT_CODEC, find_codec, write_video
from datasets_spec.synthetic.render import render
from datasets_spec.synthetic.scene import Scene, draw_scene

VERSION = 2
"""Raised whenever the same seed renders other videos than before."""
RECIPE = "synthetic.json"
_PER_TASK = 16


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a folder was rendered from: all that decides its videos, as its `synthetic.json` says.

    Those with a default are not in the files of older versions.
    """

    version: int
    num_videos: int
    seed: int
    codec: str = DEFAULT_CODEC
    competitors: bool = True

    @classmethod
    def read(cls, root: Path) -> Recipe:
        """That of a folder.

        Raises:
            DatasetSpecError: its file is damaged, or says what this program does not know.
        """
        path = root / RECIPE
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise DatasetSpecError(f"{path} is damaged: {error}; use an empty folder") from error

    def scene(self, index: int) -> Scene:
        """What video `index` shows."""
        return draw_scene(self.seed, index, self.competitors)


def make(
    out: str | Path,
    num_videos: int,
    seed: int = 0,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    codec: str = DEFAULT_CODEC,
    competitors: bool = True,
) -> None:
    """Renders `num_videos` videos and their annotations below `out`; goes on where it stopped.

    Args:
        out: a new or empty folder, or one that the same call began.
        num_videos: how many; 70 % train, 25 % validate, 5 % test.
        seed: video `i` depends on `(seed, i)` alone.
        workers: rendering processes; 0 renders in this one, None uses every core.
        on_progress: called with (videos done, videos in all).
        codec: one of `encode.CODECS`; the frames before encoding are the same.
        competitors: whether other actors act beside the labelled one; see `draw_scene`.

    Raises:
        DatasetSpecError: the folder holds something else, or cannot be written; or the codec is
            unknown or not available here.
    """
    root = Path(out)
    if num_videos < 1 or seed < 0:
        raise DatasetSpecError(
            f"need at least 1 video and a seed from 0, got {num_videos} videos and seed {seed}"
        )
    extension = find_codec(codec).extension
    try:
        recipe = Recipe(
            version=VERSION,
            num_videos=num_videos,
            seed=seed,
            codec=codec,
            competitors=competitors,
        )
        _claim(root, recipe)
        paths = [video_path(root, i, extension) for i in range(num_videos)]
        missing = [i for i, path in enumerate(paths) if not path.exists()]
        done = num_videos - len(missing)
        report = on_progress or (lambda done, total: None)
        report(done, num_videos)
        for rendered in _render_all(root, recipe, missing, workers):
            done += rendered
            report(done, num_videos)
        for leftover in (root / VIDEO_FOLDER).glob(f".*.{extension}.*"):  # of a killed process
            leftover.unlink()
        scenes = [recipe.scene(i) for i in range(num_videos)]
        write_actors(root, scenes)
        write_annotations(root, scenes)  # last: a reader finds them, so all the videos are there
    except OSError as error:
        raise DatasetSpecError(f"cannot write the benchmark to {root}: {error}") from error


def _claim(root: Path, recipe: Recipe) -> None:
    """Makes the folder this recipe's, or raises."""
    path = root / RECIPE
    if path.exists():
        found, asked = asdict(Recipe.read(root)), asdict(recipe)
        if found != asked:
            differ = [
                f"{name} {found[name]} -> {v}" for name, v in asked.items() if found[name] != v
            ]
            raise DatasetSpecError(
                f"{root} was begun with other settings ({', '.join(differ)}): "
                "repeat those, or name an empty folder"
            )
    elif root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DatasetSpecError(f"{root} is not an empty folder; name a new one")
    (root / VIDEO_FOLDER).mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(asdict(recipe)))


def _render_all(
    root: Path, recipe: Recipe, indices: list[int], workers: int | None
) -> Iterator[int]:
    """Renders the videos and yields how many became ready."""
    tasks = [indices[i : i + _PER_TASK] for i in range(0, len(indices), _PER_TASK)]
    count = min(len(tasks), os.cpu_count() or 1 if workers is None else workers)
    if count == 0:
        for index in indices:
            yield _render_some(root, recipe, [index])
        return
    # Spawned, not forked: the caller may have threads, whose locks a fork would copy.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker)
    try:
        yield from _as_completed(pool, root, recipe, tasks, 2 * count)
    except BrokenProcessPool as error:
        raise DatasetSpecError("a rendering process died; the same command goes on") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _as_completed(
    pool: ProcessPoolExecutor,
    root: Path,
    recipe: Recipe,
    tasks: Iterable[list[int]],
    ahead: int,
) -> Iterator[int]:
    """Keeps `ahead` tasks in the pool, so that an interruption waits for few of them."""
    rest = iter(tasks)
    pending: set[Future[int]] = set()
    while True:
        for task in islice(rest, ahead - len(pending)):
            pending.add(pool.submit(_render_some, root, recipe, task))
        if not pending:
            return
        finished, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in finished:
            yield future.result()


def _render_some(root: Path, recipe: Recipe, indices: list[int]) -> int:
    written_by = find_codec(recipe.codec)
    for index in indices:
        path = video_path(root, index, written_by.extension)
        write_video(path, render(recipe.scene(index)), written_by)
    return len(indices)


def _start_worker() -> None:
    """Ctrl-C reaches the whole process group, and the parent alone answers it; none outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_the_parent, daemon=True).start()


def _leave_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()  # returns when it ended, however it did
    os._exit(1)
