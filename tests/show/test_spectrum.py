"""Spectra and products of the Hessian of a training loss, against matrices."""

import numpy as np
import pytest
import torch

from gtnlib import MLP, Implicit, PixelTeacher, StudentRun
from gtnlib.inner.flat import flat_student
from gtnlib.metagrad.solvers import InnerHessian, conjugate_gradients
from gtnlib.show.spectrum import lanczos


@pytest.fixture
def matrix():
    random = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(30, 30, dtype=torch.float64, generator=random))
    values = torch.cat([torch.linspace(-0.3, 2, 29, dtype=torch.float64), torch.tensor([5.0])])
    return basis @ torch.diag(values) @ basis.T


def test_lanczos_with_all_points_is_the_whole_spectrum(matrix):
    v = matrix.sum(0)
    exact, vectors = torch.linalg.eigh(matrix)
    values, shares = lanczos(matrix.mv, v, 30)
    assert np.allclose(values, exact, atol=1e-8)
    assert np.allclose(shares, (vectors.T @ v).square() / (v @ v), atol=1e-8)


def test_lanczos_with_few_points_is_exact_for_polynomials(matrix):
    """Gauss quadrature of n points: v·p(H)v for every polynomial of degree 2n − 1."""
    v = matrix.sum(0)
    values, shares = lanczos(matrix.mv, v, 3)
    assert len(values) == 3 and shares.sum() == pytest.approx(1)
    powers = [v @ torch.linalg.matrix_power(matrix, k) @ v / (v @ v) for k in range(6)]
    assert [(shares * values**k).sum() for k in range(6)] == pytest.approx([float(p) for p in powers])


def test_lanczos_ends_where_there_are_no_more_directions():
    H = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    values, shares = lanczos(H.mv, torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64), 10)
    assert values == pytest.approx([1, 2]) and shares == pytest.approx([0.5, 0.5])


def test_hessian_and_hypergradient_are_those_of_the_library(toy):
    teacher = PixelTeacher(2, 2, toy.num_classes, shape=toy.shape, num_classes=toy.num_classes,
                           weight_decay=0.1, learn_rates=False).double()  # fmt: skip
    student = flat_student(MLP, toy, dtype=torch.float64)
    split, run = toy.train.double(), StudentRun.start(student)
    method = Implicit(solver="cg", products=3, batches=None, real_batch_size=4, tolerance=0)
    method(teacher, run, split, toy.generator())
    real = split.sample(4, toy.generator())
    H = InnerHessian(student, run.w, [teacher.batch(0), teacher.batch(1)], 0.1)
    v = student.gradient(run.w, *real)
    q, _ = conjugate_gradients(H, v, 3, 0)
    assert H.products == 2 * method.diagnostics["products"]
    assert torch.allclose(H.hypergradient(q), teacher.images.grad)
    assert torch.allclose((H.of_batch(0)(v) + H.of_batch(1)(v)) / 2, H(v))


@pytest.mark.parametrize("v", [torch.zeros(3), torch.tensor([1.0, torch.nan, 0.0])])
def test_lanczos_needs_a_direction_and_a_step(v):
    with pytest.raises(ValueError, match="v has the norm (0.0|nan), but needs a direction"):
        lanczos(lambda p: p, v, 2)
    with pytest.raises(ValueError, match="steps is 0"):
        lanczos(lambda p: p, torch.ones(3), 0)
