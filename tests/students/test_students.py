"""Students as pure functions: exact second derivatives, functional transforms, fresh starts."""

import inspect
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.functional import hessian, jacobian
from torch.func import vmap

from gtnlib import MLP, VGG, AlexNet, ConvNet, FlatStudent, LeNet, ResNet, VisionTransformer, make_student
from gtnlib.students.networks import ACTIVATIONS, NORMS, POOLINGS
from gtnlib.students.vit import Attention
from gtnlib.support.seeds import derive_seed

SHAPE, CLASSES = (1, 16, 16), 3

STUDENTS = {
    "mlp": MLP,
    "lenet": LeNet,
    "lenet-max": partial(LeNet, pooling="max"),
    **{f"convnet-{n}-{p}": partial(ConvNet, width=(4, 6), norm=n, pooling=p)
       for n in NORMS for p in POOLINGS},
    **{f"resnet-{n}": partial(ResNet, widths=(4, 6), norm=n) for n in NORMS},
    **{f"vgg-{n}": partial(VGG, widths=(4, 6), norm=n) for n in NORMS},
    "vgg-avg": partial(VGG, widths=(4, 6), pooling="avg"),
    **{f"alexnet-{n}": partial(AlexNet, widths=(3, 4, 4, 4, 3), norm=n) for n in NORMS},
    "alexnet-avg": partial(AlexNet, widths=(3, 4, 4, 4, 3), pooling="avg"),
    "transformer": partial(VisionTransformer, width=6, depth=2, heads=2),
    **{f"mlp-{a}": partial(MLP, widths=(7, 5), activation=a) for a in ACTIVATIONS},
}  # fmt: skip
every_student = pytest.mark.parametrize("build", STUDENTS.values(), ids=STUDENTS.keys())


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, *SHAPE, generator=generator, dtype=torch.float64)
    return x, torch.arange(6) % CLASSES


def noise_like(w, seed=0):
    return torch.randn(w.shape, generator=torch.Generator().manual_seed(seed), dtype=w.dtype)


@every_student
def test_flat_student_computes_what_the_module_computes(build, flat64, batch):
    student = flat64(lambda: build(SHAPE, CLASSES))
    x, y = batch
    w = student.initial()
    assert w.shape == (student.size,)
    assert torch.equal(student.logits(w, x), student.module(x))
    loss = F.cross_entropy(student.module(x), y)
    parts = torch.autograd.grad(loss, list(student.module.parameters()))
    torch.testing.assert_close(student.gradient(w, x, y), torch.cat([p.flatten() for p in parts]))


@every_student
def test_second_derivatives_work_under_vmap_over_stacked_parameters(build, flat64, batch):
    student = flat64(lambda: build(SHAPE, CLASSES))
    ws = torch.stack([student.initial() + 0.1 * noise_like(student.initial(), s) for s in (1, 2)])
    a = noise_like(ws, 3)
    for together, one in zip(
        vmap(student.second_order, in_dims=(0, None, None, 0))(ws, *batch, a),
        zip(*(student.second_order(w, *batch, p) for w, p in zip(ws, a))),
    ):
        torch.testing.assert_close(together, torch.stack(one))
        assert together.isfinite().all()


@every_student
def test_hessian_product_is_the_slope_of_the_gradient(build, flat64, batch):
    student = flat64(lambda: build(SHAPE, CLASSES))
    w, h = student.initial(), 1e-6
    a = F.normalize(noise_like(w), dim=0)
    slope = (student.gradient(w + h * a, *batch) - student.gradient(w - h * a, *batch)) / (2 * h)
    torch.testing.assert_close(student.hessian_product(w, *batch, a), slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "build",
    [partial(MLP, widths=(4,), activation="tanh"),
     partial(ConvNet, width=2, depth=1, activation="softplus"),
     partial(ConvNet, width=2, depth=1, norm="batch", activation="gelu")],
    ids=["mlp", "convnet-instance", "convnet-batch"],
)  # fmt: skip
def test_second_order_products_equal_the_full_matrices(build, flat64):
    x = noise_like(torch.empty(4, 1, 4, 4, dtype=torch.float64))
    y = torch.tensor([0, 1, 2, 1])
    student = flat64(lambda: build((1, 4, 4), 3))
    w = student.initial()
    a = noise_like(w, 1)
    h = hessian(lambda w: student.loss(w, x, y), w)
    mixed = jacobian(lambda x: student.gradient(w, x, y), x)  # (P, N, C, H, W)
    found_h, found_x = student.second_order(w, x, y, a)
    torch.testing.assert_close(found_h, h @ a, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found_x, torch.tensordot(a, mixed, 1), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(student.hessian_product(w, x, y, a), h @ a, rtol=1e-10, atol=1e-12)


def test_loss_of_probabilities_that_are_certain_equals_loss_of_classes(flat64, batch):
    student, (x, y) = flat64(lambda: MLP(SHAPE, CLASSES)), batch
    soft = F.one_hot(y, CLASSES).double()
    torch.testing.assert_close(
        student.loss(student.initial(), x, soft), student.loss(student.initial(), x, y)
    )


def test_unflatten_gives_views_in_the_order_of_the_parameters(flat64):
    student = flat64(lambda: ConvNet(SHAPE, CLASSES, width=2))
    w = torch.arange(student.size, dtype=torch.float64)
    parts = student.unflatten(w)
    assert list(parts) == [name for name, _ in student.module.named_parameters()]
    assert torch.equal(torch.cat([p.flatten() for p in parts.values()]), w)
    assert all(part.untyped_storage().data_ptr() == w.untyped_storage().data_ptr()
               for part in parts.values())  # fmt: skip


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_image_norms_treat_every_image_on_its_own(norm, flat64, batch):
    student = flat64(lambda: ConvNet(SHAPE, CLASSES, width=6, norm=norm))
    w = student.initial()
    torch.testing.assert_close(student.logits(w, batch[0])[:2], student.logits(w, batch[0][:2]))


def test_batch_norm_uses_the_batch_at_hand_in_training_and_evaluation(batch):
    module = ConvNet(SHAPE, CLASSES, width=6, norm="batch").double()
    assert not list(module.buffers())
    assert torch.equal(module.train()(batch[0]), module.eval()(batch[0]))
    assert not torch.allclose(module(batch[0])[:2], module(batch[0][:2]))


@pytest.mark.parametrize("build", [MLP, LeNet, ConvNet, ResNet, VGG, AlexNet, VisionTransformer])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)], ids=["mnist", "cifar"])
def test_every_class_takes_shape_and_classes_by_keyword(build, shape):
    assert {"shape", "num_classes"} <= inspect.signature(build).parameters.keys()
    assert build(shape=shape, num_classes=7)(torch.zeros(2, *shape)).shape == (2, 7)


