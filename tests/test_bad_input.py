"""Bad input is refused at once, by the right exception, in words that name argument and value."""

from functools import partial

import pytest
import torch
from torch import nn

from gtnlib import (
    MLP, VGG, AlexNet, ConvNet, Dataset, FlatStudent, GeneratorTeacher, GradientMatching, Implicit,
    LeNet, PixelTeacher, RealTeacher, ResNet, Split, TeachingSet, Unrolled, VisionTransformer, evaluate,
    fit, load_dataset, make_student,
)  # fmt: skip
from gtnlib.students.networks import make_activation, make_norm
from gtnlib.teachers.generator import Generator

PIXELS = partial(PixelTeacher, images_per_class=1, steps=2, shape=(1, 8, 8), num_classes=3)
GENERATED = partial(GeneratorTeacher, steps=2, batch_size=6, shape=(1, 8, 8), num_classes=3)
IMAGES, LABELS = torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
SPLIT = Split(IMAGES, LABELS, num_classes=3)


def build(student):
    return make_student(student, (1, 8, 8), 3, 0)


def rehearsed(module):
    """The module as a student that has run on random images."""
    FlatStudent(module).rehearse(torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)))


def case(error, message, call, name):
    return pytest.param(error, message, call, id=name)


NAMES = [
    case(ValueError, "name is 'fashion-mnist'.*Did you mean 'fashion_mnist'",
         lambda: load_dataset("fashion-mnist"), "data set"),
    case(ValueError, "name is 'MNIST'.*one of mnist, fashion_mnist, kmnist, cifar10",
         lambda: load_dataset("MNIST"), "data set by its title"),
    case(ValueError, "distance is 'layerwise_cosine'.*Did you mean 'layerwise-cosine'",
         lambda: GradientMatching("layerwise_cosine"), "distance"),
    case(ValueError, "norm is 'instace'.*Did you mean 'instance'",
         lambda: ConvNet(norm="instace"), "norm"),
    case(ValueError, "norm is None.*one of none, instance", lambda: ResNet(norm=None), "norm None"),
    case(ValueError, "norm is 'layer'", lambda: make_norm("layer", 4), "norm alone"),
    case(ValueError, "pooling is 'mean'.*one of avg, max",
         lambda: ConvNet(pooling="mean"), "pooling"),
    case(ValueError, "pooling is 'maxx'.*Did you mean 'max'",
         lambda: VGG(pooling="maxx"), "pooling VGG"),
    case(ValueError, "pooling is 'x'", lambda: LeNet(pooling="x"), "pooling LeNet"),
    case(ValueError, "activation is 'Relu'.*Did you mean 'relu'", lambda: MLP(activation="Relu"),
         "activation"),
    case(ValueError, "activation is 'swish'.*softplus", lambda: make_activation("swish"),
         "activation alone"),
    case(ValueError, "curriculum is 'learnt'.*Did you mean 'learned'",
         lambda: GENERATED(curriculum="learnt"), "curriculum"),
    case(ValueError, "loss_at is 'end'.*one of every, last",
         lambda: Unrolled(loss_at="end"), "loss_at"),
    case(ValueError, "split is 'valid'.*Did you mean 'validation'",
         lambda: evaluate(PIXELS(), MLP, None, split="valid"), "split"),
]  # fmt: skip

