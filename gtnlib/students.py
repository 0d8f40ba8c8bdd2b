"""Students: image classifiers, and how each becomes a pure function of one flat vector.

Every class takes `shape` (C, H, W) and `num_classes` as keywords, holds no running statistics,
and uses only operations with second derivatives, so that it works under
`torch.func.functional_call`, `grad` of `grad`, and `vmap`.
"""

from __future__ import annotations

import hashlib
import inspect
import types
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value

from gtnlib.errors import check_choice, check_count, check_kind, check_shape, check_widths

NORMS = ("none", "instance", "batch", "group")
ACTIVATIONS = {
    "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "gelu": nn.GELU,
    "softplus": nn.Softplus, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid,
}  # fmt: skip
POOLINGS = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}


def make_norm(name: str, channels: int) -> nn.Module:
    """A normalisation of (N, channels, H, W) by statistics of the batch at hand, never running ones.

    "instance" and "group" (up to 8 groups) normalise every image on its own, "batch" the batch.
    """
    check_choice("norm", name, NORMS)
    if name == "none":
        return nn.Identity()
    if name == "instance":
        return nn.GroupNorm(channels, channels)
    if name == "group":
        return nn.GroupNorm(max(g for g in range(1, 9) if channels % g == 0), channels)
    return nn.BatchNorm2d(channels, track_running_stats=False)


def make_activation(name: str) -> nn.Module:
    return ACTIVATIONS[check_choice("activation", name, ACTIVATIONS)]()


def check_shapes(shape: Sequence[int], num_classes: int) -> tuple[int, int, int]:
    check_count("num_classes", num_classes, 2)
    return check_shape(shape)


class MLP(nn.Sequential):
    """Fully connected layers of the given widths."""

    def __init__(self, shape=(1, 28, 28), num_classes=10, widths=(128,), activation="relu"):
        channels, height, width = check_shapes(shape, num_classes)
        layers: list[nn.Module] = [nn.Flatten()]
        size = channels * height * width
        for n in check_widths(widths, 0):
            layers += [nn.Linear(size, n), make_activation(activation)]
            size = n
        super().__init__(*layers, nn.Linear(size, num_classes))


