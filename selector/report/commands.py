"""The commands that made a store, a selector and an evaluation, from what they recorded.

Neither records where the videos lay, so that place is `DATA` unless it is given, nor a selector
where the store lay whose scores it learnt, if that was another than its own. All that decides
the results is spelt out, also where it is a default of today.
"""

from __future__ import annotations

import shlex

from datasets_spec.agreement import Agreement
from pipeline.config import ClipConfig, OracleConfig
from selector.evaluation.config import EvalConfig
from selector.training.files import TrainingRecord

DATA, OTHER_STORE = "DATA", "OTHER_STORE"


def build_command(config: OracleConfig, store: str, data_root: str | None = None) -> str:
    """`lite-pipeline build-oracle` for a store of this configuration."""
    kept = config.embeddings_per_clip
    options = [
        *_clip_options(config, data_root),
        *(pair for name in config.oracles for pair in ("--oracle", str(name))),
        *("--embeddings-per-clip", "all" if kept == -1 else str(kept)),
        *("--seed", str(config.seed), "--store", store),
    ]
    return _typed("build-oracle", options)


def train_command(record: TrainingRecord, store: str, out: str) -> str:
    """`lite-pipeline train-selector` for a selector of this training.

    Args:
        record: what its folder holds.
        store: the store with the record's fingerprint.
        out: where the selector goes.
    """
    asked = record.config
    options = ["--store", store]
    if record.scores_from is not None:
        options += ["--scores-from", OTHER_STORE]
    if record.oracle is not None:
        options += ["--oracle", record.oracle]
    options += ["--arch", asked.arch]
    if asked.num_layers is not None:
        options += ["--layers", str(asked.num_layers)]
    options += [
        *("--hidden", str(asked.width), "--clean", ",".join(asked.clean) or "none"),
        *("--epochs", str(asked.epochs), "--patience", str(asked.patience)),
        *("--lr", _exactly(asked.learning_rate), "--batch-tokens", str(asked.batch_tokens)),
        *("--held-out", _exactly(asked.held_out), "--select-by", asked.select_by),
        *("--select-ratio", _exactly(asked.select_ratio), "--seed", str(asked.seed)),
    ]
    if record.num_missing:
        options.append("--allow-unfinished")
    return _typed("train-selector", [*options, "--out", out])


def evaluate_command(config: EvalConfig, out: str, data_root: str | None = None) -> str:
    """`lite-pipeline evaluate` for an evaluation of this configuration."""
    options = [
        *_clip_options(config, data_root),
        *("--methods", ",".join(config.methods)),
        *("--keep-ratios", ",".join(map(_exactly, config.keep_ratios))),
        *("--seeds", str(config.num_seeds)),
    ]
    if config.gflops:
        options += ["--gflops", ",".join(map(_exactly, config.gflops))]
    for method, folder in config.selectors.items():
        name = method.partition("[")[2].rstrip("]")
        options += ["--selector", f"{name}={folder}" if name else folder]
    return _typed("evaluate", [*options, "--out", out])


def _clip_options(config: ClipConfig, data_root: str | None) -> list[str]:
    segments, crops = config.views
    options = ["--dataset", config.dataset, "--data-root", data_root or DATA]
    options += ["--split", config.split, "--backbone", config.backbone]
    if config.revision is not None:
        options += ["--revision", config.revision]
    if config.limit is not None:
        options += ["--limit", str(config.limit)]
    if config.class_agreement not in ("", Agreement.SAME, Agreement.UNNAMED):
        options.append("--accept-classes")
    return [
        *options,
        *("--views", f"{segments}x{crops}", "--sampling", config.sampling),
        *("--decoder", config.decoder, "--precision", config.precision),
        *("--shard-size", str(config.shard_size)),
    ]


def _exactly(value: float) -> str:
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _typed(command: str, options: list[str]) -> str:
    """One option a line, broken as a shell takes it."""
    lines = [f"lite-pipeline {command}"]
    for word in options:
        if word.startswith("--"):
            lines.append(word)
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return " \\\n    ".join(lines)
