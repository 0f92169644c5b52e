"""The table of an evaluation for other programs: all numbers as CSV, a readable one as LaTeX."""

from __future__ import annotations

import pandas as pd

from selector.evaluation.report.summary import Summary

COLUMNS = (
    *("method", "keep_ratio", "num_kept", "gmacs", "gmacs_backbone", "clips_per_s"),
    *("top1", "top1_low", "top1_high", "top5"),
)


def table_frame(summary: Summary) -> pd.DataFrame:
    """One row per line of the table.

    Returns:
        `COLUMNS`, the fields of `TableRow`, accuracies as shares; then, for every method that the
        lines are compared with, `against_NAME` (a difference of shares), its 95 % interval
        `against_NAME_low` and `_high`, and `against_NAME_p` after Holm's correction. NaN where
        there is no number. Of an adaptive budget, `keep_ratio` is its base's.
    """
    rows = [{name: getattr(row, name) for name in COLUMNS} for row in summary.table]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = list(COLUMNS[1:])
    frame[numbers] = frame[numbers].astype(float)
    for other in summary.against:
        found = {
            (pair.method, pair.keep_ratio): (pair.difference, pair.low, pair.high, pair.p_value)
            for pair in summary.paired
            if pair.against == other
        }
        values = [found.get((row.method, row.keep_ratio)) for row in summary.table]
        for place, ending in enumerate(("", "_low", "_high", "_p")):
            column = [float("nan") if value is None else value[place] for value in values]
            frame[f"against_{other}{ending}"] = column
    return frame


def to_csv(summary: Summary) -> str:
    """`table_frame` with every digit; what is missing is empty."""
    return table_frame(summary).to_csv(index=False, lineterminator="\n")


def to_latex(summary: Summary) -> str:
    """A `longtable` in percent with intervals; its document needs `booktabs` and `longtable`.

    A star stands where a difference differs from 0 with its whole column in mind.
    """
    frame = table_frame(summary)
    shown = pd.DataFrame({"method": frame["method"]})
    shown["keep"] = frame["keep_ratio"].map("{:.3g}".format, na_action="ignore")
    shown["GFLOPs"] = frame["gmacs"].map("{:.4g}".format, na_action="ignore")
    shown["clips/s"] = frame["clips_per_s"].map("{:.4g}".format, na_action="ignore")
    shown["top-1 %"] = _spans(frame, "top1", "{:.1f}")
    shown["top-5 %"] = (100 * frame["top5"]).map("{:.1f}".format)
    for other in summary.against:
        name = f"against_{other}"
        stars = (frame[f"{name}_p"] < 1 - summary.level).map({True: "*", False: ""})
        shown[f"against {other}"] = _spans(frame, name, "{:+.1f}") + stars
    views = f"{summary.num_videos} videos, {summary.views} views"
    text: str = shown.astype(object).to_latex(
        index=False,
        escape=True,
        longtable=True,
        na_rep="-",
        column_format="l" + "r" * (shown.shape[1] - 1),
        caption=escape_latex(
            f"{summary.dataset}/{summary.split}, backbone {summary.backbone}, {views}; in "
            f"brackets {summary.level:.0%} intervals over {summary.over}"
        ),
    )
    return text


def _spans(frame: pd.DataFrame, name: str, digits: str) -> pd.Series:
    """Percent with the interval; missing where there is none."""
    parts = [(100 * frame[name + end]).map(digits.format) for end in ("", "_low", "_high")]
    return (parts[0] + " [" + parts[1] + ", " + parts[2] + "]").where(frame[name].notna())


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    sign: f"\\{sign}" for sign in "&%$#_{}"
}


def escape_latex(text: str) -> str:
    """The text with every sign that LaTeX would read as its own."""
    return "".join(_LATEX.get(sign, sign) for sign in text)