class LeNet(nn.Sequential):
    """Two 5×5 convolutions (6 and 16 channels), then 120 and 84 units (LeCun et al. 1998)."""

    def __init__(self, shape=(1, 28, 28), num_classes=10, activation="relu", pooling="avg"):
        channels, height, width = check_shapes(shape, num_classes)
        rows, columns = (height // 2 - 4) // 2, (width // 2 - 4) // 2
        if min(rows, columns) < 1:
            raise ValueError(f"LeNet needs images of at least 12 × 12, got {height} × {width}.")
        pool = POOLINGS[check_choice("pooling", pooling, POOLINGS)]
        act = lambda: make_activation(activation)  # noqa: E731
        super().__init__(
            nn.Conv2d(channels, 6, 5, padding=2), act(), pool(2),
            nn.Conv2d(6, 16, 5), act(), pool(2), nn.Flatten(),
            nn.Linear(16 * rows * columns, 120), act(), nn.Linear(120, 84), act(),
            nn.Linear(84, num_classes),
        )  # fmt: skip


class ConvNet(nn.Sequential):
    """Blocks of 3×3 convolution, normalisation, activation, pooling; then one linear layer.

    The default, 16 and 32 channels, is small enough for a CPU. The student of most tables in the
    literature (Zhao et al. 2021) is `ConvNet(width=128, depth=3)`.

    Parameters
    ----------
    width: channels of every block, as one number or a sequence.
    depth: number of blocks, if `width` is one number (default 2).
    norm: "none", "instance", "batch" or "group".
    pooling: "avg" or "max", 2×2 after every block.
    activation: a name of `ACTIVATIONS`.
    """

    def __init__(self, shape=(1, 28, 28), num_classes=10, width=(16, 32), depth=None,
                 norm="instance", pooling="avg", activation="relu"):  # fmt: skip
        channels, height, columns = check_shapes(shape, num_classes)
        if not isinstance(width, Sequence):
            width = [width] * check_count("depth", 2 if depth is None else depth)
        elif depth not in (None, len(width)):
            raise ValueError(f"depth is {depth}, but width lists {len(width)} blocks.")
        pool = POOLINGS[check_choice("pooling", pooling, POOLINGS)]
        blocks: list[nn.Module] = []
        for n in width:
            check_count("width", n)
            if min(height, columns) < 2:
                raise ValueError(f"{len(width)} blocks pool a {shape[1]} × {shape[2]} image away.")
            blocks += [nn.Conv2d(channels, n, 3, padding=1), make_norm(norm, n),
                       make_activation(activation), pool(2)]  # fmt: skip
            channels, height, columns = n, height // 2, columns // 2
        head = nn.Linear(channels * height * columns, num_classes)
        super().__init__(*blocks, nn.Flatten(), head)


class _Residual(nn.Module):
    """Two 3×3 convolutions around a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str, activation: str):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), make_norm(norm, outputs),
            make_activation(activation),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), make_norm(norm, outputs),
        )  # fmt: skip
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.activation = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.shortcut(x))


class ResNet(nn.Sequential):
    """A small residual network: one block per width, halving the image from the second on."""

    def __init__(self, shape=(1, 28, 28), num_classes=10, widths=(16, 32, 64), norm="group",
                 activation="relu"):  # fmt: skip
        channels, _, _ = check_shapes(shape, num_classes)
        first = check_widths(widths)[0]
        layers: list[nn.Module] = [nn.Conv2d(channels, first, 3, padding=1, bias=False),
                                   make_norm(norm, first), make_activation(activation)]  # fmt: skip
        for i, n in enumerate(widths):
            layers.append(_Residual(first, check_count("widths", n), 1 + (i > 0), norm, activation))
            first = n
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(first, num_classes))


class VGG(nn.Sequential):
    """A small VGG (Simonyan & Zisserman 2015): two convolutions, then pooling, per width."""

    def __init__(self, shape=(1, 28, 28), num_classes=10, widths=(16, 32, 64), norm="group",
                 pooling="max", activation="relu"):  # fmt: skip
        channels, height, columns = check_shapes(shape, num_classes)
        if min(height, columns) < 2 ** len(check_widths(widths)):
            raise ValueError(f"{len(widths)} blocks pool a {height} × {columns} image away.")
        pool = POOLINGS[check_choice("pooling", pooling, POOLINGS)]
        layers: list[nn.Module] = []
        for n in widths:
            for _ in range(2):
                layers += [nn.Conv2d(channels, check_count("widths", n), 3, padding=1),
                           make_norm(norm, n), make_activation(activation)]  # fmt: skip
                channels = n
            layers.append(pool(2))
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


class AlexNet(nn.Sequential):
    """A small AlexNet (Krizhevsky et al. 2012) for small images, as in Zhao et al. (2021).

    Five convolutions, two of 5×5 and three of 3×3, with 2×2 pooling after the first, second and
    fifth; then one linear layer. `norm` stands in for local response normalisation, which the
    original has; its dropout is left out.
    """

    def __init__(self, shape=(1, 28, 28), num_classes=10, widths=(16, 24, 32, 24, 24), norm="group",
                 pooling="max", activation="relu"):  # fmt: skip
        channels, height, columns = check_shapes(shape, num_classes)
        if len(widths) != 5:
            raise ValueError(f"AlexNet has five convolutions, but widths lists {len(widths)}.")
        if min(height, columns) < 8:
            raise ValueError(f"AlexNet needs images of at least 8 × 8, got {height} × {columns}.")
        pool = POOLINGS[check_choice("pooling", pooling, POOLINGS)]
        layers: list[nn.Module] = []
        for n, size, pooled in zip(widths, (5, 5, 3, 3, 3), (True, True, False, False, True)):
            layers += [nn.Conv2d(channels, check_count("widths", n), size, padding=size // 2),
                       make_norm(norm, n), make_activation(activation)]  # fmt: skip
            layers += [pool(2)] if pooled else []
            channels = n
        head = nn.Linear(channels * (height // 8) * (columns // 8), num_classes)
        super().__init__(*layers, nn.Flatten(), head)


class FlatStudent:
    """A classifier as a pure function of one flat parameter vector w of length P.

    The inner step, the Hessian and every adjoint are then about plain vectors, as in the maths.

    Parameters
    ----------
    module: the classifier. It must hold no buffers and draw no random numbers.
    dtype: type in which it multiplies and convolves (`torch.autocast`), such as torch.bfloat16;
        default that of w. Parameters, loss and all derivatives stay in the type of w.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype | None = None):
        check_kind("module", module, nn.Module)
        if dtype is not None and not isinstance(dtype, torch.dtype):
            raise TypeError(f"dtype must be a torch.dtype or None, got {dtype!r}.")
        stateful = [name for name, _ in module.named_buffers()]
        if stateful:
            raise ValueError(
                f"the student keeps state in its buffer {stateful[0]!r}, so training it is not a "
                "pure function. Build normalisation layers with track_running_stats=False."
            )
        if any(isinstance(layer, nn.modules.dropout._DropoutNd) for layer in module.modules()):
            raise ValueError(
                "the student draws random numbers in a Dropout layer, so training it is not a pure "
                "function. Build it without."
            )
        if not any(True for _ in module.parameters()):
            raise ValueError("the student has no parameters to train.")
        self.module, self.dtype = module, dtype
        self.shapes = {name: p.shape for name, p in module.named_parameters()}
        self.sizes = [p.numel() for p in module.parameters()]

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        return sum(self.sizes)

    def initial(self) -> Tensor:
        """The module's own parameters as one vector (P,)."""
        return torch.cat([p.detach().flatten() for p in self.module.parameters()])

    def compute(self, function: Callable, state: tuple, shared: tuple = ()):
        """function(self, *state, *shared), for a pure function of tensors.

        All heavy work goes through here, so that a subclass can do it another way: compile it once
        (`CompiledStudent`), or for several students at once (`StackedStudent`, where every tensor
        of `state` has one row per student and `shared` is the same for all).
        """
        return function(self, *state, *shared)

    def total(self, value: Tensor) -> Tensor:
        """The sum of a result of `compute` over all students: for one, the result itself."""
        return value

    def unflatten(self, w: Tensor) -> dict[str, Tensor]:
        """Views of w (P,) in the shapes of the module's parameters, by name."""
        parts = w.split(self.sizes)
        return {name: part.view(s) for (name, s), part in zip(self.shapes.items(), parts)}

    def logits(self, w: Tensor, x: Tensor) -> Tensor:
        """Class scores (N, classes) of images x (N, C, H, W)."""
        if self.dtype is None:
            return functional_call(self.module, self.unflatten(w), (x,))
        with torch.autocast(x.device.type, self.dtype, cache_enabled=False):
            return functional_call(self.module, self.unflatten(w), (x,)).to(w.dtype)

    def loss(self, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy; y holds class indices (N,) or probabilities (N, classes)."""
        return F.cross_entropy(self.logits(w, x), y)

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

    def second_order(self, w: Tensor, x: Tensor, y: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """The two second derivatives of ℓ(w; x), each multiplied by the vector a (P,).

        Returns H a = (∂²ℓ/∂w²) a of shape (P,), and (∂²ℓ/∂x∂w) a, of the shape of x. Both are the
        gradient of the one scalar ⟨∂ℓ/∂w, a⟩, a (Pearlmutter 1994), so they cost a few ordinary
        gradients, whatever the size of H.
        """
        if _differentiated(w, x, y):
            return grad(lambda w, x: self.gradient(w, x, y) @ a, argnums=(0, 1))(w, x)
        with torch.enable_grad():
            w, x = w.detach().requires_grad_(), x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.loss(w, x, y), w, create_graph=True)
            hessian_a, mixed_a = torch.autograd.grad(gradient, (w, x), a, materialize_grads=True)
            return hessian_a, mixed_a

    def hessian_product(self, w: Tensor, x: Tensor, y: Tensor, a: Tensor) -> Tensor:
        """H a alone, of shape (P,)."""
        if _differentiated(w, x, y):
            return grad(lambda w: self.gradient(w, x, y) @ a)(w)
        with torch.enable_grad():
            w = w.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.loss(w, x, y), w, create_graph=True)
            return torch.autograd.grad(gradient, w, a, materialize_grads=True)[0]

    def through_gradient(
        self, w: Tensor, x: Tensor, y: Tensor, f: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Of the number f(∂ℓ/∂w): its gradient at the images x, and itself (0-d)."""
        if _differentiated(w, x, y):
            return grad_and_value(lambda x: f(self.gradient(w, x, y)))(x)
        with torch.enable_grad():
            w, x = w.detach().requires_grad_(), x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.loss(w, x, y), w, create_graph=True)
            value = f(gradient)
            return torch.autograd.grad(value, x)[0], value.detach()


