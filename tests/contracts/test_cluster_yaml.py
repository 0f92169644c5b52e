"""`cluster.yaml` is valid for Ray's launcher, and the command in its comments exists."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

_FILE = Path(__file__).resolve().parents[2] / "cluster.yaml"


def test_rays_own_schema_accepts_it():
    jsonschema = pytest.importorskip("jsonschema")  # comes with ray
    ray = importlib.util.find_spec("ray")
    assert ray is not None
    assert ray.origin is not None
    schema = json.loads((Path(ray.origin).parent / "autoscaler/ray-schema.json").read_text())
    cluster = yaml.safe_load(_FILE.read_text())
    jsonschema.validate(cluster, schema)
    assert cluster["head_node_type"] in cluster["available_node_types"]


def test_the_command_in_its_comments_is_one_that_the_command_line_knows():
    from typer.main import get_command

    from pipeline.cli import app

    text = _FILE.read_text().replace("#", "")
    found = re.search(r"lite-pipeline (build-oracle --(?:.*\\\n)*.*)", text)
    assert found is not None
    name, *arguments = shlex.split(found[1].replace("\\\n", " "))
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    context = command.make_context(name, arguments)  # parses; raises on an unknown option
    assert context.params["address"] == "auto"
    assert context.params["workers"] == 16
    cluster = yaml.safe_load(_FILE.read_text())
    assert context.params["workers"] == 4 * cluster["available_node_types"]["gpu"]["min_workers"]
