"""`lite-pipeline demo`: the whole pipeline on rendered videos, command by command.

Every step is a command that can be typed; the demo prints it and runs it in this process. Each
resumes by itself, and so does the demo.
"""

from __future__ import annotations

import shlex
import textwrap
import time
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options, output

WIDTH = 80  # what a terminal has, and the README shows
_SPACE = "\N{NO-BREAK SPACE}"  # where a line must not be broken
REPORT = "report.html"
SEED = 2026  # any but the one whose videos the shipped backbone was trained on


def register(app: typer.Typer) -> None:
    """Add the command to the application."""

    def demo(
        out: Annotated[
            Path, typer.Option(help="Folder for everything; the same folder resumes.")
        ] = Path("demo"),
        workers: Annotated[int, typer.Option(min=0, help="Ray workers; 0 uses no Ray.")] = 2,
        small: Annotated[
            bool, typer.Option("--small", help="Half a minute: fewer videos and methods.")
        ] = False,
    ) -> None:
        """Render videos, build their oracle, train LITE on it, and compare: about 2 minutes.

        The videos are a small action benchmark and the backbone a small VideoMAE trained on it,
        both part of this package. Nothing is downloaded.
        """
        options.require_writable_folder(out)
        options.require_drawing("jinja2")
        begun = time.monotonic()
        command = typer.main.get_command(app)
        quiet, verbose = output.settings.quiet, output.settings.verbose
        how = ["--quiet"] * quiet + ["--verbose"] * verbose
        with output.narrowed(WIDTH):
            for title, arguments in steps(out, workers, small):
                output.echo()
                output.echo(f"# {title}")
                output.echo_lines(_typed(arguments))
                failed = command.main(
                    [*how, *arguments], prog_name="lite-pipeline", standalone_mode=False
                )
                if failed:  # it said why
                    raise typer.Exit(failed)
            output.echo()
            seconds = time.monotonic() - begun
            output.echo(f"done in {seconds:.0f} s: open {out / REPORT}. Look at:")
            for title, arguments in next_steps(out):
                output.echo()
                output.echo(f"# {title}")
                output.echo_lines(_typed(arguments))

    app.command()(demo)


def steps(out: Path, workers: int, small: bool) -> list[tuple[str, list[str]]]:
    """The commands of the demo: what each does, and its arguments."""
    videos, store, selector, evaluation = (
        str(out / name) for name in ("videos", "store", "selector", "evaluation")
    )
    data = ["--dataset", "synthetic", "--data-root", videos]
    made = ["synthetic", "--out", videos]
    run = ["--workers", str(workers)]
    methods = "random,oracle,lite" if small else "random,uniform,oracle,lite,lite-spread"
    ratios = "1,.5,.3" if small else "1,.7,.5,.3,.1"
    num_videos, epochs, shard_size = ("160", "5", "32") if small else ("2000", "20", "64")
    shards = ["--shard-size", shard_size, *run]
    chosen = ["--methods", methods, "--keep-ratios", ratios, "--selector", selector]
    return [
        (
            "render videos: the class is in the motion, and competing actors mislead",
            ["datasets", "make", *made, "--videos", num_videos, "--seed", str(SEED)],
        ),
        (
            "value every token of the training videos by Grad-CAM with the true label",
            ["build-oracle", *data, "--split", "train", "--store", store, *shards],
        ),
        ("check every file of the store", ["verify", "--store", store]),
        ("how unequal token values are", ["analyze", "--store", store]),
        (
            "learn to predict the values from patch embeddings, from the store alone",
            ["train-selector", "--store", store, "--out", selector, "--epochs", epochs],
        ),
        (
            "accuracy against cost on the validation videos",
            [
                "evaluate",
                *[*data, "--split", "validation", "--out", evaluation, *chosen, *shards],
                "--brief",
            ],
        ),
        (
            "all of it on one page, which opens without a network",
            [
                *["report", "--store", store, "--eval", evaluation, "--data-root", videos],
                *["--model", selector, "--out", str(out / REPORT)],
            ],
        ),
    ]


def next_steps(out: Path) -> list[tuple[str, list[str]]]:
    """What to look at after the demo: commands on what it left in its folder."""
    video = min((out / "videos").rglob("*.webm"), default=out / "videos" / "VIDEO.webm")
    model = ["--model", str(out / "selector"), "--keep-ratio", "0.3", "--spread", "2"]
    return [
        (
            "the whole comparison: every keep ratio, adaptive budgets, classes",
            ["evaluate", "--out", str(out / "evaluation"), "--table-only"],
        ),
        (
            f"which tokens a video keeps, drawn in {out / 'kept.png'}",
            ["predict", str(video), *model, "--save-mask", str(out / "kept.png")],
        ),
        (
            f"the oracle: pd.read_parquet('{out}/store/clips'), and {out}/store/tokens",
            ["status", "--store", str(out / "store")],
        ),
    ]


def _typed(arguments: list[str]) -> str:
    """A command as it would be typed, broken between options where it is too long for a line."""
    units = ["lite-pipeline"]
    for word in (shlex.quote(argument).replace(" ", _SPACE) for argument in arguments):
        value = units[-1].startswith("--") and not word.startswith("-")
        units[-1:] = [f"{units[-1]}{_SPACE}{word}"] if value else [units[-1], word]
    lines = textwrap.wrap(
        " ".join(units),
        WIDTH - 4,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "$ " + " \\\n".join(lines).replace(_SPACE, " ")
