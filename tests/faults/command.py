"""`lite-pipeline` with a worker that harms itself: `python -m tests.faults.command ORDERS ARGS...`.

ORDERS is JSON: the folder where misfortunes are counted, and a list of orders.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pipeline.oracle.build
from pipeline.cli import main
from tests.faults.chaos import Order, chaos

if __name__ == "__main__":
    folder, orders = json.loads(sys.argv.pop(1))
    worker_class = chaos(Path(folder), *(Order(**order) for order in orders))
    assert pipeline.oracle.build.build.__kwdefaults__ is not None
    pipeline.oracle.build.build.__kwdefaults__["worker_class"] = worker_class
    main()
