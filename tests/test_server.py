"""The server: what it answers, what it refuses, and that it holds under many requests at once."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import weakref
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urljoin

import cv2
import httpx
import numpy as np
import onnx
import pytest
import uvicorn
from fastapi.testclient import TestClient
from onnx import TensorProto, helper
from PIL import Image

import mien.server.app
import mien.server.batching
import mien.server.body
import mien.server.listen
from mien.cli import main
from mien.detection import Found
from mien.errors import MienError
from mien.inference import Classifier
from mien.server import Limits, create_app
from mien.server.batching import Batcher
from mien.server.limits import DECODE_SIZE
from mien.server.listen import Punctual, bound, is_loopback
from mien.server.metrics import Histogram, Metrics

SIZE = 4


def brightness(attention: bool = False) -> bytes:
    """A model that says 'bright' with an image's mean; where it looks is where it is bright."""
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixels", "full"], ["attention"]),
        helper.make_node("ReduceMean", ["attention", "axes"], ["bright"], keepdims=0),
        helper.make_node("Sub", ["one", "bright"], ["dark"]),
        helper.make_node("Unsqueeze", ["dark", "last"], ["left"]),
        helper.make_node("Unsqueeze", ["bright", "last"], ["right"]),
        helper.make_node("Concat", ["left", "right"], ["probabilities"], axis=1),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
        helper.make_tensor("full", TensorProto.FLOAT, [], [255.0]),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
    ]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])]
    if attention:
        shape = ["N", SIZE, SIZE]
        outputs.append(helper.make_tensor_value_info("attention", TensorProto.FLOAT, shape))
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIZE, SIZE])
    graph = helper.make_graph(nodes, "brightness", [images], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    facts = {"classes": '["dark", "bright"]', "size": str(SIZE), "channels": "1", "run": "toy"}
    helper.set_model_props(model, facts | ({"attention": "brightness"} if attention else {}))
    onnx.checker.check_model(model)
    return model.SerializeToString()


class LeftHalf:
    """A detector that finds the left half of every picture that is not black."""

    name = "left"

    def __call__(self, picture: np.ndarray) -> list[Found]:
        height, width = picture.shape[:2]
        return [Found((0, 0, width // 2, height), 0.75, None)] if picture.any() else []


class Gated:
    """A classifier that looks at nothing until it is let, and remembers what it looked at."""

    def __init__(self) -> None:
        self._classifier = Classifier(brightness())
        self.open, self.began = threading.Event(), threading.Event()
        self.batches: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._classifier, name)

    def predict(self, images: Sequence[np.ndarray], boxes: Any) -> Any:
        self.began.set()
        assert self.open.wait(60)
        self.batches.append(len(images))
        return self._classifier.predict(images, boxes)


@contextmanager
def client_of(classifier: Any, token: str | None = None, **limits: Any) -> Iterator[TestClient]:
    app = create_app(classifier, Limits(**limits), token)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(brightness(attention=True), detector=LeftHalf())


@pytest.fixture(scope="module")
def client(classifier: Classifier) -> Iterator[TestClient]:
    with client_of(classifier, images=3, boxes=8, body_mb=0.25, megapixels=0.01) as client:
        yield client


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def grey(value: int, height: int = 8, width: int = 8) -> bytes:
    return png(np.full((height, width), value, np.uint8))


def files(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", (f"{i}.png", content)) for i, content in enumerate(contents)]


def as_json(*contents: bytes, **further: Any) -> dict[str, Any]:
    return {"images": [base64.b64encode(content).decode() for content in contents], **further}


def header_of_png(width: int, height: int) -> bytes:
    """The beginning of a picture that says it is this large, and no pixels."""
    chunks = b""
    for content in (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"IDAT"):
        chunks += struct.pack(">I", len(content) - 4) + content
        chunks += struct.pack(">I", zlib.crc32(content))
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_a_picture_has_the_faces_that_the_detector_finds(client: TestClient) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:, :4] = 204
    answer = client.post("/v1/predict", files=files(png(pixels)))
    assert answer.status_code == 200
    assert answer.json() == {
        "model": "toy",
        "images": [
            {
                "name": "picture 0 (0.png)",
                "width": 8,
                "height": 8,
                "faces": [
                    {
                        "box": [0, 0, 4, 8],
                        "label": "dark",  # letterboxed to 2 x 4 of 4 x 4 pixels: half is black
                        "probabilities": {"dark": 0.6, "bright": 0.4},
                        "detection": 0.75,
                        "known": True,
                        "tilt": 0.0,
                        "attention": None,
                    }
                ],
            }
        ],
    }


def test_multipart_and_json_give_the_same_in_the_order_sent(client: TestClient) -> None:
    sent = [grey(204), grey(0), grey(102)]
    one = client.post("/v1/predict", files=files(*sent)).json()["images"]
    other = client.post("/v1/predict", json=as_json(*sent)).json()["images"]
    assert [image["faces"] for image in one] == [image["faces"] for image in other]
    assert [len(image["faces"]) for image in one] == [1, 0, 1]
    bright = [one[i]["faces"][0]["probabilities"]["bright"] for i in (0, 2)]
    assert bright == pytest.approx([0.4, 0.2])


def test_without_a_detector_the_picture_is_the_face(client: TestClient) -> None:
    answer = client.post("/v1/predict?detector=none", files=files(grey(204, 6, 8))).json()
    (face,) = answer["images"][0]["faces"]
    assert (face["box"], face["detection"]) == ([0, 0, 8, 6], None)


@pytest.mark.parametrize("kind", ["json", "form"])
def test_own_boxes_are_taken_and_null_has_faces_found(client: TestClient, kind: str) -> None:
    boxes = [[[4, 4, 4, 4], [0.4, 0, 3.8, 2], [0.6, 0, 2.6, 2]], None, []]
    sent = [grey(204)] * 3
    if kind == "json":
        answer = client.post("/v1/predict", json=as_json(*sent, boxes=boxes))
    else:
        answer = client.post("/v1/predict", files=files(*sent), data={"boxes": json.dumps(boxes)})
    found = [[face["box"] for face in image["faces"]] for image in answer.json()["images"]]
    assert found == [[[4, 4, 4, 4], [0, 0, 4, 2], [1, 0, 2, 2]], [[0, 0, 4, 8]], []]


def test_attention_covers_the_square_that_the_model_saw(client: TestClient) -> None:
    pixels = np.zeros((4, 8), np.uint8)
    pixels[0, :] = 255
    answer = client.post(
        "/v1/predict?attention=true",
        json=as_json(png(pixels), boxes=[[[0, 0, 4, 4], [0, 0, 4, 2]]]),
    )
    square, wide = (face["attention"] for face in answer.json()["images"][0]["faces"])
    rows = [[1] * 4, [0] * 4, [0] * 4, [0] * 4]
    assert square == {"box": [0, 0, 4, 4], "tilt": 0, "map": rows}
    # Two rows stand in the middle of four, so the map begins a row above the picture.
    assert wide == {"box": [0, -1, 4, 4], "tilt": 0, "map": [rows[1], rows[0], *rows[2:]]}


def test_the_attention_of_a_turned_face_is_that_of_what_the_model_saw() -> None:
    class Turned:
        name = "turned"

        def __call__(self, picture: np.ndarray) -> list[Found]:
            return [Found((0, 0, 8, 8), 1.0, ((4.0, 2.0), (4.0, 6.0)))]

    pixels = np.zeros((8, 8), np.uint8)
    pixels[:, 4:] = 255  # eyes one above the other: what lies on the right is above
    with client_of(Classifier(brightness(attention=True), detector=Turned())) as client:
        answer = client.post("/v1/predict?attention=true", files=files(png(pixels))).json()
    (face,) = answer["images"][0]["faces"]
    assert face["tilt"] == face["attention"]["tilt"] == 90
    assert face["attention"]["map"] == [[1] * 4, [1] * 4, [0] * 4, [0] * 4]


def test_a_model_without_attention_says_so() -> None:
    with client_of(Classifier(brightness())) as client:
        assert client.get("/v1/models").json()["models"][0]["attention"] is None
        answer = client.post("/v1/predict?attention=true", files=files(grey(1)))
    assert answer.status_code == 422
    assert "no attention map" in answer.json()["detail"]


def test_the_model_and_the_limits_are_described(client: TestClient) -> None:
    found = client.get("/v1/models").json()
    (model,) = found["models"]
    assert (model["name"], model["classes"], model["size"]) == ("toy", ["dark", "bright"], SIZE)
    assert (model["detector"], model["attention"]) == ("left", "brightness")
    assert found["limits"]["images"] == 3


NOISE = png(np.random.default_rng(0).integers(0, 256, (40, 40)).astype(np.uint8))

TIFF = cv2.imencode(".tiff", np.full((8, 8), 9, np.uint8))[1].tobytes()

REFUSED: dict[str, tuple[dict[str, Any], int, int | None, str]] = {
    "no body": ({}, 415, None, "no content type; send multipart/form-data"),
    "bytes": (
        {"content": b"x", "headers": {"content-type": "image/png"}}, 415, None, "body is image/png",
    ),
    "no JSON": (
        {"content": b"{", "headers": {"content-type": "application/json"}}, 400, None, "is no JSON",
    ),
    "deep JSON": (
        {"content": b"[" * 200_000, "headers": {"content-type": "application/json"}},
        400, None, "is no JSON",
    ),
    "a list": ({"json": []}, 422, None, "send {'images'"),
    "no images": ({"json": {}}, 422, None, "no picture in the request"),
    "no file": ({"files": {"boxes": (None, "[]")}}, 422, None, "no picture in the request"),
    "unknown key": ({"json": {"images": [], "image": 1}}, 422, None, "'image', which is not known"),
    "unknown field": (
        {"files": files(grey(1)), "data": {"box": "1"}}, 422, None, "'box', which is not known",
    ),
    "no base64": ({"json": {"images": ["data:image/png;base64,AA"]}}, 422, 0, "without 'data:'"),
    "a number": ({"json": {"images": [3]}}, 422, 0, "is a int"),
    "no picture": ({"files": files(grey(1), b"hello")}, 422, 1, "picture 1 (1.png): not an image"),
    "nothing": ({"files": files(b"")}, 422, 0, "not an image"),
    "truncated": ({"files": files(grey(1), NOISE[: len(NOISE) // 2])}, 422, 1, "truncated"),
    "one pixel": ({"files": files(grey(1, 1, 1))}, 422, 0, "1x1 pixels show no face"),
    "bomb": ({"files": files(header_of_png(30000, 30000))}, 422, 0, "more than the 80 million"),
    "many pixels": (
        {"files": files(header_of_png(80, 80), header_of_png(80, 80))}, 413, None,
        "0.0 million pixels, and a request may have 0.01",
    ),
    "many pictures": ({"files": files(*[grey(1)] * 4)}, 413, None, "4 pictures, and a request may"),
    "many pictures in JSON": (
        {"json": {"images": ["no base64"] * 4}}, 413, None, "4 pictures, and a request may",
    ),
    "a format of costly headers": ({"files": files(TIFF)}, 422, 0, "not an image"),
    "very many pictures": ({"files": files(*[b""] * 999)}, 413, None, "may have 3 pictures"),
    "boxes of text": (
        {"json": as_json(grey(1), boxes=[[["0", "0", "5", "5"]]])}, 422, 0, "must be a list of"
    ),
    "boxes of truth": (
        {"json": as_json(grey(1), boxes=[[[True, True, 5, 5]], ])}, 422, 0, "must be a list of"
    ),
    "nested boxes": (
        {"json": as_json(grey(1), boxes=[[[[0], [0], [5], [5]]]])}, 422, 0, "must be a list of"
    ),
    "many boxes": (
        {"json": as_json(grey(1), boxes=[[[0, 0, 8, 8]] * 9])}, 413, None, "9 boxes, and a request",
    ),
    "large boxes": (
        {"files": files(grey(1)), "data": {"boxes": "[" + "[]," * 999 + "[]]"}},
        413, None, "boxes have 3,001 bytes",
    ),
    "large body": ({"files": files(bytes(2**18))}, 413, None, "above 0.25 MiB"),
    "no boundary": (
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        400, None, "boundary",
    ),
    "cut form": (
        {
            "content": b"--b\r\ncontent-disposition: form-data; name=i; filename=i\r\n\r\nabc",
            "headers": {"content-type": "multipart/form-data; boundary=b"},
        },
        400, None, "ends before its last boundary",
    ),
    "boxes no JSON": ({"files": files(grey(1)), "data": {"boxes": "["}}, 422, None, "are no JSON"),
    "boxes short": ({"json": as_json(grey(1), boxes=[])}, 422, None, "each of the 1 pictures"),
    "boxes flat": ({"json": as_json(grey(1), boxes=[[1, 2, 3, 4]])}, 422, 0, "a list of [x, y"),
    "box outside": (
        {"json": as_json(grey(1), boxes=[[[4, 0, 5, 8]]])}, 422, 0, "outside the picture of 8x8",
    ),
    "box empty": ({"json": as_json(grey(1), boxes=[[[0, 0, 0.2, 8]]])}, 422, 0, "is empty"),
    "box infinite": (
        {
            "content": json.dumps(as_json(grey(1), boxes=[[[0, 0, 1e999, 8]]])),
            "headers": {"content-type": "application/json"},
        },
        422, 0, "no place in a picture",
    ),
    "box huge": ({"json": as_json(grey(1), boxes=[[[0, 0, 10**400, 8]]])}, 422, 0, "must be a"),
    "detector": ({"files": files(grey(1)), "params": {"detector": "x"}}, 422, None, "auto, left"),
    "attention": ({"files": files(grey(1)), "params": {"attention": "x"}}, 422, None, "attention:"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_taken_is_refused_with_the_reason(client: TestClient, case: str) -> None:
    request, status, image, reason = REFUSED[case]
    answer = client.post("/v1/predict", **request)
    assert (answer.status_code, answer.headers["content-type"]) == (
        status, "application/problem+json",
    )  # fmt: skip
    problem = answer.json()
    assert reason in problem["detail"]
    assert (problem["status"], problem.get("image")) == (status, image)
    assert "skip_bad" not in problem["detail"]


def test_too_many_pixels_are_refused_before_any_is_decoded(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(mien.server.body, "decode", decode)
    for size, status in (((30000, 30000), 422), ((150, 150), 413)):
        answer = client.post("/v1/predict", files=files(header_of_png(*size)))
        assert answer.status_code == status
    assert client.post("/v1/predict", files=files(grey(1))).status_code == 500


def test_boxes_of_more_pixels_than_a_request_may_have_are_refused(classifier: Classifier) -> None:
    with client_of(classifier, megapixels=1) as client:
        for boxes, status in (([[0, 0, 1000, 1000]], 200), ([[0, 0, 1000, 1000]] * 2, 413)):
            sent = as_json(grey(9, 1000, 1000), boxes=[boxes])
            assert client.post("/v1/predict", json=sent).status_code == status


def test_a_key_of_any_length_is_not_sent_back(client: TestClient) -> None:
    answer = client.post("/v1/predict", json={"x" * 50_000: 1})
    assert answer.status_code == 422
    assert len(answer.content) < 2000


@contextmanager
def listened_to(classifier: Classifier) -> Iterator[tuple[tuple[str, int], uvicorn.Server]]:
    """Address and server of a classifier, in a thread, with the protocol of the command."""
    listening = bound("127.0.0.1", 0)
    config = uvicorn.Config(
        create_app(classifier), http=Punctual, log_level="error", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[:2], server
    finally:
        server.should_exit = True
        thread.join()


def test_a_connection_that_sends_no_whole_head_is_closed(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mien.server.listen, "HEAD", 1.0)
    with listened_to(classifier) as (address, _):
        begun, whole = socket.create_connection(address), socket.create_connection(address)
        begun.sendall(b"GET /healthz HTTP/1.1\r\nHost")
        head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        whole.sendall(head + b"Content-Length: 20\r\n\r\n{")
        for connection in (begun, whole):
            connection.settimeout(20)
        assert begun.recv(9) == b""
        whole.sendall(b'"images": []      }')  # a body has the time of a request
        assert whole.recv(12) == b"HTTP/1.1 422"


def test_a_connection_whose_answers_are_not_read_is_closed(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mien.server.listen, "HEAD", 1.0)
    with listened_to(classifier) as (address, server), socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(address)
        deaf.settimeout(5)
        with suppress(OSError):  # closed while it still asks, or not listened to any more
            deaf.sendall(2000 * b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
        until = time.monotonic() + 60
        while not server.server_state.total_requests or server.server_state.connections:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_who_is_not_answered_when_the_server_stops_is_told_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    gated: Any = Gated()
    with ThreadPoolExecutor(2) as pool, listened_to(gated) as ((host, port), server):
        ask = partial(httpx.post, f"http://{host}:{port}/v1/predict", timeout=60)
        at_work = pool.submit(ask, files=files(grey(9)))
        assert gated.began.wait(60)
        waiting = pool.submit(ask, files=files(grey(9)))
        while len(server.server_state.tasks) < 2:
            time.sleep(0.01)
        server.should_exit = True
        for asked in (at_work, waiting):
            answer = asked.result(60)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.headers["content-type"] == "application/problem+json"
            assert "being stopped" in answer.json()["detail"]
        gated.open.set()
    log = capsys.readouterr().err
    assert "timeout graceful shutdown exceeded" in log
    assert "Traceback" not in log


def test_a_slash_too_many_leads_nowhere(client: TestClient) -> None:
    for address in ("/healthz/", "/v1/predict/", "/page"):
        answer = client.get(address, headers={"host": "elsewhere.com"}, follow_redirects=False)
        assert (answer.status_code, answer.headers.get("location")) == (404, None)


def at_work_until_let(jobs: list[int]) -> tuple[Batcher[int, int], list[Future[int]], Event]:
    """A batcher that works on the first of the jobs until the event is set, and their futures."""
    began, go = Event(), Event()

    def work(jobs: Sequence[int]) -> list[int]:
        began.set()
        go.wait(60)
        return list(jobs)

    batcher = Batcher(work, most=1, wait=0.0)
    futures = batcher.submit(jobs)
    assert began.wait(60)
    return batcher, futures, go


def test_a_batcher_does_not_wait_for_a_long_batch_when_it_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mien.server.batching, "PATIENCE", 0.1)
    batcher, (at_work,), go = at_work_until_let([1])
    batcher.close()
    assert not at_work.done()
    go.set()


def test_no_part_of_a_request_is_written_to_the_disk(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a temporary file")

    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500)).astype(np.uint8)
    assert len(png(noise)) > 2**21  # what a spooled file would write out
    with client_of(classifier) as client:
        for name in ("mkstemp", "TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile"):
            monkeypatch.setattr(tempfile, name, refuse)
        monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", refuse)
        assert client.post("/v1/predict", files=files(png(noise))).status_code == 200


def asked(app: Any, parts: Sequence[bytes], pause: float = 0.0) -> tuple[int, int]:
    """The status of a request without a length, and how many of its parts were read."""
    read, status = 0, 0
    scope = {
        "type": "http", "method": "POST", "path": "/v1/predict", "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        nonlocal read
        await asyncio.sleep(pause)
        read += 1
        if read > len(parts):
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": parts[read - 1], "more_body": read < len(parts)}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    async def through() -> None:
        async with app.router.lifespan_context(app):
            await app(scope, receive, send)

    asyncio.run(through())
    return status, read


def post(length: bytes) -> dict[str, Any]:
    return {
        "type": "http", "method": "POST", "path": "/v1/predict", "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", length)],
    }  # fmt: skip


async def waiting_for_a_body(app: Any, length: bytes) -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None: ...

    await app(post(length), receive, send)


async def answer_to(app: Any, body: bytes) -> int:
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(post(str(len(body)).encode()), receive, send)
    return status


def test_a_body_is_counted_while_it_is_read(classifier: Classifier) -> None:
    app = create_app(classifier, Limits(body_mb=3.0))
    assert asked(app, [bytes(2**20)] * 100) == (413, 4)


def test_a_length_that_is_only_promised_takes_nothing_from_others(
    classifier: Classifier,
) -> None:
    limits = {"body_mb": 1.0, "megapixels": 5.0, "memory_mb": 170.0}
    promised = str(2**20).encode()
    app = create_app(classifier, Limits(**limits))
    small = json.dumps({"images": [base64.b64encode(grey(9)).decode()]}).encode()

    async def through() -> list[int]:
        async with app.router.lifespan_context(app):
            idle = [asyncio.create_task(waiting_for_a_body(app, promised)) for _ in range(20)]
            await asyncio.sleep(0.05)
            status = await answer_to(app, small)
            for task in idle:
                task.cancel()
            await asyncio.gather(*idle, return_exceptions=True)
            return status

    assert asyncio.run(through()) == 200


def test_what_a_thread_works_on_is_given_back_when_it_ends() -> None:
    given, go = [], threading.Event()

    async def through() -> None:
        with ExitStack() as held:
            held.callback(given.append, "back")
            async with asyncio.timeout(0.05):
                await mien.server.app.finished(held, go.wait, 60)

    async def around() -> None:
        with pytest.raises(TimeoutError):
            await through()
        assert given == []
        go.set()
        while not given:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(around(), 30))
    assert given == ["back"]


def test_a_body_that_does_not_arrive_in_time_is_refused(classifier: Classifier) -> None:
    app = create_app(classifier, Limits(seconds=0.05))
    assert asked(app, [b"{"] * 10_000, pause=0.01)[0] == 408


def test_a_client_that_goes_away_is_no_failure_of_the_server(classifier: Classifier) -> None:
    assert asked(create_app(classifier), []) == (400, 1)


def test_a_token_that_a_header_cannot_have_is_refused_at_once(classifier: Classifier) -> None:
    for token in ("geheim-ü", "", "two words", "geheim\n"):
        with pytest.raises(MienError, match="one word of ASCII, or none"):
            create_app(classifier, token=token)


def test_a_token_is_asked_for_where_there_is_one(classifier: Classifier) -> None:
    with client_of(classifier, token="geheim") as client:
        for address in ("/v1/models", "/metrics"):
            answer = client.get(address)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        for wrong in ("Bearer", "Bearer gehei", "Bearer geheimnis", "Basic geheim", "Bearer ä"):
            headers = {"authorization": wrong.encode()}
            answer = client.post("/v1/predict", files=files(grey(1)), headers=headers)
            assert answer.status_code == 401
            assert "Authorization: Bearer TOKEN" in answer.json()["detail"]
        right = {"authorization": "Bearer geheim"}
        assert client.post("/v1/predict", files=files(grey(1)), headers=right).status_code == 200
        assert client.get("/v1/models", headers=right).status_code == 200
        for address in ("/", "/healthz", "/docs", "/openapi.json", "/page/page.js"):
            assert client.get(address).status_code == 200


def test_every_answer_keeps_browsers_to_this_host(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client_of(classifier) as client:
        answers = [client.get(p) for p in ("/", "/page/page.js", "/nix", "/v1/models", "/metrics")]
        answers += [client.post("/v1/predict"), client.post("/healthz")]
        monkeypatch.setattr(mien.server.body, "decode", None)
        answers += [client.post("/v1/predict", files=files(grey(1)))]
    assert [answer.status_code for answer in answers] == [200, 200, 404, 200, 200, 415, 405, 500]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "access-control-allow-origin" not in answer.headers


def test_the_page_and_the_docs_name_no_other_host(client: TestClient) -> None:
    page = Path(mien.server.app.__file__).parent / "page"
    for file in page.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|src=\"//|@import", text), file.name
        assert client.get(f"/page/{file.name}").text == file.read_text()
    for address in ("/", "/docs"):
        links = re.findall(r'(?:href|src)="([^#"]*)"', client.get(address).text)
        assert "page/page.css" in links
        for link in links:
            assert client.get(urljoin(address, link)).status_code == 200, link
    assert client.get("/page/../app.py").status_code == 404
    assert client.get("/page/%2e%2e/app.py").status_code == 404


def test_openapi_describes_what_is_answered(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    predict = described["paths"]["/v1/predict"]["post"]
    bodies = predict["requestBody"]["content"]
    assert set(bodies) == {"multipart/form-data", "application/json"}
    for body in bodies.values():
        assert all(part["description"] for part in body["schema"]["properties"].values())
    assert set(predict["responses"]) >= {"200", "400", "401", "413", "415", "422", "503"}
    assert set(predict["responses"]["422"]["content"]) == {"application/problem+json"}
    assert set(predict["responses"]["200"]["content"]) == {"application/json"}
    face = described["components"]["schemas"]["FaceFound"]
    answer = client.post("/v1/predict?attention=true", files=files(grey(9))).json()
    assert set(answer["images"][0]["faces"][0]) == set(face["properties"])


def test_requests_that_wait_are_looked_at_together() -> None:
    gated = Gated()
    with client_of(gated, wait_ms=0, batch=4) as client, ThreadPoolExecutor(8) as pool:

        def ask(value: int) -> httpx.Response:
            return client.post("/v1/predict", files=files(grey(value)))

        first = pool.submit(ask, 0)
        assert gated.began.wait(60)
        others = [pool.submit(ask, value) for value in range(1, 8)]
        queued(client, 8)
        gated.open.set()
        answers = [first.result(), *(other.result() for other in others)]
        metrics = client.get("/metrics").text
    # On a busy machine some may still be on their way from the count to the queue.
    assert sum(gated.batches) == 8
    assert max(gated.batches) <= 4
    assert len(gated.batches) < 8
    assert f'mien_batch_images_bucket{{le="1"}} {gated.batches.count(1)}\n' in metrics
    assert f'mien_batch_images_bucket{{le="4"}} {len(gated.batches)}\n' in metrics
    assert "mien_queue_images 0\n" in metrics
    for value, answer in enumerate(answers):  # each has its own answer
        (face,) = answer.json()["images"][0]["faces"]
        assert face["probabilities"]["bright"] == pytest.approx(value / 255, abs=1e-6)


def queued(client: TestClient, images: int) -> None:
    """Wait until so many pictures are in the server."""
    for _ in range(6000):
        if f"mien_queue_images {images}\n" in client.get("/metrics").text:
            return
    raise AssertionError(f"never {images} pictures in the queue")


def test_a_full_queue_sends_away_and_forgets_nobody() -> None:
    gated = Gated()
    with client_of(gated, images=2, queue=3) as client, ThreadPoolExecutor(2) as pool:
        inside = [
            pool.submit(client.post, "/v1/predict", files=files(*[grey(9)] * n)) for n in (1, 2)
        ]
        queued(client, 3)
        answer = client.post("/v1/predict", files=files(grey(9)))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "queue is full" in answer.json()["detail"]
        gated.open.set()
        assert [request.result().status_code for request in inside] == [200, 200]
        assert client.post("/v1/predict", files=files(grey(9))).status_code == 200


def test_bodies_and_pictures_share_one_budget_of_memory() -> None:
    gated = Gated()
    limits = {"body_mb": 0.02, "megapixels": 1.0, "memory_mb": 34.0}
    large = png(np.zeros((1000, 1000), np.uint8))  # 2.9 MiB decoded
    with client_of(gated, **limits) as client, ThreadPoolExecutor(1) as pool:
        inside = pool.submit(client.post, "/v1/predict", files=files(large))
        queued(client, 1)
        answer = client.post("/v1/predict", files=files(large))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert client.post("/v1/predict", content=b"").status_code == 415
        gated.open.set()
        assert inside.result().status_code == 200
        assert client.post("/v1/predict", files=files(large)).status_code == 200


def test_what_decoding_takes_counts_while_it_lasts(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work, go = threading.Event(), threading.Event()

    def slow(sent: Any) -> Any:
        at_work.set()
        assert go.wait(20)
        return mien.server.body.pixels_of(sent)

    monkeypatch.setattr(mien.server.app, "pixels_of", slow)
    large = files(png(np.zeros((1000, 1000), np.uint8)))  # 31 MiB while it is decoded, then 3
    limits = {"body_mb": 0.02, "megapixels": 1.0, "memory_mb": 40.0}
    with client_of(classifier, **limits) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/predict", files=large)
        assert at_work.wait(20)
        assert client.post("/v1/predict", files=large).status_code == 503
        go.set()
        assert first.result().status_code == 200
        assert client.post("/v1/predict", files=large).status_code == 200


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells the peak of memory")
def test_a_transparent_webp_takes_no_more_memory_than_is_counted(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (250, 250, 4), np.uint8)
    for name, times in (("small", 1), ("large", 8)):
        image = Image.fromarray(noise.repeat(times, 0).repeat(times, 1))
        image.save(tmp_path / name, "WEBP", lossless=True, method=0)
    program = """
import sys
from pathlib import Path
from mien.pixels import decode
def peak(name):
    data = Path(name).read_bytes()
    decode(data, name)
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
print(-peak("small") + peak("large"))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert 0 < int(ran.stdout) / 2000**2 < 3 + DECODE_SIZE


def test_an_answer_that_takes_too_long_is_given_up_and_its_picture_left_out() -> None:
    gated = Gated()
    with client_of(gated, seconds=0.3) as client:
        for _ in range(2):  # the first is being looked at, the second waits
            answer = client.post("/v1/predict", files=files(grey(9)))
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "no answer within 0.3 s" in answer.json()["detail"]
        queued(client, 1)  # the first, which nothing can stop
        gated.open.set()
        queued(client, 0)
    assert gated.batches == [1]


def test_a_job_that_is_cancelled_while_it_waits_is_held_no_longer() -> None:
    class Pixels:
        pass

    go = threading.Event()

    def work(jobs: Sequence[Pixels]) -> list[int]:
        go.wait(60)
        return [0] * len(jobs)

    batcher = Batcher(work, most=1, wait=0.0)
    jobs = [Pixels(), Pixels()]
    dropped = weakref.ref(jobs[1])
    at_work, waiting = batcher.submit(jobs)
    while not at_work.running():
        time.sleep(0.01)
    jobs.clear()
    assert waiting.cancel()
    assert dropped() is None
    go.set()
    assert at_work.result(60) == 0
    batcher.close()


@pytest.mark.parametrize("address", ["/", "/docs", "/healthz"])
def test_what_can_be_got_can_be_asked_for_its_head(client: TestClient, address: str) -> None:
    answer = client.head(address)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == client.get(address).headers["content-type"]


def test_one_bad_job_does_not_fail_its_neighbours() -> None:
    started = threading.Event()

    def work(jobs: Sequence[int]) -> list[float]:
        started.wait(60)
        return [6 / job for job in jobs]

    batcher = Batcher(work, most=8, wait=0.0)
    futures = batcher.submit([1, 0, 2, 3])
    started.set()
    assert isinstance(futures[1].exception(60), ZeroDivisionError)
    assert [futures[i].result(60) for i in (0, 2, 3)] == [6, 3, 2]
    batcher.close()


def test_a_batch_has_at_most_so_many_jobs_and_waits_for_them() -> None:
    sizes: list[int] = []
    batcher = Batcher(list, most=3, wait=60.0, observe=sizes.append)
    futures = [batcher.submit([number])[0] for number in range(6)]
    assert [future.result(60) for future in futures] == list(range(6))
    assert sizes == [3, 3]
    batcher.close()


def test_a_closed_batcher_cancels_what_waits() -> None:
    batcher, (at_work, waiting), go = at_work_until_let([1, 2])
    closing = threading.Thread(target=batcher.close)
    closing.start()
    with pytest.raises(CancelledError):
        waiting.result(60)
    go.set()
    closing.join(60)
    assert at_work.result(60) == 1


def test_metrics_count_by_route_and_status(client: TestClient) -> None:
    def count(text: str, name: str) -> float:
        return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith(name))

    before = client.get("/metrics").text
    client.post("/v1/predict", files=files(grey(3)))
    client.post("/v1/predict")
    client.get("/nobody/knows/this")
    client.get("/page/page.js")
    after = client.get("/metrics")
    assert after.headers["content-type"].startswith("text/plain; version=0.0.4")
    for name in (
        'mien_requests_total{route="/v1/predict",status="200"}',
        'mien_requests_total{route="/v1/predict",status="415"}',
        'mien_requests_total{route="other",status="404"}',
        'mien_requests_total{route="/page",status="200"}',
        'mien_request_seconds_count{route="/page"}',
        "mien_batch_images_sum",
    ):
        assert count(after.text, name) == count(before, name) + 1, name
    assert "nobody" not in after.text
    for line in after.text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{[^{}]*\})? [\d.e+-]+", line), line


def test_a_histogram_counts_what_is_at_most_each_bound() -> None:
    histogram, values = Histogram((1, 2.5)), np.array([0.5, 1, 2.5, 2.6, 9])
    for value in values:
        histogram.observe(value)
    assert histogram.lines("x", 'a="b"') == [
        f'x_bucket{{a="b",le="1"}} {(values <= 1).sum()}',
        f'x_bucket{{a="b",le="2.5"}} {(values <= 2.5).sum()}',
        'x_bucket{a="b",le="+Inf"} 5',
        f'x_sum{{a="b"}} {values.sum():.6f}',
        'x_count{a="b"} 5',
    ]
    assert "mien_queue_images 7" in Metrics().text(7)


def test_limits_that_contradict_each_other_are_refused() -> None:
    assert Limits.from_text({"images": "64", "seconds": "2"}) == Limits(images=64, seconds=2.0)
    for settings, reason in (
        ({"image": "1"}, "no limit 'image'; there are body_mb, images"),
        ({"images": "1.5"}, "'1.5'; give a whole number"),
        ({"seconds": "x"}, "'x'; give a number"),
        ({"seconds": "0"}, "above 0"),
        ({"seconds": "nan"}, "above 0"),
        ({"batch": "0"}, "above 0"),
        ({"images": "200"}, "raise queue"),
        ({"megapixels": "81"}, "at most 80"),
        ({"memory_mb": "100"}, "one full request needs 1670"),
    ):
        with pytest.raises(MienError, match=re.escape(reason)):
            Limits.from_text(settings)


def test_a_port_in_use_is_one_line_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        monkeypatch.setattr(sys, "argv", ["mien", "serve", "--port", port, "--detector", "none"])
        with pytest.raises(SystemExit, match="1"):
            main()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: port {port} of 127.0.0.1 is in use; stop")
    for host, number in (("256.1.1.1", 0), ("192.0.2.1", 0), ("127.0.0.1", 70000)):
        with pytest.raises(MienError, match="give"):
            bound(host, number)


def test_addresses_of_this_machine_alone_are_known() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.4", "example.org")))


@pytest.mark.parametrize("token", ["", "geheim"])
def test_the_command_serves_until_it_is_interrupted(token: str) -> None:
    command = [sys.executable, "-m", "mien.cli", "serve", "--port", "0", "--host", "0.0.0.0"]
    with subprocess.Popen(
        [*command, "--detector", "none"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"MIEN_TOKEN": token},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        port = int(re.search(r":(\d+)/", first)[1])  # type: ignore[index]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as kept:  # a connection left open
            refused = kept.post("/v1/predict", files=files(grey(90)), timeout=60)
            assert refused.status_code == (401 if token else 200)
            shown = {"Authorization": f"Bearer {token}"} if token else {}
            answer = kept.post("/v1/predict", files=files(grey(90)), headers=shown, timeout=60)
            assert len(answer.json()["images"][0]["faces"][0]["probabilities"]) == 7
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        assert "stopped" in process.stdout.read()
        errors = process.stderr.read()
    assert errors.startswith("warning: whoever reaches 0.0.0.0 may ask") == (not token)
    assert "Traceback" not in errors


def test_without_its_libraries_the_command_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['fastapi'] = None; sys.argv = ['mien', 'serve'];"
        "from mien.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == "error: a server needs fastapi: pip install 'mien[serve]'"


def test_the_load_test_counts_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "bench"))
    import serving

    small = ["--clients", "8", "--requests", "16", "--rounds", "1"]
    sheet = serving.main(["--data", "drawn:28", "--device", "cpu", *small])
    rows = [line.strip("| ").split(" | ") for line in sheet.splitlines() if line.startswith("| ")]
    table = {row[0]: row[1:] for row in rows if len(row) == 9}
    assert set(table) >= {serving.HTTP_ALONE, *serving.SERVERS}
    for name in (serving.HTTP_ALONE, *serving.SERVERS):
        assert table[name][6] == "0"
    assert table["one picture at a time"][-1] == "1.0"
    assert table["batched"][5] == "0.0"
