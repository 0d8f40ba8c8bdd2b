"""The implicit meta-gradient: exact where the inverse Hessian is known, honest where it is not."""

from functools import partial

import pytest
import torch
from torch import nn

from gtnlib import (
    MLP, DivergenceWarning, FlatStudent, GeneratorTeacher, Implicit, PixelTeacher, Split, StudentRun,
    Unrolled,
)  # fmt: skip
from gtnlib.metagrad.solvers import largest_eigenvalue
from gtnlib.support.seeds import seeded
from gtnlib.teachers.generator import Generator

SHAPE, CLASSES, REAL, DECAY = (1, 4, 4), 3, 9, 0.5


class Ridge(FlatStudent):
    """Linear regression of the label: ℓ(w; x, y) = ½ mean (x·w − y)², whose minimum is known."""

    def __init__(self):
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(16, 1, bias=False)).double())
        self.products = 0

    def loss(self, w, x, y):
        return 0.5 * (self.logits(w, x).squeeze(1) - y.to(x.dtype)).square().mean()

    def curvature(self, w, x, y):
        curvature = super().curvature(w, x, y)
        product = curvature.hessian_product

        def counted(a):
            self.products += 1
            return product(a)

        curvature.hessian_product = counted
        return curvature


class Problem:
    """Ridge regression on a teacher's images, with everything in closed form."""

    def __init__(self, decay=DECAY, damping=0.0, **keywords):
        self.teacher = PixelTeacher(4, steps=3, shape=SHAPE, num_classes=CLASSES,
                                    weight_decay=decay, **keywords).double()  # fmt: skip
        random = torch.Generator().manual_seed(5)
        images = torch.randn(30, *SHAPE, generator=random, dtype=torch.float64)
        self.split = Split(images, torch.arange(30) % CLASSES, CLASSES)
        self.student, self.decay, self.damping = Ridge(), decay, damping
        x, y = self.teacher.images.detach().flatten(1), self.teacher.labels.double()
        self.hessian = x.T @ x / len(x) + decay * torch.eye(16, dtype=torch.float64)
        self.w = torch.linalg.solve(self.hessian, x.T @ y / len(x))
        self.eigenvalues = torch.linalg.eigvalsh(self.hessian)
        self.real = self.split.sample(REAL, torch.Generator().manual_seed(0))

    def found(self, solver="neumann", **keywords):
        """Implicit's hypergradient, its student at the minimum, and the method itself."""
        self.teacher.zero_grad()
        run = StudentRun(self.student, self.w, torch.zeros_like(self.w))
        metagrad = Implicit(solver, real_batch_size=REAL, damping=self.damping, **keywords)
        metagrad(self.teacher, run, self.split, torch.Generator().manual_seed(0))
        return self.teacher.images.grad.clone(), metagrad

    def exact(self):
        """dL/dimages by autograd through the closed-form minimum."""
        images = self.teacher.images.detach().requires_grad_()
        x, y = images.flatten(1), self.teacher.labels.double()
        h = x.T @ x / len(x) + self.decay * torch.eye(16, dtype=torch.float64)
        loss = self.student.loss(torch.linalg.solve(h, x.T @ y / len(x)), *self.real)
        return torch.autograd.grad(loss, images)[0]

    def with_inverse(self, inverse):
        """−(∂L/∂w) · inverse · ∂²ℓ/∂w∂images."""
        q = inverse @ self.student.gradient(self.w, *self.real)
        images = self.teacher.images.detach().requires_grad_()
        slope = self.student.gradient(self.w, images, self.teacher.labels) @ q
        return -torch.autograd.grad(slope, images)[0]


