"""Decoder processes: in order, bounded, and gone when they should be."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest

from pipeline.decode import DecodedVideo, DecodePool, DecodeRequest, decode_video
from pipeline.decode.process import DecoderProcess
from pipeline.errors import ClipStatus, ConfigError, DecodeError, DriverError, LostProcessError
from tests.videos import write_video

_ROOT = Path(__file__).resolve().parents[4]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")


def _decoders_of(parent: int) -> list[int]:
    """The decoder processes that say they belong to a process, which may be gone."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"pipeline.decode.child" in words and str(parent).encode() in words:
            found.append(int(folder.name))
    return found


def _wait_for(condition: Callable[[], object], limit_s: float = 100.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _request(path: Path, timeout_s: float = 60.0) -> DecodeRequest:
    return DecodeRequest(path=str(path), num_frames=4, size=32, short_side=32, timeout_s=timeout_s)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("videos")
    return [write_video(folder / f"{number}.mp4", 4 + number, 32, 32) for number in range(12)]


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(2) as pool:
        yield pool


def test_results_come_in_order_and_equal_those_of_this_process(
    pool: DecodePool, paths: list[Path]
) -> None:
    requests = [_request(path) for path in paths]
    requests.insert(3, _request(Path("missing.mp4")))
    results = list(pool.imap(requests))
    missing = results.pop(3)
    assert isinstance(missing, DecodeError)
    assert missing.status is ClipStatus.MISSING_FILE
    for path, result in zip(paths, results, strict=True):
        assert isinstance(result, DecodedVideo)
        expected = decode_video(_request(path))
        np.testing.assert_array_equal(result.clips, expected.clips)
        assert (result.num_frames_total, result.padded, result.decoder_version) == (
            expected.num_frames_total,
            expected.padded,
            expected.decoder_version,
        )
        assert result.clips.flags.writeable


def test_no_workers_decode_here_and_only_on_demand(paths: list[Path]) -> None:
    drawn = []

    def requests() -> Iterator[DecodeRequest]:
        for path in [*paths[:2], Path("missing.mp4")]:
            drawn.append(path)
            yield _request(path)

    with DecodePool(0) as pool:
        results = pool.imap(requests())
        assert drawn == []
        assert isinstance(next(results), DecodedVideo)
        assert len(drawn) == 1
        assert [type(result) for result in results] == [DecodedVideo, DecodeError]
        assert pool.pids() == []


def test_look_ahead_is_bounded_and_starts_at_once(pool: DecodePool, paths: list[Path]) -> None:
    """What is handed out ahead bounds the memory; a second iterator may start meanwhile."""
    drawn: list[int] = []

    def requests() -> Iterator[DecodeRequest]:
        for number in range(10):
            drawn.append(number)
            yield _request(paths[number])

    results = pool.imap(requests(), look_ahead=3)
    assert drawn == [0, 1, 2]
    time.sleep(0.3)
    assert drawn == [0, 1, 2]
    following = pool.imap([_request(paths[0])])
    next(results)
    assert drawn == [0, 1, 2, 3]
    assert len(list(results)) == 9
    assert len(list(following)) == 1


def test_a_dead_child_is_replaced_and_its_request_tried_again(paths: list[Path]) -> None:
    with DecodePool(1) as pool:
        first = next(pool.imap([_request(paths[0])]))
        (child,) = pool.pids()
        os.kill(child, signal.SIGKILL)
        second = next(pool.imap([_request(paths[0])]))
        assert isinstance(first, DecodedVideo)
        assert isinstance(second, DecodedVideo)
        assert pool.pids() != [child]


@pytest.mark.parametrize(
    ("deed", "ending"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "by signal SIGSEGV"),
        ("os._exit(3)", "with exit code 3"),
    ],
)
def test_a_video_that_always_crashes_its_decoder_is_one_failure(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, deed: str, ending: str
) -> None:
    _sabotage(monkeypatch, tmp_path, deed)
    requests = [_request(paths[0]), _request(tmp_path / "poison.mp4"), _request(paths[1])]
    with DecodePool(1) as pool:
        results = list(pool.imap(requests))
    assert [type(result) for result in results] == [DecodedVideo, DecodeError, DecodedVideo]
    assert isinstance(results[1], DecodeError)
    assert results[1].status is ClipStatus.DECODER_DIED
    assert str(results[1]) == f"the pyav process died {ending} on this video"
    assert len(_tries(tmp_path)) == 2


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_kill_from_outside_is_never_blamed_on_the_video(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sent: int
) -> None:
    """Also at the same place three times, as by a system that is out of memory."""
    _sabotage(monkeypatch, tmp_path, f"if tries <= 3: os.kill(os.getpid(), {int(sent)})")
    monkeypatch.setattr("pipeline.decode.pool._WAITS_S", (0.0, 0.0, 0.0))
    poison = tmp_path / "poison.mp4"
    poison.write_bytes(paths[2].read_bytes())
    with DecodePool(2) as pool:
        results = list(pool.imap([_request(path) for path in (paths[0], poison, paths[1])]))
    for path, result in zip((paths[0], paths[2], paths[1]), results, strict=True):
        assert isinstance(result, DecodedVideo)
        np.testing.assert_array_equal(result.clips, decode_video(_request(path)).clips)
    assert len(_tries(tmp_path)) == 4


