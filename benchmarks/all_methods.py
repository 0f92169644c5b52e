"""Every method at every cost: top-1, against random, against the best peer, and clips per second.

    python benchmarks/all_methods.py --data-root DATA --out OUT --workers 2 \
        --selector SELECTOR --selector hirescam=OTHER

It is one `lite-pipeline evaluate` over all that can run on the rendered benchmark, so it goes on
where it was interrupted, and `lite-pipeline evaluate --out OUT --table-only` shows the rest. Left
out: `motion-vectors`, which its codec has none of; `saliency`, which takes an extra package and as
long as the model (add it by --also); `oracle-wrong`, a control for the oracle alone.

Another backbone is --backbone DIR, with selectors of its own and a folder of its own; what cannot
serve it is listed with the reason. `benchmarks/method_order.py` then compares the folders.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable

from pipeline.backbones import Backbone, load_backbone
from pipeline.config import OracleConfig, RunConfig
from pipeline.errors import ConfigError
from pipeline.oracle.names import default_layer
from selector.evaluation.config import FULL, EvalConfig, parse_keep_ratios
from selector.evaluation.report.paired import BEST
from selector.evaluation.report.summary import Summary, summarise
from selector.evaluation.report.table import TableRow
from selector.evaluation.run import evaluate
from selector.methods.keep import KEEP_RATIOS
from selector.methods.names import MethodName, parse_selectors
from selector.methods.registry import Parts, make_method, parse_methods

BEFORE = (
    "random,uniform,random-frame,uniform-frame,random-tube,uniform-tube,"
    "motion,motion-pixels,evs,fluxvit,rlt,rlt[grey=3],attention,attention[blocks.-1]"
)
ORACLES = "oracle,oracle-predicted,oracle-second"
INSIDE = (
    "tome,tome[inflect=-1],tome[prop-attn],tome[drop],tome[hybrid],tome[random-merge],"
    "tome[random-drop],pitome,pitome[plain],vid-tldr,sta,evit,repshift"
)
BY_SELECTOR = ("lite", "lite-spread", "prior", "prior-spread", "lite-tube", "lite-frame")
FURTHER_SELECTOR = ("lite", "lite-spread")
CHAINS = "lite+tome,lite-spread+tome,random+tome"


def method_names(selectors: list[str]) -> str:
    """All of them, for the first of the selectors, and its rankings alone for the others."""
    names = []
    for which, selector in enumerate(selectors):
        wanted = FURTHER_SELECTOR if which else BY_SELECTOR
        names += [selector.replace("lite", name, 1) for name in wanted]
    chains = CHAINS.replace("lite-spread+", selectors[0].replace("lite", "lite-spread", 1) + "+")
    chains = chains.replace("lite+", selectors[0] + "+", 1)
    return ",".join([BEFORE, *names, ORACLES, INSIDE, chains])


def that_serve(
    names: tuple[MethodName, ...], backbone: Backbone, selectors: dict[str, str]
) -> tuple[str, ...]:
    """Those that can serve a backbone; the others are printed with the reason."""
    fit = []
    for name in names:
        try:
            make_method(name, Parts(backbone, selectors=selectors))
        except ConfigError as error:
            print(f"left out: {error}")
        else:
            fit.append(str(name))
    return tuple(fit)


def lines_of(summary: Summary) -> dict[tuple[str, float | None], TableRow]:
    """The lines by method and budget, in the table's order, without the adaptive budgets."""
    adaptive = {setting.method for setting in summary.adaptive}
    return {(r.method, r.keep_ratio): r for r in summary.table if r.method not in adaptive}


def budgets_of(lines: Iterable[tuple[str, float | None]]) -> list[float]:
    """The dearest first."""
    return sorted({ratio for _, ratio in lines if ratio is not None}, reverse=True)


def pivot(summary: Summary, title: str, cell: Callable[[TableRow], str]) -> None:
    """Print one Markdown table, methods by budgets; the last column is of methods without one."""
    at = lines_of(summary)
    methods, ratios = dict.fromkeys(method for method, _ in at), budgets_of(at)
    print(f"\n{title}\n\n| cost of tokens kept | {' | '.join(f'{r:g}' for r in ratios)} | own |")
    print("|---" * (len(ratios) + 2) + "|")
    for method in methods:
        rows = [at.get((method, ratio)) for ratio in (*ratios, None)]
        cells = ["" if row is None else cell(row) for row in rows]
        if any(cells):
            print(f"| {method} | {' | '.join(cells)} |")


