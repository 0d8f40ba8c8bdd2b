"""Learned training data: dataset distillation and Generative Teaching Networks.

Two teachers (pixels, a generator), three meta-gradients (unrolled, implicit, gradient matching):

    from gtnlib import load_dataset, ConvNet, GeneratorTeacher, Unrolled, fit, evaluate

    mnist = load_dataset("mnist")
    teacher = GeneratorTeacher(steps=32, batch_size=64)
    history = fit(teacher, Unrolled(), student=ConvNet, data=mnist, outer_steps=1000, seed=0)
    report = evaluate(teacher, student=ConvNet, data=mnist, seeds=5)
"""

from gtnlib.support import interrupt as _interrupt  # noqa: F401  (first: what follows takes seconds)
from gtnlib.students.space import Architecture, sample_architectures
from gtnlib.data.augment import Augment
from gtnlib.data.sets import Dataset, Split, default_device
from gtnlib.data.load import load_dataset
from gtnlib.support.errors import DataError, DivergenceError, DivergenceWarning
from gtnlib.judge.protocols import LESSON, LONG, LONG_AUGMENTED, Protocol
from gtnlib.judge.report import Report, Statistic
from gtnlib.judge.evaluate import accuracy, best_rate, evaluate
from gtnlib.outer.fit import fit
from gtnlib.outer.history import History, OuterStep
from gtnlib.inner.step import StudentRun, inner_step, train_student
from gtnlib.metagrad import DistributionMatching, GradientMatching, Implicit, Unrolled
from gtnlib.students.networks import MLP, VGG, AlexNet, ConvNet, LeNet, ResNet
from gtnlib.inner.flat import FlatStudent
from gtnlib.students.build import make_student
from gtnlib.teachers.generator import GeneratorTeacher
from gtnlib.teachers.pixels import PixelTeacher
from gtnlib.teachers.real import RealTeacher
from gtnlib.teachers.teaching_set import TeachingSet
from gtnlib.teachers.varied import Variation
from gtnlib.students.vit import VisionTransformer

__version__ = "0.1.0"

__all__ = [
    "LESSON", "LONG", "LONG_AUGMENTED", "MLP", "VGG", "AlexNet", "Architecture", "Augment", "ConvNet",
    "DataError", "Dataset", "DistributionMatching", "DivergenceError", "DivergenceWarning",
    "FlatStudent", "GeneratorTeacher", "GradientMatching", "History", "Implicit", "LeNet", "OuterStep",
    "PixelTeacher", "Protocol", "RealTeacher", "Report", "ResNet", "Split", "Statistic", "StudentRun",
    "TeachingSet", "Unrolled", "Variation", "VisionTransformer", "accuracy", "best_rate",
    "default_device", "evaluate", "fit", "inner_step", "load_dataset", "make_student",
    "sample_architectures", "train_student",
]  # fmt: skip
