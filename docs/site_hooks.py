"""Pages of the site that lie above this folder: README, benchmarks and changes, links mended.

In the repository the pages link to each other as files, so that they read the same there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ABOVE = {"README.md": "index.md", "BENCHMARKS.md": "BENCHMARKS.md", "CHANGELOG.md": "CHANGELOG.md"}
"""File of the repository's root to its page of the site."""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages from above."""
    from mkdocs.structure.files import File

    for name, page in ABOVE.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links between the root and `docs/` lead to the site's pages."""
    if page.file.src_uri in ABOVE.values():
        markdown = re.sub(r"(\]\(|src=\")docs/", r"\1", markdown)
    return re.sub(
        rf"\]\((?:\.\./)?({'|'.join(map(re.escape, ABOVE))})",
        lambda found: f"]({ABOVE[found[1]]}",
        markdown,
    )