def _differentiated(*tensors: Tensor) -> bool:
    """Whether autograd records, or a `torch.func` transform is under way.

    Only then must a derivative be a pure function to be differentiated, or mapped, again; else
    torch.autograd gives the same twice as fast, with fused kernels for normalisation layers.
    """
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    return torch.is_grad_enabled() or any(map(wrapped, tensors))


def structure(module: nn.Module) -> tuple | None:
    """All that a network is but the values of its parameters, as a key that can be compared.

    Two networks with the same key are the same pure function of a parameter vector. None if the
    network holds something whose value cannot be compared.
    """
    common = vars(nn.Module()).keys()
    try:
        parts = [
            (name, type(part), part.training, *((key, _comparable(value))
             for key, value in vars(part).items() if key not in common))
            for name, part in module.named_modules()
        ]  # fmt: skip
    except TypeError:
        return None
    return *parts, *((name, p.shape, p.dtype) for name, p in module.named_parameters())


def _comparable(value):
    """A hashable stand-in that is equal exactly for equal values, or TypeError."""
    plain = (bool, int, float, str, type, type(None), torch.dtype, types.BuiltinFunctionType)
    if isinstance(value, plain):
        return type(value), value
    if isinstance(value, (list, tuple)):
        return type(value), *map(_comparable, value)
    if isinstance(value, types.FunctionType) and not value.__closure__:
        return value.__code__, _comparable(value.__defaults__)
    raise TypeError(f"cannot compare {value!r}.")


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any mix of names and numbers, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Call `build` on the CPU with its own random state; the caller's is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


