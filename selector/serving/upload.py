"""The body of a request into a file: as it is, or the first file of a form.

It is written as it arrives, so memory does not grow with it. Nothing that the client says of the
file (its name, its type) is used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from selector.serving.limits import Limits, Refusal


async def save_upload(request: Request, file: BinaryIO, limits: Limits) -> None:
    """Write the video that a request brings into `file`.

    Raises:
        Refusal: there is none, it is too large, or it does not arrive.
    """
    too_large = Refusal(
        413, f"the upload is larger than the {limits.max_upload_bytes} bytes allowed"
    )
    if int(request.headers.get("content-length", 0)) > limits.max_upload_bytes:
        raise too_large
    kind, options = parse_options_header(request.headers.get("content-type"))
    form = _FormFile(options.get(b"boundary"), file) if kind == b"multipart/form-data" else None
    write: Callable[[bytes], object] = file.write if form is None else form.write
    chunks, num_bytes = aiter(request.stream()), 0
    while (chunk := await _next(chunks, limits.idle_s)) is not None:
        num_bytes += len(chunk)
        if num_bytes > limits.max_upload_bytes:
            raise too_large
        write(chunk)
    if form is not None:
        form.check()
    if file.tell() == 0:
        raise Refusal(400, "there is no video: the upload has 0 bytes")
    file.flush()


async def _next(chunks: object, idle_s: float) -> bytes | None:
    """What arrives next; None at the end."""
    try:
        async with asyncio.timeout(idle_s):
            chunk: bytes | None = await anext(chunks, None)  # type: ignore[call-overload]
            return chunk
    except TimeoutError:
        raise Refusal(408, f"the upload stands still: nothing came for {idle_s:g} s") from None
    except ClientDisconnect:
        raise Refusal(400, "the upload was broken off") from None


class _FormFile:
    """Finds the first file of a form, `multipart/form-data`, and writes it.

    Args:
        boundary: what separates the form's parts.
        file: where to.

    Raises:
        Refusal: there is no boundary.
    """

    def __init__(self, boundary: bytes | None, file: BinaryIO) -> None:
        if not boundary:
            raise Refusal(400, "the form names no boundary")
        self._file = file
        self._field, self._value = b"", b""
        self._in_file = self._found = self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_header_field": self._on_field,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header,
                "on_part_data": self._on_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def write(self, chunk: bytes) -> None:
        """Take in what arrived.

        Raises:
            Refusal: it is no form.
        """
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise Refusal(400, "the form is malformed") from None

    def check(self) -> None:
        """See that the form was complete, and had a file.

        Raises:
            Refusal: it was or had not.
        """
        if not self._ended:
            raise Refusal(400, "the form ends in the middle")
        if not self._found:
            raise Refusal(400, "the form has no file: send one as `curl -F video=@clip.mp4` does")

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        if self._field.lower() == b"content-disposition" and not self._found:
            self._in_file = b"filename" in parse_options_header(self._value)[1]
            self._found = self._in_file
        self._field, self._value = b"", b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._file.write(data[start:end])

    def _on_part_end(self) -> None:
        self._in_file = False

    def _on_end(self) -> None:
        self._ended = True
