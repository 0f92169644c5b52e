"""The paper's tables (Principles of Visual Tokens, ICCV 2025), and which of our lines stand beside.

As printed: GFLOPs are multiply-accumulates of one view. The paper's own count is 0.36 % above its
closed form and ours (181 for 180.3). One line of Table 1 is left out (188 GFLOPs, 69.20): its model
has no name in the text that this was taken from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.errors import ConfigError
from selector.evaluation.config import FULL
from selector.evaluation.report.table import TableRow

NEAR = 0.03
"""How far, as a share of it, our cost may lie from the published of a method without a keep ratio;
both count as shares of all tokens' cost, so that a smaller backbone has these lines, too."""


class Published(NamedTuple):
    """One line of a table of the paper.

    Attributes:
        model: as the paper calls it.
        gflops: of one view.
        views: temporal segments x spatial crops.
        top1: percent.
        top5: percent; None where the paper has none.
        method: ours that is the same; None where there is none.
        keep_ratio: of ours; None for the line of ours whose cost is nearest.
    """

    model: str
    gflops: float
    views: str
    top1: float
    top5: float | None = None
    method: str | None = None
    keep_ratio: float | None = None


def _lite(views: str, *numbers: tuple[float, float, float, float]) -> list[Published]:
    return [
        Published(f"LITE, P = {ratio:g}", gflops, views, top1, top5, "lite", ratio)
        for ratio, gflops, top1, top5 in numbers
    ]


PUBLISHED: dict[int, tuple[str, list[Published]]] = {
    1: (
        "Something-Something V2, VideoMAE-B",
        [
            Published("TimeSformer-L", 5549, "1x3", 62.40),
            Published("Motionformer-L", 1185, "1x3", 68.10),
            Published("VideoSwin-B", 321, "1x3", 69.60),
            Published("VideoMAE", 181, "2x3", 70.50, 92.35, FULL, 1.0),
            Published("VideoSwin-STTS", 237, "1x3", 68.70),
            Published("ViT-B-STTM", 345, "1x1", 56.50, 83.90),
            Published("ObjectViViT", 192, "2x3", 70.00),
            Published("ToMe", 86, "2x3", 69.63, None, "tome"),
            Published("STA", 116, "2x3", 70.30, None, "sta"),
            Published("LookupViViT", 376, "4x3", 59.60),
            *_lite(
                "2x3",
                (0.9, 159, 70.54, 92.38),
                (0.7, 118, 70.44, 92.30),
                (0.5, 80, 69.91, 91.99),
                (0.3, 46, 68.33, 90.87),
            ),
        ],
    ),
    2: (
        "Kinetics-400, VideoMAE-B",
        [
            Published("TimeSformer-L", 8353, "1x3", 80.70),
            Published("Motionformer-L", 1185, "10x3", 80.20),
            Published("ViViT", 3981, "4x3", 84.90),
            Published("VideoMAE", 181, "5x3", 81.25, 94.99, FULL, 1.0),
            Published("VideoSwin-STTS", 253, "4x3", 81.90),
            Published("ViT-B-STTM", 345, "1x1", 73.30, 90.50),
            Published("ToMe", 86, "5x3", 79.95, None, "tome"),
            Published("STA", 116, "5x3", 81.10, None, "sta"),
            Published("LookupViViT", 376, "4x3", 78.30),
            *_lite(
                "5x3",
                (0.9, 159, 81.33, 94.95),
                (0.7, 118, 81.14, 94.89),
                (0.5, 80, 80.36, 94.51),
                (0.3, 46, 78.39, 93.28),
            ),
        ],
    ),
    3: (
        "Something-Something V2, VideoMAE-B, the oracle",
        [
            Published("VideoMAE", 181, "2x3", 70.50, 92.35, FULL, 1.0),
            Published("Oracle, true label", 80, "2x3", 78.52, 94.85, "oracle", 0.5),
            Published("Oracle, predicted", 80, "2x3", 70.00, 91.25, "oracle-predicted", 0.5),
        ],
    ),
    4: (
        "Something-Something V2, VideoMAE-B, adaptive budgets",
        [
            line
            for ratio, fixed, top1, adaptive, adapted in (
                (0.9, 159, 70.54, 105, 69.94),
                (0.7, 118, 70.44, 84, 69.86),
                (0.5, 80, 69.91, 65, 69.44),
                (0.3, 46, 68.33, 40, 67.74),
            )
            for line in (
                Published(f"LITE, P = {ratio:g}", fixed, "2x3", top1, None, "lite", ratio),
                Published(
                    f"LITE++ from {ratio:g}", adaptive, "2x3", adapted, None, "lite++", ratio
                ),
            )
        ],
    ),
    6: (
        "Something-Something V2, TimeSformer-B, joint attention",
        [
            Published("TimeSformer-B", 180, "-", 56.23, 83.63, FULL, 1.0),
            *_lite(
                "-",
                (0.9, 158, 56.00, 83.37),
                (0.7, 117, 53.38, 81.62),
                (0.5, 79, 48.28, 77.62),
                (0.3, 45, 36.97, 66.52),
                (0.1, 15, 11.68, 29.54),
            ),
        ],
    ),
}
"""Number of the table to what it shows, and its lines."""


def require_published(number: int) -> None:
    """Checks that the paper has a table of this number that can be shown.

    Raises:
        ConfigError: it has not.
    """
    if number not in PUBLISHED:
        known = ", ".join(map(str, PUBLISHED))
        raise ConfigError(f"--published: the tables that are known are {known}, got {number}")


def beside(number: int, table: Sequence[TableRow]) -> list[tuple[Published, TableRow | None]]:
    """A published table, and of each line ours that is the same, where there is one.

    Args:
        number: of the paper's table, a key of `PUBLISHED`.
        table: our lines.
    """
    own = full_gflops(table)
    scale = None if own is None else own / _published_full(number)
    return [(line, _ours(line, table, scale)) for line in PUBLISHED[number][1]]


def full_gflops(table: Sequence[TableRow]) -> float | None:
    """Our cost of all tokens; None where they were not evaluated."""
    return next((row.gmacs_backbone for row in table if row.method == FULL), None)


def budgets(number: int, table: Sequence[TableRow]) -> list[float]:
    """What the lines of a published table without a keep ratio would cost here, dearest first.

    The same shares of all tokens' cost; as published where ours is not known.
    """
    published = _published_full(number)
    scale = (full_gflops(table) or published) / published
    lines = [line for line in PUBLISHED[number][1] if line.method and line.keep_ratio is None]
    return sorted((scale * line.gflops for line in lines), reverse=True)


def _published_full(number: int) -> float:
    return next(line.gflops for line in PUBLISHED[number][1] if line.method in (FULL, "lite"))


def _ours(line: Published, table: Sequence[TableRow], scale: float | None) -> TableRow | None:
    """Ours that is the same; `scale` is our full model's cost over the published one's."""
    if line.method is None:
        return None
    # An oracle's own name says its layer, and a selector's its name.
    same = [row for row in table if re.sub(r"\[.*?\]", "", row.method) == line.method]
    if line.keep_ratio is not None:
        return next((row for row in same if row.keep_ratio == line.keep_ratio), None)
    if scale is None:
        return None
    wanted = scale * line.gflops
    nearest = min(same, key=lambda row: abs(row.gmacs_backbone - wanted), default=None)
    far = nearest is None or abs(nearest.gmacs_backbone - wanted) > NEAR * wanted
    return None if far else nearest
