"""The paper's tables made of an evaluation's lines, as plain frames, and as text for a paper."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from pipeline.errors import ConfigError
from selector.evaluation.config import FULL
from selector.evaluation.report.export import escape_latex
from selector.evaluation.report.published import PUBLISHED, beside, budgets
from selector.evaluation.report.summary import Summary
from selector.evaluation.report.table import TableRow

VARIANTS = 5
"""The table of ways to train the selector; the paper gives neither keep ratio nor views."""
VARIANT_LINES = (
    ("MLP", "lite", 65.03, 88.52),
    ("edges damped", "lite[edges]", 64.98, 88.92),
    ("isolated peaks removed", "lite[peaks]", 64.83, 88.67),
    ("sharpened", "lite[sharpen]", 64.80, 87.98),
    ("global branch", "lite[global]", 65.10, 88.55),
)
"""What the paper calls it, the line of ours, and its top-1 and top-5 as printed, in percent."""

DATASETS = {1: "ssv2", 2: "kinetics400", 3: "ssv2", 4: "ssv2", VARIANTS: "ssv2", 6: "ssv2"}
"""Number of the table to the dataset that its printed numbers are of."""

_METHODS = {
    1: "lite,tome,sta --keep-ratios 1,.9,.7,.5,.3",
    2: "lite,tome,sta --keep-ratios 1,.9,.7,.5,.3",
    3: "oracle,oracle-predicted --keep-ratios 1,.5",
    4: "lite --keep-ratios 1,.9,.7,.5,.3,.2,.1",
    VARIANTS: '"lite,lite[edges],lite[peaks],lite[sharpen],lite[global]"',
    6: "lite --keep-ratios 1,.9,.7,.5,.3,.1",
}
_SELECTORS = {
    3: "",
    VARIANTS: " --selector MLP"
    + "".join(f" --selector {name}=DIR" for name in ("edges", "peaks", "sharpen", "global")),
}


class _Line(NamedTuple):
    """A line of the paper, and ours."""

    model: str
    gflops: float | None
    top1: float
    top5: float | None
    wanted: bool
    ours: TableRow | None


@dataclass(frozen=True)
class PaperTable:
    """One table.

    Attributes:
        caption: what it shows, and of which data.
        frame: `model`, `method`, `gflops`, `top1`, `top1_low`, `top1_high`, `top5`: ours, in GMACs
            of one view of the backbone alone and in percent; and, where the evaluation is of the
            paper's dataset, `published_gflops`, `published_top1` and `published_top5`. A line that
            was not evaluated is missing, or has no numbers of ours beside the published.
        lacking: the paper's names of lines that could be evaluated, and were not.
        command: evaluates them.
    """

    caption: str
    frame: pd.DataFrame
    lacking: list[str]
    command: str


def paper_table(number: int, summary: Summary, keep_ratio: float = 0.5) -> PaperTable:
    """One of the paper's tables, of any dataset.

    Args:
        number: of the table, a key of `DATASETS`.
        summary: of the evaluation.
        keep_ratio: of Table 5, whose own is not public.

    Raises:
        ConfigError: no such table, or the evaluation has no line of it.
    """
    if number not in DATASETS:
        raise ConfigError(f"the paper's tables are {', '.join(map(str, DATASETS))}, got {number}")
    lines = _lines(number, summary, keep_ratio)
    selectors = _SELECTORS.get(number, " --selector DIR")
    command = (
        f"lite-pipeline evaluate --data-root DATA --out OUT{selectors} --methods {_METHODS[number]}"
    )
    if number in (1, 2):
        costs = ",".join(f"{cost:.4g}" for cost in budgets(number, summary.table))
        command += f" --gflops {costs}"
    lacking = [line.model for line in lines if line.wanted and line.ours is None]
    if not any(line.ours is not None and line.ours.method != FULL for line in lines):
        raise ConfigError(
            f"{summary.out} has no line of Table {number} but the full model's; it lacks "
            f"{', '.join(lacking)}. To evaluate them: {command}"
        )
    is_papers = summary.dataset == DATASETS[number]
    rows = []
    for line in lines:
        row: dict[str, object] = {"model": line.model}
        if line.ours is not None:
            row |= {"method": line.ours.method, "gflops": line.ours.gmacs_backbone}
            row |= {
                name: 100 * getattr(line.ours, name)
                for name in ("top1", "top1_low", "top1_high", "top5")
            }
        elif not is_papers:
            continue
        if is_papers:
            row |= {
                "published_gflops": line.gflops,
                "published_top1": line.top1,
                "published_top5": line.top5,
            }
        rows.append(row)
    columns = ["model", "method", "gflops", "top1", "top1_low", "top1_high", "top5"]
    if is_papers:
        columns += ["published_gflops", "published_top1", "published_top5"]
    title = "Selector variants" if number == VARIANTS else PUBLISHED[number][0]
    caption = (
        f"The paper's Table {number} ({title}), on {summary.dataset}/{summary.split} with "
        f"{summary.backbone}, {summary.views} views, {summary.num_videos} videos"
    )
    if number == VARIANTS:
        caption += f", keep ratio {keep_ratio:g}"
    if not is_papers:
        caption += f"; without the printed numbers, which are of {DATASETS[number]}"
    return PaperTable(caption, pd.DataFrame(rows, columns=columns), lacking, command)


def _lines(number: int, summary: Summary, keep_ratio: float) -> list[_Line]:
    if number != VARIANTS:
        return [
            _Line(line.model, line.gflops, line.top1, line.top5, line.method is not None, ours)
            for line, ours in beside(number, summary.table)
        ]
    found = {row.method: row for row in summary.table if row.keep_ratio == keep_ratio}
    return [
        _Line(model, None, top1, top5, True, found.get(method))
        for model, method, top1, top5 in VARIANT_LINES
    ]


HEADS = {
    "model": "model",
    "method": "ours",
    "gflops": "GFLOPs",
    "top1": "top-1 % [95 %]",
    "top5": "top-5 %",
    "published_gflops": "published GFLOPs",
    "published_top1": "published top-1 %",
    "published_top5": "published top-5 %",
}
"""Columns of a table for readers; the interval stands beside its top-1."""


def to_csv(table: PaperTable) -> str:
    """All numbers in full, one column each; what is missing is empty."""
    data = io.StringIO()
    writer = csv.writer(data, lineterminator="\n")
    writer.writerow(table.frame.columns)
    for row in table.frame.itertuples(index=False):
        writer.writerow(["" if pd.isna(cell) else cell for cell in row])
    return data.getvalue()


def to_markdown(table: PaperTable) -> str:
    """A table of GitHub's Markdown below its caption."""
    head, *rows = _cells(table)
    lines = [head, ["---"] * len(head), *rows]
    shown = ["| " + " | ".join(c.replace("|", r"\|") for c in line) + " |" for line in lines]
    return f"{table.caption}\n\n" + "\n".join(shown) + "\n"


