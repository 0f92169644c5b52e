"""`lite-pipeline analyze`: how unequal token values are, their tail, and how classes differ."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import options, output
from pipeline.cli.table import Column, echo_table

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.store.reader import Store
    from selector.analysis.overlap import Overlap
    from selector.analysis.store import Analysis

TABLES = (
    "shares", "videos", "classes", "easy_hard", "tails", "power_laws", "alternatives", "trends",
    "lorenz", "histogram",
)  # fmt: skip
"""Tables of `Analysis`, each a file of `--out`."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(analyze)


def analyze(
    store: Annotated[str, typer.Option(help="Folder or URL of an oracle store.")],
    tail: Annotated[
        float,
        typer.Option(
            help="Share of the positive values in the tail fit; its half and fifth are fitted too."
        ),
    ] = 0.1,
    oracle: options.StoreOracle = None,
    data_root: Annotated[
        str | None,
        typer.Option(
            help="Folder of the store's videos: also whether value lies on motion, edges and, of "
            "rendered videos, the actor."
        ),
    ] = None,
    overlap_clips: Annotated[
        int, typer.Option(min=1, help="Clips that are sampled and decoded for that.")
    ] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of that sample.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Also write every table as .csv into this folder, with a row for each video."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show how unequal token values are, whether their tail is Pareto, and how classes differ."""
    from pipeline import open_store
    from pipeline.errors import ConfigError
    from pipeline.store.root import write_file
    from selector.analysis.places import agreement
    from selector.analysis.store import analyze_store

    if not 0 < tail <= 1:
        raise ConfigError(f"--tail must lie in (0, 1], got {tail}")
    if out is not None:
        options.require_writable_folder(out)
    opened = open_store(store)
    seen = None if data_root is None else _overlap(opened, data_root, overlap_clips, seed, oracle)
    with output.counted("shards") as on_progress:
        result = analyze_store(opened, tail, on_progress, oracle)
    oracles = agreement(opened)
    tables = {name: getattr(result, name) for name in TABLES} | {"agreement": oracles}
    if seen is not None:
        tables["overlap"] = seen.table
    if out is not None:
        for name, table in tables.items():
            write_file(out / f"{name}.csv", table.to_csv(index=False).encode())
    if as_json:
        content = result.to_dict() | {"agreement": oracles.to_dict("records")}
        if seen is not None:
            content["overlap"] = {"rows": seen.table.to_dict("records"), "notes": seen.notes}
        output.echo_json(content)
    else:
        _echo_report(result)
        _echo_agreement(oracles, result.over)
        _echo_overlap(seen, result.over)


def _overlap(
    store: Store, data_root: str, num_clips: int, seed: int, oracle: str | None
) -> Overlap:
    """First of all, so that a wrong folder is said before the long reading."""
    from selector.analysis.overlap import overlap

    with output.counted("clips") as on_progress:
        return overlap(store, data_root, num_clips, seed, oracle, on_progress)


def _echo_report(result: Analysis) -> None:
    pooled = result.pooled
    top1 = "no labels" if math.isnan(result.top1) else f"top-1 {100 * result.top1:.1f} %"
    output.echo_prose(
        f"{result.num_clips} clips ({result.num_failed} failed, {result.num_degenerate} without "
        f"any positive token), {pooled['num_tokens']:,} tokens, {top1}"
    )
    output.echo()
    output.echo_prose(
        f"scores (in [0, 1], 1 = the clip's best): mean {pooled['mean']:.3f}, median "
        f"{pooled['q50']:.3f}, 99 % {pooled['q99']:.3f}; exactly zero "
        f"{100 * pooled['zero_share']:.1f} %, half of the best or more "
        f"{100 * pooled['half_share']:.1f} %"
    )
    output.echo_prose(
        f"the best 10 % of the tokens hold {100 * pooled['top10_share']:.1f} % of the value; "
        f"Gini {pooled['gini']:.3f} (0 = all equal, 1 = one has all)"
    )
    output.echo()
    _echo_shares(result)
    output.echo()
    _echo_tails(result)
    output.echo()
    _echo_power_laws(result)
    output.echo()
    _echo_trends(result)
    _echo_easy_hard(result)


def _echo_shares(result: Analysis) -> None:
    output.echo_prose(
        f"value held by the best tokens, in %, and Gini; [95 % over {result.over}: jackknife of "
        "all tokens together, bootstrap of the mean within a video]"
    )
    names = {"top1_share": "1 %", "top5_share": "5 %", "top10_share": "10 %", "top20_share": "20 %"}
    whole = result.shares[result.shares["label"].isna()]
    cells: dict[str, dict[str, str]] = {"tokens": {}, "videos": {}}
    for row in whole.to_dict("records"):
        factor, digits = (1, 3) if row["measure"] == "gini" else (100, 1)
        value, low, high = (factor * row[column] for column in ("value", "low", "high"))
        cells[row["over"]][row["measure"]] = _span(value, low, high, digits, sign="")
    rows = [
        [names.get(measure, "Gini"), cells["tokens"][measure], cells["videos"].get(measure, "-")]
        for measure in cells["tokens"]
    ]
    columns = [Column("best", right=True), Column("all tokens"), Column("within a video")]
    echo_table(columns, rows)


def _echo_tails(result: Analysis) -> None:
    if result.tails.empty:
        output.echo("tail: too few positive values to fit one")
        return
    output.echo_prose(
        "tail of the positive values before scaling: generalised Pareto above a threshold. shape: "
        "0 = exponential, above 0 = Pareto-like (larger is heavier, and a true Pareto tail keeps "
        f"its shape in smaller parts), below 0 = ends; [95 % jackknife over {result.over}]. gain: "
        "log-likelihood per token over an exponential and over a plain Pareto, special cases and "
        "so never better; 0 = that case fits as well"
    )
    titles = {
        "raw": "own units, all clips together (clips of unlike scale make it heavier)",
        "relative": "over each clip's mean positive value: the tail within clips",
    }
    rows: list[str | list[str]] = []
    for values, found in result.tails.groupby("values", sort=False):
        rows.append(titles[str(values)])
        rows += [
            [
                f"{100 * row['share']:.3g} %",
                f"{row['num_tokens']:,}",
                _span(row["shape"], row["shape_low"], row["shape_high"], 3),
                f"{row['over_exponential']:.4f}",
                f"{row['over_pareto']:.4f}",
            ]
            for row in found.to_dict("records")
        ]
    columns = [
        Column("best", right=True),
        Column("tokens", right=True),
        Column("shape"),
        Column("over exponential", right=True),
        Column("over Pareto", right=True),
    ]
    echo_table(columns, rows)


def _echo_power_laws(result: Analysis) -> None:
    if result.power_laws.empty:
        return
    output.echo_prose(
        "plain power law from the cut-off where it fits best (Kolmogorov-Smirnov), against other "
        "laws above the same cut-off: log-likelihood per token that it gains, in nats; below 0 = "
        f"the other fits better; [95 % over {result.over}]. A truncated power law is never worse, "
        "and a "
        "log-normal can come as close as one likes: only far below 0 says something of those"
    )
    for law in result.power_laws.to_dict("records"):
        exponent = _span(law["exponent"], law["low"], law["high"], 2, sign="")
        output.echo_prose(
            f"{law['values']}: best {100 * law['share']:.2g} % ({law['num_tokens']:,} tokens), "
            f"exponent {exponent}, distance {law['distance']:.4f}"
        )
        others = result.alternatives[result.alternatives["values"] == law["values"]]
        rows = [
            (row["alternative"].replace("_", " "), _span(row["ratio"], row["low"], row["high"], 4))
            for row in others.to_dict("records")
        ]
        echo_table([Column("against"), Column("gain")], rows)


def _echo_easy_hard(result: Analysis) -> None:
    if result.easy_hard.empty:
        return
    found = {row["measure"]: row for row in result.easy_hard.to_dict("records")}
    distance, superior = (
        _span(row["value"], row["low"], row["high"], 3, sign="")
        for row in (found["ks_distance"], found["superiority"])
    )
    output.echo()
    output.echo_prose(
        "scores of the easy and of the hard third of the classes: Kolmogorov-Smirnov distance "
        f"{distance} (0 = alike, 1 = apart; above 0 by chance); a token of an easy class has the "
        f"higher score with probability {superior} (0.5 = neither) [95 % jackknife over "
        f"{result.over}]"
    )


def _echo_agreement(oracles: pd.DataFrame, over: str) -> None:
    if oracles.empty:
        return
    output.echo()
    output.echo_prose(
        "agreement of the oracles: Spearman of their maps within a clip, the mean [95 % bootstrap "
        f"over {over}]"
    )
    rows = [
        (_span(row["spearman"], row["low"], row["high"], 3), row["first"], row["second"])
        for row in oracles.to_dict("records")
    ]
    echo_table([Column("Spearman"), Column("oracle"), Column("and")], rows)


def _echo_overlap(seen: Overlap | None, over: str) -> None:
    output.echo()
    if seen is None:
        output.echo_prose(
            "whether value lies on motion, edges and actors: needs the videos, --data-root DIR"
        )
        return
    output.echo_prose("does value lie on what is seen? " + " ".join(seen.notes))
    if seen.table.empty:
        return
    output.echo_prose(
        "motion, edges: the fifth of a clip's tokens with the most; actor: tokens that it covers "
        "a quarter of. Shares of the value and of the best tenth of the tokens that lie there; AUC "
        "of the value, there against elsewhere; Spearman with how much of it a token has. [95 % "
        f"over {over}]; x: times a uniform map's share; shuffled: 95 % of the means with the same "
        "values put elsewhere by chance; other: with another video's map"
    )
    names = {
        "value_share": "value, %",
        "top10_share": "best 10 %, %",
        "auc": "AUC",
        "spearman": "Spearman",
    }
    rows: list[str | list[str]] = []
    for area, found in seen.table.groupby("area", sort=False):
        first = found.iloc[0]
        rows.append(
            f"{area}: {100 * first['uniform']:.1f} % of the tokens; {first['num_clips']} clips of "
            f"{first['num_videos']} videos"
        )
        for row in found.to_dict("records"):
            is_share = row["measure"].endswith("_share")
            factor, digits = (100, 1) if is_share else (1, 3)
            sign = "+" if row["measure"] == "spearman" else ""
            keys = ("value", "low", "high", "shuffled_low", "shuffled_high", "other_video")
            value, low, high, least, most, other = (factor * row[key] for key in keys)
            times = f"x{row['ratio']:.2f}" if is_share else ""
            form = f"{sign}.{digits}f"
            rows.append(
                [
                    names[row["measure"]],
                    _span(value, low, high, digits, sign=sign),
                    times,
                    f"{least:{form}} to {most:{form}}",
                    "-" if math.isnan(other) else f"{other:{form}}",
                ]
            )
    echo_table([Column(name) for name in ("", "value", "x", "shuffled", "other")], rows)


def _echo_trends(result: Analysis) -> None:
    if result.trends.empty:
        output.echo_prose(
            "easy and hard classes: too few classes with a label, or too alike, to compare"
        )
        return
    names = {
        "half_share": "tokens of half the best or more: how many matter",
        "top10_share": "value held by the best 10 %: how concentrated it is",
        "gini": "Gini: how unequal tokens are",
        "tail_shape": "shape of the tail within clips: how slowly it falls",
    }
    output.echo_prose(
        f"do easier classes have thinner tails, as in the paper? Spearman over "
        f"{len(result.classes)} classes of top-1 with each sense of it; below 0 = thinner [95 % "
        "bootstrap over classes]"
    )
    rows = [
        (
            _span(row["spearman"], row["low"], row["high"], 2),
            names[row["measure"]]
            + ("" if row["num_classes"] == len(result.classes) else f" ({row['num_classes']})"),
        )
        for row in result.trends.to_dict("records")
    ]
    echo_table([Column("Spearman"), Column("measure (classes)")], rows)


def _span(value: float, low: float, high: float, digits: int, sign: str = "+") -> str:
    """An estimate with its interval, where there is one."""
    form = f"{sign}.{digits}f"
    known = f" [{low:{form}}, {high:{form}}]" if not math.isnan(low) else ""
    return f"{value:{form}}{known}"
