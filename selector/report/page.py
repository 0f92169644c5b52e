"""One page about a store and its evaluations: gathers the sections, then fills the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd

from pipeline.errors import ClipStatus, DecodeError
from pipeline.store.reader import Store
from selector.analysis.store import Analysis, analyze_store
from selector.evaluation.report.summary import Summary
from selector.report import draw, findings
from selector.report.accuracy import accuracy_frame
from selector.report.places import agreement, places
from selector.report.strips import Videos, choose, strip
from selector.report.svg import inline_svg

if TYPE_CHECKING:
    from selector.deploy.model import LiteModel


@dataclass
class Section:
    """A part of the page: prose, then figures, then tables."""

    title: str
    text: list[str] = field(default_factory=list)
    figures: list[tuple[draw.Picture, str]] = field(default_factory=list)
    """Each with what it shows in words."""
    tables: list[tuple[str, pd.DataFrame]] = field(default_factory=list)
    """Each with its caption."""


def sections(
    store: Store,
    evaluations: Sequence[Summary] = (),
    *,
    data_root: str | None = None,
    model: LiteModel | None = None,
    oracle: str | None = None,
    seed: int = 0,
) -> list[Section]:
    """Everything that the page says, in its order.

    Args:
        store: a store, whatever its clips came to.
        evaluations: summaries to show, each with its own figures.
        data_root: folder of the videos, for film strips.
        model: whose kept tokens the strips show.
        oracle: whose maps; None for the first.
        seed: of the clips that strips show by chance.
    """
    clips = store.clips()
    ok = clips[clips["status"] == ClipStatus.OK.value]
    headline = Section("Findings")
    parts = [headline]
    if ok.empty:
        headline.text.append(
            "No clip of this store has a map, so there is nothing to say about token values. "
            "The failures are below."
        )
    else:
        analysis, found = analyze_store(store, oracle=oracle), places(store, oracle)
        headline.text += findings.of_store(analysis, found)
        parts += [_values(analysis), _classes(analysis), _places(found), _agreement(store)]
    for summary in evaluations:
        headline.text += findings.of_evaluation(summary)
        parts.append(_evaluation(summary))
    if not evaluations:
        headline.text.append(
            "No evaluation was given, so nothing is said about accuracy. `lite-pipeline evaluate` "
            "makes one; give its folder with --eval."
        )
    if len(ok):
        parts.append(_strips(store, ok, data_root, model, oracle, seed))
    return [*parts, _failures(clips), _made(store, evaluations)]


def render(title: str, parts: Sequence[Section]) -> str:
    """The page: one HTML document that fetches nothing."""
    number, shown = 0, []
    for part in parts:
        figures = []
        for picture, alt in part.figures:
            figures.append((inline_svg(picture, alt, number), alt))
            number += 1
        tables = [(caption, _table(frame)) for caption, frame in part.tables]
        shown.append({"title": part.title, "text": part.text, "figures": figures, "tables": tables})
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("selector.report", ""), autoescape=True
    )
    return environment.get_template("page.html").render(title=title, sections=shown)


def _table(frame: pd.DataFrame) -> dict[str, Any]:
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    return {"columns": list(frame.columns), "rows": rows}


def _cell(value: object) -> str:
    if pd.isna(value):  # type: ignore[call-overload]
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _values(analysis: Analysis) -> Section:
    gini = analysis.pooled["gini"]
    tails = analysis.tails
    names = ["values", "share", "num_tokens", "shape", "shape_low", "shape_high"]
    fits = tails[names] if len(tails) else pd.DataFrame(columns=names)
    return Section(
        "How unequal tokens are",
        ["A score of 1 is the best token of its clip. Shape: 0 = exponential, above 0 = heavier."],
        [
            (draw.histogram(analysis.histogram), "Share of the tokens by value, plain and log-log"),
            (draw.lorenz(analysis.lorenz, gini), "Lorenz curve of the token values"),
        ],
        [
            ("Tail fits; 95 % jackknife over videos", fits),
            ("All tokens", pd.DataFrame([analysis.pooled])),
        ],
    )


def _classes(analysis: Analysis) -> Section:
    part = Section("Easy and hard classes")
    if "easy" in set(analysis.histogram["group"]):
        part.text.append(
            "Easy and hard are the thirds of the classes with the highest and lowest top-1. The "
            f"Kolmogorov-Smirnov distance of their scores is {analysis.easy_hard_distance:.3f} "
            "(0 = alike, 1 = apart)."
        )
        picture = draw.histogram(analysis.histogram, ("easy", "hard"))
        part.figures.append((picture, "Share of the tokens by value, easy against hard classes"))
    else:
        part.text.append("Too few classes with a label, or too alike, for two groups.")
    if len(analysis.trends):
        part.tables.append(("Spearman of top-1 with each measure of the tail", analysis.trends))
    return part


def _places(found: Any) -> Section:
    picture = draw.value_places(found)
    alt = "Mean token value over space, and over time with its 95 % interval over videos"
    return Section("Where value sits", [], [(picture, alt)], [("Over time", found.over_time)])


def _agreement(store: Store) -> Section:
    frame = agreement(store)
    if frame.empty:
        said = "This store has one oracle: `build-oracle --oracle`, repeated, makes several."
        return Section("Agreement of oracles", [said])
    said = "Mean rank correlation of the maps of a clip; 95 % interval over videos."
    return Section("Agreement of oracles", [said], [], [("Pairs", frame)])


def _evaluation(summary: Summary) -> Section:
    frame = accuracy_frame(summary)
    part = Section(
        f"Accuracy against cost: {summary.dataset}, {summary.split}",
        [
            f"{summary.num_videos} videos, views {summary.views}; bands are 95 % intervals over "
            f"the videos. {summary.num_failed} failed, {summary.num_missing} still to do."
        ],
        [(draw.accuracy(frame), "Top-1 against GFLOPs of one view, by method")],
        [("Every line", frame)],
    )
    if frame["clips_per_s"].notna().any():
        alt = "Top-1 against measured clips per second, by method"
        part.figures.append((draw.accuracy(frame, "clips_per_s"), alt))
    else:
        part.text.append("No speed was measured.")
    names = dict(enumerate(summary.label_names))
    for trend in summary.classes:
        title = f"{trend.method} at keep ratio {trend.keep_ratio:g}"
        labels = [names.get(i, f"class {i}") for i in trend.class_ids]
        picture = draw.class_drop(trend.accuracy, trend.drop, labels, title)
        part.figures.append((picture, f"Top-1 lost by class, {title}"))
    adaptive = pd.DataFrame(summary.adaptive)
    if len(adaptive):
        part.tables.append(("Adaptive budgets (LITE++)", adaptive))
    part.text += summary.out_of_reach
    return part


def _strips(
    store: Store,
    ok: pd.DataFrame,
    data_root: str | None,
    model: LiteModel | None,
    oracle: str | None,
    seed: int,
) -> Section:
    part = Section(
        "Clips", ["Best, median and worst by the probability of the label, and by seed."]
    )
    if data_root is None:
        part.text = ["Film strips need the videos: give their folder with --data-root."]
        return part
    videos = Videos(store, data_root)
    for why, clip in choose(ok, seed).items():
        try:
            shown = strip(store, clip, why, videos, model, oracle)
        except DecodeError as error:
            part.text.append(f"{why}, clip {clip}: {error}")
        else:
            alt = f"{shown.title}. Rows: {', '.join(shown.pictures)}"
            part.figures.append((draw.film_strip(shown), alt))
    return part


def _failures(clips: pd.DataFrame) -> Section:
    failed = clips[clips["status"] != ClipStatus.OK.value]
    if failed.empty:
        return Section("Failures", [f"None of {len(clips)} committed clips failed."])
    counts = failed["status"].value_counts().rename_axis("status").reset_index(name="clips")
    examples = failed[["video_id", "status", "error"]].head(10)
    return Section(
        "Failures",
        [f"{len(failed)} of {len(clips)} committed clips failed."],
        [],
        [("By status", counts), ("The first ten", examples)],
    )


def _made(store: Store, evaluations: Sequence[Summary]) -> Section:
    config, done = store.config, store.summary()
    rows = [
        ("store", str(store.root)),
        ("fingerprint", config.fingerprint()),
        ("clips", ", ".join(f"{n} {status}" for status, n in done.items())),
        ("backbone", config.backbone),
        ("weights", config.backbone_digest),
        ("oracles", ", ".join(store.oracles)),
        *((f"evaluation {s.dataset}", s.out) for s in evaluations),
        *((name, version(name)) for name in ("lite-pipeline", "torch", "transformers")),
    ]
    return Section("How it was made", [], [], [("", pd.DataFrame(rows, columns=["", " "]))])