COUNTS = [
    case(ValueError, "steps is 0, but must be at least 1", lambda: PIXELS(steps=0), "zero"),
    case(ValueError, "steps is -3", lambda: GENERATED(steps=-3), "negative"),
    case(TypeError, "steps must be a whole number, got 2.5",
         lambda: PIXELS(steps=2.5), "fractional"),
    case(TypeError, "steps must be a whole number, got True", lambda: PIXELS(steps=True), "true"),
    case(TypeError, "steps must be a whole number, got '3'", lambda: PIXELS(steps="3"), "text"),
    case(ValueError, "images_per_class is 0",
         lambda: PIXELS(images_per_class=0), "images_per_class"),
    case(ValueError, "batch_size is 4, but there are only 3 images", lambda: PIXELS(batch_size=4),
         "batch larger than images"),
    case(ValueError, "batch_size is 0", lambda: PIXELS(batch_size=0), "empty batch"),
    case(ValueError, "batch_size is 1, but must be at least 2", lambda: GENERATED(batch_size=1),
         "batch too small to normalise"),
    case(ValueError, "batches is 3, but there are only 2 steps",
         lambda: GENERATED(batches=3), "batches"),
    case(ValueError, "noise_size is 0", lambda: GENERATED(noise_size=0), "noise_size"),
    case(ValueError, "num_classes is 1", lambda: PIXELS(num_classes=1), "one class"),
    case(ValueError, "num_classes is 1", lambda: MLP(num_classes=1), "student of one class"),
    case(ValueError, "shape must be .*channels, height, width.*got .8, 8",
         lambda: PIXELS(shape=(8, 8)),
         "teacher of flat images"),
    case(ValueError, "shape must be .*channels, height, width.*got .28, 28",
         lambda: ConvNet(shape=(28, 28)), "student of flat images"),
    case(ValueError, "every entry of shape is 0", lambda: ConvNet(shape=(1, 0, 28)), "no rows"),
    case(ValueError, "width is 0", lambda: ConvNet(width=0), "width"),
    case(TypeError, "width must be a whole number, got 2.5",
         lambda: ConvNet(width=2.5), "half a channel"),
    case(ValueError, "depth is 3, but width lists 2 blocks", lambda: ConvNet(depth=3, width=(4, 4)),
         "depth against width"),
    case(ValueError, "depth is 0", lambda: ConvNet(width=4, depth=0), "depth"),
    case(ValueError, "5 blocks pool a 28 × 28 image away",
         lambda: ConvNet(width=4, depth=5), "too deep"),
    case(ValueError, "5 blocks pool a 28 × 28 image away",
         lambda: VGG(widths=[4] * 5), "VGG too deep"),
    case(ValueError, "at least 12 × 12, got 8 × 8",
         lambda: LeNet(shape=(1, 8, 8)), "LeNet too small"),
    case(ValueError, "at least 8 × 8, got 4 × 4", lambda: AlexNet(shape=(1, 4, 4)), "AlexNet too small"),
    case(ValueError, "five convolutions, but widths lists 2", lambda: AlexNet(widths=(4, 4)),
         "AlexNet widths"),
    case(ValueError, "patches of 5 × 5 do not tile a 28 × 28 image",
         lambda: VisionTransformer(patch=5), "patches"),
    case(ValueError, "width is 30, which 4 heads do not divide",
         lambda: VisionTransformer(width=30), "heads"),
    case(ValueError, "depth is 0", lambda: VisionTransformer(depth=0), "transformer depth"),
    case(ValueError, "widths is 0", lambda: MLP(widths=(0,)), "widths"),
    case(ValueError, "divisible by 4, got .1, 30, 28",
         lambda: Generator(shape=(1, 30, 28)), "generator"),
    case(ValueError, "divisible by 4",
         lambda: GeneratorTeacher(shape=(1, 28, 30)), "generated shape"),
    case(ValueError, "channels is 1, but must be at least 2",
         lambda: Generator(channels=1), "channels"),
    case(ValueError, "real_batch_size is 0",
         lambda: Unrolled(real_batch_size=0), "real_batch_size"),
    case(TypeError, "neumann_terms must be a whole number, got 1.5",
         lambda: Implicit(neumann_terms=1.5), "terms"),
    case(ValueError, "neumann_terms is -1, but must be at least 0",
         lambda: Implicit(neumann_terms=-1), "no terms"),
    case(ValueError, "power_iterations is 0",
         lambda: Implicit(power_iterations=0), "power_iterations"),
    case(ValueError, "batches is 0", lambda: Implicit(batches=0), "implicit batches"),
    case(ValueError, "updates_per_student is 0",
         lambda: Implicit(updates_per_student=0), "updates"),
    case(ValueError, "inner_steps is -1", lambda: GradientMatching(inner_steps=-1), "inner_steps"),
    case(ValueError, "n is 0", lambda: SPLIT.sample(0), "sample of nothing"),
    case(TypeError, "n must be a whole number, got 1.5",
         lambda: SPLIT.sample(1.5), "half a sample"),
    case(ValueError, "batch_size is 0", lambda: RealTeacher(SPLIT, 2, 0), "real batch_size"),
    case(ValueError, "images is 0", lambda: RealTeacher(SPLIT, 2, 2, images=0), "real images"),
]  # fmt: skip

