"""Requests per second, latency and refusals of `mien serve` under a bounded load, on loopback.

The servers are processes of their own, started as a user starts them, and take turns, so that a
drift of the machine falls on all alike. Clients in this process keep one request each under way,
with one picture a request. Compared are batches with one picture at a time, beside what client and
HTTP reach without a model; and a server whose queue is far shorter than there are clients, of which
every answer is to be right or 503 with Retry-After.

The published figures come from

    python bench/serving.py --data .data/fer2013 --requests 1000 --rounds 3 \\
        --out docs/results/serving.md
"""

from __future__ import annotations

import http.client
import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
from PIL import Image
from sheet import parse, parser, publish, run

from mien.data import read
from mien.errors import MienError
from mien.inference import load
from mien.report.table import Column, Table, decimals, percent

SERVERS = {
    "one picture at a time": ("batch=1", "wait_ms=0"),
    "batched": (),
    "batched, queue of 8": ("images=8", "queue=8"),
}
HTTP_ALONE = "no model: GET /healthz"
BOUNDARY = "face"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
PICTURES = 256
"""Different pictures that are sent, again and again."""


@dataclass
class Load:
    """What clients saw: seconds of each round, the kind of each answer, its seconds if right."""

    requests: int
    seconds: list[float] = field(default_factory=list)
    answers: list[tuple[str, float | None]] = field(default_factory=list)

    @property
    def latencies(self) -> list[float]:
        return [seconds for _, seconds in self.answers if seconds is not None]

    def count(self, kind: str) -> int:
        return sum(1 for found, _ in self.answers if found == kind)

    @property
    def rate(self) -> float:
        """Right answers per second of the middle round."""
        answered = self.count("right") / len(self.seconds)
        return answered / median(self.seconds)

    def row(self, name: str, beside: Load) -> list[object]:
        percentiles = [1000 * np.percentile(self.latencies, q) for q in (50, 95, 99)]
        asked = self.requests * len(self.seconds)
        return [name, self.rate, self.rate / beside.rate, *percentiles,
                self.count("sent away") / asked, self.count("failed")]  # fmt: skip


@contextmanager
def server(model: str | None, settings: Sequence[str]) -> Iterator[str]:
    """The URL of a server that runs while the block does."""
    command = [sys.executable, "-m", "mien.cli", "serve", "--port", "0", "--detector", "none"]
    command += ["--run", model] if model else []
    for setting in settings:
        command += ["--set", setting]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.search(r"http://\S+/", first)
        try:
            if found is None:
                raise MienError(f"the server did not start: {first or 'see above'}")
            yield found[0]
        finally:
            process.send_signal(signal.SIGINT)


def ask(
    url: str, pictures: Sequence[bytes], labels: Sequence[str], clients: int, seen: Load
) -> None:
    """One round: so many clients share the requests; without pictures they ask for /healthz.

    Plain sockets and bodies that are ready beforehand, since what a client costs is taken from the
    server beside it.
    """
    place, numbers = urlsplit(url).netloc, iter(range(seen.requests))
    bodies = [multipart(picture) for picture in pictures]

    def client(_: int) -> None:
        link = http.client.HTTPConnection(place, timeout=60)
        for number in numbers:
            which, began = number % max(1, len(pictures)), perf_counter()
            try:
                if pictures:
                    link.request("POST", "/v1/predict", bodies[which], FORM)
                else:
                    link.request("GET", "/healthz")
                answer = link.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException):
                link.close()
                seen.answers.append(("failed", None))
                continue
            taken = perf_counter() - began
            if answer.status == 503 and answer.headers["retry-after"]:
                seen.answers.append(("sent away", None))
            elif answer.status == 200 and (
                not pictures
                or json.loads(content)["images"][0]["faces"][0]["label"] == labels[which]
            ):
                seen.answers.append(("right", taken))
            else:
                seen.answers.append(("failed", None))
        link.close()

    began = perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    seen.seconds.append(perf_counter() - began)


def multipart(picture: bytes) -> bytes:
    """The body of a request with one picture."""
    head = 'Content-Disposition: form-data; name="images"; filename="face.png"'
    return (
        f"--{BOUNDARY}\r\n{head}\r\nContent-Type: image/png\r\n\r\n".encode()
        + picture
        + f"\r\n--{BOUNDARY}--\r\n".encode()
    )


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def batch_size(url: str) -> float:
    """Pictures in a batch, the mean over all that a server has seen."""
    with urlopen(f"{url}metrics") as answer:
        text = answer.read().decode()
    total, count = (
        float(re.search(rf"^mien_batch_images_{what} (\S+)$", text, re.M)[1])  # type: ignore[index]
        for what in ("sum", "count")
    )
    return total / count


def main(argv: Sequence[str] | None = None) -> str:
    """Measure, print the sheet and return it."""
    known = parser(__doc__)
    known.add_argument("--run", help="an ONNX file or a run; default: the packaged model")
    known.add_argument("--clients", type=int, default=32, help="requests under way at a time")
    known.add_argument("--requests", type=int, default=1000, help="in a round")
    known.add_argument("--rounds", type=int, default=3)
    args = parse(known, argv, "serving")

    images = read(args.data).images
    images = images[np.random.default_rng(0).permutation(len(images))[:PICTURES]]
    pictures = [png(image) for image in images]
    found = load(args.run, detector="none").predict(pictures, [None] * len(pictures))
    labels = [face.label for (face,) in found]  # type: ignore[misc, attr-defined]

    seen = {name: Load(args.requests) for name in (HTTP_ALONE, *SERVERS)}
    with ExitStack() as stack:
        urls = {name: stack.enter_context(server(args.run, SERVERS[name])) for name in SERVERS}
        for url in urls.values():  # connections and code are warm before the clock starts
            ask(url, pictures, labels, args.clients, Load(2 * args.clients))
        for _ in range(args.rounds):
            ask(urls["batched"], (), (), args.clients, seen[HTTP_ALONE])
            for name, url in urls.items():
                ask(url, pictures, labels, args.clients, seen[name])
        sizes = {name: batch_size(url) for name, url in urls.items()}
    return publish(
        "Serving under load",
        [
            f"{args.clients} clients, {args.requests:,} requests a round, {args.rounds} rounds",
            f"one PNG of {images.shape[1]}x{images.shape[2]} pixels a request; no detector",
            "clients and server share the machine, and an answer that is not the label that the "
            "model gives outside the server counts as failed",
        ],
        [_table(seen, sizes)],
        args,
    )


def _table(seen: dict[str, Load], sizes: dict[str, float]) -> Table:
    columns = [
        Column("server"),
        Column("right answers", decimals(0), "1/s", "1/s"),
        Column("against one at a time", decimals(2)),
        Column("latency, median", decimals(1), "ms", "ms"),
        Column("95 % below", decimals(1), "ms", "ms"),
        Column("99 % below", decimals(1), "ms", "ms"),
        Column("503 with Retry-After", percent, "%"),
        Column("failed otherwise", decimals(0)),
        Column("pictures in a batch", decimals(1)),
    ]
    beside = seen["one picture at a time"]
    rows = [[*load.row(name, beside), sizes.get(name)] for name, load in seen.items()]
    return Table("serving", "What clients of a server see, all rounds together.", columns, rows)


if __name__ == "__main__":
    run(main)
