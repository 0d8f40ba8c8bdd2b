"""Solvers of H q = v against dense algebra, alone and within the hypergradient."""

from functools import partial
from itertools import product

import pytest
import torch
from test_implicit import CLASSES, REAL, SHAPE, many_batches, relative
from torch.func import grad, jacrev

from gtnlib import MLP, Implicit, StudentRun
from gtnlib.metagrad.solvers import conjugate_gradients, neumann

DAMPING = 1.0


def operator(eigenvalues, seed=0):
    """A dense symmetric matrix (P, P) with these eigenvalues, and a vector (P,), in float64."""
    random = torch.Generator().manual_seed(seed)
    size = len(eigenvalues)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=random, dtype=torch.float64))
    h = basis @ torch.diag(torch.as_tensor(eigenvalues, dtype=torch.float64)) @ basis.T
    return (h + h.T) / 2, torch.randn(size, generator=random, dtype=torch.float64)


def krylov_minimiser(h, v, products):
    """The minimiser of q·Hq/2 − v·q over the span of v, Hv, …, H^(products − 1) v."""
    columns = [v]
    for _ in range(products - 1):
        columns.append(h @ columns[-1])
    basis, _ = torch.linalg.qr(torch.stack(columns, dim=1))
    return basis @ torch.linalg.solve(basis.T @ h @ basis, basis.T @ v)


def test_both_solvers_find_the_dense_solution():
    h, v = operator([0.5, 1, 2, 4, 8, 9])
    exact = torch.linalg.solve(h, v)
    assert relative(neumann(lambda p: h @ p, v, 600, 0.2)[0], exact) < 1e-10
    q, found = conjugate_gradients(lambda p: h @ p, v, 20, 1e-12)
    assert relative(q, exact) < 1e-10 and found["products"] <= 7


@pytest.mark.parametrize("products", [1, 2, 3, 5])
def test_few_products_give_the_minimiser_over_the_krylov_space(products):
    h, v = operator([0.1, 0.5, 1, 2, 4, 8, 9, 12])
    q, found = conjugate_gradients(lambda p: h @ p, v, products, 0)
    assert relative(q, krylov_minimiser(h, v, products)) < 1e-9
    assert found["products"] == products
    assert found["residual"] == pytest.approx(float((h @ q - v).norm() / v.norm()), rel=1e-9)


def test_it_stops_at_the_tolerance():
    h, v = operator(torch.linspace(0.1, 12, 40).tolist())
    used = [conjugate_gradients(lambda p: h @ p, v, 50, t)[1]["products"] for t in (0.9, 0.1, 1e-3, 1e-10)]
    assert used == sorted(set(used))
    for tolerance in (0.1, 1e-6):
        q, found = conjugate_gradients(lambda p: h @ p, v, 50, tolerance)
        assert relative(h @ q, v) <= tolerance and found["residual"] <= tolerance


def test_it_stops_at_negative_curvature_with_the_last_solution():
    h, v = operator([-0.3, 0.5, 1, 2, 4, 8, 9, 12])
    q, found = conjugate_gradients(lambda p: h @ p, v, 50, 0)
    good = found["products"] - 1
    assert good >= 1 and found["curvatures"][-1] < 0 < min(found["curvatures"][:-1])
    assert relative(q, krylov_minimiser(h, v, good)) < 1e-9
    assert found["residual"] == pytest.approx(relative(h @ q, v), rel=1e-9)


@pytest.mark.parametrize("eigenvalues", [[-3, -1, 0.1], [-1, 1, 0]], ids=["negative", "zero"])
def test_without_curvature_at_all_it_is_the_scaled_gradient(eigenvalues):
    h = torch.diag(torch.tensor(eigenvalues, dtype=torch.float64))
    v = torch.tensor([2.0, 2.0, 0.0], dtype=torch.float64)
    q, found = conjugate_gradients(lambda p: h @ p, v, 50, 0)
    torch.testing.assert_close(q, v * v.norm() / (h @ v).norm())
    assert found["products"] == 1 and found["residual"] == pytest.approx(relative(h @ q, v))


def test_what_has_no_answer():
    h = torch.zeros(3, 3)
    with pytest.raises(ValueError, match="Hessian of the training loss vanishes.*damping"):
        conjugate_gradients(lambda p: h @ p, torch.ones(3), 5, 0)
    q, found = conjugate_gradients(lambda p: torch.eye(3) @ p, torch.zeros(3), 5, 1e-3)
    assert not q.any() and found["products"] == found["residual"] == 0
    assert (
        not conjugate_gradients(lambda p: torch.eye(3) @ p, torch.full((3,), torch.nan), 5, 1)[0]
        .isfinite()
        .any()
    )


