"""Compiled students: every pure function of a student, compiled once for all students like it.

A student's parameters come in through the vector w, and its constants beside it, so its module is only
a structure, and one kernel serves every freshly initialised student of that structure, every teacher,
every inner step and every T. A kernel is made once per `fit`, function, structure and shapes: `make_fx`
traces the function, its `torch.func` gradients included, to one flat graph, which `torch.compile` turns
into machine code on a CPU, and which a GPU records as one CUDA graph. Equal graphs share it, so nothing is
compiled twice; and since every `fit` traces anew, what was edited in between is seen.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gtnlib.inner.flat import Curvature, FlatStudent
from gtnlib.inner.one_channel import weight_gradient
from gtnlib.inner.structure import structure
from gtnlib.support.files import digest_of
from gtnlib.support.operations import operations
from gtnlib.support.precision import settings
from gtnlib.support.seeds import lock

# A compilation costs up to a minute and makes every inner step faster; by how much is measured by
# tests/benchmarks. It pays back once the forward passes of all inner steps add up to about this
# many floating-point operations. To record CUDA graphs takes seconds, and saves milliseconds a step.
WORTHWHILE, WORTHWHILE_ON_A_GPU = 3e12, 500

MOST = 64  # kernels that are kept; beyond it, the one that was made first is forgotten

_kernels: dict[str, Callable] = {}  # by what they were traced to
_warned = False


class CompiledStudent(FlatStudent):
    """A `FlatStudent` whose heavy functions are compiled at their first use, and shared.

    Where autograd records, everything runs eagerly: a recorded graph of compiled steps was measured
    to be slower than one of eager steps. So it does, after one warning, where no compiler works.

    Parameters
    ----------
    module, dtype: as for `FlatStudent`.
    announce: called with a line of text while compiling, and with "" afterwards.
    kernels: a table of those in use, for students that are built from the same code; default its own.
    """

    def __init__(self, module: nn.Module, announce: Callable[[str], None] = lambda text: None,
                 dtype: torch.dtype | None = None, kernels: dict | None = None):  # fmt: skip
        super().__init__(module, dtype)
        self.kernels: dict[tuple, Callable] = {} if kernels is None else kernels
        self.announce = announce
        self.structure = structure(module)
        if self.structure is None:
            _warn_once(type(module).__name__, "it holds what cannot be compared with another student's")

    def compute(self, function, state, shared=()):
        arguments = (*state, *shared)
        if torch.is_grad_enabled() or self.structure is None:
            return function(self, *arguments)
        self._first_run(*arguments)
        constants = list(self.constants.values())
        tensors = [*map(_plain, constants), *(_plain(a) for a in arguments if isinstance(a, Tensor))]
        layout = tuple(_kind(a) if isinstance(a, Tensor) else a for a in arguments)
        key = function, self.structure, self.dtype, tuple(map(_kind, constants)), layout, settings()
        if key not in self.kernels:
            self.announce(f"compiling {function.__name__}")
            student = FlatStudent(self.module, self.dtype)
            student.rehearsed, student.attends = True, self.attends
            with lock:
                self.kernels[key] = _build(function, student, layout, tensors)
            self.announce("")
        return self.kernels[key](*tensors)

    def curvature(self, w: Tensor, x: Tensor, y: Tensor) -> Curvature:
        if torch.is_grad_enabled() or self.structure is None:
            return super().curvature(w, x, y)
        return RecomputedCurvature(self, w, x, y)


class RecomputedCurvature(Curvature):
    """A `Curvature` of which every product runs the gradient anew, in one compiled function.

    No graph is kept, so memory is that of one product however many batches there are; w, x and y must
    stay as they are meanwhile. A kept graph saves a third of the operations, but cannot be compiled: on a
    CPU its products were measured to be slower.
    """

    def __init__(self, student: CompiledStudent, w: Tensor, x: Tensor, y: Tensor):
        self._student, self._point = student, (w.detach(), x.detach(), y.detach())
        self.gradient = student.compute(FlatStudent.gradient, self._point)

    def hessian_product(self, a: Tensor) -> Tensor:
        return self._student.compute(FlatStudent.hessian_product, (*self._point, a))

    def mixed_products(self, a: Tensor) -> tuple[Tensor, ...]:
        return self._student.compute(FlatStudent.mixed_products, (*self._point, a))


class _Kind(NamedTuple):
    """What a kernel depends on of a tensor."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


