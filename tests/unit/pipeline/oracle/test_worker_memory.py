"""A worker holds what the model says of a shard once, from the first batch to the commit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import numpy as np
from pipeline.clips.grid import TokenGrid
from pipeline.config import OracleConfig
from pipeline.oracle.scorer import Scored
from pipeline.oracle.worker import OracleWorker, _Job, _Step
from pipeline.store.root import Root
from pipeline.store.shard_writer import ShardWriter
from tests.stores import begin_store

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

grid, clips, batch = TokenGrid(8, 14, 14), 64, 16
shape = dict(grid=grid, hidden_size=768, embeddings_per_clip=-1, shard_size=clips)
with begin_store(sys.argv[1], clips, **shape):
    store = ShardWriter(Root(sys.argv[1]))
worker = object.__new__(OracleWorker)
worker._store = store
rng, n, before = np.random.default_rng(0), grid.num_tokens, status("VmRSS")
job = _Job(shard=0, plan=store.plan(0).to_pydict(), todo=range(clips), result=store.new_result(0))
for start in range(0, clips, batch):
    maps = rng.random((batch, n), np.float32)
    output = Scored(
        cam=maps, scores=maps, logits=rng.standard_normal((batch, 3), np.float32),
        embeddings=rng.random((batch, n, 768), np.float32).astype(np.float16),
        embedding_index=np.tile(np.arange(n, dtype=np.int16), (batch, 1)),
    )
    facts = dict(num_frames_total=16, padded=False, damaged=False)
    facts |= dict(decoder="pyav", decoder_version="")
    job.scored.append(_Step(output, start, dict.fromkeys(range(start, start + batch), facts)))
del maps, output
open("/proc/self/clear_refs", "w").write("5")  # the peak starts again from here
shard = clips * n * 768 * 2
held = status("VmRSS") - before
worker.finish(job)
worker.commit(job)
print(held / shard, (status("VmHWM") - before) / shard)
"""


def test_a_shard_is_in_memory_once(tmp_path: Path) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux's /proc")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "s")],
        cwd=Path(__file__).parents[4],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    held, peak = map(float, done.stdout.split())
    assert held == pytest.approx(1, abs=0.1)
    assert peak < 1.5
