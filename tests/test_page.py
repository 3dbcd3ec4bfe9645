"""The server's page in a real browser: headless Chromium, spoken to over its DevTools pipe."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image
from test_server import LeftHalf, brightness

import mien
from mien.inference import Classifier
from mien.server import create_app
from mien.server.listen import bound

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-sync", "--disable-background-networking", "--disable-component-update",
    "--disable-dev-shm-usage", "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream", "--remote-debugging-pipe",
)  # fmt: skip
SECONDS = 60
"""How long anything may take before a test fails; the machine may be busy with other tests."""


class Browser:
    """A tab of a headless Chromium, which speaks JSON over two pipes, each message ended by NUL."""

    def __init__(self, profile: str) -> None:
        assert CHROMIUM is not None
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # Chromium reads descriptor 3 and writes 4; ours are moved out of their way first.
        ends = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (to_browser, from_browser)]
        self.process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=lambda: [os.dup2(fd, number) for fd, number in zip(ends, (3, 4))],  # noqa: B905
        )
        for fd in (to_browser, from_browser, *ends):
            os.close(fd)
        self._buffer, self._number, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer}"
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._read], [], [], SECONDS)[0], "Chromium does not answer"
            part = os.read(self._read, 1 << 16)
            assert part, "Chromium has ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def js(self, code: str) -> Any:
        found = self.call(
            "Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, f"{code}: {found}"
        return found["result"].get("value")

    def wait(self, condition: str) -> Any:
        """The value of an expression as soon as it is true."""
        until = time.monotonic() + SECONDS
        while not (value := self.js(condition)):
            assert time.monotonic() < until, f"{condition}; status: {self.status()}"
            time.sleep(0.05)
        return value

    def status(self) -> str:
        return self.js("document.getElementById('status')?.textContent")

    def open(self, url: str, width: int = 1200, height: int = 900, scheme: str = "light") -> None:
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def choose(self, file: Path) -> None:
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(file)], nodeId=node)

    def picture(self, out: Path) -> None:
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        out.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        self._session = ""
        self.call("Browser.close")
        self.process.wait(30)
        os.close(self._read)
        os.close(self._write)


@contextmanager
def served(classifier: Classifier, token: str | None = None) -> Iterator[str]:
    """The URL of a classifier's server in a thread."""
    with listening(create_app(classifier, token=token)) as url:
        yield url


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The URL of an application in a thread."""
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
    server, socket = uvicorn.Server(config), bound("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(str(tmp_path_factory.mktemp("chromium")))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server with attention maps and a detector that finds the left half of a picture."""
    with served(Classifier(brightness(attention=True), detector=LeftHalf())) as url:
        yield url


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    """A picture of 80 x 40 pixels, bright in its left quarter."""
    pixels = np.full((40, 80), 51, np.uint8)
    pixels[:, :20] = 255
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    return tmp_path / "grey.png"


def ready(browser: Browser, url: str, **how: Any) -> None:
    browser.open(url, **how)
    browser.wait(COMPLETE)


def place(browser: Browser, selector: str) -> dict[str, float]:
    """Where an element is, in CSS pixels."""
    code = "(({x, y, width, height}) => ({x, y, width, height}))"
    return browser.js(f"{code}(document.querySelector('{selector}').getBoundingClientRect())")


def each(browser: Browser, selector: str, value: str) -> list[Any]:
    return browser.js(f"[...document.querySelectorAll('{selector}')].map((e) => {value})")


def complaints(browser: Browser) -> list[Any]:
    kinds = ("Log.entryAdded", "Runtime.exceptionThrown")
    return [event for event in browser.events if event["method"] in kinds]


COMPLETE = "/Model:|v1.predict/.test(document.body.innerText)"
FACES = "document.querySelectorAll('.face').length"