def check_student(student) -> None:
    """Raise unless `student` is a class or function, or a list of them."""
    if isinstance(student, Sequence) and not isinstance(student, str):
        if not student:
            raise ValueError("student is an empty list.")
        for one in student:
            check_student(one)
    elif isinstance(student, nn.Module):
        raise TypeError(
            "student must build a fresh network at every call: pass a class or a function, such as "
            "ConvNet or lambda: ConvNet(width=64), not one network."
        )
    elif not callable(student):
        raise TypeError(f"student must be a class or function that builds a network, got {student!r}.")


def make_student(
    student: Callable[..., nn.Module] | Sequence[Callable[..., nn.Module]],
    shape: Sequence[int],
    num_classes: int,
    seed: int,
) -> nn.Module:
    """Build a freshly initialised student.

    Parameters
    ----------
    student: a class or function that returns a classifier, or a list of them to draw from. The
        keywords `shape` and `num_classes` are passed to those that take them.
    seed: decides the draw and the initialisation.
    """
    check_student(student)
    check_count("num_classes", num_classes, 2)
    if isinstance(student, Sequence):
        student = student[derive_seed("architecture", seed) % len(student)]
    known = inspect.signature(student).parameters
    wanted = {"shape": tuple(shape), "num_classes": num_classes}
    keywords = {name: value for name, value in wanted.items() if name in known}
    module = seeded(lambda: student(**keywords), derive_seed("initialisation", seed))
    if not isinstance(module, nn.Module):
        raise TypeError(f"student must build a torch.nn.Module, got {type(module).__name__}.")
    return module
