"""Paths, modules and links of the documentation exist, and the map names every module."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PACKAGES = ("pipeline", "selector", "datasets_spec")
PAGES = [*sorted(REPO.glob("*.md")), *sorted((REPO / "docs").glob("*.md"))]
SOURCES = [path for name in PACKAGES for path in sorted((REPO / name).rglob("*.py"))]
ARCHITECTURE = REPO / "docs" / "architecture.md"

_TOP = r"(?:pipeline|selector|datasets_spec|tests|benchmarks|docs)"
_PATH = re.compile(rf"(?<![\w./-]){_TOP}/[\w./-]*\w(?=[^\w*{{<]|$)|(?<![\w./-]){_TOP}/(?=[`\s)]|$)")
_MODULE = re.compile(r"`((?:pipeline|selector|datasets_spec)(?:\.(?!(?:safetensors|py)\b)\w+)+)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def named_paths(text: str) -> list[str]:
    """Paths below the repository that a text names, without a sentence's full stop."""
    return [found.rstrip(".") for found in _PATH.findall(text)]


def is_module_or_name(dotted: str) -> bool:
    """Whether `a.b.C.d` is a module, or something that a module of that name mentions."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        base = REPO.joinpath(*parts[:length])
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                rest = parts[length:]
                return not rest or re.search(rf"\b{rest[0]}\b", path.read_text()) is not None
    return False


@pytest.mark.parametrize("page", [*PAGES, *SOURCES], ids=lambda p: str(p.relative_to(REPO)))
def test_paths_and_modules_that_are_named_exist(page: Path):
    text = page.read_text()
    missing = [path for path in named_paths(text) if not (REPO / path).exists()]
    missing += [name for name in _MODULE.findall(text) if not is_module_or_name(name)]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPO)))
def test_links_lead_somewhere(page: Path):
    broken = []
    for target in _LINK.findall(page.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert not broken


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_what_the_readme_types_in_python_is_what_a_test_runs():
    """The lines of `docs/practitioner.md` are run by a test of `accelerate`."""
    blocks = [
        re.findall(r"```python\n(.*?)```", (REPO / page).read_text(), flags=re.S)
        for page in ("README.md", "docs/practitioner.md")
    ]
    [ours] = [block for block in blocks[0] if "AutoModelForVideoClassification" in block]
    imports = [set(re.findall(r"^(?:import|from) (\w+)", b, re.M)) for b in (ours, blocks[1][0])]
    assert imports[0] <= imports[1]
    lines = [line.split("  #")[0] for line in ours.splitlines() if "import " not in line]
    lines = list(filter(None, lines))
    assert len(lines) >= 2
    assert set(lines) <= set(blocks[1][0].splitlines())


def test_the_site_lists_every_page():
    listed = re.findall(r": (\S+\.md)$", (REPO / "mkdocs.yml").read_text(), re.M)
    above = {"index.md", "BENCHMARKS.md", "CHANGELOG.md"}
    assert sorted(listed) == sorted({path.name for path in (REPO / "docs").glob("*.md")} | above)


def test_a_wrong_mention_is_seen():
    assert named_paths("see `selector/rankers` and pipeline/oracle/maps.py.") == [
        "selector/rankers",
        "pipeline/oracle/maps.py",
    ]
    assert named_paths("a store's oracle.zarr/scores, ../docs/x, mypipeline/x") == []
    assert is_module_or_name("pipeline.errors.ClipStatus")
    assert not is_module_or_name("pipeline.errors.NoSuchName")
    assert not is_module_or_name("pipeline.steps")


def described_modules() -> list[str]:
    """What the map of the code names, in its order; a room stands for its `__init__.py`."""
    found, room = [], ""
    for line in ARCHITECTURE.read_text().partition("## Every module\n")[2].splitlines():
        if heading := re.match(r"### `(.+)/`$", line):
            room = heading[1]
            found.append(f"{room}/__init__.py")
        elif entry := re.match(r"- `(\w+\.py)`: \S", line):
            found.append(f"{room}/{entry[1]}")
    return found


def test_the_map_names_every_module_once_and_nothing_else():
    named = described_modules()
    there = {path.relative_to(REPO).as_posix(): path for path in SOURCES}
    missing = [
        f"under ### `{path.rpartition('/')[0]}/`:  - `{path.rpartition('/')[2]}`: {summary(file)}"
        for path, file in there.items()
        if path not in named
    ]
    assert not missing, "docs/architecture.md lacks a line:\n" + "\n".join(missing)
    gone = [path for path in named if path not in there]
    assert not gone, f"docs/architecture.md names what is not there: {gone}"
    assert len(named) == len(set(named)), "docs/architecture.md names a module twice"


def summary(path: Path) -> str:
    """The first sentence of a module."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0]
