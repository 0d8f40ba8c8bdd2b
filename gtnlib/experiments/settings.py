"""The named experiments of the book: all their settings, in one place to read and to tune.

Unless a name says otherwise, every student is `ConvNet()`, two blocks of 16 and 32 channels: smaller
than the three blocks of 128 channels that most tables use, so that a CPU is enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from gtnlib.experiments.base import Experiment
from gtnlib.experiments.comparison import Comparison
from gtnlib.experiments.cost import Cost
from gtnlib.experiments.distillation import Distillation, Mixture
from gtnlib.experiments.lessons import Lessons
from gtnlib.experiments.search import Search
from gtnlib.experiments.trials import Trials
from gtnlib.judge.training import Recipe
from gtnlib.students.space import SPACE, sample_architectures

SMALL = "small student: ConvNet of 16 and 32 channels"
TEACHERS_PER_CELL = 3

# Batches of an inner step: all images up to 10 per class, a batch at a time above.
PIXELS = {
    1: {"images_per_class": 1, "steps": 10},
    10: {"images_per_class": 10, "steps": 10},
    50: {"images_per_class": 50, "steps": 15, "batch_size": 100},
}
PIXEL_SGD = {"rate": 0.02, "momentum": 0.9}

# By name in the experiment: its class and arguments; and for pixels, for the generator, and for the
# generator with 100 images, what it needs of the teacher and of `fit`.
METHODS: dict[str, dict[str, Any]] = {
    "unrolled": {
        "metagrad": "Unrolled",
        "metagrad_args": {"loss_at": "every", "real_batch_size": 128},
        "pixels": {},
        "pixels_fit": {"outer_steps": 300, "rate": 0.1},
        "gtn": {"steps": 32, "batch_size": 64},
        "gtn_fit": {"outer_steps": 700, "rate": 3e-3},
        "gtn_teachers": 1,  # an outer step takes seconds on a CPU
        "gtn_100": {},
        "gtn_100_fit": {"outer_steps": 400, "rate": 3e-3},
        "gtn_100_teachers": 1,
    },
    "implicit": {
        "metagrad": "Implicit",
        "metagrad_args": {"neumann_terms": 5, "power_iterations": 4, "batches": 1},
        "pixels": {"weight_decay": 0.1},
        "pixels_fit": {"outer_steps": 400, "rate": 0.1},
        "gtn": {"steps": 40, "batch_size": 100, "batches": 4, "weight_decay": 0.03},
        "gtn_args": {"batches": 4},
        "gtn_fit": {"outer_steps": 250, "rate": 5e-3},
        "gtn_teachers": 1,
        "gtn_100": {"weight_decay": 0.1},
        "gtn_100_fit": {"outer_steps": 400, "rate": 5e-3},
    },
    "matching": {
        "metagrad": "GradientMatching",
        "metagrad_args": {"distance": "cosine"},
        "pixels": {},
        "pixels_fit": {"outer_steps": 600, "rate": 0.1},
        "gtn": {"steps": 40, "batch_size": 100, "batches": 4, "rate": 0.05},
        "gtn_args": {"updates_per_student": 20},
        "gtn_fit": {"outer_steps": 1200, "rate": 1e-2},
        "gtn_100": {"rate": 0.05},
        "gtn_100_fit": {"outer_steps": 600, "rate": 1e-2},
    },
}
NAMES = {"unrolled": "unrolled", "implicit": "implicit differentiation", "matching": "gradient matching"}


def cell(method: str, kind: str, name: str, images: str, teacher: str, lesson: dict) -> Distillation:
    """The experiment of a method with what `METHODS` says of this kind of teacher."""
    settings = METHODS[method]
    return Distillation(
        name=name,
        title=f"{images}, {NAMES[method]} ({SMALL})",
        teacher=teacher,
        teacher_args={**lesson, **settings[kind]},
        metagrad=settings["metagrad"],
        metagrad_args={**settings["metagrad_args"], **settings.get(f"{kind}_args", {})},
        fit_args=settings[f"{kind}_fit"],
        teacher_seeds=settings.get(f"{kind}_teachers", TEACHERS_PER_CELL),
    )


def pixels(method: str, per_class: int) -> Distillation:
    """Dataset distillation to so many images per class."""
    images = f"{per_class} learned image{'' if per_class == 1 else 's'} per class"
    lesson = {**PIXELS[per_class], **PIXEL_SGD}
    one = cell(method, "pixels", f"pixels-{method}-{per_class}", images, "PixelTeacher", lesson)
    if per_class <= 10:
        return one
    # Not all images in every step: implicit differentiation takes the batches together.
    batches = {"batches": 5} if method == "implicit" else {}
    return replace(one, metagrad_args={**one.metagrad_args, **batches}, teacher_seeds=1)


def gtn(method: str) -> Distillation:
    """A Generative Teaching Network, with the lesson that served the method best."""
    return cell(method, "gtn", f"gtn-{method}", "generated images", "GeneratorTeacher", {})


def gtn_100(method: str) -> Distillation:
    """The same lesson for every method: 20 steps on one batch of 100 images."""
    lesson = {"steps": 20, "batch_size": 100, "batches": 1}
    return cell(method, "gtn_100", f"gtn-{method}-100", "100 generated images", "GeneratorTeacher", lesson)


def curriculum(what: str, title: str, **changes: Any) -> Distillation:
    """A smaller unrolled GTN, with one thing changed."""
    settings = METHODS["unrolled"]
    return Distillation(
        name=f"curriculum-{what}",
        title=f"generated images, unrolled, {title} ({SMALL})",
        teacher="GeneratorTeacher",
        teacher_args={"steps": 16, "batch_size": 32, "hidden": 64, "channels": 16, **changes},
        metagrad=settings["metagrad"],
        metagrad_args=settings["metagrad_args"],
        fit_args={"outer_steps": 300, "rate": 3e-3},
    )


CURRICULUM = [
    curriculum("learned", "learned noise and rates"),
    curriculum("fixed", "fixed noise", curriculum="fixed"),
    curriculum("fresh", "fresh noise for every student", curriculum="fresh"),
    curriculum("fixed-rates", "fixed rates", learn_rates=False),
]

# Where candidates are drawn from, and the most multiplications that one may need.
SEARCHED: Mapping[str, Sequence] = {**SPACE, "width": (4, 8, 16)}
LIMIT = 1_000_000

# Next to ConvNet, the students of a teacher that is to serve many kinds.
OTHERS: Sequence[tuple[str, Mapping]] = (
    ("ConvNet", {"norm": "batch"}),
    ("ConvNet", {"norm": "none"}),
    ("MLP", {}),
    ("LeNet", {}),
)


def mixed(one: Distillation) -> Mixture:
    """The same cell with one teacher, as many outer steps, and one of five students in each."""
    return _other_students(one, "mixed", f"five students ({SMALL})", others=OTHERS)


def perceptron(one: Distillation) -> Mixture:
    """The same cell with one teacher that meets the perceptron in place of the ConvNet."""
    return _other_students(one, "mlp", "perceptron", student="MLP")


def searcher(one: Distillation) -> Mixture:
    """The same cell with one teacher that meets ConvNet and networks from the space that is searched."""
    others = [("Architecture", asdict(architecture))
              for architecture in sample_architectures(20, seed=1, limit=LIMIT, space=SEARCHED)]  # fmt: skip
    return _other_students(one, "searcher", f"networks like those of the search ({SMALL})", others=others)


def _other_students(one: Distillation, suffix: str, words: str, **changes: Any) -> Mixture:
    arguments = {field.name: getattr(one, field.name) for field in fields(one)}
    title = f"{one.title.removesuffix(f' ({SMALL})')}, {words}"
    return Mixture(**{**arguments, "name": f"{one.name}-{suffix}", "title": title, "teacher_seeds": 1,
                      **changes})  # fmt: skip


# ---------------------------------------------------------------- what was tried

AS_IT_IS: Mapping[str, Mapping] = {"as it is": {}}
IDEAS: Mapping[str, Mapping[str, Mapping]] = {
    "unrolled": {
        "loss after the last step only": {"metagrad_args": {"loss_at": "last"}},
        "512 real images rather than 128": {"metagrad_args": {"real_batch_size": 512}},
        "two students per outer step": {"fit_args": {"students_per_step": 2}},
        "no cosine decay": {"fit_args": {"final_rate": 1.0}},
    },
    "implicit": {
        "20 Neumann terms": {"metagrad_args": {"neumann_terms": 20}},
        "a damping of 1": {"metagrad_args": {"damping": 1.0}},
        "students kept for 5 updates": {"metagrad_args": {"updates_per_student": 5}},
        "two students per outer step": {"fit_args": {"students_per_step": 2}},
    },
    "matching": {
        "layerwise cosine": {"metagrad_args": {"distance": "layerwise-cosine"}},
        "squared error": {"metagrad_args": {"distance": "squared-error"}},
        "256 real images per class rather than 64": {"metagrad_args": {"real_batch_size": 256}},
        "students kept for 40 updates": {"metagrad_args": {"updates_per_student": 40}},
    },
}


def tried(method: str, one: Distillation, part: int = 3) -> Trials:
    """Ideas for a cell, each with one `part` of its outer steps."""
    shorter = {**one.fit_args, "outer_steps": one.fit_args["outer_steps"] // part}
    return Trials(
        name=f"tried-{one.name}",
        title=f"ideas for {one.name}, each with {shorter['outer_steps']} outer steps",
        base=replace(one, fit_args=shorter, teacher_seeds=1),
        changes={**AS_IT_IS, **IDEAS[method]},
    )


TRIED = [
    *(tried(method, pixels(method, per_class)) for method in METHODS for per_class in (1, 10)),
    *(tried(method, pixels(method, 50), part=10) for method in METHODS),
    *(tried(method, gtn_100(method)) for method in METHODS),
]

# ---------------------------------------------------------------- what the teachers are good for

HUNDRED = [*(pixels(method, 10) for method in METHODS), *(gtn_100(method) for method in METHODS)]
MIXED, MLPS = [mixed(one) for one in HUNDRED], [perceptron(one) for one in HUNDRED]
SEARCHERS = [searcher(gtn_100(method)) for method in ("unrolled", "matching")]
RECORDED_TEACHERS = (*(f"gtn-{method}" for method in METHODS), *(f"pixels-{method}-10" for method in METHODS))
OWN = Recipe()  # the rates that the teacher prescribes
SGD = tuple(Recipe("sgd", rate) for rate in (0.01, 0.03, 0.1))
ADAM = tuple(Recipe("adam", rate) for rate in (0.001, 0.003, 0.01))


def cost() -> Cost:
    """Recomputed and recorded unrolling, implicit differentiation and matching, of one GTN."""
    return Cost(
        name="cost",
        title="seconds and memory of an outer step against inner steps and the student's width",
        methods={
            "unrolled, graph kept": ("Unrolled", {"checkpoint": False, "loss_at": "last"}),
            "unrolled, recomputed": ("Unrolled", {"checkpoint": True, "loss_at": "last"}),
            "implicit": ("Implicit", {**METHODS["implicit"]["metagrad_args"], "damping": 5.0}),
            "matching": ("GradientMatching", {}),
        },
        teacher_args={"batch_size": 64, "rate": 0.02, "momentum": 0.5},
    )


def few_steps() -> Comparison:
    """Accuracy against inner steps: learned data, chosen and random real images, all real images."""
    teachers = {name: (Lessons(name), [OWN]) for name in RECORDED_TEACHERS}
    hundred = {name: (Lessons(name, batch_size=100, images=100), [*SGD, *ADAM])
               for name in ("real", "k_centre", "herding")}  # fmt: skip
    return Comparison(
        name="few-steps",
        title="accuracy after 4 to 128 steps on learned, chosen, random and all real images",
        sources={**teachers, **hundred, "passes": (Lessons("passes", batch_size=64), [*SGD, *ADAM])},
        students={"ConvNet": ("ConvNet", {})},
        steps=(4, 8, 16, 32, 64, 128),
    )


def many_steps() -> Comparison:
    """How many steps on all real images the learned ones stand for."""
    return Comparison(
        name="many-steps",
        title="accuracy after 256 to 1024 steps on all real images",
        sources={"passes": (Lessons("passes", batch_size=64), [*SGD, *ADAM])},
        students={"ConvNet": ("ConvNet", {})},
        steps=(256, 512, 1024),
    )


def order() -> Comparison:
    """The learned curriculum, and its batches in any other order."""
    gtn = "gtn-unrolled"
    return Comparison(
        name="curriculum-order",
        title="a learned curriculum in its own order and in random ones",
        sources={"in order": (Lessons(gtn), [OWN]), "shuffled": (Lessons(gtn, shuffled=True), [OWN])},
        students={"ConvNet": ("ConvNet", {})},
        steps=(2, 4, 8, 16, 32),
        seeds=10,
    )


TWELVE: Mapping[str, tuple[str, Mapping]] = {
    "ConvNet": ("ConvNet", {}),
    "ConvNet, half as wide": ("ConvNet", {"width": [8, 16]}),
    "ConvNet, twice as wide": ("ConvNet", {"width": [32, 64]}),
    "ConvNet, three blocks": ("ConvNet", {"width": [16, 32, 64]}),
    "ConvNet, batch norm": ("ConvNet", {"norm": "batch"}),
    "ConvNet, no norm": ("ConvNet", {"norm": "none"}),
    "MLP": ("MLP", {}),
    "LeNet": ("LeNet", {}),
    "AlexNet": ("AlexNet", {}),
    "VGG": ("VGG", {}),
    "ResNet": ("ResNet", {}),
    "VisionTransformer": ("VisionTransformer", {}),
}


def transfer() -> Comparison:
    """Students that no teacher has met, but for the first; by the teacher's recipe and by a chosen one."""
    short = [replace(recipe, steps=32) for recipe in (*SGD, *ADAM)]
    return Comparison(
        name="transfer",
        title="twelve networks taught by teachers that have met one of them",
        sources={
            **{name: (Lessons(name), [OWN]) for name in RECORDED_TEACHERS},
            **chosen(RECORDED_TEACHERS),
            "real": (Lessons("real", batch_size=64), short),
        },
        students=TWELVE,
    )