def _kind(a: Tensor) -> _Kind:
    return _Kind(a.shape, a.dtype, a.device)


def _plain(a: Tensor) -> Tensor:
    """The same values, without a graph and in the one standard layout."""
    return a.detach().reshape(-1).view(a.shape)


def _build(function: Callable, student: FlatStudent, layout: tuple, tensors: list) -> Callable:
    """Compile function(student, …) for arguments of this layout; eager if that fails, or if on other values
    the function is another one.

    The first of the tensors are the student's constants.
    """

    from torch.fx.experimental.proxy_tensor import make_fx  # slow to import

    def eager(*tensors):
        rest = iter(tensors)
        student.constants = {name: next(rest) for name in student.constants}
        return function(student, *(next(rest) if isinstance(a, _Kind) else a for a in layout))

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of the compiler itself are not the reader's
            traced = make_fx(eager, {torch.ops.aten.convolution_backward.default: weight_gradient})
            graph = traced(*tensors)
            key, constants = _identity(graph, tensors), len(student.constants)
            others = [*tensors[:constants], *map(_another, tensors[constants:])]
            if _identity(traced(*others), others) != key:
                raise ValueError("it reads numbers from its batch, which a compiled function would freeze")
            if key in _kernels:
                return _kernels[key]
            kernel = _recorded(graph, tensors) if tensors[0].is_cuda else _compiled(graph, tensors)
    except Exception as error:
        _warn_once(function.__name__, str(error).strip() or type(error).__name__)
        return eager
    _kernels[key] = kernel
    if len(_kernels) > MOST:
        del _kernels[next(iter(_kernels))]
    return _kernels[key]


def _another(a: Tensor) -> Tensor:
    """Other values of the same kind, with other signs and another order; whole numbers as they are."""
    if not a.is_floating_point():
        return a
    return -a.flatten().roll(1).view(a.shape) if a.numel() > 1 else a / 2


def _identity(graph: torch.fx.GraphModule, tensors: list[Tensor]) -> str:
    """Equal for graphs that compute the same: code and constants of all their parts, kinds of the inputs."""
    state: list = [[str(kind) for kind in _kind(t)] for t in tensors]
    constants: dict[str, Tensor] = {}
    for name, part in graph.named_modules():
        state.append([name, type(part).__name__, getattr(part, "code", "")])
        held = {**vars(part), **part._buffers, **part._parameters}
        constants |= {f"{name}.{key}": value for key, value in held.items() if isinstance(value, Tensor)}
    return digest_of(constants, [*state, settings()])


def _compiled(graph: torch.fx.GraphModule, tensors: list[Tensor]) -> Callable:
    kernel = torch.compile(graph, fullgraph=True, dynamic=False)
    kernel(*tensors)
    return kernel


@functools.cache
def _pool():
    """One memory for all CUDA graphs: they run one after the other, and their results are copied at once."""
    return torch.cuda.graph_pool_handle()


def _recorded(graph: Callable, tensors: list[Tensor]) -> Callable:
    """On a GPU: one CUDA graph, recorded here, that every call replays on copies of its arguments."""
    inputs = [t.clone() for t in tensors]
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # libraries choose and load their kernels before anything is recorded
        for _ in range(2):
            graph(*inputs)
    torch.cuda.current_stream().wait_stream(aside)
    recording = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recording, pool=_pool()):
        results = graph(*inputs)

    def call(*tensors):
        torch._foreach_copy_(inputs, list(tensors))
        recording.replay()  # it overwrites its results every time, so hand out copies
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
    """Whether compiling pays back over so many inner steps on such batches; counted, not timed."""
    x, y = batch
    if x.is_cuda:  # where what it saves is the launching of kernels, whatever their size
        return inner_steps > WORTHWHILE_ON_A_GPU
    with torch.no_grad():
        each = operations(lambda: student.loss(student.initial(), x.detach(), y))
    return each * inner_steps > WORTHWHILE