def to_latex(table: PaperTable) -> str:
    """A `table` environment; its document needs `booktabs`."""
    head, *rows = [[_latex(cell) for cell in row] for row in _cells(table)]
    alignment = "".join("l" if name in ("model", "ours") else "r" for name in _cells(table)[0])
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(table.caption)}}}",
            rf"\begin{{tabular}}{{{alignment}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            *(" & ".join(row) + r" \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


FORMATS: dict[str, Callable[[PaperTable], str]] = {
    "csv": to_csv,
    "md": to_markdown,
    "tex": to_latex,
}
"""Ending of a file to how a table is written in it."""


def _cells(table: PaperTable) -> list[list[str]]:
    names = [name for name in HEADS if name in table.frame]
    rows = []
    for row in table.frame.to_dict("records"):
        cells = {name: _text(name, row[name]) for name in names}
        if not pd.isna(row["top1"]):
            cells["top1"] += f" [{row['top1_low']:.1f}, {row['top1_high']:.1f}]"
        rows.append(list(cells.values()))
    return [[HEADS[name] for name in names], *rows]


def _text(name: str, value: object) -> str:
    if pd.isna(value):  # type: ignore[call-overload]
        return "-"
    if name in ("model", "method"):
        return str(value)
    digits = {"gflops": "{:.4g}", "published_gflops": "{:g}", "top1": "{:.1f}", "top5": "{:.1f}"}
    return digits.get(name, "{:.2f}").format(value)


def _latex(text: str) -> str:
    # A bracket first in a row would be the optional argument of the \\ before it.
    escaped = escape_latex(text)
    return f"{{}}{escaped}" if escaped.startswith("[") else escaped
