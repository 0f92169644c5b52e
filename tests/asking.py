"""Asking a server of this machine over HTTP, a connection for each question."""

from __future__ import annotations

import http.client
import re


def ask(
    port: int, method: str, path: str, body: bytes | None = None, *, timeout: float = 60
) -> tuple[int, bytes]:
    """Status and body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def metric(port: int, name: str) -> float:
    """One number of /metrics."""
    found = re.search(rf"^{name} (.*)$", ask(port, "GET", "/metrics")[1].decode(), re.M)
    assert found is not None, name
    return float(found[1])
