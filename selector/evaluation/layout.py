"""Every name, schema and dtype of an evaluation's folder.

    OUT/
      evaluation.json              what is evaluated, with what (`EvaluationInfo`)
      plan.parquet                 as a store's; one row per clip, frozen at creation
      results/shard-00042.parquet  one row per clip and condition; the commit record of the shard
      runs/                        lock and timings; never part of the committed data

Rows are clip-major: all conditions of a clip stand together, in the order of
`EvalConfig.conditions`. So a shard of n clips and m conditions is an (n, m) rectangle.
"""

from __future__ import annotations

import pyarrow as pa

from pipeline.store.layout import RUNS

SCHEMA_VERSION = 4

EVALUATION_JSON = "evaluation.json"
RESULTS = "results"
TIMINGS = f"{RUNS}/timings"

PADDED = "padded"
"""Column of the results that those of older releases lack."""

TOP = 5
"""Classes listed per row."""

_FIELDS = [
    pa.field("clip_id", pa.int32()),  # row of the plan
    pa.field("video_id", pa.string()),
    pa.field("label", pa.int16()),
    pa.field("segment", pa.int16()),
    pa.field("crop", pa.int16()),
    pa.field("method", pa.string()),  # canonical name of the ranking; "full" keeps all tokens
    pa.field("seed", pa.int16()),  # of random; 0 for all others
    # Null where the content decides; float32 would not compare equal to 0.9.
    pa.field("keep_ratio", pa.float64()),
    pa.field("num_kept", pa.int16()),  # null where a clip failed whose content would have decided
    pa.field("gmacs", pa.float64()),  # of one view, ranking included; null for an oracle
    pa.field("gmacs_backbone", pa.float64()),  # of one view, without what ranks the tokens
    pa.field("status", pa.string()),  # a ClipStatus
    pa.field("error", pa.string()),  # null when ok
    pa.field("prediction", pa.int16()),  # top-1 class id; -1 when failed
    pa.field("top5", pa.list_(pa.int16())),  # best first; empty when failed
    pa.field("label_rank", pa.int16()),  # place of the label, 0 = top-1 is right; -1 when failed
    pa.field("confidence", pa.float32()),  # probability of the prediction; null when failed
    pa.field("second_prob", pa.float32()),  # probability of the second class; null when failed
    pa.field("true_prob", pa.float32()),  # probability of the label; null when failed
    # Share of the clip's summed predicted scores that the kept tokens hold; null when failed, and
    # for methods that predict no scores.
    pa.field("mass", pa.float32()),
    pa.field(PADDED, pa.bool_()),  # too short: the clip repeats frames; false when not decoded
]
# Where views are averaged their class probabilities are needed. As logarithms, float16 keeps them
# to 0.05 % near one, and does not tie the small ones at zero. Held as float32 with the low bits
# zero, because Parquet's own float16 gives wrong statistics in pandas; their dictionary is small.
_LOG_PROBS = pa.field("log_probs", pa.list_(pa.float32()))

_METADATA = {b"lite_evaluation_schema_version": str(SCHEMA_VERSION).encode()}


def results_schema(num_views: int) -> pa.Schema:
    """Columns of a results file; `log_probs` (per class) only where a video has several views."""
    return pa.schema([*_FIELDS, _LOG_PROBS] if num_views > 1 else _FIELDS, _METADATA)


def timings_path(shard: int) -> str:
    """Path of the seconds that a shard took, by what they went to."""
    return f"{TIMINGS}/shard-{shard:05d}.json"
