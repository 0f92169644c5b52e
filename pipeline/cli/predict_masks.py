"""What `predict --save-mask` draws of videos and of their windows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import options, output
from pipeline.errors import ConfigError, DecodeError, LiteError, printable

if TYPE_CHECKING:
    from pipeline.decode.windows import Window, WindowRequest
    from selector.deploy.mask_files import MaskVideo
    from selector.deploy.mask_picture import Panel
    from selector.deploy.model import LiteModel
    from selector.deploy.predict import Prediction

Answers = Iterator[tuple["Window", "Prediction | DecodeError"]]


class Masks:
    """Draws one video after the other; a picture that cannot be written is said and counted.

    Args:
        place: a .png or .mp4 of the one video, or a folder.
        videos: all that are asked for.
        file_format: `png` or `mp4`, in a folder.
        folders: those that videos were looked for in.
        windows: whether each window of a video is answered.
        label: class whose oracle map stands beside; None: none.
        label_by_folder: the class is the name of the folder that a video lies in.

    Raises:
        ConfigError: these do not go together, or the place cannot be written to.
    """

    def __init__(
        self,
        place: Path,
        videos: Sequence[str],
        file_format: str | None,
        *,
        folders: Sequence[str],
        windows: bool,
        label: str | None,
        label_by_folder: bool,
    ) -> None:
        from selector.deploy.mask_files import mask_paths

        if label is not None and label_by_folder:
            raise ConfigError("give either --label or --label-by-folder, not both")
        options.require_drawing()
        paths = mask_paths(place, videos, file_format)
        if paths == [place]:
            options.require_writable_file(place)
        else:
            options.require_writable_folder(place)
        for folder in filter(os.path.isdir, folders):
            if file_format == "mp4" and place.resolve().is_relative_to(Path(folder).resolve()):
                raise ConfigError(
                    f"--save-mask {place} lies in {folder}, where the masks would be taken for "
                    "videos the next time: name a folder outside"
                )
        if windows and paths == [place] and place.suffix.lower() == ".png":
            raise ConfigError(
                f"windows are a picture each: give --save-mask a folder, or one .mp4, not {place}"
            )
        self._paths = dict(zip(videos, paths, strict=True))
        # One that is relative has its folder's name too.
        by_folder = {video: Path(video).absolute().parent.name for video in videos}
        self._labels: Mapping[str, str] = (
            by_folder if label_by_folder else {} if label is None else dict.fromkeys(videos, label)
        )
        self._classes: dict[str, int] = {}
        self._lite: LiteModel
        self.failed = 0

    def use(self, lite: LiteModel) -> None:
        """Draw by this model.

        Raises:
            ConfigError: it has no class of a label.
        """
        from pipeline.clips.classes import class_of

        self._lite = lite
        for video, label in self._labels.items():
            try:
                self._classes[video] = class_of(label, lite.id2label)
            except ConfigError as error:
                raise ConfigError(f"{video}: {error}") from error

    def draw(self, video: str, result: Prediction | DecodeError) -> str | None:
        """Draw a whole video; the file, or None where there is none."""
        from selector.deploy.mask_files import FRAMES_PER_S, MaskVideo, save_picture
        from selector.deploy.mask_picture import draw_clip, draw_frame

        if isinstance(result, DecodeError):
            return None
        path = self._paths[video]
        with self._counted(path):
            heading, panels = self._heading(video, result), self._panels(video, result)
            if path.suffix.lower() == ".png":
                save_picture(path, draw_clip(heading, panels, self._lite.backbone.grid.t))
            else:
                with closing(MaskVideo()) as film:
                    for i in range(len(result.frames)):
                        film.add(draw_frame(heading, panels, i), i / FRAMES_PER_S)
                    film.save(path)
            return str(path)
        return None

    def windows(self, video: str, request: WindowRequest, answers: Answers) -> Answers:
        """Draw the windows of a video as they pass, in their order.

        A folder gets a picture of each, in a folder of the video; a film shows the frames of one
        window after the other, each at its time in the video.

        Args:
            video: whose.
            request: what they came from.
            answers: each window with its answer.

        Yields:
            The same.
        """
        path = self._paths[video]
        if path.suffix.lower() == ".mp4":
            return self._film(path, video, request, answers)
        return self._pictures(path.with_suffix(".windows"), video, answers)

    def _pictures(self, folder: Path, video: str, answers: Answers) -> Answers:
        from selector.deploy.mask_files import save_picture
        from selector.deploy.mask_picture import draw_clip

        for window, result in answers:
            if not isinstance(result, DecodeError):
                path = folder / f"{window.start_s:010.3f}s.png"
                with self._counted(path):
                    heading = self._heading(_title(video, window), result)
                    panels = self._panels(video, result)
                    save_picture(path, draw_clip(heading, panels, self._lite.backbone.grid.t))
            yield window, result

    def _film(self, path: Path, video: str, request: WindowRequest, answers: Answers) -> Answers:
        """Each window up to where the next one begins, so one is held back."""
        from selector.deploy.mask_files import MaskVideo

        held: tuple[Window, Prediction | DecodeError] | None = None
        with closing(MaskVideo()) as film:
            for window, result in answers:
                if held is not None:
                    with self._counted(path):
                        self._show(film, video, request, *held, until=window.start_frame)
                held = window, result
                yield window, result
            with self._counted(path):
                if held is not None:
                    self._show(film, video, request, *held, until=float("inf"))
                    film.save(path)

    def _show(
        self,
        film: MaskVideo,
        video: str,
        request: WindowRequest,
        window: Window,
        result: Prediction | DecodeError,
        *,
        until: float,
    ) -> None:
        """Show the frames of a window that come before the frame `until`, where the next begins."""
        from pipeline.clips.views import frame_indices
        from selector.deploy.mask_picture import draw_frame, draw_text

        title = _title(video, window)
        if isinstance(result, DecodeError):
            film.add(draw_text([title, f"failed: {printable(str(result))}"]), window.start_s)
            return
        heading, panels = self._heading(title, result), self._panels(video, result)
        clip, view, num = request.clip, request.clip.views[0], window.decoded.num_frames_total
        indices = frame_indices(
            num, clip.num_frames, clip.sampling, view.segment, view.num_segments
        )
        last = -1
        for i, index in enumerate(indices.tolist()):
            if index == last or window.start_frame + index >= until:
                continue
            inside = 0.0 if last < 0 else index / num  # the first stands from the window's start
            at_s = window.start_s + inside * (window.end_s - window.start_s)
            film.add(draw_frame(heading, panels, i), at_s)
            last = index

    def _heading(self, title: str, result: Prediction) -> list[str]:
        from selector.deploy.predict import SHORT

        _, name, probability = result.top[0]
        lines = [printable(Path(title).name), f"predicted: {printable(name)}, {probability:.1%}"]
        views = len(result.kept_tokens)
        kept, num = sum(result.kept_tokens), views * result.num_tokens
        over = "" if views == 1 else f" over {views} views, of which this is the first"
        cost = f"{result.gmacs:.3g} of {result.full_gmacs:.3g} GMACs"
        lines.append(f"{kept} of {num} tokens reach the head{over}; {cost}")
        return [*lines, SHORT] if result.padded else lines

    def _panels(self, video: str, result: Prediction) -> list[Panel]:
        from selector.deploy.label_map import oracle_panel
        from selector.deploy.mask_picture import mask_panels

        lite = self._lite
        named = lite.config.drawn_as
        panels = mask_panels(result.frames, result.kept, result.scores, result.group, named)
        if video in self._classes:
            class_id = self._classes[video]
            name = printable(lite.id2label[class_id])
            panels.append(oracle_panel(lite.backbone, result.frames, class_id, name))
        return panels

    @contextmanager
    def _counted(self, path: Path) -> Iterator[None]:
        """Say and count what goes wrong inside with writing a file."""
        try:
            yield
        except (LiteError, OSError) as error:
            self.failed += 1
            output.echo(f"error: the mask {path} is not written: {error}", err=True)


def _title(video: str, window: Window) -> str:
    return f"{video}, {window.start_s:.2f} to {window.end_s:.2f} s"
