"""Starts what answers, listens, and ends it all in order."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipeline.decode import DecodePool, DecodeRequest
from pipeline.errors import ConfigError
from pipeline.shards.run import sigterm_exits
from selector.serving.app import Service, make_app
from selector.serving.folder import upload_folder
from selector.serving.limits import Limits
from selector.serving.messages import ModelOptions
from selector.serving.metrics import Metrics
from selector.serving.process import ModelProcess

logger = logging.getLogger(__name__)


def serve(
    options: ModelOptions,
    limits: Limits,
    *,
    host: str,
    port: int,
    decode_workers: int,
    keep_spare: bool,
    announce: Callable[[str], None],
) -> None:
    """Answer requests until a signal ends it; those in work are answered first.

    Args:
        options: which model.
        limits: bounds.
        host: address or name to listen at.
        port: 0 for any that is free.
        decode_workers: processes that decode.
        keep_spare: as `ModelProcess` has it.
        announce: called with the URL once the model is loaded.

    Raises:
        ConfigError: the address cannot be had, or the model not be used.
        DriverError: the model's process does not start.
        KeyboardInterrupt: on Ctrl-C, when all is ended.
        SystemExit: with code 143, on SIGTERM, when all is ended.
    """
    metrics = Metrics()
    with contextlib.ExitStack() as stack:
        stack.enter_context(sigterm_exits())
        listening = stack.enter_context(_bound(host, port))
        folder = stack.enter_context(upload_folder())
        pool = stack.enter_context(DecodePool(decode_workers))
        for _ in range(decode_workers):  # they start now, and not with the first request
            pool.submit(DecodeRequest(path=""))
        model = ModelProcess(
            options, 2 * limits.deadline_s, metrics.restarts.inc, keep_spare=keep_spare
        )
        stack.callback(model.close)
        app = make_app(
            Service(model=model, pool=pool, limits=limits, metrics=metrics, folder=folder)
        )
        server = make_server(app, limits)
        name, bound_port = listening.getsockname()[:2]
        announce(f"http://{f'[{name}]' if ':' in name else name}:{bound_port}")
        server.run(sockets=[listening])


def make_server(app: Any, limits: Limits) -> uvicorn.Server:
    """The HTTP server of an application, with bounds on connections."""

    class Protocol(H11Protocol):
        """Closes a connection whose headers do not arrive; uvicorn alone would wait for ever."""

        def connection_made(self, transport: Any) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait_for_another_than(self.cycle)

        def on_response_complete(self) -> None:
            finished = self.cycle
            super().on_response_complete()
            self._wait_for_another_than(finished)

        def _wait_for_another_than(self, finished: Any) -> None:
            def look() -> None:
                if self.cycle is finished:
                    self.transport.close()

            asyncio.get_running_loop().call_later(limits.idle_s, look)

    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            # Those that are refused for want of a place, and pages, need some too.
            limit_concurrency=4 * limits.max_requests + 32,
            timeout_graceful_shutdown=int(limits.deadline_s) + 1,
        )
    )


def _bound(host: str, port: int) -> socket.socket:
    """A socket that has its address, and does not listen yet."""
    if not _is_loopback(host):
        logger.warning(
            "whoever reaches %s can use this server: it asks for no password and does not encrypt",
            host,
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except (OSError, OverflowError, UnicodeError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot listen at {host} port {port}: {reason}") from error
    return listening


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
