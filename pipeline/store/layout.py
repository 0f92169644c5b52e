"""Every name, schema and dtype of a store, and nowhere else.

    STORE/
      store.json                   what was built, with what (`StoreInfo`); written last at creation
      plan.parquet                 PLAN_SCHEMA, and `group` where the dataset says groups; one row
                                   per clip, frozen at creation
      oracle.zarr/                 Zarr v3 group; row i of every array is clip_id i
        scores           (clip,t,y,x)  float16, in [0, 1]; NaN where a clip failed
        cam              (clip,t,y,x)  float16, signed cam / cam_scale; NaN where a clip failed
        embeddings       (clip,k,d)    float16, sampled patch embeddings; NaN where a clip failed
        embedding_index  (clip,k)      int16, their token numbers, ascending; -1 where it failed
        scores_X, cam_X                as scores and cam, of each further oracle
      tokens/shard-00042.parquet   TOKENS_SCHEMA; clips that are ok, in long form
      clips/shard-00042.parquet    CLIPS_SCHEMA, and `group` as in the plan; the commit record
                                   of the shard, written last
      runs/                        side logs and the lock; never part of the committed data

X is the oracle's name with underscores (`OracleName.suffix`), and so it is in the names of columns;
the first oracle's have no suffix.

`docs/store-format.md` is this page for readers of a store.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.clips.grid import TokenGrid
from pipeline.config import DEFAULT_EMBEDDINGS_PER_CLIP
from pipeline.errors import ConfigError

SCHEMA_VERSION = 2

STORE_JSON = "store.json"
PLAN = "plan.parquet"
ZARR = "oracle.zarr"
TOKENS = "tokens"
CLIPS = "clips"
RUNS = "runs"
LOCK = f"{RUNS}/lock"
WRITERS_LOCK = f"{RUNS}/writers.lock"

GROUP = "group"
"""Column that only the plan of a dataset with groups has: what a clip's video was cut from.

Videos of one group are alike. Null where the annotation gives none."""

MAX_ERROR_CHARS = 500
"""Length a clip's error message is cut to."""

_METADATA = {b"lite_schema_version": str(SCHEMA_VERSION).encode()}

# Integers that may be unknown are -1 and not null: with a null, pandas turns the column to float64
# in one shard and leaves it int16 in the next.
_PLAN_FIELDS = [
    pa.field("clip_id", pa.int32()),  # 0 .. n-1: the row in every Zarr array
    pa.field("shard", pa.int32()),  # clip_id // shard_size
    pa.field("video_id", pa.string()),
    pa.field("path", pa.string()),  # relative to the data root, posix
    pa.field("label", pa.int16()),  # class id; -1 = unknown
    pa.field("split", pa.string()),
    pa.field("segment", pa.int16()),  # temporal view
    pa.field("crop", pa.int16()),  # spatial view
]
_GROUP_FIELDS = [pa.field(GROUP, pa.string())]
_OUTCOME_FIELDS = [
    pa.field("status", pa.string()),  # a ClipStatus
    pa.field("error", pa.string()),  # null when ok
    pa.field("prediction", pa.int16()),  # top-1 class id; -1 when failed
    pa.field("top5", pa.list_(pa.int16())),  # best first; empty when failed
    pa.field("confidence", pa.float32()),  # probability of the prediction; null when failed
    pa.field("true_prob", pa.float32()),  # probability of the label; null when failed or unknown
    pa.field("loss", pa.float32()),  # cross-entropy in nats; null when failed or unknown
    pa.field("cam_scale", pa.float32()),  # max |cam|, so cam = stored * cam_scale; null when failed
    pa.field("degenerate", pa.bool_()),  # relu(cam) is constant: all scores are 0
    pa.field("top10_share", pa.float32()),  # share of the score in the top 10 % of the tokens
    pa.field("gini", pa.float32()),  # of the scores; both null when failed or degenerate
    pa.field("num_frames_total", pa.int32()),  # frames of the video; -1 when unknown
    pa.field("padded", pa.bool_()),  # fewer frames than the model takes: some repeat
    pa.field("damaged", pa.bool_()),  # decoded with errors that the decoder concealed
    pa.field("decoder", pa.string()),  # empty when nothing was decoded
    pa.field("decoder_version", pa.string()),
]

