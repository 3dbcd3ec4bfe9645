"""CBAM's passes over a map in training on a CPU, with backwards that read and write little.

Autograd's own backward of CBAM makes a dozen maps and goes through main memory for most of them.
Here a map is taken a few images at a time, as many as stay in the caches while all the steps of a
pass are done with them. In maps read (r) and written (w): `pool` 1r, `scale` 1r 1w, `place` 1r 1w,
and their backwards 2r 1w, 2r 1w, 2r 1w. Values and gradients are those of `amax`, `mean` and
products; equal maxima share the gradient evenly.

The gradient of the map that `place` makes goes back through the other two, which change it in
place. So nothing else may use the maps between them: `attention.CBAM` is their only caller. Inside,
maps are ``[N, P, C]`` with P = H * W, a view in either memory layout, and the backwards compute in
float32 where a map is in bfloat16, which PyTorch broadcasts several times as slowly on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from torch.autograd.function import once_differentiable
from torch.fft import fft2, ifft2

PART = 1 << 17
"""Values of a map a thread works on at once: in float32 half a MiB, beside two more so large."""


def flat(x: torch.Tensor) -> torch.Tensor:
    """``[N, C, H, W]`` as ``[N, P, C]``."""
    return x.flatten(2).mT


def square(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``[N, P, C]`` as ``[N, C, H, W]``, with the height and width of `like`."""
    return x.mT.unflatten(2, like.shape[2:])