NUMBERS = [
    case(error, message, partial(make, **keywords), f"{name}: {key}={value}")
    for name, make in (("pixels", PIXELS), ("generated", GENERATED),
                       ("real", partial(RealTeacher, SPLIT, 2, 2)))
    for error, message, keywords in (
        (ValueError, "rate is 0, but must be positive", {"rate": 0}),
        (ValueError, "rate is -0.1", {"rate": -0.1}),
        (ValueError, "rate is nan", {"rate": float("nan")}),
        (TypeError, "rate must be a number, got '0.1'", {"rate": "0.1"}),
        (ValueError, "momentum is 1, but must be at least 0 and below 1", {"momentum": 1}),
        (ValueError, "momentum is -0.5", {"momentum": -0.5}),
        (ValueError, "weight_decay is -1", {"weight_decay": -1}),
        (TypeError, "weight_decay must be a number, got None", {"weight_decay": None}),
    )
    for key, value in keywords.items()
] + [
    case(ValueError, "scale is 0, but must be positive or 'auto'",
         lambda: Implicit(scale=0), "scale"),
    case(TypeError, "scale must be a number, got 'Auto'",
         lambda: Implicit(scale="Auto"), "scale Auto"),
    case(ValueError, "solver is 'CG', but must be one of cg, neumann, stochastic-neumann",
         lambda: Implicit(solver="CG"), "solver"),
    case(ValueError, "neumann_terms does nothing with solver='cg': leave it out, or take solver='neumann'",
         lambda: Implicit(neumann_terms=5), "terms of conjugate gradients"),
    case(ValueError, "scale does nothing with solver='cg'", lambda: Implicit(scale=0.1), "scale of cg"),
    case(ValueError, "neumann_terms does nothing with solver='cg'",
         lambda: Implicit(neumann_terms=10), "as many terms as the default"),
    case(ValueError, "products does nothing with solver='neumann': leave it out, or take solver='cg'",
         lambda: Implicit("neumann", products=5), "products of a series"),
    case(ValueError, "loss_steps is 0", lambda: Unrolled(loss_steps=0), "loss_steps"),
    case(ValueError, "loss_steps is 3, but loss_at is 'last'",
         lambda: Unrolled(loss_at="last", loss_steps=3), "loss_steps at the last"),
    case(ValueError, "products is 0", lambda: Implicit(products=0), "products"),
    case(ValueError, "tolerance is -1", lambda: Implicit(tolerance=-1), "tolerance"),
    case(ValueError, "damping is -0.1", lambda: Implicit(damping=-0.1), "damping"),
]  # fmt: skip

