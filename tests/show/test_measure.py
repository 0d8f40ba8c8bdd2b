"""What the chapters count and compare: operations, bytes, seconds, cosines."""

import numpy as np
import pytest
import torch

from gtnlib.show.gradients import agreement, cosine, relative_difference
from gtnlib.show.measure import bytes_kept, operations, seconds


def test_operations_of_products_by_hand():
    a, b = torch.rand(3, 4, requires_grad=True), torch.rand(4, 5)
    assert operations(lambda: a @ b) == 2 * 3 * 4 * 5
    assert operations(lambda: (a @ b).sum().backward()) == 2 * 2 * 3 * 4 * 5, "one product back, for a alone"
    assert operations(lambda: a + 1) == 0


def test_operations_are_seen_inside_function_transforms():
    a, b = torch.rand(3, 4), torch.rand(4, 5)
    assert operations(lambda: torch.func.grad(lambda a: (a @ b).sum())(a)) == 2 * 2 * 3 * 4 * 5


def test_bytes_kept_are_those_of_the_longest_chain_and_shared_memory_counts_once():
    x = torch.rand(1000, requires_grad=True)
    assert bytes_kept(lambda: x.sin()) == 4000
    assert bytes_kept(lambda: [x.sin(), x.cos()]) == 4000, "both save x itself"
    assert bytes_kept(lambda: x.exp().sin().sin()) == 8000, "exp saves its result, which is sin's input"
    assert bytes_kept(lambda: [x.exp().sum().backward() for _ in range(5)]) == 4000
    assert bytes_kept(lambda: x.detach().exp()) == 0


def test_seconds_leave_the_warm_up_out():
    calls = []
    assert len(seconds(lambda: calls.append(1), repeats=3, warm_up=2)) == 3 and len(calls) == 5


def test_gradients_are_compared():
    a, b = torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 0.0]])
    assert relative_difference(a, b) == pytest.approx(4 / 3)
    assert cosine(a, b) == pytest.approx(0.6)


def test_agreement_leaves_out_a_student_with_itself():
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    found = agreement({"alike": [x, x], "apart": [x, y]})
    assert found == pytest.approx(np.array([[1.0, 0.5], [0.5, 0.0]]))