def test_alexnet_pools_after_the_first_second_and_fifth_convolution():
    conv, pool = nn.Conv2d, nn.MaxPool2d
    layers = [type(layer) for layer in AlexNet(SHAPE, CLASSES) if isinstance(layer, (conv, pool))]
    assert layers == [conv, pool, conv, pool, conv, conv, conv, pool]


def test_the_transformer_attends_as_torch_does(batch):
    """One layer of attention against F.scaled_dot_product_attention, head by head."""
    attention = Attention(width=6, heads=2).double()
    x = noise_like(torch.empty(3, 5, 6, dtype=torch.float64))
    q, k, v = (attention.inputs(x).view(3, 5, 3, 2, 3)[:, :, i].transpose(1, 2) for i in range(3))
    heads = F.scaled_dot_product_attention(q, k, v)
    wanted = attention.output(torch.cat([heads[:, 0], heads[:, 1]], -1))
    torch.testing.assert_close(attention(x), wanted)


def test_the_transformer_knows_where_a_patch_lies():
    """Without positions it could not: the mean of the tokens does not depend on their order."""
    module = VisionTransformer((1, 8, 8), CLASSES).double()
    x = noise_like(torch.empty(2, 1, 8, 8, dtype=torch.float64))
    swapped = torch.cat([x[:, :, 4:], x[:, :, :4]], 2)
    assert not torch.allclose(module(x), module(swapped))
    with torch.no_grad():
        module[0].positions.zero_()
    torch.testing.assert_close(module(x), module(swapped))


# ---------------------------------------------------------------- fresh students


def flat(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_seed_decides_the_initialisation():
    one, two, other = (flat(make_student(ConvNet, (1, 8, 8), 3, seed)) for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_make_student_leaves_random_state_alone(random_state_untouched):
    make_student([ConvNet, MLP], (1, 8, 8), 3, 0)


def test_make_student_does_not_depend_on_the_callers_random_state():
    torch.manual_seed(1)
    one = flat(make_student(MLP, (1, 8, 8), 3, 0))
    torch.manual_seed(2)
    assert torch.equal(one, flat(make_student(MLP, (1, 8, 8), 3, 0)))


def test_a_list_of_students_is_drawn_from_evenly():
    drawn = [type(make_student([MLP, ConvNet, VGG], (1, 8, 8), 3, seed)) for seed in range(60)]
    assert all(10 < drawn.count(kind) < 30 for kind in (MLP, ConvNet, VGG))


def test_shape_and_classes_reach_only_those_who_take_them():
    assert make_student(MLP, (2, 4, 4), 5, 0)[1].in_features == 32
    assert make_student(partial(MLP, widths=(3,)), (2, 4, 4), 5, 0)[1].out_features == 3
    assert make_student(lambda num_classes: nn.Linear(2, num_classes), (2, 4, 4), 5, 0).out_features == 5
    assert make_student(lambda: nn.Linear(2, 3), (2, 4, 4), 5, 0).out_features == 3


def test_derived_seeds_are_the_same_on_every_machine():
    assert derive_seed("fit", 0, 1) == 2603767951750123629
    assert derive_seed("fit", 0, 1) != derive_seed("fit", 1, 0) != derive_seed("evaluate", 1, 0)


def test_a_student_that_draws_random_numbers_is_refused():
    with pytest.raises(ValueError, match="Dropout"):
        FlatStudent(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3))).rehearse(
            torch.ones(2, 1, 8, 8)
        )
