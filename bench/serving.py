"""Requests per second, latency and refusals of `mien serve` under a bounded load, on loopback.

The servers are processes of their own, started as a user starts them, and take turns, so that a
drift of the machine falls on all alike. Clients in this process keep one request each under way,
with one picture a request. Compared are batches with one picture at a time, beside what client and
HTTP reach without a model; and a server whose queue is far shorter than there are clients, of which
every answer is to be right or 503 with Retry-After.

The published figures come from

    python bench/serving.py --data .data/fer2013 --requests 4000 --rounds 5 \\
        --out docs/results/serving.md
"""

from __future__ import annotations

import asyncio
import io
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

import httpx
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
PICTURES = 256
"""Different pictures that are sent, again and again."""


@dataclass
class Load:
    """What clients saw: seconds of each round, of each right answer, and how many of each kind."""

    requests: int
    seconds: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    right: int = 0
    sent_away: int = 0
    failed: int = 0

    @property
    def rate(self) -> float:
        """Right answers per second of the middle round."""
        answered = self.right / len(self.seconds)
        return answered / median(self.seconds)

    def row(self, name: str, beside: Load) -> list[object]:
        percentiles = [1000 * np.percentile(self.latencies, q) for q in (50, 95, 99)]
        asked = self.requests * len(self.seconds)
        return [name, self.rate, self.rate / beside.rate, *percentiles,
                self.sent_away / asked, self.failed]  # fmt: skip


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


async def ask(
    url: str, pictures: Sequence[bytes], labels: Sequence[str], clients: int, seen: Load
) -> None:
    """One round: so many clients share the requests; without pictures they ask for /healthz."""
    numbers = iter(range(seen.requests))
    limits = httpx.Limits(max_connections=clients)

    async def client(session: httpx.AsyncClient) -> None:
        for number in numbers:
            which = number % max(1, len(pictures))
            began = perf_counter()
            try:
                if pictures:
                    sent = {"images": ("face.png", pictures[which])}
                    answer = await session.post("/v1/predict", files=sent)
                else:
                    answer = await session.get("/healthz")
            except httpx.HTTPError:
                seen.failed += 1
                continue
            taken = perf_counter() - began
            if answer.status_code == 503 and answer.headers.get("retry-after"):
                seen.sent_away += 1
            elif answer.status_code == 200 and (
                not pictures or answer.json()["images"][0]["faces"][0]["label"] == labels[which]
            ):
                seen.right += 1
                seen.latencies.append(taken)
            else:
                seen.failed += 1

    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as session:
        began = perf_counter()
        await asyncio.gather(*(client(session) for _ in range(clients)))
        seen.seconds.append(perf_counter() - began)


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def batch_size(url: str) -> float:
    """Pictures in a batch, the mean over all that a server has seen."""
    text = httpx.get(f"{url}metrics").text
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
            asyncio.run(ask(url, pictures, labels, args.clients, Load(2 * args.clients)))
        for _ in range(args.rounds):
            asyncio.run(ask(urls["batched"], (), (), args.clients, seen[HTTP_ALONE]))
            for name, url in urls.items():
                asyncio.run(ask(url, pictures, labels, args.clients, seen[name]))
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
