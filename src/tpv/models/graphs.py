"""CUDA graphs of training passes: a GPU runs a small model's kernels faster than Python can launch them one by one."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from tpv.errors import TpvWarning

MOST_GRAPHS = 64


class Graphs:
    """Calls a function of tensors by replaying its kernels; the first call with tensors of some shapes records them.

    Recording costs about five passes. No pass is an ordinary one, whose last bits may be others: a resumed training
    would differ from one that was not interrupted. The function may launch only what depends on no value: no copies to
    the CPU, no shapes that come from data. A model that does otherwise goes on without graphs.

    All graphs share their memory, so that a call before the backward pass of the one before is an ordinary one.

    Args:
        enabled: whether there is a GPU to do it on.
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self._made: OrderedDict[Any, Callable[..., Tensor]] = OrderedDict()
        self._pool: Any = None
        self._open = False

    def usable(self, model: torch.nn.Module, bank: Tensor) -> bool:
        """Whether a pass over this bank is to be padded to one of few shapes and replayed."""
        plain = not model.training and not torch.is_autocast_enabled("cuda")
        return self.enabled and plain and torch.is_grad_enabled() and bank.requires_grad

    def forget(self) -> None:
        """Take no notice of a call whose backward pass never came."""
        self._open = False

    def __call__(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """The function's result; differentiable in those of the inputs that require a gradient."""
        if self._open or not self.enabled:
            return function(*inputs)
        key = (function, *((tensor.shape, tensor.dtype, tensor.requires_grad) for tensor in inputs))
        made = self._made.get(key) or self._capture(function, inputs)
        if made is None:
            return function(*inputs)
        self._made[key] = made
        self._made.move_to_end(key)
        if len(self._made) > MOST_GRAPHS:
            self._made.popitem(last=False)
        result = made(*inputs)
        if result.requires_grad:
            self._open = True
            result.register_hook(lambda _: self.forget())
        return result

    def _capture(self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Callable[..., Tensor] | None:
        samples = tuple(tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in inputs)
        try:
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            made: Any = torch.cuda.make_graphed_callables(function, samples, pool=self._pool)
            return cast(Callable[..., Tensor], made)
        except RuntimeError as error:
            self.enabled = False
            torch.cuda.synchronize()
            warnings.warn(
                f"training goes on without CUDA graphs, which is slower: {str(error).splitlines()[0]}",
                TpvWarning,
                stacklevel=2,
            )
            return None


def rounded(length: int, most: int | None = None) -> int:
    """A length not below this one, of few: at most a quarter longer from 8 on; never above `most`."""
    step = max(2, 1 << max(0, length.bit_length() - 3))
    up = -(-length // step) * step
    return up if most is None else max(length, min(up, most))


class _Spread(torch.autograd.Function):
    """`index_select` of the first dimension whose gradient is a matrix product.

    Its own adds rows up in any order, and in bf16 rounds after each.
    """

    @staticmethod
    def forward(ctx: Any, bank: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.count = len(bank)
        return bank.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,), (index,) = gradients, ctx.saved_tensors
        place = torch.arange(ctx.count, device=index.device)[:, None] == index
        total = place.to(gradient.dtype) @ gradient.flatten(1)
        return total.view(ctx.count, *gradient.shape[1:]), None


def spread(bank: Tensor, index: Tensor) -> Tensor:
    """Rows [N, ...] of a bank [M, ...], with a gradient that comes out the same each time."""
    # on a CPU index_select sums in one order
    apply: Callable[[Tensor, Tensor], Tensor] = _Spread.apply
    return apply(bank, index) if bank.is_cuda else bank.index_select(0, index)