def test_a_process_that_is_killed_every_time_is_lost_and_nothing_is_blamed(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The results before it are given; with it the iterator ends, and the pool goes on."""
    _sabotage(monkeypatch, tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    monkeypatch.setattr("pipeline.decode.pool._WAITS_S", (0.0, 0.1))
    poison = tmp_path / "poison.mp4"
    with DecodePool(1) as pool:
        results = pool.imap([_request(paths[0]), _request(poison), _request(paths[1])])
        assert isinstance(next(results), DecodedVideo)
        with pytest.raises(LostProcessError, match="from outside, by signal SIGKILL") as caught:
            next(results)
        assert str(poison) in str(caught.value)
        assert len(_tries(tmp_path)) == 3
        assert list(results) == []
        assert isinstance(next(pool.imap([_request(paths[1])])), DecodedVideo)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_after_a_death_a_video_is_tried_alone(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So that neither its neighbours' memory nor their crash is laid at its door."""
    deed = "os.kill(os.getpid(), signal.SIGKILL) if tries == 1 else time.sleep(1)"
    _sabotage(monkeypatch, tmp_path, deed)
    requests = [_request(tmp_path / "poison.mp4"), *map(_request, paths)]
    with DecodePool(3) as pool:
        assert len(list(pool.imap(requests, look_ahead=len(requests)))) == len(requests)
    begun, done = _spans(tmp_path)["poison.mp4"][-1]
    assert done - begun > 1
    for path in paths:
        for start, end in _spans(tmp_path)[path.name]:
            assert end < begun or start > done


def test_a_child_that_is_killed_while_it_starts_is_replaced(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    class Slow(DecoderProcess):
        def __init__(self) -> None:
            super().__init__()
            started.append(self.pid)
            if len(started) < 3:
                self.kill()

    monkeypatch.setattr("pipeline.decode.pool.DecoderProcess", Slow)
    with DecodePool(1) as pool:
        assert isinstance(next(pool.imap([_request(paths[0])])), DecodedVideo)
        assert pool.pids() == [started[2]]


def test_a_video_that_hangs_in_native_code_is_killed(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where no Python code runs any more: the GIL is never let go of."""
    _sabotage(monkeypatch, tmp_path, "import ctypes; ctypes.PyDLL(None).pause()")
    requests = [_request(paths[0]), _request(tmp_path / "poison.mp4"), _request(paths[1])]
    with DecodePool(1, kill_after_s=2.0) as pool:
        results = list(pool.imap(requests))
    assert isinstance(results[1], DecodeError)
    assert results[1].status is ClipStatus.DECODE_TIMEOUT
    assert str(results[1]) == "pyav did not answer within 2 s and was killed"
    assert len(_tries(tmp_path)) == 2
    assert isinstance(results[2], DecodedVideo)


def test_close_leaves_no_process_whatever_is_under_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _sabotage(monkeypatch, tmp_path, "time.sleep(600)")
    pool = DecodePool(1)
    results = pool.imap([_request(tmp_path / "poison.mp4")] * 3)
    _wait_for(lambda: _tries(tmp_path))
    (child,) = pool.pids()
    started = time.monotonic()
    pool.close()
    pool.close()
    assert time.monotonic() - started < 60  # it sleeps for 600
    assert not Path(f"/proc/{child}").exists()
    with pytest.raises(CancelledError):
        next(results)
    with pytest.raises(DriverError, match="closed"):
        pool.imap([_request(tmp_path)])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_children_end_with_their_parent(tmp_path: Path, paths: list[Path], how: int) -> None:
    """However it dies, from whatever thread they were started; Ctrl-C prints one traceback."""
    script = f"""
        import sys, threading, time
        from pipeline.decode import DecodePool, DecodeRequest

        def use():
            pool = DecodePool(2)
            request = DecodeRequest(path={str(paths[0])!r}, num_frames=4, size=32, short_side=32)
            list(pool.imap([request] * 4))
            keep.append(pool)

        keep = []
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        print("decoding", flush=True)
        list(keep[0].imap([DecodeRequest(path={str(paths[0])!r})]))  # after the thread has ended
        print("ready", flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        assert parent.stdout.readline() == b"decoding\n"
        assert parent.stdout.readline() == b"ready\n"
        assert len(_decoders_of(parent.pid)) == 2
        os.killpg(parent.pid, how)  # as the terminal does
        parent.wait(100)
        _wait_for(lambda: not _decoders_of(parent.pid))
        errors = parent.stderr.read()
    assert errors.count(b"Traceback") == (1 if how == signal.SIGINT else 0)


def test_a_pool_that_cannot_start_its_children_says_so(
    monkeypatch: pytest.MonkeyPatch, paths: list[Path]
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with DecodePool(1) as pool, pytest.raises(DriverError, match="did not start"):
        next(pool.imap([_request(paths[0])]))


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_workers"):
        DecodePool(-1)
    with pytest.raises(ConfigError, match="kill_after_s"):
        DecodePool(1, kill_after_s=0)
    with DecodePool(1) as pool, pytest.raises(ConfigError, match="look_ahead"):
        pool.imap([], look_ahead=0)


def _sabotage(monkeypatch: pytest.MonkeyPatch, folder: Path, deed: str) -> None:
    """Let the decoder processes run `deed` when they are asked for a file named poison.mp4.

    It may use `tries`, how often that file was asked for. Every request is logged.
    """
    package = folder / "sabotage"
    package.mkdir()
    (package / "sitecustomize.py").write_text(
        textwrap.dedent(f"""
            import os, signal, sys, time

            def log(what, request):
                with open({str(folder / "log")!r}, "a") as file:
                    name = os.path.basename(request.path)
                    file.write(f"{{what}} {{name}} {{time.monotonic()}}\\n")
                with open({str(folder / "log")!r}) as file:
                    return file.read().count("begin poison.mp4")

            class Finder:
                def find_spec(self, name, path=None, target=None):
                    if name == "pipeline.decode.pipes":
                        sys.meta_path.remove(self)
                        import pipeline.decode.backends as backends
                        decode = backends.decode_here

                        def decode_here(request):
                            tries = log("begin", request)
                            if request.path.endswith("poison.mp4"):
                                {deed}
                            try:
                                return decode(request)
                            finally:
                                log("end", request)

                        backends.decode_here = decode_here

            sys.meta_path.insert(0, Finder())
        """)
    )
    monkeypatch.setenv("PYTHONPATH", str(package))


def _tries(folder: Path) -> list[str]:
    """The log's lines about the poisoned file's beginning."""
    log = folder / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [line for line in lines if line.startswith("begin poison.mp4")]


def _spans(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """When each file was decoded, begin and end; attempts that ended with a kill are left out."""
    spans: dict[str, list[tuple[float, float]]] = {}
    begun: dict[str, float] = {}
    for line in (folder / "log").read_text().splitlines():
        what, name, at = line.split()
        if what == "begin":
            begun[name] = float(at)
        else:
            spans.setdefault(name, []).append((begun[name], float(at)))
    return spans
