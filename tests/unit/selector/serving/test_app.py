"""The pages over real HTTP: hostile uploads, limits, metrics. The model is a stand-in."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import Future

import pytest

from pipeline.decode import DecodePool
from pipeline.errors import ClipStatus, DecodeError, DriverError, LostProcessError
from selector.serving.process import ModelLostError
from tests.servers import Model, serving
from tests.videos import write_video


@pytest.fixture(scope="module")
def pool():
    with DecodePool(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def server(pool):
    limits = {"max_upload_bytes": 50_000, "max_pixels": 70 * 70, "max_frames": 30, "idle_s": 0.5}
    with serving(pool, **limits) as server:
        yield server


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "clip.mp4", 12).read_bytes()


def form(*parts, end=b"--b--\r\n"):
    """The body and headers of a form."""
    body = b"".join(
        b"--b\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + content + b"\r\n"
        for head, content in parts
    )
    return body + end, {"Content-Type": "multipart/form-data; boundary=b"}


def test_a_body_and_a_form_are_answered_alike_and_names_are_not_looked_at(server, video):
    status, _, plain = server.post(video)
    assert (status, plain["top"]) == (
        200, [{"class": 3, "label": "<b>jump</b>", "probability": 0.75}],
    )  # fmt: skip
    assert (plain["gmacs"], plain["full_gmacs"]) == (0.5, 2.0)
    assert "mask" not in plain
    upload = form((b'name="note"', b"hello"), (b'name="v"; filename="../../x.sh"', video))
    assert server.post(*upload)[::2] == (200, plain)
    mask = server.post(video, query="?mask=true")[2]["mask"]
    assert mask.startswith("data:image/png;base64,iVBORw0KGgo")


def _large(folder):
    return write_video(folder / "large.mp4", 4, 96, 96).read_bytes()


def _long(folder):
    return write_video(folder / "long.mp4", 40, 16, 16).read_bytes()


def _cut(folder):
    return write_video(folder / "cut.mp4", 12).read_bytes()[:1000]


SCRIPT = b"ffconcat version 1.0\nfile '/etc/hostname'\nfile 'http://127.0.0.1:9/x.mp4'\n"


@pytest.mark.parametrize(
    ("body", "headers", "code", "sentence"),
    [
        (b"", {}, 400, "0 bytes"),
        (b"this is no video" * 99, {}, 422, "not a video"),
        (SCRIPT, {}, 422, "not a video"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", {"Content-Type": "video/mp4"}, 422, "not"),
        (_large, {}, 413, "96x96 pixels, more than the 4900 allowed"),
        (_long, {}, 413, "more than the 30 frames allowed"),
        (_cut, {}, 422, "not a video"),
        (b"x" * 60_000, {}, 413, "larger than the 50000 bytes allowed"),
        (b"x", {"Content-Length": "9" * 18}, 413, "larger than the 50000 bytes allowed"),
        (iter([b"x" * 20_000] * 3), {}, 413, "larger than the 50000 bytes allowed"),  # chunked
        (*form((b'name="v"', b"no file")), 400, "the form has no file"),
        (*form((b'name="v"; filename="a"', b"")), 400, "0 bytes"),
        (*form((b'name="v"; filename="a"', b"abc"), end=b""), 400, "ends in the middle"),
        (b"rubbish", {"Content-Type": "multipart/form-data; boundary=b"}, 400, "malformed"),
        (b"rubbish", {"Content-Type": "multipart/form-data"}, 400, "no boundary"),
        (b"", {"Content-Length": "-1"}, 400, ""),
        (b"", {"Content-Length": "9" * 99}, 400, ""),
    ],
)  # fmt: skip
def test_hostile_uploads_are_refused_by_a_sentence_at_once(
    server, video, tmp_path, body, headers, code, sentence
):
    began = time.monotonic()
    sent = body(tmp_path) if callable(body) else body
    status, _, text = server.ask("POST", "/predict", sent, headers)
    assert status == code
    assert sentence in text.decode()
    assert str(server.service.folder) not in text.decode()
    assert time.monotonic() - began < 10
    assert server.post(video)[0] == 200


def test_who_sends_nothing_more_is_not_waited_for(server):
    chunked = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n"
    with server.send_half(chunked) as wrong:
        assert wrong.recv(4096).startswith(b"HTTP/1.1 400")
    with server.send_half() as body, server.send_half(b"POST /predict HTT") as head:
        found = body.recv(4096)
        assert found.startswith(b"HTTP/1.1 408")
        assert b"nothing came for 0.5 s" in found + body.recv(4096)
        assert head.recv(4096) == b""  # closed


def test_above_the_limit_of_requests_it_says_when_to_come_again(pool, video):
    with serving(pool, max_requests=2, idle_s=2) as server:
        with server.send_half(), server.send_half():
            time.sleep(0.3)
            status, headers, answer = server.post(video)
            assert (status, headers["Retry-After"]) == (503, "1")
            assert "2 videos are in work" in answer["error"]
            assert server.ask("GET", "/health/live")[0] == 200
        time.sleep(0.3)  # they have gone away
        assert server.post(video)[0] == 200


def test_a_request_ends_with_its_deadline(pool, video):
    model = Model()
    model.hung = Future()
    with serving(pool, model, deadline_s=1.0) as server:
        status, headers, answer = server.post(video)
        assert (status, headers["Retry-After"]) == (503, "1")
        assert answer["error"] == "no answer within 1 s: the server is busy"
        with server.send_half() as slow:
            for _ in range(30):  # never idle, never done
                time.sleep(0.1)
                try:
                    slow.sendall(b"a")
                except OSError:
                    break
            found = slow.recv(4096)
        assert found.startswith(b"HTTP/1.1 408")
        hung, model.hung = model.hung, None
        hung.set_exception(ModelLostError("killed by the watchdog"))
        assert server.post(video)[0] == 200


@pytest.mark.parametrize(
    ("failure", "code", "sentence"),
    [
        (DecodeError(ClipStatus.DECODE_TIMEOUT, "not decoded within 30 s"), 422, "within 30 s"),
        (DecodeError(ClipStatus.DECODER_DIED, "the process died on it"), 422, "died on it"),
        (LostProcessError("the decoder of /tmp/x was killed"), 503, "send it again"),
        (DriverError("no decoder starts"), 503, "its log says why"),
    ],
)
def test_a_decoder_that_fails_is_the_videos_fault_only_where_it_is(failure, code, sentence):
    class Pool:
        def submit(self, request):
            assert request.timeout_s == 30  # well before the deadline of 60
            assert (request.max_frames, request.num_frames) == (20_000, 4)
            future = Future()
            if isinstance(failure, DecodeError):
                future.set_result(failure)
            else:
                future.set_exception(failure)
            return future

    with serving(Pool()) as server:
        status, headers, answer = server.post(b"a video")
    assert status == code
    assert ("Retry-After" in headers) == (code == 503)
    assert sentence in answer["error"]
    assert "/tmp" not in answer["error"]


def test_what_is_no_page_or_no_option_is_a_sentence_too(server, video):
    assert server.post(video, query="?mask=perhaps")[::2] == (
        422, {"error": "mask: Input should be a valid boolean, unable to interpret input"},
    )  # fmt: skip
    assert json.loads(server.ask("GET", "/nothing")[2]) == {"error": "Not Found"}
    assert server.ask("GET", "/predict")[0] == 405


def test_the_page_fetches_nothing_from_elsewhere(server):
    status, headers, text = server.ask("GET", "/")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert not re.search(rb"https?://|innerHTML|src=[\"']?//", text)
    for needed in (b'lang="en"', b"<label", b'aria-live="polite"', b"prefers-color-scheme: dark"):
        assert needed in text


def test_health_and_metrics(pool, video):
    model = Model()
    with serving(pool, model) as server:
        server.post(video)
        server.post(video)
        server.post(b"no video")
        assert server.ask("GET", "/health/ready")[::2] == (200, b'{"ready":true}')
        model.is_ready = False
        assert server.ask("GET", "/health/ready")[0] == 503
        text = server.ask("GET", "/metrics")[2].decode()
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert found['lite_requests_total{code="200"}'] == "2.0"
    assert found['lite_requests_total{code="422"}'] == "1.0"
    assert found["lite_requests_in_flight"] == "0.0"
    assert found['lite_stage_seconds_count{stage="decode"}'] == "3.0"
    assert found['lite_stage_seconds_count{stage="model"}'] == "2.0"
    assert found["lite_batch_size_count"] == "2.0"
    assert (found["lite_gmacs_total"], found["lite_full_gmacs_total"]) == ("1.0", "4.0")