def test_a_photograph_is_shown_with_box_and_probabilities(browser: Browser, tmp_path: Path) -> None:
    data = pytest.importorskip("skimage.data")
    Image.fromarray(data.astronaut()).save(tmp_path / "astronaut.jpg", quality=95)
    classifier = mien.load(detector="cascade")
    (face,) = classifier.predict(tmp_path / "astronaut.jpg")
    with served(classifier) as url:
        ready(browser, url)
        browser.choose(tmp_path / "astronaut.jpg")
        browser.wait(FACES)
        frame, box = place(browser, "#frame"), place(browser, ".box")
        shares = browser.js(
            "[...document.querySelectorAll('.mix span')].map((s) => +s.style.flexGrow)"
        )
        names = browser.js(
            "[...document.querySelectorAll('.bars li > :first-child')].map((s) => s.textContent)"
        )
    scale = frame["width"] / 512
    found = [box["x"] - frame["x"], box["y"] - frame["y"], box["width"], box["height"]]
    assert found == pytest.approx([scale * value for value in face.box], abs=1)
    assert shares == pytest.approx(list(face.probabilities.values()), abs=1e-5)
    assert names == list(face.probabilities)
    assert browser.status() == f"1 face: {face.label} {100 * face.probabilities[face.label]:.0f} %."
    assert complaints(browser) == []


def test_the_map_of_a_model_that_has_none_cannot_be_asked_for(browser: Browser) -> None:
    with served(Classifier(brightness(), detector=LeftHalf())) as url:
        ready(browser, url)
        assert browser.js("document.getElementById('attention').disabled")
        reason = browser.js("document.getElementById('attention-note').textContent")
    assert "no attention output" in reason


def test_the_map_is_drawn_over_the_face_when_asked_for(
    browser: Browser, url: str, grey: Path
) -> None:
    ready(browser, url)
    browser.choose(grey)
    browser.wait(FACES)
    assert browser.js("document.querySelectorAll('.map').length") == 0
    browser.js("document.getElementById('attention').click()")
    browser.wait("document.querySelectorAll('.map').length")
    frame, drawn = place(browser, "#frame"), place(browser, ".map")
    assert drawn["width"] == pytest.approx(frame["width"] / 2, abs=1)
    assert drawn["height"] == pytest.approx(frame["height"], abs=1)
    shades = browser.js(
        "(() => { const map = document.querySelector('.map');"
        "return [...map.getContext('2d').getImageData(0, 0, 4, 1).data] })()"
    )[3::4]
    assert shades == pytest.approx([0, 0, 160, 160], abs=1)  # 200 * (1 - 51 / 255)


def test_a_picture_that_is_one_face_can_be_said_to_be_so(
    browser: Browser, url: str, tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "black.png")
    ready(browser, url)
    browser.choose(tmp_path / "black.png")
    browser.wait("document.getElementById('status').textContent.startsWith('No face found.')")
    browser.js("document.getElementById('whole').click()")
    browser.wait(FACES)
    assert browser.status() == "1 face: dark 100 %."


