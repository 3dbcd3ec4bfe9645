"""A stand-in for an accelerator: tensors of a device of their own, kept and computed on the CPU.

Code that runs on it has been shown to keep its tensors together, to draw no random numbers there
from a generator of the CPU, and to wait for the device no more often than `waits` says. It shows
nothing of a real accelerator's kernels, speed or compilation.

PyTorch knows the device as ``"elsewhere"`` from the first `Elsewhere` of a process on.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "elsewhere"

aten = torch.ops.aten

ANSWERS = {
    aten._local_scalar_dense.default,
    aten.bincount.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten._unique2.default,
}
"""Operations whose result, or its shape, the CPU has to know: it waits for the device."""


def known() -> bool:
    """Whether this version of PyTorch can have such a device."""
    return hasattr(backend_registration, "_setup_privateuseone_for_python_backend")


class Elsewhere(TorchDispatchMode):
    """Lets tensors be made on, and moved to and from, the device elsewhere.

    Attributes
    ----------
    waits : how often the CPU has had to wait for it, also to have brought it something
    """

    def __init__(self) -> None:
        _register()
        super().__init__()
        self.waits = 0

    def __enter__(self) -> Elsewhere:
        super().__enter__()
        Remote.mode = self
        return self

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return self.computed(func, args, kwargs or {})

    def computed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What an operation gives, checked as the device would."""
        if func is aten._has_compatible_shallow_copy_type.default:
            return False
        if func.overloadpacket is aten.to:  # not yet taken apart in inference mode
            with self:
                return func.decompose(*args, **kwargs)
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        remote = [t for t in tensors if isinstance(t, Remote)]
        asked = kwargs.get("device")
        there = bool(remote) if asked is None else torch.device(asked).type == NAME
        if func is aten.copy_.default:
            there = isinstance(args[0], Remote)
        if func in (aten.copy_.default, aten._to_copy.default):
            self.waits += bool(remote) and not there
            brought = there and any(t.ndim and not isinstance(t, Remote) for t in tensors)
            at_once = kwargs.get("non_blocking") or (func is aten.copy_.default and args[2:])
            self.waits += bool(brought and not at_once)
        else:
            self._check(func, args, tensors, remote)
        if there and kwargs.get("generator") is not None:
            raise RuntimeError(f"{func}: a generator of the CPU for a tensor elsewhere")
        if there and asked is not None:
            kwargs = kwargs | {"device": torch.device("cpu")}
        of_raw = {id(t.raw): t for t in remote}
        args, kwargs = tree_map(lambda t: t.raw if isinstance(t, Remote) else t, (args, kwargs))

        def back(value: Any) -> Any:
            if not isinstance(value, torch.Tensor) or not there:
                return value
            if id(value) in of_raw:
                return of_raw[id(value)]
            with torch.inference_mode(False):  # views of a tensor made in it would be refused
                return Remote(value)

        return tree_map(back, func(*args, **kwargs))

    def _check(
        self, func: Any, args: tuple[Any, ...], tensors: list[torch.Tensor], remote: list[Remote]
    ) -> None:
        if remote and any(t.ndim and not isinstance(t, Remote) for t in tensors):
            raise RuntimeError(f"{func}: some of its tensors are here, and some elsewhere")
        masked = func in (aten.index.Tensor, aten.index_put_.default) and any(
            t is not None and t.dtype == torch.bool for t in args[1]
        )
        self.waits += bool(remote) and (masked or func in ANSWERS)


class Remote(torch.Tensor):
    """A tensor elsewhere; its values are in `raw`, on the CPU."""

    mode: Elsewhere
    raw: torch.Tensor

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> Remote:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, raw: torch.Tensor) -> None:
        self.raw = raw

    def tolist(self) -> Any:
        """Its values, which PyTorch gives of no tensor of a class of its own."""
        self.mode.waits += 1
        return self.raw.tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.raw.__reduce_ex__(protocol)  # in a checkpoint it is a tensor like any other

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return cls.mode.computed(func, args, kwargs or {})


class _Module(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


@cache
def _register() -> torch.library.Library:
    """Make the device known; mixed precision leaves everything in float32 there."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())
    library = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    library.fallback(torch.library.fallthrough_kernel)
    return library  # is taken back when nobody holds it
