"""Several students at once give what they give one by one; so do blocks of recorded steps."""

from functools import partial

import gtnlib.inner.stacked
import pytest
import torch
from test_unrolled import REAL, call, every_loss, every_teacher, relative

from gtnlib import MLP, ConvNet, FlatStudent, StudentRun, Unrolled, fit
from gtnlib.inner.compiled import CompiledStudent
from gtnlib.inner.stacked import StackedStudent, stacked
from gtnlib.inner.step import sgd
from gtnlib.support.seeds import seeded

SHAPE, CLASSES = (1, 8, 8), 3
BUILD = partial(MLP, SHAPE, CLASSES, widths=(5,), activation="tanh")
every_way = pytest.mark.parametrize("batched", [False, True], ids=["in turn", "vmap"])


def students(n=3, kind=FlatStudent, build=BUILD):
    return [kind(seeded(build, seed).double()) for seed in range(n)]


def gradients(teacher):
    return {n: p.grad.clone() for n, p in teacher.named_parameters() if p.grad is not None}


@every_way
@pytest.mark.parametrize("checkpoint", [True, False])
@every_loss
@every_teacher
def test_the_gradient_is_the_sum_over_students(make_teacher, loss_at, checkpoint, batched, tiny):
    metagrad, one, many = Unrolled(checkpoint, loss_at, REAL), make_teacher(), make_teacher()
    draws = [metagrad.draw(one, 0, tiny, torch.Generator().manual_seed(k)) for k in range(3)]
    runs, losses = [StudentRun.start(s) for s in students()], []
    for run, drawn in zip(runs, draws):
        losses.append(metagrad.differentiate(one, run, tiny, drawn))

    (together,), (drawn,) = stacked([StudentRun.start(s) for s in students()], draws)
    together.student.batched = batched
    loss = metagrad.differentiate(many, together, tiny, drawn)
    assert float(loss) == pytest.approx(float(sum(losses)), rel=1e-12)
    assert together.t == many.steps
    torch.testing.assert_close(together.w, torch.stack([run.w for run in runs]))
    found, wanted = gradients(many), gradients(one)
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert relative(found[name], wanted[name]) < 1e-10, name


@every_way
@pytest.mark.parametrize("norm", ["none", "instance", "batch", "group"])
def test_a_step_of_many_is_the_step_of_each(norm, batched, tiny):
    build = partial(ConvNet, SHAPE, CLASSES, 4, 1, norm=norm)
    many = StackedStudent(students(build=build), batched)
    w = many.initial()
    shared = (tiny.images, tiny.labels, torch.tensor(0.1), torch.tensor(0.5), 0.01)
    with torch.no_grad():
        found = many.compute(sgd, (w, torch.ones_like(w)), shared)
        wanted = [s.compute(sgd, (s.initial(), torch.ones(s.size)), shared) for s in many.students]
    for ours, theirs in zip(found, zip(*wanted)):
        torch.testing.assert_close(ours, torch.stack(theirs))


def test_vmap_is_compiled_too(tiny, quick_compile):
    many = StackedStudent(students(2, CompiledStudent), batched=True)
    eager = StackedStudent(students(2), batched=True)
    w, m = many.initial(), torch.zeros(2, many.students[0].size, dtype=torch.float64)
    shared = (tiny.images, tiny.labels, torch.tensor(0.1), torch.tensor(0.5), 0.01)
    with torch.no_grad():
        torch.testing.assert_close(many.compute(sgd, (w, m), shared),
                                   eager.compute(sgd, (w, m), shared))  # fmt: skip


def test_students_of_different_structure_stay_apart():
    runs = [StudentRun.start(FlatStudent(MLP(widths=(n,)))) for n in (4, 5)]
    assert stacked(runs, [[], []]) == (runs, [[], []])


def test_fit_calls_the_teacher_once_for_all_students(toy, monkeypatch):
    """And the vmap path of a GPU updates the teacher as the loop of a CPU does."""
    from test_unrolled import pixels

    images, calls = [], []
    for batched in (False, True):
        monkeypatch.setattr(gtnlib.inner.stacked, "StackedStudent", partial(StackedStudent, batched=batched))
        teacher = pixels().float()
        plain = teacher.batch
        teacher.batch = lambda t, plain=plain: calls.append(t) or plain(t)
        fit(teacher, Unrolled(), BUILD, toy, 2, students_per_step=3, progress=False, compile=False)
        images.append(teacher.images.detach())
    rehearsed = 3  # twice, to see that they agree, and once to see the graph
    assert len(calls) == 2 * (rehearsed + 2 * 2 * teacher.batches)
    torch.testing.assert_close(*images, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("block", [1, 2, 3, 4, 9])
@every_loss
@every_teacher
def test_blocks_of_steps_give_the_same_gradient(make_teacher, loss_at, block, flat64, tiny):
    student = flat64(BUILD)
    loss, found = call(Unrolled(block, loss_at, REAL), make_teacher(), student, tiny)
    expected, wanted = call(Unrolled(True, loss_at, REAL), make_teacher(), student, tiny)
    assert loss == pytest.approx(expected, rel=1e-12)
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert relative(found[name], wanted[name]) < 1e-10, name


def test_blocks_leave_the_same_student(flat64, tiny):
    from test_unrolled import pixels

    runs = []
    for checkpoint in (True, 3):
        runs.append(StudentRun.start(flat64(BUILD)))
        Unrolled(checkpoint)(pixels(), runs[-1], tiny, torch.Generator().manual_seed(0))
    torch.testing.assert_close(runs[0].w, runs[1].w)
    torch.testing.assert_close(runs[0].m, runs[1].m)
    assert runs[0].t == runs[1].t == 4


@pytest.mark.parametrize("checkpoint", [-1, 0, 1.5, "yes"])
def test_a_block_is_a_whole_number_of_steps(checkpoint):
    with pytest.raises((ValueError, TypeError), match="checkpoint"):
        Unrolled(checkpoint)


class Writes(torch.nn.Module):
    """Writes into a tensor of its own, which vmap cannot follow."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, CLASSES)

    def forward(self, x):
        out = torch.zeros(len(x), CLASSES, dtype=x.dtype)
        out[:, :] = self.layer(x.flatten(1))
        return out


def test_a_network_that_vmap_refuses_takes_turns(tiny):
    each = students(2, build=Writes)
    both = StackedStudent(each, batched=True)
    w = both.initial()
    found = both.compute(lambda student, w, x, y: student.loss(w, x, y), (w,), (tiny.images, tiny.labels))
    assert not both.batched
    torch.testing.assert_close(found, torch.stack([one.loss(row, tiny.images, tiny.labels)
                                                   for one, row in zip(each, w)]))  # fmt: skip
