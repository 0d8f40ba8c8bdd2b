"""Compiled students compute what eager ones do, and nothing is compiled twice."""

import warnings
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace

import gtnlib.inner.compiled
import pytest
import torch
import torch.nn.functional as F
from test_unrolled import REAL, assert_equals_plain_autograd, call, generated, pixels, relative
from torch import nn
from torch._dynamo.utils import counters
from torch.utils._pytree import tree_leaves

from gtnlib import MLP, ConvNet, FlatStudent, GradientMatching, Implicit, Unrolled, fit
from gtnlib.inner.compiled import CompiledStudent, worthwhile
from gtnlib.inner.structure import structure
from gtnlib.metagrad import DISTANCES
from gtnlib.support.seeds import seeded

SHAPE, CLASSES = (1, 8, 8), 3
SMALL = partial(MLP, SHAPE, CLASSES, widths=(5,), activation="tanh")
CONV = partial(ConvNet, SHAPE, CLASSES, width=4, depth=1)


def student(build=SMALL, seed=0, kind=CompiledStudent):
    return kind(seeded(build, seed).double())


@pytest.fixture
def no_kernels(monkeypatch):
    """As in a new process: nothing compiled yet, nothing warned of."""
    monkeypatch.setattr(gtnlib.inner.compiled, "_kernels", {})
    monkeypatch.setattr(gtnlib.inner.compiled, "_warned", False)


# ---------------------------------------------------------------- exactness


@pytest.mark.parametrize(
    "make_teacher, build, loss_at, momentum",
    [(generated, SMALL, "every", 0.7), (generated, SMALL, "last", 0.0), (pixels, CONV, "every", 0.7)],
)  # fmt: skip
def test_unrolled_equals_plain_autograd(make_teacher, build, loss_at, momentum, tiny):
    assert_equals_plain_autograd(True, loss_at, make_teacher(momentum=momentum), student(build), tiny)


@pytest.mark.parametrize(
    "metagrad",
    [Implicit("neumann", neumann_terms=3, damping=5.0, real_batch_size=REAL),
     Implicit(products=3, damping=5.0, real_batch_size=REAL), Unrolled(False), Unrolled(3),
     *(GradientMatching(distance, real_batch_size=5) for distance in DISTANCES)],
    ids=["implicit", "conjugate gradients", "recorded", "blocks", *DISTANCES],
)  # fmt: skip
def test_every_method_equals_its_eager_self(metagrad, tiny, quick_compile):
    (one, ours), (two, theirs) = (
        call(metagrad, generated(learn_rates=False), student(kind=kind), tiny)
        for kind in (CompiledStudent, FlatStudent)
    )
    assert one == pytest.approx(two, rel=1e-10)
    for name in theirs:
        assert relative(ours[name], theirs[name]) < 1e-9, name


@pytest.mark.parametrize("soft", [False, True])
def test_curvature_equals_that_of_a_kept_graph(soft, tiny, quick_compile):
    x, y = tiny.images[:6], tiny.labels[:6]
    y = torch.softmax(torch.randn(6, CLASSES, dtype=x.dtype), 1) if soft else y
    w = student().initial()
    with torch.no_grad():
        ours, theirs = (student(kind=kind).curvature(w, x, y) for kind in (CompiledStudent, FlatStudent))
        assert type(ours) is not type(theirs)
        torch.testing.assert_close(ours.gradient, theirs.gradient)
        for a in torch.randn(2, len(w), dtype=w.dtype):
            torch.testing.assert_close(ours.hessian_product(a), theirs.hessian_product(a))
            mixed = theirs.mixed_products(a)
            assert len(mixed) == 1 + soft
            torch.testing.assert_close(tuple(ours.mixed_products(a)), mixed)


def test_matching_through_the_whole_compiler(tiny):
    (one, ours), (two, theirs) = (
        call(GradientMatching(inner_steps=0), generated(learn_rates=False), student(kind=kind), tiny)
        for kind in (CompiledStudent, FlatStudent)
    )
    assert one == pytest.approx(two, rel=1e-10)
    assert relative(ours["noise"], theirs["noise"]) < 1e-9