def relative(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


def test_many_terms_give_the_closed_form_hypergradient():
    problem = Problem()
    assert relative(problem.found(neumann_terms=250)[0], problem.exact()) < 1e-8


@pytest.mark.parametrize("terms", [0, 1, 5, 20])
def test_few_terms_give_the_truncated_series(terms):
    problem = Problem()
    scale = 0.9 / float(problem.eigenvalues[-1])
    factor = torch.eye(16, dtype=torch.float64) - scale * problem.hessian
    series = scale * sum(torch.linalg.matrix_power(factor, k) for k in range(terms + 1))
    found, _ = problem.found(neumann_terms=terms, scale=scale)
    assert relative(found, problem.with_inverse(series)) < 1e-12


def test_error_falls_by_the_slowest_eigenvalue_per_term():
    problem, exact = Problem(), Problem().exact()
    scale = 1 / float(problem.eigenvalues[-1])
    errors = [relative(problem.found(neumann_terms=k, scale=scale)[0], exact) for k in range(0, 91, 10)]
    rates = [(b / a) ** 0.1 for a, b in zip(errors, errors[1:])]
    assert all(rate < 1 for rate in rates)
    assert rates[-1] == pytest.approx(1 - scale * float(problem.eigenvalues[0]), rel=2e-3)


def test_damping_inverts_the_damped_hessian():
    problem = Problem(damping=0.7)
    inverse = torch.linalg.inv(problem.hessian + 0.7 * torch.eye(16, dtype=torch.float64))
    found, _ = problem.found(neumann_terms=200)
    assert relative(found, problem.with_inverse(inverse)) < 1e-8
    assert relative(found, problem.exact()) > 0.1


def test_diagnostics_are_what_they_say():
    problem = Problem()
    scale = 1 / float(problem.eigenvalues[-1])
    _, metagrad = problem.found(neumann_terms=7, scale=scale, residual=True)
    v = problem.student.gradient(problem.w, *problem.real)
    factor = torch.eye(16, dtype=torch.float64) - scale * problem.hessian
    norms = [float((torch.linalg.matrix_power(factor, k) @ v).norm() / v.norm()) for k in range(9)]
    assert metagrad.diagnostics["terms"] == pytest.approx(norms[:8])
    assert metagrad.diagnostics["residual"] == pytest.approx(norms[8])
    assert metagrad.diagnostics["scale"] == pytest.approx(scale)
    assert metagrad.diagnostics["inner_gradient"] < 1e-12


def test_series_warns_above_two_over_the_largest_eigenvalue_only():
    problem = Problem()
    limit = 2 / float(problem.eigenvalues[-1])
    problem.found(neumann_terms=60, scale=0.95 * limit)
    with pytest.warns(DivergenceWarning, match="the Neumann series diverges.*scale='auto'"):
        problem.found(neumann_terms=60, scale=1.05 * limit)
    with pytest.warns(DivergenceWarning, match="is (nan|inf) times"):
        problem.found(neumann_terms=400, scale=50 * limit)


def test_power_iteration_finds_the_largest_eigenvalue_from_below():
    hessian = Problem().hessian
    wanted = float(torch.linalg.eigvalsh(hessian)[-1])
    estimates = [float(largest_eigenvalue(lambda p: hessian @ p, hessian[0], n)) for n in (1, 4, 8, 300)]
    assert estimates == sorted(estimates)
    assert wanted / 2 < estimates[2] <= estimates[-1] <= wanted * (1 + 1e-12)
    assert estimates[-1] == pytest.approx(wanted, rel=1e-6)


def test_power_iteration_counts_negative_eigenvalues():
    h = torch.diag(torch.tensor([1.0, -3.0, 2.0]))
    assert float(largest_eigenvalue(lambda p: h @ p, h[0], 100)) == pytest.approx(3)


def test_automatic_scale_needs_no_tuning():
    problem = Problem()
    _, metagrad = problem.found(neumann_terms=10, power_iterations=200)
    assert metagrad.diagnostics["scale"] == pytest.approx(1 / float(problem.eigenvalues[-1]), rel=1e-4)


def test_vanishing_hessian_is_an_error_unless_damped():
    problem = Problem(decay=0.1)
    problem.teacher.weight_decay = 0.0
    problem.teacher.images.data.zero_()
    problem.w = problem.w + 1
    with pytest.raises(ValueError, match="Hessian of the training loss vanishes.*damping"):
        problem.found()
    problem.damping = 0.1
    assert problem.found()[0].isfinite().all()


def test_a_student_that_is_not_finite_is_not_blamed_on_the_hessian(flat64):
    problem = Problem()
    problem.student = flat64(partial(MLP, SHAPE, CLASSES))
    problem.w = problem.student.initial() * torch.nan
    assert not problem.found()[0].isfinite().any()


# ---------------------------------------------------------------- batches


def many_batches():
    """Four distinct batches of three images each."""
    problem = Problem()
    problem.teacher = PixelTeacher(4, steps=8, batch_size=3, shape=SHAPE, num_classes=CLASSES,
                                   weight_decay=DECAY).double()  # fmt: skip
    return problem


def test_all_batches_together_are_the_training_loss():
    one, many = Problem(), many_batches()
    # Steps on single batches would leave the minimum of the whole, so take steps of no length.
    many.teacher.log_rate.data.fill_(-1000)
    assert torch.equal(one.teacher.images, many.teacher.images)
    one, many = (problem.found(neumann_terms=250)[0] for problem in (one, many))
    torch.testing.assert_close(one, many, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("batches", [1, 2, 4, 9, None])
def test_a_subset_of_batches_costs_and_teaches_only_itself(batches):
    problem = many_batches()
    used = min(batches or 4, 4)
    gradient, _ = problem.found(batches=batches, neumann_terms=10, power_iterations=5)
    assert int((gradient.flatten(1).norm(dim=1) > 0).sum()) == 3 * used
    assert problem.student.products == used * (5 + 10)  # power, terms


def test_subsets_are_drawn_anew_and_repeat_with_the_generator():
    metagrad, problem = Implicit(batches=2), many_batches()
    teacher, split = problem.teacher, problem.split
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    one, two = ([tuple(metagrad.draw(teacher, 0, split, g)[0]) for _ in range(20)] for g in generators)
    assert one == two and len(set(one)) > 3
    assert all(0 <= a < 4 and 0 <= b < 4 and a != b for a, b in one)


def test_the_largest_eigenvalue_is_estimated_as_often_as_asked():
    """By a run's own memory, which the next student inherits."""
    problem, products, scales = Problem(), [], []
    metagrad = Implicit(
        "neumann", neumann_terms=2, power_iterations=5, estimate_every=3, real_batch_size=REAL
    )
    run = StudentRun(problem.student, problem.w, torch.zeros_like(problem.w))
    for _ in range(7):
        before = problem.student.products
        metagrad(problem.teacher, run, problem.split, torch.Generator().manual_seed(0))
        products.append(problem.student.products - before)
        scales.append(metagrad.diagnostics["scale"])
        run = StudentRun(problem.student, problem.w + 0.1, torch.zeros_like(problem.w), memory=run.memory)
    assert products == [7, 2, 2, 7, 2, 2, 7]
    assert len(set(scales)) == 1


def test_an_estimate_that_was_too_small_is_made_anew():
    problem = Problem()
    run = StudentRun(
        problem.student, problem.w, torch.zeros_like(problem.w), memory={"largest": 1e-3, "age": 1}
    )
    metagrad = Implicit("neumann", neumann_terms=5, estimate_every=100, real_batch_size=REAL)
    with pytest.warns(DivergenceWarning):
        metagrad(problem.teacher, run, problem.split, torch.Generator().manual_seed(0))
    metagrad(problem.teacher, run, problem.split, torch.Generator().manual_seed(0))
    assert metagrad.diagnostics["terms"][-1] < 1 and run.memory["age"] == 1


# ---------------------------------------------------------------- against unrolling


def pixels():
    return PixelTeacher(2, steps=400, shape=SHAPE, num_classes=CLASSES, rate=0.3, momentum=0.5,
                        learn_rates=False, weight_decay=0.2).double()  # fmt: skip


def generated():
    generator = seeded(lambda: Generator(3, SHAPE, CLASSES, hidden=5, channels=2), 0)
    return GeneratorTeacher(400, 6, batches=1, noise_size=3, generator=generator, shape=SHAPE,
                            num_classes=CLASSES, rate=0.3, momentum=0.5, learn_rates=False,
                            weight_decay=0.2).double()  # fmt: skip


@pytest.mark.parametrize("make_teacher", [pixels, generated])
@pytest.mark.parametrize("widths", [(), (4,)], ids=["softmax", "mlp"])
def test_implicit_equals_unrolling_to_the_minimum(make_teacher, widths, flat64):
    student = flat64(lambda: MLP(SHAPE, CLASSES, widths=widths, activation="tanh"))
    teacher, split, gradients = make_teacher(), Problem().split, []
    for metagrad in (
        Unrolled(True, "last", REAL),
        Implicit("neumann", neumann_terms=300, real_batch_size=REAL),
    ):
        teacher.zero_grad()
        metagrad(teacher, StudentRun.start(student), split, torch.Generator().manual_seed(0))
        learned = [p for p in teacher.parameters() if p.requires_grad]
        gradients.append(torch.cat([p.grad.flatten() for p in learned]))
    assert metagrad.diagnostics["inner_gradient"] < 1e-7
    assert relative(gradients[1], gradients[0]) < 1e-6


def test_rates_get_no_gradient(flat64):
    problem = Problem()
    problem.found()
    assert problem.teacher.log_rate.requires_grad
    assert problem.teacher.log_rate.grad is None and problem.teacher.momentum_logit.grad is None


def test_student_is_trained_on_from_where_it_stands(flat64):
    student = flat64(partial(MLP, SHAPE, CLASSES))
    problem, run = Problem(), StudentRun.start(student)
    teacher, metagrad, inner = problem.teacher, Implicit(real_batch_size=REAL), []
    for k in (1, 2, 3):
        metagrad(teacher, run, problem.split, torch.Generator().manual_seed(0))
        inner.append(metagrad.diagnostics["inner_gradient"])
        assert run.t == k * teacher.steps
    assert inner[2] < inner[0]


class Images(nn.Module):
    """A generator that is nothing but images, and gives them out as they are."""

    def __init__(self, copied):
        super().__init__()
        random = torch.Generator().manual_seed(1)
        self.images, self.copied = nn.Parameter(torch.randn(6, *SHAPE, generator=random)), copied

    def forward(self, noise, labels):
        return self.images * 1 if self.copied else self.images


@pytest.mark.parametrize("solver", [{"solver": "neumann"}, {}], ids=["neumann", "cg"])
def test_batches_that_are_one_tensor_add_up(solver):
    gradients = []
    for copied in (False, True):
        teacher = GeneratorTeacher(3, 6, shape=SHAPE, num_classes=CLASSES, generator=Images(copied),
                                   weight_decay=DECAY, learn_rates=False).double()  # fmt: skip
        student = FlatStudent(seeded(partial(MLP, SHAPE, CLASSES, widths=(5,)), 0).double())
        split = Problem().split
        Implicit(**solver, damping=2.0, real_batch_size=REAL)(teacher, StudentRun.start(student), split,
                                                              torch.Generator().manual_seed(0))  # fmt: skip
        gradients.append(teacher.generator.images.grad)
    assert float(gradients[0].norm()) > 0
    torch.testing.assert_close(*gradients)
