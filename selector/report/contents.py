"""What the page about a store and its evaluations holds, section by section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from pipeline.errors import ClipStatus, DecodeError, NoOutcomesError
from pipeline.store.reader import Store
from selector.analysis.overlap import Overlap, overlap
from selector.analysis.places import OnProgress, Places, agreement, places
from selector.analysis.store import Analysis, analyze_store
from selector.analysis.videos import Videos
from selector.evaluation.config import FULL
from selector.evaluation.files import Evaluation
from selector.evaluation.report.summary import Summary, summarise
from selector.report import adaptation, adaptive, draw, findings
from selector.report import overlap as overlap_section
from selector.report.accuracy import accuracy_frame, chosen_methods
from selector.report.beside_published import relative
from selector.report.choosing import clips_by_number
from selector.report.made import made
from selector.report.page import Plot, Section, Table
from selector.report.principles import verdicts
from selector.report.strips import choose, strip
from selector.statistics import FEW

if TYPE_CHECKING:
    from selector.deploy.model import LiteModel


def sections(
    store: Store,
    evaluations: Sequence[Evaluation] = (),
    *,
    data_root: str | None = None,
    model: LiteModel | None = None,
    oracle: str | None = None,
    matrix: str | None = None,
    seed: int = 0,
    asked_clips: Sequence[int] = (),
    model_folder: str | None = None,
    on_progress: OnProgress = lambda done, total: None,
    on_clips: OnProgress = lambda done, total: None,
) -> list[Section]:
    """Everything that the page says, in its order.

    Args:
        store: a store, whatever its clips came to.
        evaluations: to show, each with its own sections.
        data_root: folder of the videos, for film strips.
        model: whose kept tokens the strips show.
        model_folder: where it lies, whose training the page then tells.
        oracle: whose maps; None for the first.
        matrix: folder of an adaptation matrix, see `adaptation.read_matrix`.
        seed: of the clips that strips show by chance.
        asked_clips: numbers of clips that strips show before those by rule.
        on_progress: called with (shards read, shards in all); each pass reads them all.
        on_clips: called with (clips decoded, clips in all) of the sample that is looked at.
    """
    num_passes = 2 + (len(store.oracles) > 1)

    def reading(number: int) -> OnProgress:
        return lambda done, total: on_progress(number * total + done, num_passes * total)

    chosen = clips_by_number(store, asked_clips)  # a wrong one is said before the long reading
    clips = store.clips()
    ok = clips[clips["status"] == ClipStatus.OK.value]
    headline = Section("In short")
    analysis = found = seen = None
    if ok.empty:
        headline.text.append(
            "No clip of this store has a map, so there is nothing to say about token values. "
            "The failures are below."
        )
    else:
        if data_root is not None:  # first, so that a wrong folder is said before the long reading
            seen = overlap(store, data_root, seed=seed, oracle=oracle, on_progress=on_clips)
        analysis = analyze_store(store, oracle=oracle, on_progress=reading(0))
        found = places(store, oracle, reading(1))
        headline.text += findings.of_store(analysis, found)
        headline.text += [] if seen is None else overlap_section.headline(seen)
    parts, summaries = [headline], []
    for evaluation in evaluations:
        asked = evaluation.config
        name = f": {asked.dataset}, {asked.split}" if len(evaluations) > 1 else ""
        try:
            summary = summarise(evaluation)
        except NoOutcomesError as error:
            headline.text.append(f"Nothing is said about accuracy{name}: {error}.")
            principles = Section(f"The five principles{name}", verdicts=verdicts(analysis, None))
            parts += [principles, Section(f"Accuracy against cost{name}", [f"{error}."])]
            continue
        summaries.append(summary)
        headline.text += findings.of_evaluation(summary)
        principles = Section(f"The five principles{name}", ["By the rows of this page alone."])
        principles.verdicts = verdicts(analysis, summary)
        if asked.backbone_digest != store.config.backbone_digest:
            principles.text.append(
                "The store and this evaluation are of different backbones: principles 4 and 5 "
                "join numbers of two models."
            )
        parts += [principles, _accuracy(summary, name)]
        if summary.lite_methods:
            parts.append(_adaptive(summary, name))
    if not evaluations:
        headline.text.append(
            "No evaluation was given, so nothing is said about accuracy. `lite-pipeline evaluate` "
            "makes one; give its folder with --eval."
        )
        parts.append(Section("The five principles", verdicts=verdicts(analysis, None)))
    parts.append(_adaptation(matrix))
    if analysis is not None and found is not None:
        parts += [_values(analysis), _classes(analysis, summaries), _places(found, analysis.over)]
        parts.append(_overlap(seen, analysis.over))
        for why, clip in choose(ok, seed).items():
            chosen.setdefault(clip, why)
        parts += [
            _agreement(store, analysis.over, reading(2)),
            _strips(store, chosen, data_root, model, oracle),
        ]
    return [*parts, _failures(clips), made(store, evaluations, data_root, model_folder)]


def _accuracy(summary: Summary, name: str) -> Section:
    frame = accuracy_frame(summary)
    methods = chosen_methods(
        frame, summary.lite_methods, {setting.method for setting in summary.adaptive}
    )
    some = frame[frame["method"].isin(methods)]
    part = Section(
        f"Accuracy against cost{name}",
        [
            f"{summary.dataset}, {summary.split}: {summary.num_videos} videos, views "
            f"{summary.views}; bands are 95 % intervals over {summary.over}. "
            f"{summary.num_failed} failed, {summary.num_missing} still to do."
            + (
                f" Few: intervals of {summary.num_units} are rough."
                if summary.num_units < FEW
                else ""
            )
        ],
        plots=[Plot(draw.accuracy(some), "Top-1 against GFLOPs of one view, by method")],
        tables=[
            Table("Every line", _percent(frame), folded=True),
            Table("Every comparison", _comparisons(summary), folded=True),
        ],
    )
    timed = frame["clips_per_s"].notna().any()
    if timed:
        alt = "Top-1 against measured clips per second, by method"
        part.plots.append(Plot(draw.accuracy(some, "clips_per_s"), alt))
    else:
        part.text.append("No speed was measured.")
    alt = "Top-1 against cost, both relative to the full model's"
    layer = "show the paper's numbers (VideoMAE-B on SSv2 and K400)"
    part.plots.append(Plot(relative(frame, methods), alt, layer))
    if len(methods) < frame["method"].nunique():
        part.text.append(
            "Drawn: random and the uniform grid, the trained selectors, the first oracle, and what "
            "is best at some cost with a fixed budget. All methods are in the table and below."
        )
        part.more.append(Plot(draw.accuracy(frame), "All methods, against GFLOPs"))
        if timed:
            alt = "All methods, against measured clips per second"
            part.more.append(Plot(draw.accuracy(frame, "clips_per_s"), alt))
    return part


def _percent(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracies as they are read; what follows from the others is left out."""
    shown = frame.drop(columns=["needs_answer"])
    accuracies = ["top1", "top1_low", "top1_high", "top5"]
    shown[accuracies] = (100 * shown[accuracies]).round(1)
    return shown.rename(columns={name: f"{name} %" for name in accuracies})