BATCHES = [
    case(ValueError, "labels must lie in 0 … 2, got values from 0 to 3",
         lambda: Split(IMAGES, torch.tensor([0, 1, 2, 3]), 3), "label too large"),
    case(ValueError, "labels must lie in 0 … 2, got values from -1 to 2",
         lambda: Split(IMAGES, torch.tensor([0, 1, 2, -1]), 3), "label negative"),
    case(ValueError, r"labels must have shape \(4,\), one per image, got \(3,\)",
         lambda: Split(IMAGES, LABELS[:3], 3), "too few labels"),
    case(TypeError, "labels must be integers, got torch.float32",
         lambda: Split(IMAGES, LABELS.float(), 3), "float labels"),
    case(ValueError, r"images must have shape \(N, C, H, W\), got \(4, 8, 8\)",
         lambda: Split(IMAGES[:, 0], LABELS, 3), "images without channels"),
    case(ValueError, r"labels must have shape \(4,\), got \(1,\)",
         lambda: SPLIT.sample(4, labels=torch.tensor([1])), "sample: one label for four"),
    case(ValueError, "labels asks for class 3", lambda: SPLIT.sample(1, labels=torch.tensor([3])),
         "sample: unknown class"),
    case(ValueError, "labels asks for class -1", lambda: SPLIT.sample(1, labels=torch.tensor([-1])),
         "sample: negative class"),
    case(ValueError, "labels asks for class 2",
         lambda: Split(IMAGES, LABELS % 2, 3).sample(1, labels=torch.tensor([2])),
         "sample: class without images"),
    case(ValueError, "cannot balance classes: none of class 1",
         lambda: Split(IMAGES, LABELS * 0, 3).sample(3), "sample: nothing to balance"),
    case(ValueError, "the teacher's images are .1, 8, 8., the data's .3, 8, 8",
         lambda: PIXELS().start_from(Split(torch.zeros(4, 3, 8, 8), LABELS, 3)), "start_from"),
    case(ValueError, "order points outside the 4 images",
         lambda: TeachingSet(IMAGES, LABELS, torch.tensor([[4]]), torch.ones(1), torch.ones(1)),
         "order"),
    case(ValueError, "rate must have one entry for each of the 2 steps",
         lambda: TeachingSet(IMAGES, LABELS, LABELS.view(2, 2), torch.ones(1), torch.ones(2)),
         "rates"),
]  # fmt: skip

STUDENTS = [
    case(ValueError, "student is an empty list", lambda: build([]), "empty list"),
    case(TypeError, "pass a class or a function.*not one network", lambda: build(MLP()), "module"),
    case(TypeError, "pass a class or a function.*not one network", lambda: build([MLP()]),
         "module in a list"),
    case(TypeError, "student must be a class or function.*got 'ConvNet'",
         lambda: build("ConvNet"), "text"),
    case(TypeError, "must build a torch.nn.Module, got int", lambda: build(lambda: 3), "number"),
    case(ValueError, "state in its buffer '0.running_mean'.*track_running_stats=False",
         lambda: rehearsed(nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 3))),
         "running statistics"),
    case(ValueError, "no parameters to train", lambda: FlatStudent(nn.Flatten()), "no parameters"),
    case(ValueError, "Dropout",
         lambda: rehearsed(nn.Sequential(nn.Dropout2d(), nn.Flatten(), nn.Linear(64, 3))), "dropout"),
]  # fmt: skip


@pytest.mark.parametrize("error, message, call", NAMES + COUNTS + NUMBERS + BATCHES + STUDENTS)
def test_bad_input_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()


BN_STUDENT = partial(nn.Sequential, nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 3))


