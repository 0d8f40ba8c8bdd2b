"""Compiled students: every pure function of a student, compiled once for all students like it.

A student's parameters come in through the vector w, so its module is only a structure, and one
compiled kernel serves every freshly initialised student of that structure, every teacher, every
inner step and every T. A kernel is made once per function, structure and shapes: `make_fx` traces
the function, its `torch.func` gradients included, to one flat graph, and `torch.compile` turns the
graph into machine code. Nothing is compiled twice, because nothing but the graph is guarded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gtnlib.inner.flat import FlatStudent
from gtnlib.inner.structure import structure

# A compilation costs up to a minute and makes every inner step faster; by how much is measured by
# tests/benchmarks. It pays back once the forward passes of all inner steps add up to about this
# many floating-point operations.
WORTHWHILE = 3e12

_kernels: dict[tuple, Callable] = {}
_warned = False


class CompiledStudent(FlatStudent):
    """A `FlatStudent` whose heavy functions are compiled at their first use, and shared.

    Where autograd records, everything runs eagerly: a recorded graph of compiled steps was measured
    to be slower than one of eager steps. So it does, after one warning, where no compiler works.

    Parameters
    ----------
    module, dtype: as for `FlatStudent`.
    announce: called with a line of text while compiling, and with "" afterwards.
    """

    def __init__(self, module: nn.Module, announce: Callable[[str], None] = lambda text: None,
                 dtype: torch.dtype | None = None):  # fmt: skip
        super().__init__(module, dtype)
        self.announce = announce
        self.structure = structure(module)
        if self.structure is None:
            _warn_once(type(module).__name__, "it holds what cannot be compared with another student's")

    def compute(self, function, state, shared=()):
        arguments = (*state, *shared)
        if torch.is_grad_enabled() or self.structure is None:
            return function(self, *arguments)
        tensors = [_plain(a) for a in arguments if isinstance(a, Tensor)]
        layout = tuple(_kind(a) if isinstance(a, Tensor) else a for a in arguments)
        key = function, self.structure, self.dtype, layout, _arithmetic(tensors[0])
        if key not in _kernels:
            self.announce(f"compiling {function.__name__}")
            _kernels[key] = _build(function, FlatStudent(self.module, self.dtype), layout, tensors)
            self.announce("")
        return _kernels[key](*tensors)


class _Kind(NamedTuple):
    """What a kernel depends on of a tensor."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


def _kind(a: Tensor) -> _Kind:
    return _Kind(a.shape, a.dtype, a.device)


def _arithmetic(a: Tensor) -> tuple | None:
    """What a GPU may round to: a CUDA graph keeps the algorithms that it was recorded with."""
    if a.is_cuda:
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    return None


def _plain(a: Tensor) -> Tensor:
    """The same values, without a graph and in the one standard layout."""
    return a.detach().reshape(-1).view(a.shape)


def _build(function: Callable, student: FlatStudent, layout: tuple, tensors: list) -> Callable:
    """Compile function(student, …) for arguments of this layout; eager if that fails."""

    from torch.fx.experimental.proxy_tensor import make_fx  # slow to import

    def eager(*tensors):
        rest = iter(tensors)
        return function(student, *(next(rest) if isinstance(a, _Kind) else a for a in layout))

    cuda = tensors[0].is_cuda
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of the compiler itself are not the reader's
            graph = make_fx(eager)(*tensors)
            mode = "reduce-overhead" if cuda else None  # on a GPU, replayed as one CUDA graph
            kernel = torch.compile(graph, fullgraph=True, dynamic=False, mode=mode)
            kernel(*tensors)
    except Exception as error:
        _warn_once(function.__name__, str(error).strip() or type(error).__name__)
        return eager
    return _copied(kernel) if cuda else kernel


def _copied(kernel: Callable) -> Callable:
    """A CUDA graph overwrites its results at the next replay, so hand out copies."""

    def call(*tensors):
        torch.compiler.cudagraph_mark_step_begin()
        results = kernel(*tensors)
        return results.clone() if isinstance(results, Tensor) else tuple(r.clone() for r in results)

    return call


def _warn_once(name: str, reason: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"{name} could not be compiled, so it runs eagerly, more slowly and with the same result: "
            f"{reason.splitlines()[0]}",
            RuntimeWarning,
            stacklevel=2,
        )


def worthwhile(student: FlatStudent, batch: tuple[Tensor, Tensor], inner_steps: float) -> bool:
    """Whether compiling pays back over so many inner steps on such batches; counted, not timed.

    Never on a GPU, where what it saves has yet to be measured.
    """
    from torch.utils.flop_counter import FlopCounterMode

    x, y = batch
    if x.is_cuda:
        return False
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        student.loss(student.initial(), x.detach(), y)
    return counter.get_total_flops() * inner_steps > WORTHWHILE