def _comparisons(summary: Summary) -> pd.DataFrame:
    rows = [
        {
            "method": pair.method,
            "keep_ratio": pair.keep_ratio,
            "against": pair.against,
            "points": round(100 * pair.difference, 1),
            "low": round(100 * pair.low, 1),
            "high": round(100 * pair.high, 1),
            "stands (Holm)": pair.stands,
        }
        for pair in summary.paired
    ]
    return pd.DataFrame(rows)


def _adaptive(summary: Summary, name: str) -> Section:
    part = Section(f"Budgets of LITE++{name}")
    adapted = [s for s in summary.lite_methods if len(adaptive.budgets_frame(summary, s))]
    if not adapted:
        part.text = ["No adaptive budget could be made of these rows.", *summary.out_of_reach]
        return part
    part.text = [
        "Who gets how many tokens, picked on one half of the videos and judged on the other; and "
        "what that is worth beside fixed budgets of the same selector at the same mean cost. "
        f"Upright lines and the band are 95 % intervals over {summary.over}.",
        *findings.of_adaptive(summary),
    ]
    for selector in adapted:
        plots = part.plots if selector == adapted[0] else part.more
        frame = adaptive.budgets_frame(summary, selector)
        plots.append(Plot(adaptive.shares(frame), f"Videos by the budget they get, {selector}"))
        alt = f"Top-1 at the mean cost, adaptive against fixed budgets, {selector}"
        plots.append(Plot(adaptive.worth(summary, selector), alt))
        part.tables.append(Table(f"Videos by budget, {selector}", frame, folded=True))
    if summary.out_of_reach:
        frame = pd.DataFrame({"": summary.out_of_reach})
        part.tables.append(Table("Budgets that cannot meet the goal", frame, folded=True))
    return part


def _adaptation(matrix: str | None) -> Section:
    part = Section("Adapting the backbone")
    if matrix is None:
        part.text = [
            "No adaptation matrix was given: benchmarks/adaptation_matrix.py makes one; give its "
            "folder with --adaptation."
        ]
        return part
    frame = adaptation.read_matrix(matrix)
    part.text = adaptation.said(frame)
    for ratio in frame.loc[frame["test"] != FULL, "keep_ratio"].unique():
        alt = f"Top-1 at keep ratio {ratio:g}: masks of the training (rows), of the test (columns)"
        some = frame[frame["test"] != FULL]
        part.plots.append(Plot(adaptation.heat_map(some, ratio), alt))
    part.tables.append(Table("Every cell", frame, folded=True))
    return part


