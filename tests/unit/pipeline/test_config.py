"""What a configuration's identity is made of; stores on disk are known by it."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.config import OracleConfig, RunConfig
from pipeline.errors import ConfigError
from tests.stores import make_config


def test_the_fingerprint_of_a_configuration_never_changes():
    """Or a store that was begun by an earlier release could not be continued."""
    assert make_config().fingerprint() == (
        "d06df1b89e59655d25124cf8b56e93f7303d6ebb3bd8760c9d5299c62df449bc"
    )


def test_where_the_checkpoint_lies_is_told_and_not_part_of_the_identity():
    one = make_config(further_oracles=("hirescam@embeddings",))
    moved = dataclasses.replace(one, backbone="elsewhere", revision="main")
    assert moved.fingerprint() == one.fingerprint()
    assert moved.to_dict()["backbone"] == "elsewhere"
    told = ("backbone", "revision", "class_agreement", "limit")
    for field in dataclasses.fields(OracleConfig):
        assert (field.name in one.identity()) == (field.name not in told)


def test_further_oracles_are_part_of_the_identity_and_none_leave_it_as_it_was():
    alone, several = make_config(), make_config(further_oracles=("hirescam@embeddings",))
    assert "further_oracles" not in alone.identity() | alone.to_dict()
    assert several.identity() == alone.identity() | {"further_oracles": ("hirescam@embeddings",)}
    assert several.fingerprint() != alone.fingerprint()


def test_the_first_oracle_has_fields_of_its_own_and_the_others_have_names():
    config = make_config(target="predicted", further_oracles=("gradcam++@embeddings",))
    assert config.oracles == (
        ("gradcam", "blocks.-1.output", "predicted"),
        ("gradcam++", "embeddings", "label"),
    )


def test_further_oracles_are_the_same_however_they_are_written():
    plain = make_config(further_oracles=("hirescam@embeddings",))
    assert make_config(further_oracles=["hirescam@embeddings:label"]) == plain


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gradcam@blocks.-1.output", "gradcam@blocks.-1.output is asked for more than once"),
        ("gradcam@blocks.-1.output:label", "gradcam@blocks.-1.output is asked for more than once"),
        ("hirescam@", "METHOD@LAYER:TARGET.*got 'hirescam@'"),
        ("", "METHOD@LAYER:TARGET.*got ''"),
        ("gradcam@embeddings:guess", "TARGET one of label, predicted, such as .*:guess'"),
    ],
)
def test_further_oracles_that_repeat_or_are_no_names_are_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        make_config(further_oracles=(name,))


@pytest.mark.parametrize(
    "field",
    [
        *("plan_digest", "split", "backbone_digest", "sampling"),
        *("num_segments", "num_crops", "layer", "embeddings_per_clip", "further_oracles"),
    ],
)
def test_what_is_still_open_has_no_fingerprint(field):
    """Two configurations that look alike could close differently."""
    empty = {
        **{"num_segments": 0, "num_crops": 0, "embeddings_per_clip": None},
        "further_oracles": ("hirescam",),
    }.get(field, "")
    with pytest.raises(ConfigError, match=f"no identity yet: {field} open"):
        make_config(**{field: empty}).fingerprint()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder": "mp"}, "decoder must be one of pyav, decord, torchcodec, got 'mp'"),
        ({"precision": "fp8"}, "precision must be one of fp32, bf16, fp16"),
        ({"target": "guess"}, "target must be one of label, predicted"),
        ({"num_segments": -1}, "num_segments must be at least 0, got -1"),
        ({"num_crops": -1}, "num_crops must be at least 0"),
        ({"shard_size": 0}, "shard_size must be at least 1"),
        ({"embeddings_per_clip": -2}, "embeddings_per_clip must be at least -1"),
        ({"sampling": "stride:0"}, "sampling must be `uniform` or `stride:N`"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_fields_outside_their_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        make_config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workers": -1}, "workers must be at least 0"),
        ({"threads_per_worker": 0}, "threads_per_worker must be at least 1"),
        ({"decode_timeout_s": float("nan")}, "decode_timeout_s must be above 0 seconds"),
        ({"decode_timeout_s": float("inf")}, "decode_timeout_s must be .* at most 864000"),
        ({"gpus_per_worker": float("nan")}, "gpus_per_worker must be a number from 0"),
        ({"gpus_per_worker": -0.5}, "gpus_per_worker must be a number from 0"),
        ({"device": "tpu"}, "device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        ({"device": "cuda:"}, "device must be"),
    ],
)
def test_settings_of_a_run_outside_their_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig(data_root="videos", **changes)