PLAN_SCHEMA = pa.schema(_PLAN_FIELDS, _METADATA)
CLIPS_SCHEMA = pa.schema(_PLAN_FIELDS + _OUTCOME_FIELDS, _METADATA)
TOKENS_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.int32()),
        pa.field("label", pa.int16()),
        pa.field("t", pa.uint8()),
        pa.field("y", pa.uint8()),
        pa.field("x", pa.uint8()),
        # float32 rounded to float16: Parquet's own float16 gives wrong statistics in pandas.
        pa.field("score", pa.float32()),
    ],
    _METADATA,
)
OUTCOME_COLUMNS = tuple(field.name for field in _OUTCOME_FIELDS)
MAP_COLUMNS = ("cam_scale", "degenerate", "top10_share", "gini")
"""What a clips table says of a map; with the oracle's suffix for each further one."""


def outcome_fields(further: Sequence[str] = ()) -> list[pa.Field]:
    """What becomes of a clip: the columns of a clips table that the plan does not have.

    Args:
        further: suffixes of the further oracles.
    """
    own = {field.name: field for field in _OUTCOME_FIELDS}
    return _OUTCOME_FIELDS + [
        own[name].with_name(name + suffix) for suffix in further for name in MAP_COLUMNS
    ]


def plan_schema(groups: bool = False) -> pa.Schema:
    """`PLAN_SCHEMA`, with the column `group` where the dataset says groups."""
    return pa.schema(_PLAN_FIELDS + _GROUP_FIELDS, _METADATA) if groups else PLAN_SCHEMA


def clips_schema(further: Sequence[str] = (), groups: bool = False) -> pa.Schema:
    """`CLIPS_SCHEMA` with the columns of further oracles, given by their suffixes.

    Args:
        further: suffixes of the further oracles.
        groups: as of `plan_schema`.
    """
    return pa.schema([*plan_schema(groups), *outcome_fields(further)], _METADATA)


def tokens_schema(further: Sequence[str] = ()) -> pa.Schema:
    """`TOKENS_SCHEMA` with a score for each further oracle, given by their suffixes."""
    score = TOKENS_SCHEMA.field("score")
    fields = [*TOKENS_SCHEMA, *(score.with_name(score.name + suffix) for suffix in further)]
    return pa.schema(fields, _METADATA)


MAX_CHUNK_CLIPS = 64
MAX_CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class ArraySpec:
    """One array of the Zarr group; axis 0 is the clip."""

    kind: str
    """`scores`, `cam`, `embeddings` or `embedding_index`."""
    suffix: str
    """Of the oracle; empty for the first, and for what is no oracle's."""
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    dtype: str
    fill_value: float
    shard_clips: int
    """Clips per outer Zarr shard: the work shard, so that two workers never share a file."""
    chunk_clips: int
    """Clips per inner chunk, a divisor of `shard_clips`."""
    zstd_level: int
    description: str

    @property
    def name(self) -> str:
        """What it is called in the group."""
        return self.kind + self.suffix

    def chunk_name(self, shard: int) -> str:
        """Name of one shard's file, `c.42.0.0.0`."""
        return f"c.{shard}" + ".0" * (len(self.shape) - 1)

    def chunk_key(self, shard: int) -> str:
        """Path of one shard's file inside the store, `oracle.zarr/scores/c.42.0.0.0`."""
        return f"{ZARR}/{self.name}/{self.chunk_name(shard)}"


