"""Signals to the command itself: how it ends, what it leaves running, and that it resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.builds import SHARD_SIZE, file_hashes, run_build
from tests.faults.chaos import Order, count

MARK = "LITE_TEST_RUN"
_REPOSITORY = Path(__file__).resolve().parents[2]


class Command:
    """A running `lite-pipeline build-oracle` that hangs where it is told to."""

    def __init__(self, tmp_path: Path, data: Path, backbone: Path, order: Order, *args: str):
        self.store = tmp_path / "store"
        self._folder = tmp_path / "chaos"
        self._folder.mkdir()
        self._mark = uuid.uuid4().hex
        orders = json.dumps([str(self._folder), [asdict(order)]])
        command = [sys.executable, "-m", "tests.faults.command", orders, "build-oracle"]
        options = {
            "--dataset": "csv",
            "--split": "all",
            "--data-root": str(data),
            "--store": str(self.store),
            "--backbone": str(backbone),
            "--shard-size": str(SHARD_SIZE),
            "--embeddings-per-clip": "3",
            "--batch-size": "2",
            "--decode-workers": "1",
        }
        self.process = subprocess.Popen(
            [*command, *(text for pair in options.items() for text in pair), *args],
            cwd=_REPOSITORY,
            env={**os.environ, MARK: self._mark, "RAY_worker_niceness": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # so that a signal can go to the group, as a terminal's does
        )

    def wait_until_it_hangs(self, timeout_s: float = 300.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not count(self._folder):
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline, "the command never got there"
            time.sleep(0.1)
        time.sleep(0.3)

    def signal_group(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def end(self, timeout_s: float) -> tuple[int, str, float]:
        """Exit code, output, and the seconds it took."""
        began = time.monotonic()
        output, _ = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, output, time.monotonic() - began

    def left_running(self, timeout_s: float, *, only: str = "") -> list[str]:
        """Command lines of processes it started that are still there after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = [line for line in self._alive() if only in line]
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.2)

    def _alive(self) -> Iterator[str]:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self._mark}".encode() in (folder / "environ").read_bytes():
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if line.strip():  # a zombie has none
                        yield line
            except OSError:
                continue

    def clean_up(self) -> None:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self._mark}".encode() in (folder / "environ").read_bytes():
                    os.kill(int(folder.name), signal.SIGKILL)
            except OSError:
                continue


@pytest.fixture
def start(tmp_path, data, tiny_backbone) -> Iterator[Callable[..., Command]]:
    commands: list[Command] = []

    def run(order: Order, *args: str) -> Command:
        commands.append(Command(tmp_path, data, tiny_backbone, order, *args))
        return commands[-1]

    yield run
    for command in commands:
        command.clean_up()
        command.process.wait()
        if command.process.stdout is not None:
            command.process.stdout.close()


def test_ctrl_c_in_one_process_ends_it_with_130_and_it_resumes(
    start, data, tiny_backbone, undisturbed
):
    command = start(Order("score", shard=1, act="hang"))
    command.wait_until_it_hangs()
    command.signal_group(signal.SIGINT)
    code, output, seconds = command.end(30)
    assert code == 130, output
    assert "the same command resumes" in output
    assert "Traceback" not in output
    assert seconds < 10
    assert command.left_running(10) == []
    assert run_build(command.store, data, tiny_backbone).complete
    assert file_hashes(command.store) == undisturbed


@pytest.mark.slow
def test_sigterm_in_one_process_ends_it_with_143(start, data, tiny_backbone, undisturbed):
    command = start(Order("score", shard=1, act="hang"))
    command.wait_until_it_hangs()
    command.process.terminate()
    code, output, _ = command.end(30)
    assert code == 143, output
    assert command.left_running(10) == []
    assert run_build(command.store, data, tiny_backbone).complete
    assert file_hashes(command.store) == undisturbed


@pytest.mark.ray
def test_ctrl_c_with_ray_ends_all_of_it_within_seconds(start, data, tiny_backbone, undisturbed):
    command = start(Order("score", shard=1, act="hang"), "--workers", "1")
    command.wait_until_it_hangs()
    command.signal_group(signal.SIGINT)
    code, output, seconds = command.end(60)
    assert code == 130, output
    assert "Traceback" not in output
    assert seconds < 20
    assert command.left_running(20) == []
    assert run_build(command.store, data, tiny_backbone).complete
    assert file_hashes(command.store) == undisturbed


@pytest.mark.ray
@pytest.mark.slow
def test_sigterm_with_ray_ends_all_of_it_within_seconds(start):
    command = start(Order("score", shard=1, act="hang"), "--workers", "1")
    command.wait_until_it_hangs()
    command.process.terminate()
    code, output, seconds = command.end(60)
    assert code == 143, output
    assert seconds < 20
    assert command.left_running(20) == []


@pytest.mark.ray
def test_a_driver_killed_while_a_worker_writes_is_resumed_at_once(
    start, data, tiny_backbone, undisturbed
):
    command = start(Order("rename:cam/c.1", shard=1, act="hang"), "--workers", "1")
    command.wait_until_it_hangs()
    command.process.kill()
    command.process.wait()
    # The orphan is in the middle of writing shard 1; this waits for it to be gone.
    assert run_build(command.store, data, tiny_backbone).complete
    assert file_hashes(command.store) == undisturbed
    # Two of Ray's own agents stay for a minute; they hold no GPU.
    assert command.left_running(20, only="ray::_Actor") == []
    assert command.left_running(20, only="decode.child") == []


def test_a_second_run_on_the_same_store_is_refused_and_harms_nothing(
    start, data, tiny_backbone, undisturbed
):
    from pipeline.errors import StoreError

    command = start(Order("score", shard=1, act="hang"))
    command.wait_until_it_hangs()
    with pytest.raises(StoreError, match=r"another run is writing .*process \d+ on"):
        run_build(command.store, data, tiny_backbone)
    command.process.kill()
    command.process.wait()
    assert run_build(command.store, data, tiny_backbone).complete
    assert file_hashes(command.store) == undisturbed