def _values(analysis: Analysis) -> Section:
    tails = analysis.tails
    names = ["values", "share", "num_tokens", "shape", "shape_low", "shape_high"]
    fits = tails[names] if len(tails) else pd.DataFrame(columns=names)
    histogram = analysis.histogram
    return Section(
        "How unequal tokens are",
        ["A score of 1 is the best token of its clip. Shape: 0 = exponential, above 0 = heavier."],
        plots=[
            Plot(draw.histogram(histogram, scales=["linear"]), "Share of the tokens by value"),
            Plot(draw.histogram(histogram, scales=["log"]), "The same on logarithmic axes"),
            Plot(draw.lorenz(analysis.lorenz, analysis.pooled["gini"]), "Lorenz curve"),
        ],
        tables=[
            Table(f"Tail fits; 95 % jackknife over {analysis.over}", fits, folded=True),
            Table("Power laws from the cut-off that fits best", analysis.power_laws, folded=True),
            Table("Power law against others, nats a token", analysis.alternatives, folded=True),
            Table("All tokens", pd.DataFrame([analysis.pooled]), folded=True),
        ],
    )


def _classes(analysis: Analysis, summaries: Sequence[Summary]) -> Section:
    part = Section("Easy and hard classes")
    if "easy" in set(analysis.histogram["group"]):
        apart = analysis.easy_hard.set_index("measure")["value"]
        part.text.append(
            "Easy and hard are the thirds of the classes with the highest and lowest top-1. The "
            f"Kolmogorov-Smirnov distance of their scores is {apart['ks_distance']:.3f} "
            "(0 = alike, 1 = apart); a token of an easy class has the higher score with "
            f"probability {apart['superiority']:.3f} (0.5 = neither)."
        )
        picture = draw.histogram(analysis.histogram, ("easy", "hard"), ["log"])
        alt = "Share of the tokens by value, easy against hard classes, logarithmic axes"
        part.plots.append(Plot(picture, alt))
    else:
        part.text.append("Too few classes with a label, or too alike, for two groups.")
    if len(analysis.trends):
        title = "Spearman of top-1 with each measure of the tail"
        part.tables.append(Table(title, analysis.trends))
    for summary in summaries:
        names = dict(enumerate(summary.label_names))
        for trend in summary.classes:
            if trend.method not in ("random", *summary.lite_methods[:1]):
                continue
            title = f"{trend.method} at keep ratio {trend.keep_ratio:g}"
            labels = [names.get(i, f"class {i}") for i in trend.class_ids]
            picture = draw.class_drop(trend.accuracy, trend.drop, labels, title)
            part.plots.append(Plot(picture, f"Top-1 lost by class, {title}"))
        if summary.classes:
            title = f"Top-1 lost against the full model's over the classes, {summary.dataset}"
            part.tables.append(Table(title, _trends(summary), folded=True))
    return part


def _trends(summary: Summary) -> pd.DataFrame:
    names = ["method", "keep_ratio"]
    names += [f"{what}{end}" for what in ("spearman", "slope") for end in ("", "_low", "_high")]
    return pd.DataFrame([{n: getattr(trend, n) for n in names} for trend in summary.classes])


def _places(found: Places, over: str) -> Section:
    alt = f"Mean over time, with its 95 % interval over {over}"
    return Section(
        "Where value sits",
        plots=[
            Plot(draw.value_over_space(found), "Mean token value over clips and time, by place"),
            Plot(draw.value_over_time(found), alt),
        ],
        tables=[Table("Over time", found.over_time, folded=True)],
    )


def _overlap(seen: Overlap | None, over: str) -> Section:
    part = Section("What value lies on")
    if seen is None:
        part.text = ["Whether it lies on motion, edges and actors needs the videos: --data-root."]
        return part
    part.text = overlap_section.said(seen, over)
    if len(seen.table):
        alt = "Share of the value, and of the best tokens, that lies on each area"
        part.plots = [Plot(overlap_section.drawn(seen.table), alt)]
        part.tables = [Table("Every number", seen.table, folded=True)]
    return part


def _agreement(store: Store, over: str, on_progress: OnProgress) -> Section:
    frame = agreement(store, on_progress)
    if frame.empty:
        said = "This store has one oracle: `build-oracle --oracle`, repeated, makes several."
        return Section("Agreement of oracles", [said])
    said = f"Mean rank correlation of the maps of a clip; 95 % interval over {over}."
    return Section("Agreement of oracles", [said], tables=[Table("Pairs", frame)])


def _strips(
    store: Store,
    chosen: dict[int, str],
    data_root: str | None,
    model: LiteModel | None,
    oracle: str | None,
) -> Section:
    said = "Best, median and worst by the probability of the label, and by seed."
    part = Section("Clips", [said])
    if data_root is None:
        part.text = ["Film strips need the videos: give their folder with --data-root."]
        return part
    videos = Videos(store, data_root)
    for clip, why in chosen.items():
        try:
            part.strips.append(strip(store, clip, why, videos, model, oracle))
        except DecodeError as error:
            part.text.append(f"{why}, clip {clip}: {error}")
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
        tables=[Table("By status", counts), Table("The first ten", examples)],
    )
