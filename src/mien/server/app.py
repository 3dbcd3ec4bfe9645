"""The HTTP interface of a classifier: its routes, who may ask, and how a refusal looks."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from mien.errors import MienError
from mien.inference import Classifier
from mien.server.answers import BODY, Models, Prediction, Problem
from mien.server.batching import Batcher
from mien.server.body import Sent, check_head, parse, pixels_of, receive
from mien.server.faces import Picture, Seen, looker
from mien.server.limits import DECODE_SIZE, FORM_SIZE, JSON_SIZE, Budget, Limits, Refused
from mien.server.metrics import Metrics

PAGE = Path(__file__).parent / "page"

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cross-origin-resource-policy": "same-origin",
}
RETRY_AFTER = "1"
"""Seconds after which a client may come again: a full queue is worked off in about as long."""

PROBLEM = "application/problem+json"
"""The form of a refusal (RFC 9457)."""

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": HTTPStatus(status).phrase}
    for status in (400, 401, 408, 413, 415, 422, 503)
}

bearer = HTTPBearer(auto_error=False, description="needed where the server has a token")

T = TypeVar("T")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


def create_app(
    classifier: Classifier, limits: Limits | None = None, token: str | None = None
) -> FastAPI:
    """The application that serves a classifier, with its page.

    Parameters
    ----------
    classifier : what `mien.load()` gives
    limits : of requests; the defaults of `Limits` otherwise
    token : if given, `/v1` and `/metrics` answer only ``Authorization: Bearer TOKEN``

    Raises
    ------
    MienError
        if the token is empty, or not one word of ASCII.
    """
    if token is not None and not (token.isascii() and token.split() == [token]):
        raise MienError("a token travels in a header: give one word of ASCII, or none at all")
    limits = limits or Limits()
    metrics = Metrics()
    room = Budget(limits.queue, "the queue is full")
    memory = Budget(limits.memory_mb * 2**20, "the server holds as much as it may")
    about = described(classifier)
    detectors = sorted({"auto", "none", about["detector"]})
    batcher: Batcher[Picture, Seen]

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        nonlocal batcher
        batcher = Batcher(
            looker(classifier),
            most=limits.batch,
            wait=limits.wait_ms / 1000,
            observe=metrics.batch,
        )
        yield
        await run_in_threadpool(batcher.close)

    # FastAPI's own pages of documentation load scripts from another host; /docs is one of ours.
    app = FastAPI(
        title="Mien",
        version=version("mien"),
        summary="Expressions of faces in pictures, as people would label them.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # to an absolute address, which behind a proxy is another one
        lifespan=lifespan,
    )
    app.add_middleware(watched, metrics=metrics)
    app.add_exception_handler(Refused, on_refused)
    app.add_exception_handler(MienError, on_mien_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(Exception, on_failure)

    async def allowed(
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> None:
        offered = given.credentials.encode() if given else b""
        if token is not None and not hmac.compare_digest(offered, token.encode()):
            raise Refused(401, "this server has a token; send 'Authorization: Bearer TOKEN'")

    async def seen(
        held: ExitStack, sent: list[Sent], decoded: list[np.ndarray], attention: bool, whole: bool
    ) -> list[Seen]:
        jobs = []
        for one, pixels in zip(sent, decoded, strict=True):
            all_of_it = [(0, 0, pixels.shape[1], pixels.shape[0])] if whole else None
            boxes = all_of_it if one.boxes is None else one.boxes
            jobs.append(Picture(pixels, boxes, attention))
        futures = batcher.submit(jobs)
        try:
            return await asyncio.gather(*map(asyncio.wrap_future, futures))
        except asyncio.CancelledError:
            # What waits is dropped; what is worked on holds its room until it is done.
            kept, at_work = held.pop_all(), [future for future in futures if not future.cancel()]
            ended = asyncio.gather(*map(asyncio.wrap_future, at_work), return_exceptions=True)
            ended.add_done_callback(lambda _: kept.close())
            raise

    @app.post(
        "/v1/predict",
        dependencies=[Depends(allowed)],
        openapi_extra=BODY,
        responses={200: {"model": Prediction}, **REFUSALS},
    )
    async def predict(
        request: Request,
        attention: Annotated[bool, Query(description="with maps of where it looked")] = False,
        detector: Annotated[
            str, Query(description="auto: the server's own; none: each picture is one face")
        ] = "auto",
    ) -> Response:
        """Find the faces of one or many pictures and predict their expressions."""
        if detector not in detectors:
            raise Refused(
                422, f"there is no detector '{detector}' here; there is {', '.join(detectors)}"
            )
        if attention and about["attention"] is None:
            raise Refused(422, "this model has no attention map; ask without attention=true")
        size = JSON_SIZE if check_head(request, limits) == "application/json" else FORM_SIZE
        reading = True
        try:
            async with asyncio.timeout(limits.seconds):
                with ExitStack() as held:
                    hold = held.enter_context(memory.growing())
                    body = await receive(request, limits, lambda came: hold(FORM_SIZE * came))
                    reading = False
                    hold((size - FORM_SIZE) * len(body))
                    kind = request.headers["content-type"]
                    sent = await finished(held, parse, body, kind, limits)
                    held.enter_context(room.take(len(sent)))
                    hold((FORM_SIZE - size) * len(body))  # what JSON was parsed into is gone
                    largest = DECODE_SIZE * max(one.pixels for one in sent)
                    hold(3 * sum(one.pixels for one in sent) + largest)
                    decoded = await finished(held, pixels_of, sent)
                    hold(-largest)
                    faces = await seen(held, sent, decoded, attention, detector == "none")
        except TimeoutError:
            if reading:
                raise Refused(
                    408, f"the request did not arrive within {limits.seconds:g} s"
                ) from None
            raise Refused(
                503, f"no answer within {limits.seconds:g} s; try again, or send fewer pictures"
            ) from None
        except asyncio.CancelledError:  # by uvicorn, which gives requests some seconds to end in
            raise Refused(503, "the server is being stopped; ask again when it runs") from None
        images = [
            {"name": one.name, "width": shown.shape[1], "height": shown.shape[0], "faces": found}
            for one, shown, found in zip(sent, decoded, faces, strict=True)
        ]
        return JSONResponse({"model": about["name"], "images": images})

    @app.get(
        "/v1/models",
        dependencies=[Depends(allowed)],
        response_model=Models,
        responses={401: REFUSALS[401]},
    )
    async def models() -> Any:
        """The model that is served, its classes and detector, and the limits of a request."""
        return {"models": [about], "limits": asdict(limits)}

    @app.head("/healthz", response_class=PlainTextResponse, include_in_schema=False)
    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        """Answers 'ok' while the server runs."""
        return "ok\n"

    @app.get(
        "/metrics",
        dependencies=[Depends(allowed)],
        response_class=PlainTextResponse,
        responses={401: REFUSALS[401]},
    )
    async def prometheus() -> Response:
        """Requests, latencies, batches and queue in the text form of Prometheus."""
        text = metrics.text(room.taken)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html")

    @app.head("/docs", include_in_schema=False)
    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return FileResponse(PAGE / "docs.html")

    app.mount("/page", StaticFiles(directory=PAGE))
    declare_problems(app)
    return app


def declare_problems(app: FastAPI) -> None:
    """Have the description of the interface say in which form refusals come."""
    for path in app.openapi()["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                if int(status) in REFUSALS:
                    _, content = answer["content"].popitem()
                    answer["content"] = {PROBLEM: content}


async def finished(held: ExitStack, work: Callable[..., T], *args: Any) -> T:
    """What `work` gives, done in a thread.

    A thread cannot be stopped: where nobody waits for it any longer, what its request holds is
    given back when it ends, and not before.
    """
    task = asyncio.ensure_future(run_in_threadpool(work, *args))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        kept = held.pop_all()

        def end(task: asyncio.Future[T]) -> None:
            kept.close()
            if not task.cancelled():
                task.exception()  # which nobody is told any more

        task.add_done_callback(end)
        raise


def described(classifier: Classifier) -> dict[str, Any]:
    """A classifier as `mien.server.answers.Model` has it; looks at an empty crop, to be warm."""
    colours = [3] if classifier.channels == 3 else []
    crop = np.zeros((1, classifier.size, classifier.size, *colours), np.uint8)
    classifier.predict_proba(crop)
    mapped = classifier.attention(crop) is not None
    return {
        "name": classifier.name,
        "classes": list(classifier.classes),
        "size": classifier.size,
        "channels": classifier.channels,
        "detector": classifier.detector.name if classifier.detector else "none",
        "attention": classifier.metadata.get("attention", "not described") if mapped else None,
        "metadata": classifier.metadata,
    }


def watched(app: Asgi, metrics: Metrics) -> Asgi:
    """Count and time every request, and put the security headers on every answer."""

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        began, status = perf_counter(), 500
        path = scope["path"].removeprefix(scope.get("root_path", ""))

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                cache = b"no-store" if path.startswith("/v1/") else b"no-cache"
                message["headers"] = [*message["headers"], *own, (b"cache-control", cache)]
            await send(message)

        try:
            await app(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", None)
            if route is None:  # anything may be asked for, and each label is kept for ever
                route = "/page" if path.startswith("/page/") else "other"
            metrics.request(route, status, perf_counter() - began)

    return asgi


def problem(
    status: int, detail: str, image: int | None = None, headers: dict[str, str] | None = None
) -> Response:
    """A refusal in the form of RFC 9457."""
    content = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail[:1000]}
    if image is not None:
        content["image"] = image
    return JSONResponse(content, status, headers, PROBLEM)


async def on_refused(request: Request, error: Any) -> Response:
    headers = {}
    if error.status == 503:
        headers["retry-after"] = RETRY_AFTER
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return problem(error.status, error.detail, error.image, headers)


async def on_mien_error(request: Request, error: Any) -> Response:
    return problem(422, str(error))


async def on_http_error(request: Request, error: Any) -> Response:
    detail = error.detail
    if error.status_code == 404:
        detail = f"there is nothing at {request.url.path}; /docs lists what there is"
    return problem(error.status_code, detail, headers=error.headers)


async def on_invalid(request: Request, error: Any) -> Response:
    first = error.errors()[0]
    return problem(422, f"{first['loc'][-1]}: {first['msg']}, not {first['input']!r}")


async def on_failure(request: Request, error: Any) -> Response:
    return problem(500, "the server failed at this; its log says how", headers=HEADERS)