# ---------------------------------------------------------------- once and for all


def test_nothing_is_compiled_again_for_another_student_teacher_or_length(tiny, quick_compile):
    def train(make_teacher, seed, steps):
        teacher = make_teacher()
        teacher.steps, teacher.log_rate = steps, nn.Parameter(teacher.log_rate.detach()[:steps])
        call(Unrolled(True, "every", REAL), teacher, student(seed=seed), tiny)

    six = partial(generated, momentum=0.3)
    train(six, 0, 4)
    before, kernels = counters["stats"]["unique_graphs"], len(gtnlib.inner.compiled._kernels)
    assert kernels == 3
    train(six, 1, 3)
    train(generated, 2, 4)
    assert counters["stats"]["unique_graphs"] == before
    assert len(gtnlib.inner.compiled._kernels) == kernels
    call(Unrolled(True, "every", REAL + 1), six(), student(), tiny)
    assert len(gtnlib.inner.compiled._kernels) == kernels + 1


class Scaled(nn.Module):
    """A network that is more than its parameters and the names of its layers."""

    def __init__(self, scale, function=F.relu):
        super().__init__()
        self.scale, self.function, self.linear = scale, function, nn.Linear(64, 3)

    def forward(self, x):
        return self.linear(self.function(self.scale * x.flatten(1)))


def test_structure_is_all_but_the_values_of_the_parameters():
    assert structure(seeded(SMALL, 0)) == structure(seeded(SMALL, 1))
    assert structure(Scaled(2.0)) == structure(Scaled(2.0))
    different = [Scaled(2.0), Scaled(3.0), Scaled(2), Scaled(2.0, F.gelu), Scaled(2.0).double(),
                 Scaled(2.0, lambda x: x), MLP(), ConvNet(), ConvNet(norm="group")]  # fmt: skip
    assert len({structure(module) for module in different}) == len(different)


def test_what_cannot_be_compared_runs_eagerly_after_one_warning(tiny, no_kernels):
    build = partial(Scaled, torch.ones(64).double())
    with pytest.warns(RuntimeWarning, match="Scaled could not be compiled.*cannot be compared"):
        students = [student(build)]
    students.append(student(build, kind=FlatStudent))
    losses = [call(Unrolled(), pixels(), s, tiny)[0] for s in students]
    assert losses[0] == losses[1] and not gtnlib.inner.compiled._kernels


# ---------------------------------------------------------------- CUDA graphs


@pytest.fixture
def recorder(monkeypatch):
    """What torch.cuda does of a recording, without a GPU: a replay computes into the same results again."""
    recorded, current = [], []

    class Graph:
        def replay(self):
            for old, new in zip(tree_leaves(self.results), tree_leaves(self.function(*self.inputs))):
                old.copy_(new)

    def function(*inputs):
        results = (inputs[0] * 2, inputs[1] + 1)
        if current:
            graph = current[0]
            graph.function, graph.inputs, graph.results = function, inputs, results
        return results

    @contextmanager
    def record(graph, pool):
        recorded.append(pool)
        current.append(graph)
        yield
        current.clear()

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, value in {"Stream": lambda: stream, "current_stream": lambda: stream, "graph": record,
                        "stream": lambda stream: nullcontext(), "CUDAGraph": Graph,
                        "graph_pool_handle": lambda: "pool"}.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    gtnlib.inner.compiled._pool.cache_clear()
    yield function, recorded
    gtnlib.inner.compiled._pool.cache_clear()


def test_a_recorded_graph_takes_copies_and_hands_out_copies(recorder):
    function, recorded = recorder
    a, n = torch.ones(3), torch.arange(2)
    call = gtnlib.inner.compiled._recorded(function, [a, n])
    first = call(a, n)
    second = call(torch.full((3,), 5.0), n + 10)
    assert first[0].tolist() == [2, 2, 2] and first[1].tolist() == [1, 2]
    assert second[0].tolist() == [10, 10, 10] and second[1].tolist() == [11, 12]
    assert a.tolist() == [1, 1, 1] and recorded == ["pool"]


