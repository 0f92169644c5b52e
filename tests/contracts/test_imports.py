"""Imports run one way, and light entry points stay light.

Read from the syntax trees, so that an import inside a function counts where it is allowed and a
broken module fails nowhere else.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

REPO = Path(__file__).parents[2]
PACKAGES = ("pipeline", "selector", "datasets_spec")


class Import(NamedTuple):
    """`module` imports `target`; `late` inside a function, `typing` under TYPE_CHECKING."""

    module: str
    target: str
    late: bool
    typing: bool
    line: int


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((REPO / package).rglob("*.py")):
            parts = path.relative_to(REPO).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(module: str) -> Iterator[Import]:
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    yield from _walk(ast.parse(path.read_text()), module, package, late=False, typing=False)


def _walk(
    node: ast.AST, module: str, package: str, *, late: bool, typing: bool
) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(module, alias.name, late, typing, child.lineno)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                anchor = package.split(".")[: len(package.split(".")) - child.level + 1]
                base = ".".join([*anchor, base] if base else anchor)
            for alias in child.names:
                # `from pipeline.store import layout` imports a module, not a name.
                full = f"{base}.{alias.name}"
                yield Import(module, full if full in MODULES else base, late, typing, child.lineno)
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        guard = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        yield from _walk(child, module, package, late=late or function, typing=typing or guard)


ALL = [found for module in MODULES for found in imports_of(module)]


def within(name: str, *prefixes: str) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def offenders(broken: Iterator[Import]) -> list[str]:
    return [f"{i.module}:{i.line} imports {i.target}" for i in broken]


def test_there_is_something_to_check() -> None:
    assert {"pipeline.store.reader", "pipeline.config", "datasets_spec"} <= set(MODULES)
    assert len(ALL) > 100


def test_only_shards_imports_ray() -> None:
    assert not offenders(
        i for i in ALL if within(i.target, "ray") and not within(i.module, "pipeline.shards")
    )


def test_datasets_spec_imports_nothing_of_ours() -> None:
    assert not offenders(
        i
        for i in ALL
        if within(i.module, "datasets_spec") and within(i.target, "pipeline", "selector")
    )


def test_pipeline_imports_selector_only_inside_commands() -> None:
    assert not offenders(
        i
        for i in ALL
        if within(i.module, "pipeline")
        and within(i.target, "selector")
        and not (within(i.module, "pipeline.cli") and (i.late or i.typing))
    )


BUILDER = (
    "pipeline.cli",
    "pipeline.oracle.build",
    "pipeline.oracle.worker",
    "pipeline.oracle.scorer",
    "pipeline.store.writer",
)


def test_selector_does_not_reach_into_the_builder() -> None:
    """It reads stores and uses backbones, decoders and the driver; it never builds a store."""
    assert not offenders(
        i for i in ALL if within(i.module, "selector") and within(i.target, *BUILDER)
    )


# From the command line down; a layer may import itself and what is below it.
LAYERS = (
    ("pipeline.cli",),
    ("pipeline.standin", "pipeline.estimate.estimate"),
    ("pipeline.estimate.measure",),
    ("pipeline.oracle.build",),
    ("pipeline.clips.inputs", "pipeline.oracle.worker"),
    ("pipeline.estimate.simulate",),
    ("pipeline.estimate.worker",),
    ("pipeline.estimate.events", "pipeline.shards.run"),
    ("pipeline.shards.worker", "pipeline.shards.scheduler", "pipeline.oracle.scorer"),
    ("pipeline.shards.serial_executor", "pipeline.shards.ray_executor"),
    ("pipeline.shards.isolated",),
    ("pipeline.shards.executor",),
    (
        "pipeline.oracle.base",
        "pipeline.oracle.cam",
        "pipeline.oracle.occlusion",
        "pipeline.oracle.names",
        "pipeline.oracle.together",
        "pipeline.clips.classes",
    ),
    ("pipeline.shards.loader",),
    ("pipeline.backbones",),
    ("pipeline.shards", "pipeline.decode"),
    ("pipeline.store", "pipeline.clips.plan"),
    ("pipeline.clips", "pipeline.config"),
    ("pipeline.errors", "pipeline.strict_json"),
)


def _layer(module: str) -> int | None:
    """Of the most specific name that covers the module."""
    found = [
        (len(name), index)
        for index, names in enumerate(LAYERS)
        for name in names
        if within(module, name)
    ]
    return max(found)[1] if found else None


def test_imports_run_down_the_layers() -> None:
    broken = []
    for found in ALL:
        above, below = _layer(found.module), _layer(found.target)
        if above is not None and below is not None and below < above and not found.typing:
            broken.append(found)
    assert not offenders(iter(broken))


def test_every_module_has_its_layer() -> None:
    """Of `pipeline`; packages that only hold modules stand outside."""
    outside = [m for m in MODULES if within(m, "pipeline") and _layer(m) is None]
    assert outside == ["pipeline", "pipeline.estimate", "pipeline.oracle"]


def test_shards_know_no_worker() -> None:
    """They run any worker; `selector` has one of its own."""
    assert not offenders(
        i
        for i in ALL
        if within(i.module, "pipeline.shards") and within(i.target, "pipeline.oracle")
    )


def test_the_store_knows_no_model() -> None:
    """Neither directly nor through anything it imports at module level."""
    heavy = ("torch", "torchvision", "ray", "transformers", "av", "decord", "pytorch_grad_cam")
    start = [m for m in MODULES if within(m, "pipeline.store")]
    seen, queue, broken = set(start), list(start), []
    while queue:
        for found in imports_of(queue.pop()):
            if found.late or found.typing:
                continue
            if within(found.target, *heavy):
                broken.append(found)
            # Importing a.b.c runs a and a.b too.
            parts = found.target.split(".")
            for module in (".".join(parts[: n + 1]) for n in range(len(parts))):
                if module in MODULES and module not in seen:
                    seen.add(module)
                    queue.append(module)
    assert not offenders(iter(broken))


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        # What `lite-pipeline --help` pays for.
        (
            "import pipeline.cli",
            "torch ray transformers zarr pandas pyarrow numpy av decord fsspec tensorboard rich",
        ),
        ("import pipeline", "numpy pandas zarr pyarrow torch ray"),
        ("import pipeline; pipeline.open_store", "torch ray transformers av decord"),
        ("import pipeline.store.writer, pipeline.store.verify", "torch ray transformers av"),
        ("import datasets_spec", "torch ray pandas pipeline"),
        ("import selector", "torch transformers numpy pandas pipeline"),
    ],
)
def test_light_entry_points_stay_light(statement: str, absent: str) -> None:
    script = f"import sys\n{statement}\nprint(*(set({absent.split()!r}) & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
