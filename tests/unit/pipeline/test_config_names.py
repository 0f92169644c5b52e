"""An oracle's name is read as it is written, and gives every oracle arrays of its own."""

from __future__ import annotations

import itertools

import pytest

from pipeline.config import TARGETS, OracleName
from pipeline.errors import ConfigError
from pipeline.oracle.names import METHODS


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("gradcam", ("gradcam", "", "label")),
        ("gradcam:predicted", ("gradcam", "", "predicted")),
        ("hirescam@embeddings", ("hirescam", "embeddings", "label")),
        ("gradcam++@blocks.-1.mlp:predicted", ("gradcam++", "blocks.-1.mlp", "predicted")),
    ],
)
def test_a_name_is_read_and_written(text, parts):
    assert OracleName.parse(text) == parts
    assert str(OracleName(*parts)) == text


def test_the_label_may_be_spelt_out():
    assert OracleName.parse("gradcam@embeddings:label") == OracleName.parse("gradcam@embeddings")


@pytest.mark.parametrize(
    "text", ["", "@embeddings", "gradcam@", "gradcam:", "gradcam:label:label", "a b", "gradcam@x/y"]
)
def test_what_is_no_name_is_refused(text):
    with pytest.raises(ConfigError, match="METHOD@LAYER:TARGET"):
        OracleName.parse(text)


@pytest.mark.parametrize(
    ("text", "suffix"),
    [
        ("hirescam@embeddings", "_hirescam_embeddings"),
        ("gradcam++@blocks.11.output:predicted", "_gradcampp_blocks_11_output_predicted"),
        ("gradcam-elementwise@embeddings", "_gradcam_elementwise_embeddings"),
    ],
)
def test_arrays_and_columns_are_called_after_it(text, suffix):
    assert OracleName.parse(text).suffix == suffix


def test_no_two_oracles_share_an_array():
    layers = ["embeddings", *(f"blocks.{n}.{part}" for n in (1, 11) for part in ("mlp", "output"))]
    names = [OracleName(*parts) for parts in itertools.product(METHODS, layers, TARGETS)]
    assert len({name.suffix for name in names}) == len(names)
    assert all(name.suffix.isidentifier() for name in names)
