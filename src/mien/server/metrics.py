"""Counts and histograms of a server, in the text form that Prometheus reads."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from threading import Lock

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Histogram:
    """How many values were at most each of some bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, labels: str = "") -> list[str]:
        comma = "," if labels else ""
        lines, total = [], 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{labels}{comma}le="{bound}"}} {total}')
        braces = f"{{{labels}}}" if labels else ""
        return [*lines, f"{name}_sum{braces} {self.sum:.6f}", f"{name}_count{braces} {total}"]


class Metrics:
    """What a server has done. Requests come from the event loop, batches from the worker."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.requests: Counter[tuple[str, int]] = Counter()
        self.seconds: dict[str, Histogram] = {}
        self.batches = Histogram(BATCHES)

    def request(self, route: str, status: int, seconds: float) -> None:
        with self._lock:
            self.requests[route, status] += 1
            self.seconds.setdefault(route, Histogram(SECONDS)).observe(seconds)

    def batch(self, images: int) -> None:
        with self._lock:
            self.batches.observe(images)

    def text(self, queued: float) -> str:
        """All of it; `queued` is the number of pictures in the server now."""
        with self._lock:
            lines = _head("mien_requests_total", "counter", "Requests by route and status.")
            for (route, status), count in sorted(self.requests.items()):
                lines.append(f'mien_requests_total{{route="{route}",status="{status}"}} {count}')
            lines += _head("mien_request_seconds", "histogram", "Seconds to a whole answer.")
            for route, histogram in sorted(self.seconds.items()):
                lines += histogram.lines("mien_request_seconds", f'route="{route}"')
            lines += _head("mien_batch_images", "histogram", "Pictures looked at together.")
            lines += self.batches.lines("mien_batch_images")
            lines += _head("mien_queue_images", "gauge", "Pictures in the server.")
            lines.append(f"mien_queue_images {queued:g}")
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, what: str) -> list[str]:
    return [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