def test_what_is_no_picture_is_said_aloud_and_neither_shown_nor_sent(
    browser: Browser, url: str, grey: Path, tmp_path: Path
) -> None:
    (tmp_path / "note.txt").write_text("hello")
    ready(browser, url)
    browser.choose(grey)
    browser.wait(FACES)
    browser.events.clear()
    browser.choose(tmp_path / "note.txt")
    browser.wait("document.getElementById('status').classList.contains('bad')")
    assert browser.status() == "note.txt is no picture that the browser can show."
    sent = [e for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert not any("/v1/predict" in event["params"]["request"]["url"] for event in sent)
    hidden = [browser.js(f"document.getElementById('{id}').hidden") for id in ("frame", "empty")]
    assert hidden == [True, False]


def test_a_picture_may_be_dropped(browser: Browser, url: str) -> None:
    ready(browser, url)
    browser.js(
        """(async () => {
          const canvas = new OffscreenCanvas(30, 30);
          canvas.getContext("2d").fillStyle = "white";
          canvas.getContext("2d").fillRect(0, 0, 30, 30);
          const data = new DataTransfer();
          const file = await canvas.convertToBlob();
          data.items.add(new File([file], "white.png", {type: "image/png"}));
          document.getElementById("stage").dispatchEvent(
            new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
        })()"""
    )
    browser.wait(FACES)
    assert browser.status().startswith("1 face: ")


def test_the_camera_is_followed_until_it_is_stopped(browser: Browser, url: str) -> None:
    ready(browser, url)
    browser.js("document.getElementById('camera').click()")
    browser.wait("document.getElementById('rate').textContent.includes('frames a second')")
    browser.wait("document.querySelectorAll('.box').length === 1")
    # The picture is shown as in a mirror, so the left half of what was sent is on the right.
    frame, box = place(browser, "#frame"), place(browser, ".box")
    assert box["x"] - frame["x"] == pytest.approx(frame["width"] / 2, abs=2)
    assert browser.js("document.getElementById('camera').getAttribute('aria-pressed')") == "true"
    under_way: set[str] = set()
    for event in browser.events:  # in the order of time
        if "/v1/predict" in event["params"].get("request", {}).get("url", ""):
            under_way.add(event["params"]["requestId"])
            assert len(under_way) == 1
        if event["method"] == "Network.loadingFinished":
            under_way.discard(event["params"]["requestId"])
    browser.js("document.getElementById('camera').click()")
    browser.wait("document.getElementById('video').srcObject === null")
    assert browser.status() == "The camera is off."
    assert browser.js(FACES) == 0


def test_a_token_is_asked_for_on_the_page(browser: Browser, grey: Path) -> None:
    with served(Classifier(brightness(), detector=LeftHalf()), token="geheim") as url:
        browser.open(url)
        browser.wait("!document.getElementById('access').hidden")
        browser.choose(grey)
        browser.wait("document.getElementById('status').textContent.includes('has a token')")
        browser.wait("!document.getElementById('access').hidden")
        browser.js("document.getElementById('token').value = 'geheim'")
        browser.js("document.getElementById('access').requestSubmit()")
        browser.wait(FACES)
        assert browser.js("document.getElementById('access').hidden")


def test_a_server_that_has_gone_is_said_to_be_gone(browser: Browser, grey: Path) -> None:
    with served(Classifier(brightness())) as url:
        ready(browser, url)
    browser.choose(grey)
    browser.wait("document.getElementById('status').textContent.includes('does not answer')")


def test_the_page_works_below_another_address(browser: Browser, grey: Path) -> None:
    app = create_app(Classifier(brightness(), detector=LeftHalf()))
    outer = FastAPI(lifespan=lambda _: app.router.lifespan_context(app))
    outer.mount("/faces", app)
    with listening(outer) as url:
        ready(browser, f"{url}/faces/")
        browser.choose(grey)
        browser.wait(FACES)
        ready(browser, f"{url}/faces/docs")
        assert f"curl {url}/faces/v1/models" in browser.js("document.body.innerText")
        assert complaints(browser) == []


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_nothing_comes_from_another_host(browser: Browser, url: str, path: str) -> None:
    browser.open(url + path)
    browser.wait(COMPLETE)
    asked = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert len(asked) >= 4
    assert all(address.startswith((url, "data:", "blob:")) for address in asked)
    assert complaints(browser) == []


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_narrow_phone_needs_no_sideways_scrolling(
    browser: Browser, url: str, grey: Path, path: str
) -> None:
    browser.open(url + path, width=320, height=640)
    browser.wait(COMPLETE)
    if path == "/":
        browser.choose(grey)
        browser.wait(FACES)
    assert browser.js("document.documentElement.scrollWidth") <= 320
    assert all(height == 0 or height >= 44 for height in each(browser, "button", "e.offsetHeight"))


def test_every_control_can_be_reached_by_keyboard_and_has_a_name(
    browser: Browser, url: str
) -> None:
    ready(browser, url)
    reached = []
    for _ in range(5):
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab",
                         windowsVirtualKeyCode=9)  # fmt: skip
        reached.append(browser.js("document.activeElement.id || document.activeElement.tagName"))
    assert reached == ["choose", "camera", "attention", "whole", "A"]
    browser.js("document.getElementById('whole').focus()")
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=" ", code="Space", text=" ",
                     windowsVirtualKeyCode=32)  # fmt: skip
    assert browser.js("document.getElementById('whole').checked")
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    controls = [
        (node["role"]["value"], node["name"]["value"])
        for node in tree
        if node.get("role", {}).get("value") in ("button", "switch", "link", "status")
    ]
    named = dict(controls)
    assert all(name for role, name in controls if role != "status"), controls
    assert "status" in named
    assert sum(role == "switch" for role, _ in controls) == 2


CONTRAST = """(() => {
  const part = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.9) return colour;
    }
  };
  const low = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.offsetParent) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push([e.textContent.trim(), ratio]);
  }
  return low;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(
    browser: Browser, url: str, grey: Path, scheme: str
) -> None:
    ready(browser, url, scheme=scheme)
    browser.choose(grey)
    browser.wait(FACES)
    dark = browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 27)"
    assert dark == (scheme == "dark")
    assert browser.js(CONTRAST) == []
