"""Windows of long videos and of live sources, for the command `predict`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import typer

from pipeline.cli import output
from pipeline.errors import ConfigError, DecodeError

if TYPE_CHECKING:
    from pipeline.cli.predict_masks import Masks
    from pipeline.clips.views import View
    from pipeline.decode.windows import Span, WindowRequest
    from selector.deploy.model import LiteModel

LIVE_WINDOW = "2s"
_SILENCE_S = 10.0
"""A live source that sends nothing for so long is given up."""


@dataclass(frozen=True)
class Windows:
    """What was asked for."""

    window: Span
    stride: Span | None
    live: bool


def asked(
    places: Sequence[str],
    window: str | None,
    stride: str | None,
    live: str | None,
    plain: Mapping[str, object],
) -> Windows | None:
    """The windows that the options ask for; None where whole files are classified.

    Args:
        places: files and folders that were given.
        window: the option.
        stride: the option.
        live: the option.
        plain: options that go with whole files only, by name; those that were given are true.

    Raises:
        ConfigError: options that do not go together, or no source.
    """
    if bool(places) == (live is not None):
        raise ConfigError("give VIDEO files or folders, or --live ADDRESS, and not both")
    if window is None and live is None:
        if stride is not None:
            raise ConfigError("--stride belongs to --window")
        return None
    from pipeline.decode.live import check_live
    from pipeline.decode.windows import Span

    for name, given in plain.items():
        if given:
            raise ConfigError(f"{name} is for whole files; of windows there is --jsonl FILE")
    if live is not None:
        check_live(live)
    return Windows(
        Span.parse(window or LIVE_WINDOW),
        None if stride is None else Span.parse(stride),
        live is not None,
    )


def predict(
    lite: LiteModel,
    sources: Sequence[str],
    windows: Windows,
    *,
    keep_ratio: float | None,
    adaptive: bool | None,
    views: tuple[View, ...],
    sampling: str | None,
    decoder: str,
    top: int,
    jsonl: str | None,
    masks: Masks | None = None,
) -> None:
    """Classify all windows of all sources, one source after the other.

    Raises:
        ConfigError: the windows do not fit a source.
        typer.Exit: with code 1, if a source or a window failed.
    """
    from pipeline.decode.windows import WindowRequest
    from selector.deploy.predict import clip_request, predict_windows, to_json, to_text

    def request(source: str) -> WindowRequest:
        clip = clip_request(lite, source, sampling or lite.sampling, decoder, views)
        if windows.live:
            clip = replace(clip, timeout_s=_SILENCE_S)
        return WindowRequest(
            clip=clip, window=windows.window, stride=windows.stride, live=windows.live
        )

    failed = 0
    requests = [request(source) for source in sources]
    with output.json_lines(jsonl) as lines:
        for source, wanted in zip(sources, requests, strict=True):
            answers = predict_windows(
                lite, wanted, keep_ratio=keep_ratio, adaptive=adaptive, top=top
            )
            if masks is not None:
                answers = masks.windows(source, wanted, answers)
            try:
                for window, result in answers:
                    lines.add(to_json(source, result, window))
                    title = f"{source} {window.start_s:.2f} to {window.end_s:.2f} s"
                    if isinstance(result, DecodeError):
                        failed += 1
                        output.echo(f"error: {title}: {result}", err=True)
                    elif jsonl != "-":
                        output.echo_lines(to_text(title, result))
                    if window.num_skipped:
                        output.note(
                            f"{title}: {window.num_skipped} windows before it were lost, as the "
                            "model is slower than the source: give a longer --stride"
                        )
            except DecodeError as error:
                failed += 1
                lines.add(to_json(source, error))
                output.echo(f"error: {source}: {error}", err=True)
    if masks is not None and masks.failed:
        output.echo(f"masks that are not written: {masks.failed}", err=True)
    if failed or (masks is not None and masks.failed):
        raise typer.Exit(1)
