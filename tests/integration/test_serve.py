"""`lite-pipeline serve` as a user runs it: answers as of `predict`, and a kill loses nothing."""

from __future__ import annotations

import base64
import concurrent.futures
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.cli import app
from tests.asking import ask, metric
from tests.lite_models import make_model
from tests.videos import write_video

NUM_VIDEOS = 6


@pytest.fixture(scope="module")
def model(tiny_backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "saved"
    make_model(tiny_backbone).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Each shows something else."""
    folder, rng = tmp_path_factory.mktemp("videos"), np.random.default_rng(0)
    pictures = rng.integers(0, 256, (NUM_VIDEOS, 12, 16, 16, 3), dtype=np.uint8)
    return [
        write_video(folder / f"{n}.mp4", 12, 16, 16, frame=lambda i, *_, n=n: pictures[n, i])
        for n in range(NUM_VIDEOS)
    ]


@pytest.fixture(scope="module")
def expected(model, videos):
    """What predict says of each."""
    result = CliRunner().invoke(
        app, ["predict", *map(str, videos), "--model", str(model), "--json"]
    )
    assert result.exit_code == 0, result.output
    return [
        {key: value for key, value in answer.items() if key != "video"}
        for answer in json.loads(result.stdout)
    ]


class Served:
    """A running command."""

    def __init__(self, model, temporary):
        self.temporary = temporary
        words = ["serve", "--model", str(model), "--port", "0", "--decode-workers", "1"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", *words, "--threads", "1"],
            env={**os.environ, "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        self.port = int(re.search(r"http://127\.0\.0\.1:(\d+); Ctrl-C ends it", line)[1])

    def ask(self, method, path, body=None):
        return ask(self.port, method, path, body)

    def classify(self, path):
        status, text = self.ask("POST", "/predict", Path(path).read_bytes())
        assert status == 200, text
        return json.loads(text)

    def metric(self, name):
        return metric(self.port, name)

    def children(self, of="selector.serving.child"):
        found = []
        for pid in subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False
        ).stdout.split():
            if of in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(int(pid))
        return found


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    running = Served(model, tmp_path_factory.mktemp("tmp"))
    yield running
    running.process.kill()
    running.process.wait()
    running.process.stdout.close()


def same(found, expected):
    """Whether an answer is that of `predict`, up to the rounding of another batch."""
    found, expected = dict(found), dict(expected)
    assert found.pop("keep_ratio") == 0.5
    tops = found.pop("top"), expected.pop("top")
    assert [item["label"] for item in tops[0]] == [item["label"] for item in tops[1]]
    values = [[item["probability"] for item in top] for top in tops]
    assert values[0] == pytest.approx(values[1], abs=1e-5)
    return found == expected


def test_its_answers_are_those_of_predict(served, videos, expected, model, tmp_path):
    assert len({answer["top"][0]["probability"] for answer in expected}) == NUM_VIDEOS
    for video, answer in zip(videos, expected, strict=True):
        assert same(served.classify(video), answer)
    text = served.ask("POST", "/predict?mask=true", videos[0].read_bytes())[1]
    png = base64.b64decode(json.loads(text)["mask"].partition(",")[2])
    drawn = tmp_path / "mask.png"
    words = ["predict", str(videos[0]), "--model", str(model), "--save-mask", str(drawn)]
    assert CliRunner().invoke(app, words).exit_code == 0
    here, there = (np.asarray(Image.open(place)) for place in (io.BytesIO(png), drawn))
    margin = 16  # above which `predict` has its heading
    height = len(here) - margin
    np.testing.assert_array_equal(here[margin:], there[-height:])
    assert len(there) > len(here)


def test_a_kill_of_the_model_in_the_middle_loses_no_request(served, videos, expected):
    """And requests at the same time share forward passes."""
    batches = served.metric("lite_batch_size_count")
    (victim,) = served.children()
    with concurrent.futures.ThreadPoolExecutor(NUM_VIDEOS) as senders:
        answers = [senders.submit(served.classify, video) for _ in range(20) for video in videos]
        answers[10].result()
        os.kill(victim, signal.SIGKILL)
        found = [answer.result() for answer in answers]
    assert all(map(same, found, 20 * expected))
    assert served.metric("lite_model_restarts_total") == 1
    assert served.children() not in ([], [victim])
    assert served.ask("GET", "/health/ready")[0] == 200
    assert served.metric("lite_batch_size_count") - batches < 20 * NUM_VIDEOS


def test_a_port_that_is_taken_and_a_model_that_is_none_are_sentences(served, model, tmp_path):
    for words, sentence in (
        (["--model", model, "--port", served.port], "cannot listen at 127.0.0.1 port"),
        (["--model", tmp_path, "--port", 0], "no selector in"),
    ):
        result = CliRunner().invoke(app, ["serve", *map(str, words)])
        assert result.exit_code == 1, result.output
        assert sentence in result.stderr
        assert "Traceback" not in result.output


def test_sigterm_ends_it_with_143_when_what_is_in_work_is_answered(served, videos):
    body = videos[0].read_bytes()
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[:100])
        time.sleep(0.3)
        served.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.sendall(body[100:])
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    children = served.children("")
    assert served.process.wait(30) == 143
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert list(served.temporary.glob("lite-*")) == []
