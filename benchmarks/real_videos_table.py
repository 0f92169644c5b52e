"""What the folds of `real_videos.py` say together: tables in Markdown, intervals over groups."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline import open_store
from pipeline.config import DEFAULT_LAYER, OracleConfig
from pipeline.decode import DecodeRequest, decode_video
from selector.analysis.store import analyze_store
from selector.budgets.adaptive import MAX_LOSS, AdaptiveGoal, adaptive_results
from selector.evaluation.config import FULL
from selector.evaluation.files import Evaluation
from selector.evaluation.report.paired import Pair, PairedDifference, paired, pairs
from selector.evaluation.report.table import Entry, entries, make_table
from selector.evaluation.results import Outcomes, pool, read_outcomes
from selector.evaluation.timing import Timing
from selector.statistics import NUM_DRAWS, draws, interval, spearman

RENDERED_TABLE = Path(__file__).resolve().parents[1] / "BENCHMARKS.md"
AGAINST = (FULL, "random", "prior-spread[hirescam]", "lite")
OWN = "lite-spread[hirescam]"
SEEN, UNSEEN = "lite-spread[classes seen]", "lite-spread[classes not seen]"
_DEFAULT_ORACLE = f"[{DEFAULT_LAYER},{OracleConfig.method}]"
_TIMED = 24
"""Videos of each fold whose decoding is timed."""


def print_tables(folds: Sequence[Path], halves: tuple[str, str]) -> None:
    """Everything that the finished folds say.

    Args:
        folds: their folders, finished or not.
        halves: names of the selectors that saw every other class each.
    """
    done = [fold for fold in folds if (fold / "evaluation.done").is_file()]
    print(f"{len(done)} of {len(folds)} folds are finished")
    if done:
        print_evaluations([Evaluation(str(fold / "evaluation")) for fold in done])
    built = [fold for fold in done if (fold / "build-test.done").is_file()]
    if built:
        print_tails(built)
    if done:
        print_times(done)
    carried = [fold for fold in done if (fold / "transfer.done").is_file()]
    if carried:
        print(f"\nTransfer, {len(carried)} folds")
        print_transfer([Evaluation(str(fold / "transfer")) for fold in carried], halves)
    for fold in done:
        if (fold / "back.done").is_file():
            print("\nThe first fold's selector on rendered videos")
            print_back(Evaluation(str(fold / "back")))


def print_evaluations(evaluations: Sequence[Evaluation]) -> None:
    """Accuracy, differences, adaptive budgets, and the order of the methods."""
    lines, outcomes = pooled(evaluations)
    assert outcomes.groups is not None
    print(
        f"{len(outcomes.video_ids)} clips of {len(np.unique(outcomes.groups.astype(str)))} groups, "
        f"{outcomes.num_failed} failed, {outcomes.num_missing} missing, "
        f"{outcomes.padded.sum()} short"
    )
    adaptive, _ = adaptive_results(outcomes, evaluations[0].info, AdaptiveGoal(max_loss=MAX_LOSS))
    rows = make_table([*lines, *(result.entry for result in adaptive)], groups=outcomes.groups)
    at = {(row.method, row.keep_ratio): row for row in rows}
    full = at[FULL, 1.0]
    each = [100 * float(read_outcomes(e).top1[:, 0].mean()) for e in evaluations]
    print(
        f"all tokens: {100 * full.top1:.1f} [{100 * full.top1_low:.1f}, {100 * full.top1_high:.1f}]"
        f" %; by fold {', '.join(f'{value:.1f}' for value in each)}"
    )
    found = paired(pairs(lines, AGAINST, (), adaptive), NUM_DRAWS, 0, outcomes.groups)
    print_accuracy(lines, outcomes, found, AGAINST)
    print("\nAdaptive budgets: top-1, GFLOPs, against the base, against a mixture of that cost")
    for result in adaptive:
        key = result.entry.method, result.entry.keep_ratio
        own = [p for p in found if (p.method, p.keep_ratio) == key]
        said = "; ".join(f"{p.against} {difference(p)}" for p in own)
        print(f"- {key[0]} from {key[1]:g}: {100 * at[key].top1:.1f}, {at[key].gmacs:.4f}; {said}")
    print_order(lines, outcomes)


def print_transfer(evaluations: Sequence[Evaluation], halves: tuple[str, str]) -> None:
    """Selectors that learnt elsewhere, against the fold's own and against random tokens."""
    lines, outcomes = pooled(evaluations)
    lines += by_classes(lines, outcomes, halves)
    at = {(line.method, line.keep_ratio): line for line in lines}
    others = (FULL, "random", OWN)
    chosen = pairs(lines, others, (), [])
    chosen += [
        Pair(line, at[SEEN, line.keep_ratio], SEEN) for line in lines if line.method == UNSEEN
    ]
    found = paired(chosen, NUM_DRAWS, 0, outcomes.groups)
    print_accuracy(lines, outcomes, found, (*others, SEEN))