def parts(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """A few images at a time of tensors ``[N, ...]``, the first of which is a map."""
    images = max(1, torch.get_num_threads() * PART // tensors[0][0].numel())
    if images >= len(tensors[0]):
        return iter((tensors,))
    return zip(*(tensor.split(images) for tensor in tensors), strict=True)


def wide(x: torch.Tensor) -> torch.Tensor:
    """In float32 what is in a smaller type; else `x` itself, so that it can be changed in place."""
    return x.float() if x.element_size() < 4 else x


def highest(image: torch.Tensor, out: torch.Tensor) -> None:
    """The maximum over space of ``[N, P, C]``, to `out`, ``[N, C]``.

    PyTorch takes less than 32 values that lie side by side one by one, so of few channels several
    places are taken together.
    """
    together = 1 if image.shape[2] >= 32 else math.gcd(image.shape[1], 32)
    torch.amax(image.unflatten(1, (-1, together)).amax(1), 1, out=out)


class Pool(torch.autograd.Function):
    """The map ``[N, C, H, W]``, and its maximum and mean over space, ``[N, 2, C]``."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        v = flat(x)
        pooled = v.new_empty(len(v), 2, v.shape[2])
        for image, maximum, mean in parts(v, *pooled.unbind(1)):
            highest(image, maximum)
            torch.mean(image, 1, out=mean)
        ctx.save_for_backward(x, pooled)
        return x, pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, pooled_grad: torch.Tensor) -> torch.Tensor:
        x, pooled = ctx.saved_tensors
        v, maximum = flat(x), wide(pooled[:, :1])
        maximum_grad, mean_grad = wide(pooled_grad).split(1, 1)
        for part, out, top, high, rest in parts(
            v, flat(grad), maximum, maximum_grad, mean_grad / v.shape[1]
        ):
            image, g = wide(part), wide(out)
            # 1 and 0 in the type of the others, for CPUs are slow where types mix.
            chosen = torch.eq(image, top, out=torch.empty_like(image))
            g.addcmul_(chosen, high / chosen.sum(1, keepdim=True)).add_(rest)
            out.copy_(g)
        return grad


class Scale(torch.autograd.Function):
    """The map times weights of its channels, and the planes of what comes out.

    The weights are the sigmoids of logits ``[N, C]``. The planes ``[N, 2, H, W]`` are the maximum
    and the mean over channels, and channels-last, as `Correlate` reads them.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, logits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        v, gate = flat(x), logits.sigmoid()
        scaled, planes = torch.empty_like(v), v.new_empty(*v.shape[:2], 2)
        for image, row, out, maximum, mean in parts(v, gate[:, None], scaled, *planes.unbind(2)):
            torch.mul(image, row, out=out)
            torch.amax(out, 2, out=maximum)
            torch.mean(out, 2, out=mean)
        ctx.save_for_backward(gate, scaled, planes)
        return square(scaled, x), square(planes, x)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: torch.Tensor, planes_grad: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        gate, scaled, planes = ctx.saved_tensors
        weights = wide(gate)
        maximum_grad, mean_grad = wide(flat(planes_grad)).split(1, 2)
        # The sum over space of gradient times scaled map is the weight times its own gradient.
        weighted = torch.empty_like(weights)
        for part, out, top, high, rest, row, total in parts(
            scaled,
            flat(grad),
            wide(planes[:, :, :1]),
            maximum_grad,
            mean_grad / scaled.shape[2],
            weights[:, None],
            weighted,
        ):
            image, g = wide(part), wide(out)
            chosen = torch.eq(image, top, out=torch.empty_like(image))
            g.addcmul_(chosen, high / chosen.sum(2, keepdim=True)).add_(rest)
            torch.sum(torch.mul(g, image, out=chosen), 1, out=total)
            out.copy_(g.mul_(row))
        return grad, (weighted * (1 - weights)).to(gate.dtype)


class Correlate(torch.autograd.Function):
    """Two planes with a kernel for each: ``[N, 2, H, W]`` and ``[1, 2, k, k]``, summed to one.

    It is the convolution of odd `k` with padding ``k // 2``, which CPUs are slow at for so few
    channels, by Fourier transforms. The planes are taken as one complex plane z = a + ib, and so
    are the kernels. With Z, K and G the transforms of the padded plane, the kernel and the
    gradient, Z K* is that of a plane whose real part is the output, G K that of the gradient of z,
    and the sum of Z G* over the images that of the kernel's.
    """

    @staticmethod
    def forward(ctx: Any, planes: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
        height, width = planes.shape[2:]
        ctx.reach = reach = kernels.shape[3] // 2
        # Padding in front serves behind as well, for a transform goes round.
        rows, columns = (next_fast_len(max(side, reach + 1) + reach) for side in (height, width))
        padding = (0, 0, reach, columns - width - reach, reach, rows - height - reach)
        z = fft2(torch.view_as_complex(F.pad(planes.movedim(1, 3), padding).contiguous()))
        k = fft2(torch.view_as_complex(kernels[0].movedim(0, 2).contiguous()), (rows, columns))
        ctx.save_for_backward(z, k)
        return ifft2(z * k.conj()).real[:, None, :height, :width].contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z, k = ctx.saved_tensors
        reach, (height, width) = ctx.reach, grad.shape[2:]
        g = fft2(grad[:, 0], z.shape[1:])
        planes = torch.view_as_real(ifft2(g * k))
        kernels = torch.view_as_real(ifft2((z * g.conj()).sum(0)))
        planes = planes[:, reach : reach + height, reach : reach + width].movedim(3, 1)
        return planes, kernels[: 2 * reach + 1, : 2 * reach + 1].movedim(2, 0)[None]


class Place(torch.autograd.Function):
    """The map times weights of its places, ``[N, 1, H, W]``."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, gate)
        return x * gate

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, gate = ctx.saved_tensors
        v, column = flat(x), wide(flat(gate))
        x_grad, gate_grad = torch.empty_like(v), torch.empty_like(column)
        for part, given, weight, out, total in parts(v, flat(grad), column, x_grad, gate_grad):
            g = wide(given)
            torch.sum(g * wide(part), 2, keepdim=True, out=total)
            torch.mul(g, weight, out=out)
        return square(x_grad, x), square(gate_grad, x).to(gate.dtype)


pool, scale, correlate, place = Pool.apply, Scale.apply, Correlate.apply, Place.apply