def difference_to(summary: Summary, against: str) -> Callable[[TableRow], str]:
    """The cell that says how far a line is above another, with a star where that stands."""
    found = {(p.method, p.keep_ratio): p for p in summary.paired if p.against == against}

    def cell(row: TableRow) -> str:
        pair = found.get((row.method, row.keep_ratio))
        if pair is None:
            return ""
        low, middle, high = (100 * value for value in (pair.low, pair.difference, pair.high))
        text = f"{middle:+.1f} [{low:+.1f}, {high:+.1f}]{'*' if pair.stands else ''}"
        return f"{text} {pair.other}" if against == BEST else text

    return cell


def clips_per_s(row: TableRow) -> str:
    """The cell of its speed, where that was measured."""
    return "" if row.clips_per_s is None else f"{row.clips_per_s:.0f}"


def one_table(summary: Summary) -> None:
    """Print all but the costs in one Markdown table; methods without a budget in a line each."""
    at = {key: row for key, row in lines_of(summary).items() if row.method != FULL}
    methods = dict.fromkeys(method for method, ratio in at if ratio is not None)
    against_random, against_best = (difference_to(summary, name) for name in ("random", BEST))
    columns: list[tuple[str, float, Callable[[TableRow], str]]] = [
        *(("", r, lambda row: f"{100 * row.top1:.1f}") for r in budgets_of(at)),
        *(("against random at ", r, against_random) for r in (0.5, 0.3, 0.1)),
        *(("against the best other at ", r, against_best) for r in (0.5, 0.3)),
        *(("clips/s at ", r, clips_per_s) for r in (0.5, 0.3)),
    ]
    titles = " | ".join(title + f"{ratio:g}".lstrip("0") for title, ratio, _ in columns)
    print(f"\nIn one\n\n| tokens' cost | {titles} |")
    print("|---" * (len(columns) + 1) + "|")
    for method in methods:
        rows = ((at.get((method, ratio)), cell) for _, ratio, cell in columns)
        cells = " | ".join("" if row is None else cell(row) for row, cell in rows)
        print(f"| {method} | {cells} |")
    for (method, ratio), row in at.items():
        if ratio is None:
            print(
                f"{method}: {row.num_kept:.0f} tokens, {100 * row.top1:.1f} %, "
                f"{against_random(row)} against random"
            )


def main() -> None:
    """Evaluate, then print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--backbone", default="synthetic")
    parser.add_argument("--selector", action="append", required=True, metavar="[NAME=]DIR")
    parser.add_argument("--methods", help="these, with commas, instead of all")
    parser.add_argument("--also", help="further methods, with commas")
    parser.add_argument("--keep-ratios", default=",".join(map(str, (1.0, *KEEP_RATIOS))))
    parser.add_argument("--limit", type=int, help="an even sample of so many videos")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0, help="0 runs in this process")
    options = parser.parse_args()
    selectors = parse_selectors(options.selector)
    names = options.methods or method_names(list(selectors))
    names += f",{options.also}" if options.also else ""
    described = load_backbone(options.backbone, device="meta")
    layer = default_layer(described, OracleConfig.method)
    methods = parse_methods(names, layer, OracleConfig.method)
    asked = EvalConfig(
        dataset="synthetic",
        backbone=options.backbone,
        methods=that_serve(methods, described, selectors),
        keep_ratios=parse_keep_ratios(options.keep_ratios),
        split="",
        num_segments=0,
        num_crops=0,
        sampling="",
        limit=options.limit,
        selectors=selectors,
        num_seeds=options.seeds,
        shard_size=40,
    )
    run = RunConfig(data_root=options.data_root, batch_size=40, workers=options.workers)
    done = evaluate(asked, options.out, run, progress_stream=sys.stderr)
    summary = summarise(done.evaluation, against=["random", BEST])
    print(
        f"{summary.num_videos} videos, {summary.num_failed} left out, {summary.num_missing} missing"
    )
    full = next(row for row in summary.table if row.method == FULL)
    print(f"all tokens: {100 * full.top1:.1f} %, {full.gmacs:.4g} GFLOPs, {full.clips_per_s:.4g}/s")
    pivot(
        summary,
        "Top-1 in percent (own: of a method without a budget, with the tokens that it keeps)",
        lambda row: (
            f"{100 * row.top1:.1f}"
            + ("" if row.keep_ratio is not None else f" ({row.num_kept:.0f} tokens)")
        ),
    )
    pivot(summary, "Against random at the same cost", difference_to(summary, "random"))
    pivot(summary, "Against the best other method that saves", difference_to(summary, BEST))
    pivot(
        summary,
        "GFLOPs without what decides / with it (- : an oracle)",
        lambda row: (
            f"{row.gmacs_backbone:.4f} / " + ("-" if row.gmacs is None else f"{row.gmacs:.4f}")
        ),
    )
    pivot(
        summary,
        "Clips per second of one core's processor time, without decoding",
        clips_per_s,
    )
    one_table(summary)


if __name__ == "__main__":
    main()