def array_specs(
    num_clips: int,
    grid: TokenGrid,
    embeddings_per_clip: int | None,
    hidden_size: int,
    shard_size: int,
    further: Sequence[str] = (),
) -> list[ArraySpec]:
    """The arrays of a store, in the order they are created.

    Args:
        num_clips: rows of every array.
        grid: tokens of a clip.
        embeddings_per_clip: embeddings kept per clip; -1 keeps all, 0 leaves the two arrays out.
        hidden_size: length of an embedding.
        shard_size: clips per work shard.
        further: suffixes of the further oracles.
    """
    maps = (num_clips, *grid)
    k = num_embeddings(grid, embeddings_per_clip)

    def spec(
        kind: str, shape: tuple[int, ...], dims: str, dtype: str, text: str, suffix: str = ""
    ) -> ArraySpec:
        clip_bytes = 2
        for size in shape[1:]:
            clip_bytes *= size
        return ArraySpec(
            kind=kind,
            suffix=suffix,
            shape=shape,
            dims=tuple(dims.split()),
            dtype=dtype,
            fill_value=-1 if dtype == "int16" else float("nan"),
            shard_clips=shard_size,
            chunk_clips=chunk_clips(shard_size, clip_bytes),
            # Gaussian bits: level 3 gains 8 % at 3x the time. A negative level stores them as they
            # are, at the speed of a copy, but rows of nothing but NaN vanish.
            zstd_level=-1 if kind == "embeddings" else 3,
            description=text,
        )

    texts = {
        "scores": "oracle value in [0, 1]; NaN: failed",
        "cam": "signed cam / cam_scale; NaN: failed",
    }
    specs = [
        spec(kind, maps, "clip t y x", "float16", text, suffix)
        for suffix in ("", *further)
        for kind, text in texts.items()
    ]
    if k:
        specs += [
            spec(
                "embeddings",
                (num_clips, k, hidden_size),
                "clip k d",
                "float16",
                "patch embeddings with positions, as a selector sees them; NaN: failed",
            ),
            spec(
                "embedding_index",
                (num_clips, k),
                "clip k",
                "int16",
                "token number (t * h + y) * w + x of each embedding; -1: failed",
            ),
        ]
    return specs


def num_embeddings(grid: TokenGrid, embeddings_per_clip: int | None) -> int:
    """Embeddings stored per clip for the option `embeddings_per_clip` (-1 = all, 0 = none).

    Open (None), it is the default, or all where a clip has fewer.

    Raises:
        ConfigError: more than the grid holds, or a grid too large for the stored types.
    """
    if max(grid) > 256 or grid.num_tokens > 32_767:
        raise ConfigError(
            f"token grid {tuple(grid)} does not fit the store: at most 256 along an axis "
            "(uint8) and 32767 tokens (int16)"
        )
    if embeddings_per_clip is not None and embeddings_per_clip > grid.num_tokens:
        raise ConfigError(
            f"embeddings_per_clip {embeddings_per_clip} is more than the {grid.num_tokens} tokens "
            f"of a clip on the grid {tuple(grid)}; use -1 for all"
        )
    if embeddings_per_clip is None:
        return min(DEFAULT_EMBEDDINGS_PER_CLIP, grid.num_tokens)
    return grid.num_tokens if embeddings_per_clip == -1 else embeddings_per_clip


def chunk_clips(shard_size: int, clip_bytes: int) -> int:
    """Clips per inner chunk: the largest divisor of the shard within 64 clips and 16 MiB.

    An inner chunk must divide its Zarr shard. A shard size with small divisors only (a prime) is
    right but slow to read: one chunk per clip.
    """
    most = max(1, min(MAX_CHUNK_CLIPS, shard_size, MAX_CHUNK_BYTES // clip_bytes))
    return max(size for size in range(1, most + 1) if shard_size % size == 0)


def num_shards(num_clips: int, shard_size: int) -> int:
    """Shards of a plan; the last may be short."""
    return -(-num_clips // shard_size)


def shard_rows(shard: int, shard_size: int, num_clips: int) -> slice:
    """Rows of a shard in the plan and in every array."""
    return slice(shard * shard_size, min((shard + 1) * shard_size, num_clips))


def shard_name(shard: int) -> str:
    """File name of a shard in `tokens/` and `clips/`."""
    return f"shard-{shard:05d}.parquet"


def parse_shard_name(name: str) -> int | None:
    """The shard of a file name, or None if it is not exactly what `shard_name` gives."""
    match = re.fullmatch(r"shard-(\d{5,})\.parquet", name)
    if match is None or shard_name(int(match[1])) != name:
        return None
    return int(match[1])


def tokens_path(shard: int) -> str:
    """Path of a shard's token table inside the store."""
    return f"{TOKENS}/{shard_name(shard)}"


def clips_path(shard: int) -> str:
    """Path of a shard's commit record inside the store."""
    return f"{CLIPS}/{shard_name(shard)}"