# ---------------------------------------------------------------- without a compiler


def test_no_compiler_means_one_warning_and_the_same_result(tiny, no_kernels, monkeypatch):
    def broken(*args, **keywords):
        raise RuntimeError("no C++ compiler here\nand a long story")

    expected = call(Unrolled(), pixels(), student(kind=FlatStudent), tiny)
    monkeypatch.setattr(torch, "compile", broken)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = call(Unrolled(), pixels(), student(), tiny)
        call(Unrolled(), pixels(), student(seed=1), tiny)
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 1 and messages[0].endswith("no C++ compiler here")
    assert found[0] == expected[0]
    assert torch.equal(found[1]["images"], expected[1]["images"])


# ---------------------------------------------------------------- when


def test_compiling_is_announced(tiny, no_kernels, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda graph, **keywords: graph)
    said = []
    call(Unrolled(), pixels(), CompiledStudent(seeded(SMALL, 0).double(), said.append), tiny)
    assert said == ["compiling sgd", "", "compiling loss_gradient", "", "compiling step_back", ""]


def test_it_pays_back_only_in_the_long_run():
    big = FlatStudent(ConvNet())
    batch = torch.zeros(64, 1, 28, 28), torch.zeros(64, dtype=torch.long)
    assert not worthwhile(big, batch, inner_steps=100 * 32)  # a notebook
    assert worthwhile(big, batch, inner_steps=1000 * 32)  # an evening
    assert not worthwhile(FlatStudent(MLP()), batch, inner_steps=1000 * 32)  # too small a student
    there = SimpleNamespace(is_cuda=True), batch[1]
    assert worthwhile(big, there, inner_steps=1000) and not worthwhile(big, there, inner_steps=100)


@pytest.mark.parametrize("compile, kinds", [(True, {"compiled"}), (False, set()), ("auto", set())])
def test_fit_compiles_when_asked(compile, kinds, toy, no_kernels, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda graph, **keywords: graph)
    results = []
    for choice in (compile, False):
        torch.manual_seed(0)
        teacher = pixels().float()
        history = fit(teacher, Unrolled(real_batch_size=REAL), SMALL, toy, 2, compile=choice,
                      progress=False)  # fmt: skip
        results.append((history.loss, teacher.images))
        assert bool(gtnlib.inner.compiled._kernels) == bool(kinds)
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-4)


def test_auto_asks_how_long_the_fit_will_be(toy, no_kernels, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda graph, **keywords: graph)
    monkeypatch.setattr(gtnlib.inner.compiled, "WORTHWHILE", 1)
    fit(pixels().float(), Unrolled(real_batch_size=REAL), SMALL, toy, 1, progress=False)
    assert gtnlib.inner.compiled._kernels


def test_other_words_for_compile_are_refused(toy):
    with pytest.raises(ValueError, match="compile is 'yes', but must be True, False or 'auto'"):
        fit(pixels().float(), Unrolled(), SMALL, toy, 1, compile="yes")


class Reads(nn.Module):
    """Divides by a number that it has read from the batch, where no tracer sees it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, CLASSES)

    def forward(self, x):
        return self.layer(x.flatten(1) / self.read(x.detach().flatten().tolist()))

    read = staticmethod(max)


class Sign(Reads):
    """The same, but what it reads is only a sign, or a place."""

    @staticmethod
    def read(values):
        return 1.0 if sum(values) > 0 else 2.0 + values.index(max(values)) / 10


def whole_loss(student, w, x, y):
    return student.loss(w, x, y)


@pytest.mark.parametrize("build", [Reads, Sign])
def test_what_freezes_a_number_of_its_first_batch_runs_eagerly(build, tiny, no_kernels, quick_compile):
    ours, theirs = student(build), student(build, kind=FlatStudent)
    losses = []
    with torch.no_grad(), pytest.warns(RuntimeWarning, match="reads numbers from its batch"):
        for one in (ours, theirs):
            batches = [(scale * tiny.images, tiny.labels) for scale in (1, -5)]
            losses.append([float(one.compute(whole_loss, (one.initial(),), batch)) for batch in batches])
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