def transfer_mixed() -> Comparison:
    """The same students, from teachers of 100 images that have met ConvNet, the perceptron or five kinds."""
    return Comparison(
        name="transfer-mixed",
        title="twelve networks taught by teachers that have met one of them, another one, or five",
        sources=chosen([one.name for one in (*HUNDRED, *MLPS, *MIXED)]),
        students=TWELVE,
    )


def chosen(names: Sequence[str]) -> dict[str, tuple[Lessons, Sequence[Recipe]]]:
    """Recorded teachers, whose students may follow their recipe or Adam, whichever serves them."""
    return {f"{name}, chosen": (Lessons(name), [OWN, *ADAM]) for name in names}


def search() -> Search:
    """100 candidates; the short trainings see 2048 images or fewer, the full one about 150 000."""
    fresh = Lessons("real", batch_size=64)
    with_adam = [*(f"gtn-{method}" for method in METHODS), "gtn-unrolled-100", "gtn-matching-100",
                 *(one.name for one in SEARCHERS)]  # fmt: skip
    return Search(
        name="search",
        title="100 architectures ranked after a short training, and after a full one",
        truth=(Lessons("passes", batch_size=128), Recipe("adam", 0.003, steps=1170, cosine=True)),
        proxies={
            **{name: (Lessons(name), OWN) for name in RECORDED_TEACHERS},
            **{f"{name}-adam": (Lessons(name), Recipe("adam", 0.003)) for name in with_adam},
            "real": (fresh, Recipe("sgd", 0.03, steps=32)),
            "real-adam": (fresh, Recipe("adam", 0.003, steps=32)),
            "k_centre": (Lessons("k_centre", batch_size=64), Recipe("sgd", 0.03, steps=32)),
            "herding": (Lessons("herding", batch_size=64), Recipe("sgd", 0.03, steps=32)),
            "real-128": (fresh, Recipe("sgd", 0.03, steps=128)),
        },
        truth_seeds=2,
        proxy_seeds=2,
        proxy_images=2000,
        limit=LIMIT,
        space=SEARCHED,
    )


LIST: list[Experiment] = [
    *(pixels(method, per_class) for method in METHODS for per_class in PIXELS),
    *(gtn(method) for method in METHODS),
    *(gtn_100(method) for method in METHODS),
    *MLPS,
    *MIXED,
    *SEARCHERS,
    *CURRICULUM,
    *TRIED,
    cost(),
    few_steps(),
    many_steps(),
    order(),
    transfer(),
    transfer_mixed(),
    search(),
]
EXPERIMENTS: dict[str, Experiment] = {experiment.name: experiment for experiment in LIST}
