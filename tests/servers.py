"""Servers on loopback whose model is a stand-in."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import tempfile
import threading
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from selector.serving.app import Service, make_app
from selector.serving.limits import Limits
from selector.serving.messages import Answer
from selector.serving.metrics import Metrics
from selector.serving.server import make_server


class Model:
    """Keeps half of the tokens of any video, or never answers."""

    facts = {"num_frames": 4, "size": 16, "short_side": 16, "sampling": "uniform"}  # noqa: RUF012
    is_ready = True
    hung: Future | None = None

    def submit(self, videos):
        future: Future = Future()
        if self.hung is not None:
            self.hung = future
        else:
            future.set_result([self.answer(video) for video in videos])
        return future

    def answer(self, video):
        kept = np.zeros((2, 2, 2), dtype=bool)
        kept[0] = True
        fields = {
            "status": "ok", "top": [{"class": 3, "label": "<b>jump</b>", "probability": 0.75}],
            "gmacs": 0.5, "full_gmacs": 2.0, "keep_ratio": 0.5, "damaged": video.damaged,
        }  # fmt: skip
        return Answer(fields=fields, kept=kept, scores=None, group=None, method="lite")

    def revive(self):
        future: Future = Future()
        future.set_result(None)
        return future


class Server:
    """A running server."""

    def __init__(self, service: Service):
        self.service = service
        self._server = make_server(make_app(service), service.limits)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))
        self._thread.start()

    def stop(self):
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()

    def ask(self, method, path, body=None, headers=None):
        """Status, headers and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            # An answer may come before all of the body was sent.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()

    def post(self, body, headers=None, query=""):
        status, found, text = self.ask("POST", f"/predict{query}", body, headers)
        return status, found, json.loads(text)

    def send_half(self, head=b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nab"):
        """A connection on which a request is begun."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(head)
        return connection


@contextlib.contextmanager
def serving(pool, model=None, **limits):
    with tempfile.TemporaryDirectory() as folder:
        server = Server(
            Service(
                model=model or Model(),
                pool=pool,
                limits=Limits(**limits),
                metrics=Metrics(),
                folder=Path(folder),
            )
        )
        try:
            yield server
        finally:
            server.stop()
        assert list(Path(folder).iterdir()) == []
