"""`lite-pipeline verify`: whether every file of a store is as it was written."""

from __future__ import annotations

import typer

from pipeline.cli import options, output


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(verify)


def verify(store: options.StorePlace, as_json: options.AsJson = False) -> None:
    """Recount and re-check everything in a store; exits with 1 if something is wrong."""
    from pipeline.store.verify import verify_store

    with output.counted("shards") as on_shard:
        problems = verify_store(store, on_shard)
    harm = [problem for problem in problems if not problem.harmless]
    notes = [problem for problem in problems if problem.harmless]
    if as_json:
        rows, others = (
            [{"where": p.where, "what": p.what, "remedy": p.remedy} for p in part]
            for part in (harm, notes)
        )
        output.echo_json({"sound": not harm, "problems": rows, "notes": others})
    else:
        for problem in harm:
            output.echo(str(problem))
        for note in notes:
            output.echo(f"note: {note}")
        output.echo(f"{len(harm)} problem(s)" if harm else "sound and complete")
    if harm:
        raise typer.Exit(1)