def test_the_stochastic_series_has_the_mean_of_the_whole_one():
    """Over all ways to draw two terms from three operators."""
    operators = [operator(values, seed) for seed, values in enumerate(([1, 2, 3], [0.5, 1, 4], [-1, 2, 2]))]
    v, products = operators[0][1], [lambda p, h=h: h @ p for h, _ in operators]
    mean = sum(h for h, _ in operators) / 3
    wanted, _ = neumann(lambda p: mean @ p, v, 2, 0.3)
    drawn = [neumann(None, v, 2, 0.3, pair)[0] for pair in product(products, repeat=2)]
    assert relative(sum(drawn) / 9, wanted) < 1e-12 and relative(drawn[0], wanted) > 1e-2


# ---------------------------------------------------------------- within the hypergradient


def dense(teacher, student, w, real, damping=DAMPING):
    """−(∂L/∂w) (H + δ)⁻¹ ∂²f/∂w∂images, the Hessian of all batches as a matrix."""
    images = teacher.images.detach()

    def f(w, images):
        batches = [teacher.order[t] for t in range(teacher.batches)]
        losses = [student.loss(w, images[rows], teacher.labels[rows]) for rows in batches]
        return sum(losses) / len(losses) + teacher.weight_decay / 2 * w @ w

    with torch.enable_grad():
        h = jacrev(grad(f))(w, images) + damping * torch.eye(len(w), dtype=w.dtype)
        q = torch.linalg.solve(h, student.gradient(w, *real))
        w, images = w.clone().requires_grad_(), images.requires_grad_()
        slope = torch.autograd.grad(f(w, images), w, create_graph=True)[0] @ q
        return h, -torch.autograd.grad(slope, images)[0]


@pytest.mark.parametrize(
    "solver, work",
    [("neumann", {"neumann_terms": 800, "residual": True}), ("cg", {"products": 100, "tolerance": 1e-12})],
)
def test_hypergradient_of_all_batches_is_that_of_the_dense_solve(solver, work, flat64):
    problem = many_batches()
    teacher, student = problem.teacher, flat64(partial(MLP, SHAPE, CLASSES, widths=(4,), activation="tanh"))
    run = StudentRun.start(student)
    metagrad = Implicit(solver, batches=None, damping=DAMPING, real_batch_size=REAL, **work)
    metagrad(teacher, run, problem.split, torch.Generator().manual_seed(0))
    h, wanted = dense(teacher, student, run.w, problem.real)
    assert torch.linalg.eigvalsh(h)[0] > 0
    assert relative(teacher.images.grad, wanted) < 1e-9
    assert metagrad.diagnostics["residual"] < 1e-9


def test_a_stochastic_series_draws_its_batches_and_costs_one_a_term():
    problem, terms = many_batches(), 12
    teacher, metagrad = problem.teacher, Implicit("stochastic-neumann", batches=None, real_batch_size=REAL,
                                                  neumann_terms=terms, scale=0.1)  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    drawn = [metagrad.draw(teacher, 0, problem.split, generator) for _ in range(2)]
    assert all(set(places) == {0, 1, 2, 3} and len(places) == terms for _, _, places in drawn)
    assert drawn[0][2] != drawn[1][2]
    run = StudentRun(problem.student, problem.w, torch.zeros_like(problem.w))
    metagrad.differentiate(teacher, run, problem.split, drawn[0])
    assert problem.student.products == terms

    x, y = teacher.images.detach().flatten(1).split(3), teacher.labels.double().split(3)
    term = total = problem.student.gradient(run.w, *problem.split.at(drawn[0][1]))
    for k in drawn[0][2]:
        term = term - 0.1 * (x[k].T @ (x[k] @ term) / 3 + teacher.weight_decay * term)
        total = total + term
    images = teacher.images.detach().requires_grad_()
    slope = sum(problem.student.gradient(run.w, images[3 * k : 3 * k + 3], y[k]) for k in range(4)) / 4
    wanted = -torch.autograd.grad(slope @ (0.1 * total), images)[0]
    assert relative(teacher.images.grad, wanted) < 1e-12


def test_conjugate_gradients_spend_at_most_their_products_on_every_batch():
    problem = many_batches()
    _, metagrad = problem.found(solver="cg", products=3, tolerance=0, batches=None)
    assert metagrad.diagnostics["products"] == 3 and problem.student.products == 3 * 4
    assert "terms" not in metagrad.diagnostics and metagrad.trouble() is None
