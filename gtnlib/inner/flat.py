"""A student as a pure function of one flat vector."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value

from gtnlib.data.sets import Dataset
from gtnlib.inner.rehearsal import check_initialised, rehearse
from gtnlib.students.build import make_student
from gtnlib.students.features import features_of
from gtnlib.support.errors import check_kind
from gtnlib.support.precision import math_attention

NO_INDEX = -(10**9)  # what cross-entropy is to leave out: nothing


class FlatStudent:
    """A classifier as a pure function of one flat parameter vector w of length P.

    The inner step, the Hessian and every adjoint are then about plain vectors, as in the maths.

    Parameters
    ----------
    module: the classifier. It must change no buffer and draw no random numbers, which is seen when it
        runs first. Its frozen parameters (requires_grad=False) and its buffers are constants.
    dtype: type in which it multiplies and convolves (`torch.autocast`), such as torch.bfloat16;
        default that of w. Parameters, loss and all derivatives stay in the type of w.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype | None = None):
        check_kind("module", module, nn.Module)
        if dtype is not None and not isinstance(dtype, torch.dtype):
            raise TypeError(f"dtype must be a torch.dtype or None, got {dtype!r}.")
        check_initialised(module)
        self.module, self.dtype = module, dtype
        parameters = dict(module.named_parameters())
        learned = {name: p for name, p in parameters.items() if p.requires_grad}
        if not learned:
            raise ValueError("the student has no parameters to train.")
        self.shapes = {name: p.shape for name, p in learned.items()}
        self.sizes = [p.numel() for p in learned.values()]
        held = {**parameters, **dict(module.named_buffers())}
        self.constants = {name: t.detach() for name, t in held.items() if name not in learned}
        self.rehearsed = self.attends = False

    def rehearse(self, x: Tensor, classes: int | None = None) -> None:
        """Run the module on two of the images x, once, to see that it is what a student must be.

        Raises ValueError or TypeError if it is not: see `gtnlib.inner.rehearsal`.
        """
        self.attends = rehearse(self.module, x, classes)
        self.rehearsed = True

    @property
    def size(self) -> int:
        """P, the number of parameters that are trained."""
        return sum(self.sizes)

    def initial(self) -> Tensor:
        """The module's own parameters as one vector (P,)."""
        return torch.cat([p.detach().flatten() for p in self.module.parameters() if p.requires_grad])

    def compute(self, function: Callable, state: tuple, shared: tuple = ()):
        """function(self, *state, *shared), for a pure function of tensors.

        All heavy work goes through here, so that a subclass can do it another way: compile it once
        (`CompiledStudent`), or for several students at once (`StackedStudent`, where every tensor
        of `state` has one row per student and `shared` is the same for all).
        """
        self._first_run(*state, *shared)
        return function(self, *state, *shared)

    def _first_run(self, *arguments) -> None:
        """Rehearse on the images among the arguments, unless that is done or under way."""
        if self.rehearsed or torch._C._functorch.peek_interpreter_stack() is not None:
            return
        for x in arguments:
            if isinstance(x, Tensor) and x.ndim == 4:
                return self.rehearse(x)

    def total(self, value: Tensor) -> Tensor:
        """The sum of a result of `compute` over all students: for one, the result itself."""
        return value

    def unflatten(self, w: Tensor) -> dict[str, Tensor]:
        """Views of w (P,) in the shapes of the module's parameters, by name."""
        parts = w.split(self.sizes)
        return {name: part.view(s) for (name, s), part in zip(self.shapes.items(), parts)}

    def logits(self, w: Tensor, x: Tensor) -> Tensor:
        """Class scores (N, classes) of images x (N, C, H, W)."""
        self._first_run(x)
        values = {**self.unflatten(w), **self.constants}
        with contextlib.ExitStack() as settings:
            if self.attends:
                settings.enter_context(math_attention())
            if self.dtype is None:
                return functional_call(self.module, values, (x,))
            settings.enter_context(torch.autocast(x.device.type, self.dtype, cache_enabled=False))
            return functional_call(self.module, values, (x,)).to(w.dtype)

    def features(self, w: Tensor, x: Tensor) -> Tensor:
        """What the module's last `nn.Linear` sees of images x, (N, D). ValueError if it has none."""
        self._first_run(x)  # now, since a rehearsal has features of its own
        return features_of(self.module, lambda: self.logits(w, x), "the student").to(w.dtype)

    def loss(self, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy; y holds class indices (N,) or probabilities (N, classes).

        IndexError for an index that is no class; so for −100, which `F.cross_entropy` would leave out.
        """
        return F.cross_entropy(self.logits(w, x), y, ignore_index=NO_INDEX)

    def gradient(self, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """∂ℓ/∂w, of shape (P,)."""
        return self.gradient_and_loss(w, x, y)[0]

    def gradient_and_loss(self, w: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """∂ℓ/∂w (P,) and ℓ (0-d)."""
        if _differentiated(w, x, y):
            return grad_and_value(self.loss)(w, x, y)
        with torch.enable_grad():
            w = w.detach().requires_grad_()
            loss = self.loss(w, x, y)
            return torch.autograd.grad(loss, w)[0], loss.detach()

    def second_order(self, w: Tensor, x: Tensor, y: Tensor, a: Tensor) -> tuple[Tensor, ...]:
        """The second derivatives of ℓ(w; x, y), each multiplied by the vector a (P,).

        Returns H a = (∂²ℓ/∂w²) a of shape (P,); (∂²ℓ/∂x∂w) a, of the shape of x; and, if y holds
        probabilities, (∂²ℓ/∂y∂w) a, of the shape of y. All are the gradient of the one scalar
        ⟨∂ℓ/∂w, a⟩ (Pearlmutter 1994), so they cost a few ordinary gradients, whatever the size of H.
        """
        return self._slopes((0, *_places(y)), w, x, y, a)

    def hessian_product(self, w: Tensor, x: Tensor, y: Tensor, a: Tensor) -> Tensor:
        """H a alone, of shape (P,)."""
        return self._slopes((0,), w, x, y, a)[0]

    def mixed_products(self, w: Tensor, x: Tensor, y: Tensor, a: Tensor) -> tuple[Tensor, ...]:
        """(∂²ℓ/∂x∂w) a, of the shape of x, and for probabilities (∂²ℓ/∂y∂w) a, of that of y."""
        return self._slopes(_places(y), w, x, y, a)

    def _slopes(self, places: tuple[int, ...], w: Tensor, x: Tensor, y: Tensor, a: Tensor):
        """The gradients of ⟨∂ℓ/∂w, a⟩ by those of (w, x, y) at these places."""
        if _differentiated(w, x, y):
            return grad(lambda w, x, y: self.gradient(w, x, y) @ a, argnums=places)(w, x, y)
        with torch.enable_grad():
            leaves = [t.detach().requires_grad_(k in (0, 1, *places)) for k, t in enumerate((w, x, y))]
            (gradient,) = torch.autograd.grad(self.loss(*leaves), leaves[0], create_graph=True)
            wanted = [leaves[k] for k in places]
            return torch.autograd.grad(gradient, wanted, a, materialize_grads=True)

    def curvature(self, w: Tensor, x: Tensor, y: Tensor) -> Curvature:
        """The second derivatives of ℓ at one point, for many products."""
        return Curvature(self, w, x, y)

    def through_features(self, w: Tensor, x: Tensor, f: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Of the number f(features of x): itself (0-d), and its gradient at the images x."""
        if _differentiated(w, x):
            adjoint, value = grad_and_value(lambda x: f(self.features(w, x)))(x)
            return value, adjoint
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = f(self.features(w, x))
            return value.detach(), torch.autograd.grad(value, x)[0]

    def through_gradient(
        self, w: Tensor, x: Tensor, y: Tensor, f: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, ...]:
        """Of the number f(∂ℓ/∂w): itself (0-d), its gradient at the images x and, if y holds
        probabilities, at y.
        """
        if _differentiated(w, x, y):
            places = (0, 1) if y.is_floating_point() else (0,)
            adjoints, value = grad_and_value(lambda x, y: f(self.gradient(w, x, y)), argnums=places)(x, y)
            return value, *adjoints
        with torch.enable_grad():
            w, x, y = w.detach().requires_grad_(), x.detach().requires_grad_(), leaf(y)
            (gradient,) = torch.autograd.grad(self.loss(w, x, y), w, create_graph=True)
            value = f(gradient)
            return value.detach(), *torch.autograd.grad(value, learnable(x, y), materialize_grads=True)


def leaf(y: Tensor) -> Tensor:
    """Labels to differentiate by, if they are probabilities; classes as they are."""
    return y.detach().requires_grad_() if y.is_floating_point() else y


def _places(y: Tensor) -> tuple[int, ...]:
    """Where among (w, x, y) stands what a teacher can learn of a batch."""
    return (1, 2) if y.is_floating_point() else (1,)


def learnable(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """What of a batch a teacher can learn: the images, and labels that are probabilities."""
    return (x, y) if y.is_floating_point() else (x,)


class Curvature:
    """The second derivatives of ℓ(w; x, y) at one point, as products with vectors (P,).

    The graph of the gradient is built once and kept, so that every product costs one backward pass
    through it. In memory it takes that of a gradient whose activations are all kept.

    Attributes
    ----------
    gradient: ∂ℓ/∂w (P,), without a graph.
    """

    def __init__(self, student: FlatStudent, w: Tensor, x: Tensor, y: Tensor):
        with torch.enable_grad():
            self._w, x, y = w.detach().requires_grad_(), x.detach().requires_grad_(), leaf(y)
            self._batch, loss = learnable(x, y), student.loss(self._w, x, y)
            (self._graph,) = torch.autograd.grad(loss, self._w, create_graph=True)
        self.gradient = self._graph.detach()

    def hessian_product(self, a: Tensor) -> Tensor:
        """(∂²ℓ/∂w²) a, of shape (P,)."""
        return self._products((self._w,), a)[0]

    def mixed_products(self, a: Tensor) -> tuple[Tensor, ...]:
        """(∂²ℓ/∂x∂w) a, of the shape of x, and for probabilities (∂²ℓ/∂y∂w) a, of that of y."""
        return self._products(self._batch, a)

    def _products(self, variables: tuple[Tensor, ...], a: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self._graph, variables, a, retain_graph=True, materialize_grads=True)


def _differentiated(*tensors: Tensor) -> bool:
    """Whether autograd records, or a `torch.func` transform is under way.

    Only then must a derivative be a pure function to be differentiated, or mapped, again; else
    torch.autograd gives the same twice as fast, with fused kernels for normalisation layers.
    """
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    return torch.is_grad_enabled() or any(map(wrapped, tensors))


def flat_student(student, data: Dataset, seed: int = 0, dtype: torch.dtype = torch.float32) -> FlatStudent:
    """A fresh student for a data set, on its device and with parameters of this type, as a pure function."""
    return FlatStudent(make_student(student, data.shape, data.num_classes, seed).to(data.device, dtype))
