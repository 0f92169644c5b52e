"""The model card: what a model's folder says of itself to people and to the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.backbones.checkpoint import SHIPPED
from pipeline.errors import UnreachableBudgetError

if TYPE_CHECKING:
    from selector.deploy.model import LiteModel
    from selector.training.config import SelectorConfig

CARD_NAME = "README.md"
_MARK = "<!-- Written by lite-pipeline; remove this line to keep your changes. -->"


def may_replace_card(path: Path) -> bool:
    """Whether there is none yet, or one that was written here."""
    return not path.is_file() or _MARK in path.read_text(errors="replace")


def _cost(model: LiteModel) -> str:
    if model.by_content:
        return ""
    try:
        reduced = model.cost_of().total
    except UnreachableBudgetError:  # loads, and says so when it is called
        return ""
    return f"That is {reduced:.4g} of {model.cost_of(1.0).total:.4g} GMACs a view."


def _learnt(selector: SelectorConfig) -> str:
    known, other = selector.trained_on, selector.scores_from
    return (
        "A small network ranks its tokens; it learnt from the oracle "
        f"`{selector.oracle}`"
        + (
            ""
            if other is None
            else f" of another backbone (`{_shown(other.backbone)}`, weights "
            f"{other.backbone_digest[:12]}, store {other.store_fingerprint[:12]})"
        )
        + " on "
        + (
            "a store that is not named."
            if known is None
            else f"`{known.dataset}`, split `{known.split}`."
        )
    )


def _is_path(backbone: str) -> bool:
    return Path(backbone).expanduser().exists() or backbone.startswith(("/", ".", "~"))


def _shown(backbone: str) -> str:
    """A checkpoint's name without the folders that it lay in."""
    return Path(backbone).name if _is_path(backbone) else backbone


def model_card(model: LiteModel) -> str:
    """The card of a model, with the metadata that the hub reads."""
    config, backbone = model.config, model.backbone
    selector = model.selector.config if model.selector is not None else None
    # A backbone that was trained further has a place of its own; the selector knows where it began.
    base = model.backbone_name if selector is None else selector.backbone
    is_on_hub = not _is_path(base) and not (SHIPPED / base).exists()
    metadata = [
        "---",
        "library_name: transformers",
        "pipeline_tag: video-classification",
        # Of the base model, which decides.
        f"license: {json.dumps(config.license or 'unknown')}",
        *([f"base_model: {json.dumps(base)}"] if is_on_hub else []),
        "tags: [lite_video, video-classification, token-reduction]",
        "---",
    ]
    trained_further = "adapted" in (config.measured or {})
    lines = [
        *metadata,
        _MARK,
        "",
        "# A video classifier at a part of its cost",
        "",
        f"`{_shown(base)}` ({backbone.model.config.model_type}), "
        f"{backbone.num_classes} classes, with fewer tokens: method `{config.method}`, "
        + (
            "as many as each clip's content asks for"
            if model.by_content
            else f"keep ratio {config.keep_ratio:g}"
        )
        + (f", spread {config.spread:g}" if config.needs_selector else "")
        + f". {_cost(model)}",
        "",
        "```python",
        "import selector  # pip install lite-pipeline",
        "from transformers import pipeline",
        "",
        'classify = pipeline("video-classification", model="THIS_FOLDER")',
        "```",
        "",
        "## How it was made",
        "",
        "The backbone was trained further, on the tokens that are left."
        if trained_further
        else "The backbone's weights are those of the base model, unless it was trained further.",
        *([] if selector is None else [_learnt(selector)]),
        "",
        "## What it costs and loses",
        "",
        *(config.measured or {}).get(
            "card",
            ["Not measured here: `lite-pipeline evaluate` does, on videos it was not made from."],
        ),
        "",
        "## Licence",
        "",
        f"That of the base model: {config.license}."
        if config.license is not None
        else "That of the base model, which was not given and is unknown here.",
        "",
    ]
    return "\n".join(lines)
