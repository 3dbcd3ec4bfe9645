"""CBAM alone, forward and backward, beside the bytes it cannot do without: ours and timm's.

Counted are the passes over the map that no fusion avoids, for each needs what an earlier one has
summed up: statistics of the channels (one read), the first gate with the statistics of the places
(a read and a write), the last gate (a read and a write, and with ``--residual`` another read); and
for each of the three on the way back two reads and a write. What those bytes take is the time in
which this machine copies a map of the same size, for every two maps counted. The published figure
comes from

    python bench/attention.py --threads 2 --rounds 25 --out docs/results/attention-bytes.md

and on an accelerator from

    python bench/attention.py --precision bf16 --batch 256 --residual --compile \\
        --out docs/results/attention-bytes-gpu.md
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

import sheet
import torch
from timm.layers.cbam import CbamModule
from torch import nn
from usual import seconds

from mien.models.attention import create_attention
from mien.report.table import Column, Table, decimals

FORWARD, BACKWARD = 5, 9
"""Maps read and written by three passes, and by the three on the way back."""

MAPS = ((32, 48), (64, 24), (128, 12), (256, 6), (256, 3))
"""Channels and pixels of the maps that `plain` has attention on, at 48 pixels and stride 16."""


def channels_and_size(text: str) -> tuple[int, int]:
    """The map that an argument such as 64x24 names."""
    channels, size = text.split("x")
    return int(channels), int(size)


def times(
    channels: int, size: int, batch: int, bf16: bool, residual: bool, compiled: bool,
    rounds: int, device: torch.device,
) -> tuple[float, float, float]:  # fmt: skip
    """Median seconds of copying a map, and of forward and backward of our CBAM and of timm's."""
    torch.compiler.reset()  # else PyTorch gives up compiling after a few kinds of map
    kind = torch.bfloat16 if bf16 else torch.float32

    def random() -> torch.Tensor:
        given = torch.randn(batch, channels, size, size, device=device, dtype=kind)
        return given.to(memory_format=torch.channels_last)

    x, shortcut, grad, to = random().requires_grad_(), random(), random(), random()

    def passes(attention: nn.Module) -> Callable[[], object]:
        attention.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]

        def forward(x: torch.Tensor, shortcut: torch.Tensor) -> torch.Tensor:
            return attention(x) + shortcut if residual else attention(x)

        way = torch.compile(forward, dynamic=False) if compiled else forward

        def work() -> None:
            x.grad = None
            attention.zero_grad(set_to_none=True)  # else every pass adds to those of the last
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                out = way(x, shortcut)
            out.backward(grad)

        return work

    ways = [
        lambda: to.copy_(grad),
        passes(create_attention("cbam", channels)),
        passes(CbamModule(channels)),
    ]
    at_once = 1 if device.type == "cpu" else 50  # one alone would show the time to launch it

    def timed(work: Callable[[], object]) -> float:
        return seconds(lambda: [work() for _ in range(at_once)], device) / at_once

    for way in ways * 2:
        timed(way)
    measured = [[timed(way) for way in ways] for _ in range(rounds)]
    copy, ours, theirs = (median(found) for found in zip(*measured, strict=True))
    return copy, ours, theirs


def main(argv: Sequence[str] | None = None) -> str:
    """Measure and publish the sheet, which is returned."""
    parser = sheet.parser(__doc__)
    parser.add_argument("--maps", nargs="+", type=channels_and_size, default=MAPS, metavar="CxS")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--residual", action="store_true", help="with the addition of a shortcut")
    parser.add_argument("--compile", action="store_true", help="compile both")
    parser.add_argument("--rounds", type=int, default=15, help="turns of the compared ways")
    args = sheet.parse(parser, argv, "attention")

    device, bf16 = torch.device(args.device), args.precision == "bf16"
    counted, rows = FORWARD + BACKWARD + args.residual, []
    for channels, size in args.maps:
        copy, ours, theirs = times(
            channels, size, args.batch, bf16, args.residual, args.compile, args.rounds, device
        )
        least = copy * counted / 2  # a copy reads one map and writes one
        rows.append(
            [
                f"{channels} x {size} x {size}",
                args.batch * channels * size**2 * (2 if bf16 else 4) / 2**20,
                *(1000 * took for took in (least, ours, theirs)),
                *(ours / least, theirs / least, ours / theirs),
            ]
        )
    table = Table(
        "attention-bytes",
        "Forward and backward of one CBAM beside the bytes counted.",
        [
            Column("map"),
            Column("MiB", decimals(1)),
            Column("counted bytes (ms)", decimals(2)),
            Column("ours (ms)", decimals(2)),
            Column("timm's (ms)", decimals(2)),
            Column("ours/counted", decimals(2)),
            Column("timm's/counted", decimals(2)),
            Column("ours/timm's", decimals(2)),
        ],
        rows,
        [
            f"Counted: {counted} maps read or written, at the rate of a copy of the same map, "
            "which stays in the caches where it is small.",
            f"Medians of {args.rounds} turns.",
        ],
        f"Batch {args.batch}, {args.precision}{', with a shortcut' if args.residual else ''}"
        f"{', compiled' if args.compile else ''}, {torch.get_num_threads()} threads, {device}.",
    )
    return sheet.publish("CBAM and the bytes it moves", [], [table], args)


if __name__ == "__main__":
    sheet.run(main)