def print_back(evaluation: Evaluation) -> None:
    """A selector that learnt on real videos, on rendered ones and the shipped backbone."""
    lines, outcomes = pooled([evaluation])
    others = (FULL, "random", "lite-spread[rendered]")
    found = paired(pairs(lines, others, (), []), NUM_DRAWS, 0, outcomes.groups)
    print_accuracy(lines, outcomes, found, others)


def pooled(evaluations: Sequence[Evaluation]) -> tuple[list[Entry], Outcomes]:
    """The lines of all folds together."""
    outcomes, timing = pool([read_outcomes(e) for e in evaluations]), Timing()
    for evaluation in evaluations:
        timing.add(evaluation.timing())
    info = evaluations[0].info
    return entries(outcomes, info, timing.clips_per_s(info.config)), outcomes


def print_accuracy(
    lines: Sequence[Entry],
    outcomes: Outcomes,
    found: Sequence[PairedDifference],
    others: Sequence[str],
) -> None:
    """Top-1, and against each of some other methods."""
    rows = {(r.method, r.keep_ratio): r for r in make_table(lines, groups=outcomes.groups)}
    reduced = [line for line in lines if line.method != FULL]
    pivot("Top-1 in percent", reduced, lambda m, r: f"{100 * rows[m, r].top1:.1f}")
    for other in others:
        gaps = {(p.method, p.keep_ratio): p for p in found if p.against == other}
        pivot(f"Against {other}", reduced, lambda m, r, gaps=gaps: difference(gaps.get((m, r))))


def by_classes(lines: Sequence[Entry], outcomes: Outcomes, halves: tuple[str, str]) -> list[Entry]:
    """Each clip judged with the selector that saw its class, and with the one that did not.

    Both saw equally many classes, so they differ in that alone.
    """
    own = outcomes.labels % 2 == 0  # of the first half
    first, second = (
        {line.keep_ratio: line for line in lines if line.method == f"lite-spread[{half}]"}
        for half in halves
    )
    made = []
    for method, mine in ((SEEN, own), (UNSEEN, ~own)):
        for ratio, line in first.items():
            other = second[ratio]
            made.append(
                replace(
                    line,
                    method=method,
                    top1=np.where(mine[:, None], line.top1, other.top1),
                    top5=np.where(mine[:, None], line.top5, other.top5),
                )
            )
    return made


def pivot(title: str, lines: Sequence[Entry], cell: Callable[[str, float | None], str]) -> None:
    """Methods by keep ratios; the last column is of methods without one."""
    ratios = sorted({line.keep_ratio for line in lines if line.keep_ratio}, reverse=True)
    there = {(line.method, line.keep_ratio) for line in lines}
    print(f"\n{title}\n\n| tokens' cost | {' | '.join(f'{r:g}' for r in ratios)} | own |")
    print("|---" * (len(ratios) + 2) + "|")
    for method in dict.fromkeys(line.method for line in lines):
        cells = [cell(method, r) if (method, r) in there else "" for r in (*ratios, None)]
        if any(cells):
            print(f"| {short(method)} | {' | '.join(cells)} |")


def difference(pair: PairedDifference | None) -> str:
    """With its interval, and a star where it stands."""
    if pair is None:
        return ""
    low, middle, high = (100 * value for value in (pair.low, pair.difference, pair.high))
    return f"{middle:+.1f} [{low:+.1f}, {high:+.1f}]{'*' if pair.stands else ''}"


def short(method: str) -> str:
    """As the table of the rendered benchmark calls it."""
    return method.replace(_DEFAULT_ORACLE, "")


def rendered_top1(page: Path = RENDERED_TABLE) -> dict[tuple[str, float], float]:
    """Top-1 by method and cost of "Every method at every cost", read from the page itself."""
    found: dict[tuple[str, float], float] = {}
    ratios: list[float] = []
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if cells[0] == "tokens' cost" and not ratios:
            ratios = [float(c) for c in cells[1:] if re.fullmatch(r"\.\d+", c)]
        elif ratios and not line.startswith("|"):
            break
        elif ratios:
            for ratio, cell in zip(ratios, cells[1:], strict=False):
                if re.fullmatch(r"[\d.]+", cell):
                    found[cells[0], ratio] = float(cell)
    return found


