"""How what a page shows was made: its last section."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import pandas as pd

from pipeline.errors import ConfigError
from pipeline.store.reader import Store
from selector.evaluation.files import Evaluation
from selector.report.commands import build_command, evaluate_command, train_command
from selector.report.page import Section, Table
from selector.training.files import read_record, selector_digest


def made(
    store: Store,
    evaluations: Sequence[Evaluation],
    data_root: str | None,
    model_folder: str | None,
) -> Section:
    """The commands behind the page, and what identifies what it shows.

    Args:
        store: the page's.
        evaluations: the page's.
        data_root: folder of the videos, where it is known.
        model_folder: of the model whose tokens it shows.
    """
    config, done = store.config, store.summary()
    commands = [("The store:", build_command(config, str(store.root), data_root))]
    trained, unknown = trainings(store, evaluations, model_folder)
    commands += trained
    for evaluation in evaluations:
        asked, out = evaluation.config, str(evaluation.root)
        name = f"The evaluation on {asked.dataset}, {asked.split}:"
        commands.append((name, evaluate_command(asked, out, data_root)))
    rows = [
        ("store", str(store.root)),
        ("fingerprint", config.fingerprint()),
        ("clips", ", ".join(f"{n} {status}" for status, n in done.items())),
        ("backbone", config.backbone),
        ("weights", config.backbone_digest),
        ("oracles", ", ".join(store.oracles)),
        *(("evaluation", f"{e.root}, {e.config.fingerprint()}") for e in evaluations),
        *((name, version(name)) for name in ("lite-pipeline", "torch", "transformers")),
    ]
    return Section(
        "How it was made",
        [
            "Written out from what the folders recorded; the versions are those of this page.",
            *unknown,
        ],
        commands=commands,
        tables=[Table("", pd.DataFrame(rows, columns=["", " "]))],
    )


def trainings(
    store: Store, evaluations: Sequence[Evaluation], model_folder: str | None
) -> tuple[list[tuple[str, str]], list[str]]:
    """The commands of the selectors that the page is about, and those that are not known."""
    digests: dict[str, str | None] = {} if model_folder is None else {model_folder: None}
    for evaluation in evaluations:
        for method, folder in evaluation.config.selectors.items():
            digests[folder] = evaluation.config.selector_digests.get(method)
    commands, unknown = [], []
    for folder, digest in digests.items():
        try:
            record = read_record(folder)
            if record is None or (digest is not None and selector_digest(folder) != digest):
                record = None
        except (ConfigError, OSError):
            record = None
        if record is None:
            unknown.append(
                f"How the selector in {folder} was trained is not known: its record is not there, "
                "or is another selector's by now."
            )
            continue
        own = record.store_fingerprint == store.config.fingerprint()
        command = train_command(record, str(store.root) if own else "STORE", folder)
        where = "" if own else f" (of the store with fingerprint {record.store_fingerprint[:12]})"
        if record.scores_from is not None:
            where += f", OTHER_STORE the one with fingerprint {record.scores_from[:12]}"
        commands.append((f"The selector{where}:", command))
    return commands, unknown