@pytest.mark.parametrize(
    "error, message, arguments",
    [
        case(ValueError, "outer_steps is 0", {"outer_steps": 0}, "no updates"),
        case(TypeError, "outer_steps must be a whole number, got 1.5", {"outer_steps": 1.5},
             "half"),
        case(ValueError, "students_per_step is 0", {"students_per_step": 0}, "no students"),
        case(ValueError, "validate_every is 0", {"validate_every": 0}, "validate_every"),
        case(ValueError, "rate is -1", {"rate": -1}, "rate"),
        case(ValueError, "rates_rate is -1", {"rates_rate": -1}, "rates_rate"),
        case(ValueError, "final_rate is -1", {"final_rate": -1}, "final_rate"),
        case(ValueError, "clip is 0, but must be positive or None", {"clip": 0}, "clip of zero"),
        case(ValueError, "clip is -2", {"clip": -2}, "negative clip"),
        case(TypeError, "metagrad must be an instance such as Unrolled.., got <class",
             {"metagrad": Unrolled}, "class for a method"),
        case(TypeError, "metagrad must be an instance", {"metagrad": "unrolled"},
             "name for a method"),
        case(TypeError, "teacher must be a PixelTeacher or GeneratorTeacher, got RealTeacher",
             {"teacher": RealTeacher(SPLIT, 2, 2)}, "teacher that cannot learn"),
        case(TypeError, "teacher must be a PixelTeacher or GeneratorTeacher, got Unrolled",
             {"teacher": Unrolled()}, "arguments in the wrong order"),
        case(ValueError, "teacher makes 3 classes of images .3, 8, 8., but toy has 3 classes of "
             "images .1, 8, 8.", {"teacher": PIXELS(shape=(3, 8, 8))}, "three channels"),
        case(ValueError, "teacher makes 4 classes", {"teacher": PIXELS(num_classes=4)},
             "four classes"),
        case(TypeError, "pass a class or a function", {"student": MLP((1, 8, 8), 3)},
             "one network"),
        case(ValueError, "student is an empty list", {"student": []}, "no architectures"),
        case(ValueError, "running_mean.*track_running_stats", {"student": BN_STUDENT},
             "running stats"),
    ],
)  # fmt: skip
def test_bad_arguments_of_fit_are_refused_and_leave_the_teacher_alone(toy, error, message, arguments):
    arguments = {"teacher": PIXELS(), "metagrad": Unrolled(), "student": MLP, "data": toy,
                 "outer_steps": 2, "progress": False} | arguments  # fmt: skip
    teacher = arguments["teacher"]
    before = teacher.images.detach().clone() if isinstance(teacher, PixelTeacher) else None
    with pytest.raises(error, match=message):
        fit(**arguments)
    assert before is None or torch.equal(teacher.images, before)


@pytest.mark.parametrize(
    "error, message, arguments",
    [
        case(ValueError, "seeds is 0", {"seeds": 0}, "no seeds"),
        case(ValueError, "seeds is empty", {"seeds": []}, "empty seeds"),
        case(ValueError, "steps is 0", {"steps": 0}, "no steps"),
        case(ValueError, "every is 0", {"every": 0}, "every"),
        case(TypeError, "every must be a whole number, got 0.5", {"every": 0.5}, "half"),
        case(ValueError, "images are .3, 8, 8., those of toy .1, 8, 8.",
             {"teacher": PIXELS(shape=(3, 8, 8))}, "three channels"),
        case(ValueError, "labels go up to 3, but toy has 3 classes",
             {"teacher": PixelTeacher(1, 2, shape=(1, 8, 8), num_classes=4)}, "four classes"),
        case(TypeError, "pass a class or a function", {"student": MLP((1, 8, 8), 3)},
             "one network"),
    ],
)  # fmt: skip
def test_bad_arguments_of_evaluate_are_refused(toy, error, message, arguments):
    with pytest.raises(error, match=message):
        evaluate(**{"teacher": PIXELS(), "student": MLP, "data": toy} | arguments)


@pytest.mark.parametrize("make_teacher", [PixelTeacher, GeneratorTeacher])
def test_a_teacher_of_colour_images_cannot_be_fitted_to_digits(mnist, make_teacher):
    with pytest.raises(ValueError, match=r"images \(3, 28, 28\), but mnist has .*\(1, 28, 28\)"):
        fit(make_teacher(steps=2, shape=(3, 28, 28)), Unrolled(), MLP, mnist, 1)


def test_matching_refuses_data_without_a_class_of_the_teacher():
    data = Dataset("two", *[Split(IMAGES, LABELS % 2, num_classes=3)] * 3)
    with pytest.raises(ValueError, match="class 2"):
        fit(PIXELS(), GradientMatching(), MLP, data, 1, progress=False)
