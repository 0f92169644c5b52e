"""Everything in this folder needs CUDA: `pytest tests/gpu` on a machine that has it."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    skip = pytest.mark.skip(reason="NO CUDA DEVICE: run tests/gpu on a machine with a GPU")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(skip)
