"""Distribution matching: against plain autograd, class by class, and finite differences."""

import pytest
import torch
from test_unrolled import CLASSES, SHAPE, generated, pixels, soft
from torch import nn

from gtnlib import MLP, ConvNet, DistributionMatching, PixelTeacher, StudentRun, Variation, evaluate, fit
from gtnlib.inner.stacked import StackedStudent

EACH = 5
TEACHERS = {"pixels": pixels, "generated": generated, "pixels-soft": soft(pixels)}
every_teacher = pytest.mark.parametrize("make_teacher", TEACHERS.values(), ids=TEACHERS.keys())


def plain(teacher, module, split, drawn):
    """Mean over the classes of the squared distance between the mean features."""
    step, (index, labels) = drawn
    x, _ = teacher.batch(step)
    body = nn.Sequential(*list(module)[:-1])
    ours, theirs, hard = body(x), body(split.images[index]), teacher.batch_labels(step)
    parts = [(ours[hard == c].mean(0) - theirs[labels == c].mean(0)).square().sum() for c in hard.unique()]
    return sum(parts) / len(parts)


@every_teacher
def test_gradient_is_plain_autograd(make_teacher, flat64, tiny):
    teacher = make_teacher()
    student = flat64(lambda: MLP(SHAPE, CLASSES, (6,), activation="tanh"))
    metagrad, run = DistributionMatching(EACH), StudentRun.start(student)
    for seed in range(3):
        teacher.zero_grad()
        drawn = metagrad.draw(teacher, 0, tiny, torch.Generator().manual_seed(seed))
        loss = metagrad.differentiate(teacher, run, tiny, drawn)
        wanted = plain(teacher, student.module, tiny, drawn)
        torch.testing.assert_close(loss, wanted.detach())
        learned = [p for p in teacher.parameters() if p.requires_grad]
        for p, g in zip(learned, torch.autograd.grad(wanted, learned, allow_unused=True)):
            assert (p.grad is None and g is None) or torch.allclose(p.grad, g, rtol=1e-10, atol=1e-14)
    assert run.t == 0 and torch.equal(run.w, student.initial())


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_gradient_equals_finite_differences(norm, flat64, tiny):
    teacher, metagrad = pixels(), DistributionMatching(EACH)
    student = flat64(lambda: ConvNet(SHAPE, CLASSES, 4, 1, norm=norm, activation="gelu"))
    lesson = Variation(augment=True).draw(teacher, torch.Generator().manual_seed(1))
    drawn = metagrad.draw(lesson, 0, tiny, torch.Generator().manual_seed(2))

    def loss():
        return float(metagrad.differentiate(lesson, StudentRun.start(student), tiny, drawn))

    loss()
    gradient, values, h = teacher.images.grad.clone(), [], 1e-5
    along = torch.randn(gradient.shape, dtype=gradient.dtype, generator=torch.Generator().manual_seed(3))
    for sign in (1, -2, 1):
        teacher.images.data += sign * h * along
        values.append(loss())
    assert float((gradient * along).sum()) == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-6)


def test_students_side_by_side_have_the_features_of_each_alone(flat64, tiny):
    students = [flat64(lambda: ConvNet(SHAPE, CLASSES, 3, 1), seed) for seed in (0, 1)]
    both = StackedStudent(students, batched=True)
    found = both.compute(lambda student, w, x: student.features(w, x), (both.initial(),), (tiny.images,))
    for one, features in zip(students, found):
        torch.testing.assert_close(one.features(one.initial(), tiny.images), features)


def test_it_teaches(toy):
    teacher = PixelTeacher(2, 10, shape=toy.shape, num_classes=3)
    before = evaluate(teacher, MLP, toy, 3).accuracy.mean
    fit(teacher, DistributionMatching(16), MLP, toy, 40, progress=False)
    assert evaluate(teacher, MLP, toy, 3).accuracy.mean > before + 0.2


def test_a_student_without_features_is_refused(toy):
    with pytest.raises(ValueError, match="the student has no linear layer"):
        fit(PixelTeacher(1, 2, shape=toy.shape, num_classes=3), DistributionMatching(),
            lambda: nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()), toy, 1, progress=False)  # fmt: skip
    with pytest.raises(ValueError, match="real_batch_size is 0"):
        DistributionMatching(0)


class Turned(nn.Module):
    """Registers its head first, and another layer that it never calls last."""

    def __init__(self):
        super().__init__()
        self.head, self.body, self.idle = nn.Linear(5, CLASSES), nn.Linear(64, 5), nn.Linear(7, 7)

    def forward(self, x):
        return self.head(self.body(x.flatten(1)).tanh())


class Tokens(Turned):
    def forward(self, x):
        return self.head(self.body(x.flatten(1)).tanh()[:, None].expand(-1, 3, -1)).mean(1)


def test_the_last_layer_is_the_one_that_is_called_last(flat64, tiny):
    student = flat64(Turned)
    features = student.features(student.initial(), tiny.images)
    torch.testing.assert_close(features, student.module.body(tiny.images.flatten(1)).tanh())


def test_features_of_many_places_of_an_image_are_refused(flat64, tiny):
    student = flat64(Tokens)
    with pytest.raises(ValueError, match=r"sees \(30, 3, 5\), but features must be one vector"):
        student.features(student.initial(), tiny.images)
