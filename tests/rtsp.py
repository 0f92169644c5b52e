"""A camera on this machine: an RTSP server that plays an MPEG transport stream (RFC 2326, 2250)."""

from __future__ import annotations

import base64
import socket
import struct
import threading
from contextlib import contextmanager

_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 33\r\na=rtpmap:33 MP2T/90000\r\na=control:track\r\n"
)
_TS_PACKET = 188
_TYPE = 33
_TICKS = 3600


@contextmanager
def camera(stream: bytes, login: str = "user:secret"):
    """The port of a server that plays `stream` to whoever knows the login, once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        thread = threading.Thread(target=_serve, args=(server, stream, login), daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive()


def _serve(server: socket.socket, stream: bytes, login: str) -> None:
    wanted = f"Authorization: Basic {base64.b64encode(login.encode()).decode()}"
    connection, _ = server.accept()
    with connection, connection.makefile("rwb") as talk:
        while True:
            lines = []
            while (line := talk.readline().decode().strip()) or not lines:
                if not line:
                    return
                lines.append(line)
            method = lines[0].split()[0]
            fields = [f"CSeq: {_field(lines, 'CSeq')}", "Session: 1"]
            body, status = "", "200 OK"
            if wanted not in lines and method != "OPTIONS":
                status = "401 Unauthorized"
                fields.append('WWW-Authenticate: Basic realm="camera"')
            elif method == "DESCRIBE":
                body = _SDP
                fields += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
            elif method == "SETUP":
                fields.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
            answer = "\r\n".join([f"RTSP/1.0 {status}", *fields, "", body])
            talk.write(answer.encode())
            talk.flush()
            if method == "PLAY":
                talk.write(b"".join(_packets(stream)))
                talk.flush()
                return


def _field(lines: list[str], name: str) -> str:
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))


def _packets(stream: bytes) -> list[bytes]:
    """RTP packets, each behind the four bytes that mark it on the connection."""
    found = []
    for number, start in enumerate(range(0, len(stream), 7 * _TS_PACKET)):
        payload = stream[start : start + 7 * _TS_PACKET]
        header = struct.pack("!BBHII", 0x80, _TYPE, number & 0xFFFF, number * _TICKS, 1)
        found.append(struct.pack("!cBH", b"$", 0, 12 + len(payload)) + header + payload)
    return found
