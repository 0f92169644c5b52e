"""What is given, what is measured, and what follows for workers, decoders and the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import OracleConfig, RunConfig
from pipeline.errors import ConfigError
from pipeline.estimate.estimate import Place, estimate, find_decoders
from pipeline.estimate.simulate import Cluster, simulate
from pipeline.estimate.worker import Rates, WorkerSetup
from pipeline.oracle.build import build, prepare
from tests.builds import ask, make_dataset, make_run_config
from tests.checkpoints import save_videomae

GIVEN = {"decode_rate": 25.0, "model_rate": 970.0}
ASKED = OracleConfig(dataset="ssv2", backbone="synthetic")


def run_config(**changes: Any) -> RunConfig:
    return RunConfig(**({"data_root": ""} | changes))


def test_gpus_decide_workers_and_decoders() -> None:
    place = Place(gpus=8, nodes=4, cpus_per_gpu=12, **GIVEN)
    found = estimate(ASKED, run_config(batch_size=32), place, num_clips=168_913)
    assert (found.cluster.workers, found.setup.decoders) == (32, 11)
    assert found.decoders_wanted is not None
    assert 0.95 * 970 / 25 <= found.decoders_wanted <= 2 * 970 / 25
    assert found.forecast.steady_clips_per_s == pytest.approx(32 * 11 * 25, rel=0.05)
    assert found.forecast.bound_by == "decode"


def test_decoders_are_as_many_as_the_model_wants() -> None:
    setup = WorkerSetup(decoders=1, batch_size=8, on_gpu=True)
    rates = Rates(decode_s=(1.0,), model_s=0.5)
    found = find_decoders(64, setup, rates)
    assert found is not None
    busy = [
        simulate(64 * 12, 64, replace(setup, decoders=d), Cluster(workers=1), rates)
        for d in (found - 1, found)
    ]
    assert busy[0].steady_clips_per_s < 0.95 * 2 <= busy[1].steady_clips_per_s
    assert found_with(commit_s=100) is None  # both shards in work are being written


def found_with(**changes: float) -> int | None:
    setup = WorkerSetup(decoders=1, batch_size=8, on_gpu=True)
    return find_decoders(64, setup, Rates(decode_s=(1.0,), model_s=0.5, **changes))


def test_views_of_a_video_share_its_decoding() -> None:
    asked = OracleConfig(dataset="ssv2", backbone="synthetic", num_segments=2, num_crops=3)
    found = estimate(asked, run_config(), Place(**GIVEN), num_clips=600)
    assert found.rates.decode_s == (pytest.approx(6 / 25),)
    assert found.decode_rate == pytest.approx(25)


def test_the_store_of_videomae_b_has_the_size_its_layout_says(tmp_path: Path) -> None:
    folder = save_videomae(
        tmp_path / "narrow", image_size=224, patch_size=16, num_frames=16, hidden_size=24
    )
    asked = OracleConfig(dataset="ssv2", backbone=str(folder), embeddings_per_clip=100)
    found = estimate(asked, run_config(), Place(**GIVEN), num_clips=1000)
    tokens = 8 * 14 * 14
    assert found.stored == {
        "scores": 2 * tokens,
        "cam": 2 * tokens,
        "embeddings": 2 * 100 * 24,
        "embedding_index": 2 * 100,
        "tokens": pytest.approx(1.7 * tokens),
    }
    assert found.store_bytes == pytest.approx(1000 * (5.7 * tokens + 5000))


def test_measured_on_real_videos_it_foresees_the_store(
    tmp_path: Path,
    tiny_backbone: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (1000.0, 0.0, 0.0))
    run = make_run_config(make_dataset(tmp_path / "data", 24))
    asked = ask(tiny_backbone, shard_size=24)
    found = estimate(asked, run, Place(), seconds=1.0)
    assert found.num_clips == prepare(asked, run).plan.num_rows
    assert found.measured is not None
    assert "this machine is busy (load 1000.0" in caplog.text
    assert min(found.decode_rate, found.model_rate) > 0
    build(asked, str(tmp_path / "store"), run)
    files = [
        *(tmp_path / "store/oracle.zarr").rglob("c.*"),
        *(tmp_path / "store").glob("t*/*.par*"),
    ]
    files += (tmp_path / "store/clips").iterdir()
    assert found.store_bytes == pytest.approx(sum(f.stat().st_size for f in files), rel=0.5)


def test_videos_that_are_not_there_are_named(tmp_path: Path, tiny_backbone: Path) -> None:
    data = make_dataset(tmp_path / "data", 6)
    for video in data.rglob("*.mp4"):
        video.unlink()
    with pytest.raises(ConfigError, match="not one of the sampled videos"):
        estimate(ask(tiny_backbone), make_run_config(data), Place(), seconds=0.5)


@pytest.mark.parametrize(
    ("place", "run", "clips", "names"),
    [
        ({}, {}, 10, "--data-root"),
        (GIVEN, {}, None, "--data-root"),
        (GIVEN, {}, 0, "clips"),
        ({"gpus": 2}, {}, 10, "--model-rate"),
        (GIVEN | {"gpus": 2}, {"workers": 2}, 10, "--workers"),
        (GIVEN | {"gpus": 2, "cpus_per_gpu": 4}, {"threads_per_worker": 4}, 10, "--cpus-per-gpu"),
    ],
)
def test_what_leaves_nothing_to_start_from_is_refused(
    place: dict[str, Any], run: dict[str, Any], clips: int | None, names: str
) -> None:
    with pytest.raises(ConfigError, match=names):
        estimate(ASKED, run_config(**run), Place(**place), num_clips=clips)


@pytest.mark.parametrize(
    "place",
    [
        {"decode_rate": 0.0}, {"model_rate": -1.0}, {"model_rate": float("nan")}, {"start_s": -1.0},
        {"commit_s": float("inf")}, {"gpus": -1}, {"gpus": 1, "nodes": 0}, {"nodes": 2},
    ],
)  # fmt: skip
def test_places_that_are_none_are_refused(place: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Place(**place)
