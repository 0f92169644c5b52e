"""The server's pages: a video in, its classes and their cost out, and how the server is doing."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from pipeline.decode import DecodedVideo, DecodePool, DecodeRequest
from pipeline.errors import ClipStatus, DecodeError, LiteError, LostProcessError
from selector.deploy.mask_picture import draw_clip, mask_panels, png_bytes
from selector.serving.batching import Batcher
from selector.serving.limits import Limits, Refusal
from selector.serving.messages import Answer
from selector.serving.metrics import Metrics
from selector.serving.process import ModelLostError, ModelProcess
from selector.serving.upload import save_upload

logger = logging.getLogger(__name__)

T = TypeVar("T")
_PAGE_HEADERS = {  # the page is one file, and fetches nothing from elsewhere
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src "
    "'unsafe-inline'; img-src data:; connect-src 'self'; form-action 'none'; "
    "frame-ancestors 'none'"
}
_RETRY_AFTER_S = "1"
_CODES = {ClipStatus.TOO_LARGE: 413, ClipStatus.MODEL_ERROR: 500}
"""Of videos that fail; 422 for any other reason."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """What answers, and the bounds on it."""

    model: ModelProcess
    pool: DecodePool
    limits: Limits
    metrics: Metrics
    folder: Path
    """For uploads; nobody else's."""


def make_app(service: Service) -> FastAPI:
    """The pages of a server."""
    limits, metrics = service.limits, service.metrics
    batcher = Batcher(service.model, limits, metrics)
    in_flight = 0

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(batcher.run())
        yield
        running.cancel()

    # No /docs: it would fetch its script from elsewhere.
    app = FastAPI(title="lite-pipeline", lifespan=lifespan, docs_url=None, redoc_url=None)

    @app.post("/predict")
    async def predict(request: Request, mask: bool = False) -> JSONResponse:
        """Classify the video that is the body, or the first file of a form."""
        nonlocal in_flight
        if in_flight >= limits.max_requests:
            raise Refusal(503, f"{in_flight} videos are in work, which is the limit: send it later")
        in_flight += 1
        metrics.in_flight.inc()
        try:
            answer = await _answer(service, batcher, request, mask=mask)
        finally:
            in_flight -= 1
            metrics.in_flight.dec()
        metrics.requests.labels("200").inc()
        return JSONResponse(answer)

    @app.get("/")
    def page() -> HTMLResponse:
        text = files("selector.serving").joinpath("page.html").read_text("utf-8")
        return HTMLResponse(text, headers=_PAGE_HEADERS)

    @app.get("/health/live")
    async def live() -> dict[str, bool]:
        """Whether the server itself answers."""
        return {"live": True}

    @app.get("/health/ready")
    async def ready() -> JSONResponse:
        """Whether the model is loaded; 503 while its process is replaced."""
        is_ready = service.model.is_ready
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(metrics.page(), media_type=metrics.media_type)

    @app.exception_handler(Refusal)
    async def refuse(request: Request, refusal: Refusal) -> JSONResponse:
        metrics.requests.labels(str(refusal.code)).inc()
        # What is left of the body is not waited for.
        headers = {"Connection": "close"}
        if refusal.code == 503:
            headers["Retry-After"] = _RETRY_AFTER_S
        return JSONResponse({"error": str(refusal)}, refusal.code, headers)

    @app.exception_handler(RequestValidationError)
    async def refuse_query(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return await refuse(request, Refusal(422, f"{first['loc'][-1]}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    async def refuse_route(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    return app


async def _answer(
    service: Service, batcher: Batcher, request: Request, *, mask: bool
) -> dict[str, Any]:
    """From a request to the JSON of its answer, within the deadline.

    Raises:
        Refusal: says why there is none.
    """
    limits, metrics = service.limits, service.metrics
    stage = "upload"
    try:
        async with asyncio.timeout(limits.deadline_s):
            with tempfile.NamedTemporaryFile(dir=service.folder) as file:
                with metrics.stage(stage):
                    await save_upload(request, file, limits)  # type: ignore[arg-type]
                stage = "decode"
                with metrics.stage(stage):
                    video = await _decode(service, file.name)
            stage = "model"
            with metrics.stage(stage):
                found = _checked(await batcher.classify(video))
            metrics.gmacs.inc(found.fields["gmacs"])
            metrics.full_gmacs.inc(found.fields["full_gmacs"])
            if mask:
                drawn = await asyncio.to_thread(_drawn, found, video)
                return found.fields | {"mask": drawn}
            return found.fields
    except TimeoutError:
        late = f"no answer within {limits.deadline_s:g} s"
        if stage == "upload":
            raise Refusal(408, f"{late}: the upload took too long") from None
        raise Refusal(503, f"{late}: the server is busy") from None
    except DecodeError as error:
        raise Refusal(_CODES.get(error.status, 422), str(error)) from error
    except (ModelLostError, LostProcessError) as error:
        raise Refusal(503, "a process ended while it worked on this: send it again") from error
    except Refusal:
        raise
    except (LiteError, OSError) as error:  # the model does not come back; the disk is full
        logger.exception("a request fails")
        raise Refusal(503, "the server cannot work now; its log says why") from error


async def _decode(service: Service, path: str) -> DecodedVideo:
    limits = service.limits
    request = DecodeRequest(
        path=path,
        max_frames=limits.max_frames,
        max_pixels=limits.max_pixels,
        # Less than the deadline, so that a video that takes too long is told so.
        timeout_s=limits.deadline_s / 2,
        **service.model.facts,
    )
    return _checked(await asyncio.wrap_future(service.pool.submit(request)))


def _checked(found: T | DecodeError) -> T:
    if isinstance(found, DecodeError):
        raise found
    return found


def _drawn(found: Answer, video: DecodedVideo) -> str:
    """What `predict --save-mask` draws, without the heading, as a data URL."""
    panels = mask_panels(video.clips[0], found.kept, found.scores, found.group, found.method)
    data = png_bytes(draw_clip([], panels, len(found.kept)))
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
