"""A rehearsal: a network runs on two images before anything is trained, and shows what it is.

Training must be a pure function of parameters and batches. That is seen by running, not by the names of
layers: the random state and the buffers stay as they were, the images too, and two calls agree.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from gtnlib.support.seeds import lock

# What PyTorch's attention is called by, its layers included.
ATTENTION = ("scaled_dot_product_attention", "multi_head_attention_forward")


class _Attention(TorchFunctionMode):
    """Notes whether attention may run in a fused kernel, which has no second derivative."""

    seen = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen |= getattr(func, "__name__", "") in ATTENTION
        return func(*args, **(kwargs or {}))


def check_pure(who: str, module: nn.Module, call: Callable[[], Tensor]) -> tuple[Tensor, bool]:
    """What call() returns, and whether it attends by a fused kernel; the module stays as it was.

    Raises ValueError if the call draws random numbers, changes a buffer or parameter of the module, or
    fails.
    """
    kept = {name: t.detach().clone() for name, t in [*module.named_buffers(), *module.named_parameters()]}
    on_gpu = any(t.is_cuda for t in kept.values())
    with lock, torch.random.fork_rng(), torch.no_grad(), _Attention() as attention:
        state = _random_state(on_gpu)
        try:
            one = call()
            drawn = not all(map(torch.equal, state, _random_state(on_gpu)))
            two = call()
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(f"the {who} cannot be run: {reason[0]}") from error
        now = dict([*module.named_buffers(), *module.named_parameters()])
        changed = [name for name, old in kept.items() if not _same(old, now[name])]
        for name in changed:
            now[name].copy_(kept[name])
    if changed:
        raise ValueError(
            f"the {who} keeps state in its buffer {changed[0]!r}, so training it is not a pure function. "
            "Build normalisation layers with track_running_stats=False."
        )
    agree = isinstance(one, Tensor) and isinstance(two, Tensor) and _close(one, two)
    if drawn or (isinstance(one, Tensor) and not agree):
        raise ValueError(
            f"the {who} draws random numbers, as a Dropout layer does, so training it is not a pure "
            "function. Build it without."
        )
    return one, attention.seen


def _random_state(on_gpu: bool) -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if on_gpu else ())]


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)


def check_initialised(module: nn.Module) -> None:
    """Raise ValueError if the module has lazy parameters or buffers that no call has made yet."""
    if any(is_lazy(t) for t in [*module.parameters(), *module.buffers()]):
        raise ValueError(
            "the student has lazy parameters, which no seed has initialised. Call it once on an image in the "
            "function that builds it, or give its layers their sizes."
        )


def rehearse(module: nn.Module, x: Tensor, classes: int | None = None) -> bool:
    """Run a student on two of the images x (N, C, H, W); whether it attends by a fused kernel.

    Raises ValueError or TypeError, in one line, unless it is a pure function to class scores
    (N, classes).
    """
    x = x[:2].detach()
    given: list[Tensor] = []

    def call():
        given.append(x.clone())
        return module(given[-1])

    scores, attends = check_pure("student", module, call)
    if not isinstance(scores, Tensor):
        raise TypeError(
            f"the student returns a {type(scores).__name__}, but must return one tensor of class scores "
            "(N, classes). Wrap it in a module that does."
        )
    if not _same(x, given[0]):
        raise ValueError("the student changes its images in place. Let its first layer make new ones.")
    if scores.ndim != 2 or len(scores) != len(x) or classes not in (None, scores.shape[1]):
        wanted = f"({len(x)}, {'classes' if classes is None else classes})"
        raise ValueError(
            f"the student makes scores of shape {tuple(scores.shape)} of {len(x)} images, but must make "
            f"{wanted}."
        )
    return attends


def check_second_order(student, x: Tensor, y: Tensor) -> None:
    """Raise ValueError unless the student has second derivatives, and they are those that differences show.

    Compared in float64, for every parameter and the images, at steps small enough to pass between the
    kinks of a ReLU: one step that agrees is enough.
    """
    twin = copy.copy(student)
    twin.dtype, twin.constants = None, {name: _double(t) for name, t in student.constants.items()}
    w, x, y = student.initial().double(), x[:2].detach().double(), y[:2]
    try:
        twin.loss(w, x, y)
    except RuntimeError:  # it computes in a type of its own
        twin.constants, w, x = student.constants, student.initial(), x.to(student.initial().dtype)
    with torch.no_grad():
        c = torch.randn(w.shape, generator=torch.Generator().manual_seed(0), dtype=w.dtype).to(w.device)
        c = c / c.norm()
        try:
            hessian, mixed = twin.second_order(w, x, y, c)[:2]
        except RuntimeError as error:
            raise ValueError(
                "the student has no second derivative, which every meta-gradient needs: "
                f"{str(error).strip().splitlines()[0]}"
            ) from error
        found = [*twin.unflatten(hessian).values(), mixed]
        if w.dtype != torch.float64 or not all(part.isfinite().all() for part in found):
            return
        for step in (1e-5, 1e-6, 1e-7):
            ahead, behind = (_first_order(twin, w + s * c, x, y) for s in (step, -step))
            shown = [(a - b) / (2 * step) for a, b in zip(ahead, behind)]
            floor = 1e-4 * torch.stack([part.norm() for part in shown]).max() + 1e-7
            if all((a - b).norm() <= 1e-3 * b.norm() + floor for a, b in zip(found, shown)):
                return
    raise ValueError(
        "the student's second derivative is not that of its first. torch's weight_norm is known for it: "
        "write the weight out, as in a parametrisation that returns g * v / v.norm(), or build the network "
        "without."
    )


def _first_order(student, w: Tensor, x: Tensor, y: Tensor) -> list[Tensor]:
    """The gradient of the loss in every parameter, and in the images."""
    with torch.enable_grad():
        w, x = w.detach().requires_grad_(), x.detach().requires_grad_()
        in_w, in_x = torch.autograd.grad(student.loss(w, x, y), (w, x), materialize_grads=True)
    return [*student.unflatten(in_w).values(), in_x]


def _double(t: Tensor) -> Tensor:
    return t.double() if t.is_floating_point() else t


def check_differentiable(parameters: Mapping[str, Tensor], images: Tensor) -> None:
    """Raise ValueError unless images depend on the parameters that make them, if any are to be learned."""
    if any(p.is_inference() for p in parameters.values()):
        raise ValueError(
            "nothing can be learned: the teacher was made within torch.inference_mode. Make it outside."
        )
    if any(p.requires_grad for p in parameters.values()) and not images.requires_grad:
        raise ValueError(
            "nothing can be learned: the teacher's images do not depend on its parameters "
            f"({', '.join(list(parameters)[:3])}, …). Does its generator detach them?"
        )
