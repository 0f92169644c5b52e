"""`lite-pipeline analyze`: heavy tails and class differences of a store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from selector.analysis import Analysis


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(analyze)


def analyze(
    store: Annotated[str, typer.Option(help="Folder or URL of an oracle store.")],
    tail: Annotated[
        float, typer.Option(help="Share of the positive scores in the tail fit.")
    ] = 0.1,
    out: Annotated[
        Path | None, typer.Option(help="Also write classes.csv and lorenz.csv into this folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show how unequal token values are: Gini, top 10 %, Pareto tail against exponential."""
    from pipeline import open_store
    from pipeline.errors import ConfigError
    from selector.analysis import analyze_store

    if not 0 < tail <= 1:
        raise ConfigError(f"--tail must lie in (0, 1], got {tail}")
    result = analyze_store(open_store(store), tail)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        result.classes.to_csv(out / "classes.csv", index=False)
        result.lorenz.to_csv(out / "lorenz.csv", index=False)
    typer.echo(json.dumps(result.to_dict()) if as_json else _report(result))


def _report(result: Analysis) -> str:
    pooled = result.pooled
    better = "Pareto" if pooled["tail_log_ratio"] > 0 else "exponential"
    easy = result.classes[["top1", "gini", "top10_share"]].corr("spearman")["top1"]
    lines = [
        f"{result.num_clips} clips ({result.num_failed} failed, {result.num_degenerate} without "
        f"any positive token), {pooled['num_tokens']:,} tokens, top-1 {100 * result.top1:.1f} %",
        f"token value: mean {pooled['mean']:.3f}, median {pooled['q50']:.3f}, "
        f"99 % {pooled['q99']:.3f}, exactly zero {100 * pooled['zero_share']:.1f} %",
        f"the best 10 % of the tokens hold {100 * pooled['top10_share']:.1f} % of the value; "
        f"Gini {pooled['gini']:.3f}",
        f"tail above {pooled['tail_threshold']:.3f}: {better} fits better (log-likelihood ratio "
        f"per token {pooled['tail_log_ratio']:+.3f}, Vuong z {pooled['tail_vuong']:+.1f}); "
        f"Pareto exponent {pooled['tail_alpha']:.2f}",
        f"across {len(result.classes)} classes, Spearman correlation of top-1 with Gini "
        f"{easy['gini']:+.2f}, with the top-10 % share {easy['top10_share']:+.2f}",
    ]
    return "\n".join(lines)
