"""Whose confidence should set LITE++'s budget: a MoViNet's, as in the paper, or the backbone's own?

    python benchmarks/confidences.py --model SELECTOR --eval EVAL --data-root DATA \
        --confidence movinet:A0@CONFIDENCE/movinet.pth

The rows are those that `lite-pipeline calibrate` picks budgets on, so EVAL needs the selector's
method at the ratios that are mixed. Beside every --confidence stand the backbone on the fewest
tokens that were evaluated (`cheap pass`) and on the small budget itself (`cascade`). First a table
of how well each tells right answers from wrong ones; then budgets that lose at most 0.6 points to
their base, as in the reports of `evaluate`, and budgets that cost a share of it (--cost). All are
picked on one half of the videos and judged on the other, with everything paid for. `mixture` is a
fixed budget of the same mean cost; the last column is how much more is gained over it than the
cascade gains. Intervals are 95 % bootstraps over videos, or their groups.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from pipeline.config import RunConfig
from pipeline.errors import ConfigError
from selector.budgets.adaptive import MAX_LOSS, cross_fit, shares_of
from selector.budgets.candidates import Thresholds
from selector.budgets.clip_budget import small_ratio
from selector.budgets.levels import Bools, Floats, Levels
from selector.budgets.pick import Goal
from selector.budgets.rows import CalibrationRows, calibration_rows
from selector.budgets.second_opinion import ask_second_model
from selector.evaluation.files import Evaluation
from selector.statistics import mean_interval
from selector.training.split import halves

CASCADE = "cascade"


def with_opinions(rows: CalibrationRows, names: list[str], run: RunConfig) -> CalibrationRows:
    """The rows with what every second model says of them.

    Raises:
        ConfigError: one of them could not judge some clip, and a comparison needs all.
    """
    found = {}
    for name in names:
        found[name] = ask_second_model(name, rows.evaluation, rows.clip_ids, run)
        if not np.isfinite(found[name].confidence).all():
            raise ConfigError(f"{name} could not judge every clip of {rows.evaluation.root}")
    return replace(rows, levels=replace(rows.levels, opinions=found))


def auroc(confidence: Floats, is_right: Bools) -> float:
    """Chance that a right answer has a higher confidence than a wrong one, ties counting half."""
    ranks, num_right = rankdata(confidence), int(is_right.sum())
    wins = ranks[is_right].sum() - num_right * (num_right + 1) / 2
    return float(wins / (num_right * (len(is_right) - num_right)))


def rules(levels: Levels, base_ratio: float) -> dict[str, Thresholds]:
    """The threshold rule from one base, by whose confidence it goes by; none without its levels."""
    at = {ratio: level for level, ratio in enumerate(levels.keep_ratios)}
    small = at.get(small_ratio(base_ratio))
    if base_ratio not in at or small is None or not 0 < small < at[base_ratio]:
        return {}
    asked: dict[str, int | str] = {"cheap pass": 0, CASCADE: small}
    asked |= {name.partition("@")[0]: name for name in levels.opinions}
    return {k: Thresholds(base=at[base_ratio], small=small, asked=a) for k, a in asked.items()}


def print_foretelling(levels: Levels, bases: list[float]) -> None:
    """Cost of each confidence, and its AUROC for the answers at each base."""
    at = [levels.keep_ratios.index(ratio) for ratio in bases]
    asked: dict[str, tuple[Floats, float]] = {
        f"backbone on {levels.keep_ratios[level]:g}": (
            levels.confidence[:, level],
            float(levels.gmacs_blocks[level]),
        )
        for level in (0, *(levels.keep_ratios.index(r) for r in sorted({*map(small_ratio, bases)})))
    }
    asked |= {name.partition("@")[0]: tuple(opinion) for name, opinion in levels.opinions.items()}
    print(f"| confidence of | GFLOPs | {' | '.join(f'right at {b:g}: AUROC' for b in bases)} |")
    print("|---" * (2 + len(bases)) + "|")
    for name, (confidence, gmacs) in asked.items():
        cells = (f"{auroc(confidence, levels.is_right[:, level]):.3f}" for level in at)
        print(f"| {name} | {gmacs:.4f} | {' | '.join(cells)} |")


def print_budgets(rows: CalibrationRows, bases: list[float], cost: float | None) -> None:
    """One line for every base and confidence; `cost` as a share of the base, None: by the loss."""
    levels, half = rows.levels, halves(rows.units)
    print(
        "\n| confidence | from | less than the base | GFLOPs (against the base) | top-1 "
        "| against its base | against the mixture | its gain less the cascade's |"
    )
    print("|---" * 8 + "|")
    for ratio in bases:
        gains: dict[str, Floats] = {}
        lines = []
        for name, rule in rules(levels, ratio).items():
            base = float(levels.gmacs[rule.base])
            target = None if cost is None else cost * base
            loss = MAX_LOSS if cost is None else None
            goal = Goal(target_gmacs=target, max_loss=loss, certainty=None)
            try:
                fitted = cross_fit(levels, rule, goal, half)
            except ConfigError as error:
                print(f"{name} from {ratio:g}: {error}")
                continue
            right = levels.mixed(name, ratio, fitted.given, fitted.gmacs).top1[:, 0]
            gains[name] = right - levels.random_mixture(ratio, fitted.gmacs).top1[:, 0]
            less = shares_of(levels, fitted.given).get(levels.keep_ratios[rule.small], 0.0)
            gmacs = float(fitted.gmacs.mean())
            lost = right - levels.is_right[:, rule.base]
            lines.append(
                f"| {name} | {ratio:g} | {100 * less:.0f} % | {gmacs:.4f} "
                f"({100 * (gmacs / base - 1):+.0f} %) | {100 * right.mean():.1f} "
                f"| {span(lost, rows)} | {span(gains[name], rows)} "
            )
        for name, line in zip(gains, lines, strict=True):
            beside = name != CASCADE and CASCADE in gains
            print(line + f"| {span(gains[name] - gains[CASCADE], rows) if beside else ''} |")


def span(values: Floats, rows: CalibrationRows) -> str:
    """Mean in points with its interval over units, (V,)."""
    groups = rows.units if len(np.unique(rows.units)) < len(values) else None
    low, high = 100 * mean_interval(values[:, None], (-1.0, 1.0), groups=groups)[:, 0]
    return f"{100 * values.mean():+.1f} [{low:+.1f}, {high:+.1f}]"


def main() -> None:
    """Ask the second models, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="what train-selector made")
    parser.add_argument("--eval", required=True, help="a finished evaluation of it")
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--confidence", action="append", default=[])
    parser.add_argument("--cost", action="append", type=float, default=[])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--decode-workers", type=int, default=1)
    args = parser.parse_args()
    run = RunConfig(
        data_root=args.data_root, batch_size=args.batch_size, decode_workers=args.decode_workers
    )
    rows = calibration_rows(args.model, Evaluation(args.eval))
    rows = with_opinions(rows, args.confidence, run)
    bases = [r for r in sorted(rows.levels.keep_ratios, reverse=True) if rules(rows.levels, r)]
    print(f"{len(rows.video_ids)} clips, {rows.levels.method}, spread {rows.model.spread:g}\n")
    print_foretelling(rows.levels, bases)
    for cost in (None, *(args.cost or [0.85])):
        print(
            f"\nA loss of at most {100 * MAX_LOSS:g} points:"
            if cost is None
            else f"\nA cost of {cost:g}:"
        )
        print_budgets(rows, bases, cost)


if __name__ == "__main__":
    main()