def print_order(lines: Sequence[Entry], outcomes: Outcomes) -> None:
    """Whether the rendered benchmark orders the methods as these videos do."""
    rendered = rendered_top1()
    print("\nOrder of the methods here and on the rendered benchmark, Spearman")
    print("\n| tokens' cost | methods | all | without oracles | methods |\n|---|---|---|---|---|")
    ratios = sorted({line.keep_ratio for line in lines if line.keep_ratio}, reverse=True)
    for ratio in ratios:
        shared = [
            line
            for line in lines
            if line.keep_ratio == ratio and (short(line.method), ratio) in rendered
        ]
        if len(shared) < 3:
            continue
        cells = []
        for some in (shared, [line for line in shared if not line.method.startswith("oracle")]):
            here = np.stack([line.top1.mean(axis=1) for line in some], axis=1)
            there = np.array([rendered[short(line.method), ratio] for line in some])
            cells.append((len(some), correlation(here, there, outcomes)))
        (num, text), (num_own, own) = cells
        print(f"| {ratio:g} | {num} | {text} | {own} | {num_own} |")


def correlation(
    here: npt.NDArray[np.float64], there: npt.NDArray[np.float64], outcomes: Outcomes
) -> str:
    """Spearman of (V, M) outcomes' means with (M,), its interval over groups of the videos."""
    weights = np.concatenate(list(draws(len(here), groups=outcomes.groups)))
    samples = spearman(weights @ here, np.broadcast_to(there, (len(weights), len(there))))
    low, high = interval(samples[:, None])[:, 0]
    observed = spearman(here.mean(axis=0)[None], there[None])[0]
    return f"{observed:+.2f} [{low:+.2f}, {high:+.2f}]"


def print_tails(folds: Sequence[Path]) -> None:
    """How unequal the token values of the held-out clips are, as `analyze` has it."""
    print("\nToken values of the held-out clips, means over the folds (smallest, largest)")
    print("\n| oracle | best 10 % hold, % | Gini | exactly 0, % | tail shape, all | within clips |")
    print("|---" * 6 + "|")
    for oracle in map(str, open_store(str(folds[0] / "store-test")).config.oracles):
        rows = []
        for fold in folds:
            found = analyze_store(open_store(str(fold / "store-test")), oracle=oracle)
            tails = found.tails.sort_values("share", ascending=False).groupby("values").first()
            shapes = [float(tails["shape"].get(kind, np.nan)) for kind in ("raw", "relative")]
            of = found.pooled
            rows.append([100 * of["top10_share"], of["gini"], 100 * of["zero_share"], *shapes])
        values = np.array(rows)
        digits = (1, 3, 1, 3, 3)
        cells = [
            f"{v.mean():.{d}f} ({v.min():.{d}f}, {v.max():.{d}f})"
            for v, d in zip(values.T, digits, strict=True)
        ]
        print(f"| {oracle} | {' | '.join(cells)} |")


def print_times(folds: Sequence[Path]) -> None:
    """Processor time of one clip: decoding, embedding, the selector, the blocks."""
    spent, timing = [], Timing()
    for fold in folds:
        evaluation = Evaluation(str(fold / "evaluation"))
        timing.add(evaluation.timing())
        config = evaluation.config
        for path in evaluation.plan()["path"].to_pylist()[:_TIMED]:
            request = DecodeRequest(
                path=str(fold / "data" / path), size=48, short_side=48, sampling=config.sampling
            )
            of_file = []
            for _ in range(3):
                began = time.process_time()
                decode_video(request)
                of_file.append(time.process_time() - began)
            spent.append(min(of_file))
    decode = 1000 * float(np.mean(spent))
    embed = 1000 * timing.embed / timing.clips
    print("\nProcessor time of a clip in ms, and its share: decoding, embedding, selector, blocks")
    for method, ratio in ((FULL, 1.0), ("lite-spread", 0.5), ("lite-spread", 0.1)):
        column = next(
            i
            for i, c in enumerate(config.conditions)
            if (c.method, c.keep_ratio) == (method, ratio)
        )
        rank = 1000 * timing.rank.get(method, 0.0) / timing.clips
        blocks = 1000 * timing.forward[str(column)] / timing.clips
        parts = (decode, embed, rank, blocks)
        whole = sum(parts)
        said = ", ".join(f"{part:.2f} ({100 * part / whole:.0f} %)" for part in parts)
        print(f"- {method} at {ratio:g}: {said}; {whole:.2f} in all")
