"""Judgements: every cell is what evaluate gives, choices are made on validation, nothing is done twice."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch

import gtnlib.experiments.judgement as judgements
import gtnlib.experiments.lessons as module
from gtnlib import MLP, Augment, PixelTeacher, Protocol, RealTeacher, evaluate
from gtnlib.experiments import EXPERIMENTS, Context, Judgement
from gtnlib.experiments.__main__ import main
from gtnlib.experiments.choice import SELECTION_SEEDS, choose
from gtnlib.experiments.records import Record
from gtnlib.judge.scores import augmentation_robust, label_robust
from gtnlib.judge.training import Recipe, score
from gtnlib.teachers.coresets import coreset
from gtnlib.teachers.files import load_teacher, save_teacher

CPU = torch.device("cpu")
STUDENT = partial(MLP, widths=[8])
LONG = Protocol(epochs=6, rate=0.05)
TOY = Judgement(
    "toy-judged", "tiny", teachers=("taught",), student=("MLP", {"widths": [8]}),
    grid=(Recipe("sgd", 1e-6), Recipe("sgd", 0.3), Recipe("sgd", 1e6)), long=LONG,
    augmented=replace(LONG, augment=Augment(crop=1)), rates=(0.05, 1e-6), shown=30, real_epochs=2,
    baselines=("real", "herding"), images=(9,), seeds=3, long_seeds=2, selection_images=30,
)  # fmt: skip


@pytest.fixture
def context(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_data", lambda name, device: toy)
    module._built.cache_clear()
    teacher = PixelTeacher(images_per_class=2, shape=(1, 8, 8), num_classes=3, steps=6, rate=0.1)
    teacher.start_from(toy.train, torch.Generator().manual_seed(0))
    save_teacher(teacher, tmp_path / "taught.safetensors")
    yield Context(tmp_path, CPU, progress=False, teachers=tmp_path)
    module._built.cache_clear()


@pytest.fixture
def record(context):
    return TOY.run(context)


def test_every_cell_is_there(record):
    kinds = ("lesson", "long", "augmented")
    assert set(record.results["cells"]) == {
        *(f"taught.{kind}" for kind in kinds), "all.long",
        *(f"{source}-{part}" for source in ("real", "herding") for part in
          ("6.lesson-6x6", "6.long", "6.augmented", "9.long", "9.augmented")),
    }  # fmt: skip


def test_long_cells_are_what_evaluate_gives(record, toy, context):
    """Five epochs of the six, which show 30 images, and the whole six on nine … would show 54: three."""
    teacher = load_teacher(context.teachers / "taught.safetensors")
    sources = {
        "taught.long": (teacher, LONG, 5), "taught.augmented": (teacher, TOY.augmented, 5),
        "real-6.long": (RealTeacher(toy.train, 1, 6), LONG, 5),
        "real-9.augmented": (RealTeacher(toy.train, 1, 9), TOY.augmented, 3),
        "herding-6.long": (coreset(toy.train, "herding", 2, 1, 6), LONG, 5),
    }  # fmt: skip
    for name, (source, protocol, epochs) in sources.items():
        cell = record.results["cells"][name]
        protocol = replace(protocol, epochs=epochs, rate=TOY.rates[cell["choice"]])
        wanted = evaluate(source, STUDENT, toy, 2, protocol=protocol, progress=False)
        assert cell["test_accuracy"] == list(wanted.accuracy.values), name
        assert cell["diverged"] == 0 and cell["steps"] == wanted.steps[-1] == epochs
    assert record.results["cells"]["all.long"]["steps"] == 2  # 120 images in one batch


def test_a_lesson_has_the_best_rate_on_validation_and_the_teachers_own_is_among_them(record, toy, context):
    teacher = load_teacher(context.teachers / "taught.safetensors")
    blind = replace(toy, validation=toy.validation.first(30), test=None)
    for name, source, options in [
        ("taught.lesson", teacher, [Recipe(), *TOY.grid]),
        ("real-6.lesson-6x6", RealTeacher(toy.train, 6, 6, 6), TOY.grid),
    ]:
        cell = record.results["cells"][name]
        wanted = [list(score(source, STUDENT, blind, recipe, SELECTION_SEEDS).accuracy["validation"])
                  for recipe in options]  # fmt: skip
        assert cell["validation"] == wanted
        means = list(map(sum, wanted))
        assert cell["choice"] == means.index(max(means))
        final = score(source, STUDENT, toy, options[cell["choice"]], 3, ["test"]).accuracy["test"]
        assert cell["test_accuracy"] == list(final)
    assert record.results["cells"]["real-6.lesson-6x6"]["choice"] == 1


def test_it_goes_on_where_it_was_and_with_more_students_only_they_are_measured(record, context, monkeypatch):
    measured = []
    plain = judgements.Measuring

    def counting(folder, device):
        carry_out = plain(folder, device)
        return lambda job: measured.append(job) or carry_out(job)

    monkeypatch.setattr(judgements, "Measuring", counting)
    again = TOY.run(context)
    assert again.results == record.results and not measured
    more = replace(TOY, long_seeds=3).run(context)
    assert len(measured) == 11 and {job["seeds"][0] for job in measured} == {2}  # ten cells and all.long
    for name, cell in more.results["cells"].items():
        old = record.results["cells"][name]["test_accuracy"]
        assert cell["test_accuracy"][: len(old)] == old


def test_check_measures_again_and_says_what_is_far(record, context):
    outcome = TOY.check(record, context, 2)
    assert outcome.passed, outcome.message
    record.results["cells"]["taught.lesson"]["test_accuracy"] = [0.01, 0.01, 0.01]
    outcome = TOY.check(record, context, 2)
    assert not outcome.passed and "taught.lesson: recorded 1.0 ± 0.0 %" in outcome.message


def test_the_table_shows_protocols_gains_scores_and_real_images(record, context, capsys):
    assert main(["table"], {"toy-judged": TOY}, context.folder) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "judged" and len(rows) == 1 + 4 + 1
    assert [row.split("  ")[0] for row in rows] == [
        "taught", "real, 6 × 6", "real", "herding, 6 × 6", "herding", "all real"]  # fmt: skip
    mean = {name: sum(cell["test_accuracy"]) / len(cell["test_accuracy"])
            for name, cell in record.results["cells"].items()}  # fmt: skip
    lrs = label_robust(mean["all.long"], mean["taught.long"], mean["real-6.long"])
    ars = augmentation_robust((mean["taught.augmented"], mean["real-6.augmented"]),
                              (mean["taught.long"], mean["real-6.long"]))  # fmt: skip
    assert rows[0].split()[-2:] == [f"{lrs:.3f}", f"{ars:.3f}"]


def test_diverged_students_are_counted_in_record_and_table(context, capsys):
    wild = replace(TOY, rates=(1e20,), teachers=("taught",), grid=(Recipe("sgd", 0.1),), baselines=())
    record = wild.run(context)
    assert record.results["cells"]["taught.long"]["diverged"] == 2
    assert main(["table"], {"toy-judged": wild}, context.folder) == 0
    assert "2 diverged" in capsys.readouterr().out.splitlines()[1]


def test_a_teacher_with_learned_labels_is_judged_with_hard_ones_too(context, capsys):
    teacher = PixelTeacher(2, shape=(1, 8, 8), num_classes=3, steps=6, learn_labels=True)
    with torch.no_grad():  # all but uniform, and the most probable class is the one before
        teacher.label_logits.copy_(torch.eye(3)[(teacher.labels + 2) % 3] * 0.01)
    save_teacher(teacher, context.teachers / "soft.safetensors")
    soft = replace(TOY, teachers=("soft",), grid=(Recipe("sgd", 0.1),), rates=(0.05,))
    cells = soft.run(context).results["cells"]
    mean = {name: sum(cell["test_accuracy"]) / 2 for name, cell in cells.items() if "lesson" not in name}
    assert cells["soft.hard"]["test_accuracy"] != cells["soft.long"]["test_accuracy"]
    lrs = label_robust(mean["all.long"], mean["soft.long"], mean["real-6.long"], mean["soft.hard"])
    assert main(["table"], {"toy-judged": soft}, context.folder) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[1].split()[-2] == f"{lrs:.3f}"
    assert [row.split("  ")[0] for row in rows[2:]] == ["real, 6 × 6", "real", "herding, 6 × 6", "herding",
                                                        "all real"]  # fmt: skip


def test_without_long_training_there_is_no_score(context, capsys):
    TOYS = {"toy-judged": replace(TOY, long=None, teachers=(), baselines=("real",))}
    record = TOYS["toy-judged"].run(context)
    assert list(record.results["cells"]) == ["real-9.augmented"]
    assert main(["table"], TOYS, context.folder) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["real", "9"]


def test_a_choice_with_nothing_to_choose_from_is_one_error(tmp_path, context):
    jobs = {"cell": [{"a": 1}, {"a": 2}]}
    with pytest.raises(ValueError, match="the teachers of every option of cell diverged"):
        choose(jobs, lambda job: {"accuracy": {"validation": []}, "seconds": []}, tmp_path / "c", context)
    place = choose(jobs, lambda job: {"accuracy": {"validation": [job["a"] / 4] * job["a"]}, "seconds": [1]},
                   tmp_path / "d", context).place  # fmt: skip
    assert place == {"cell": 1}


@pytest.mark.parametrize("changes, message", [
    ({"long": Protocol()}, "long must be a protocol by epochs"),
    ({"rates": ()}, "must each list at least one"),
    ({"grid": ()}, "must each list at least one"),
    ({"baselines": ("passes",)}, "baselines is 'passes'"),
    ({"seeds": 0}, "seeds is 0"),
    ({"real_epochs": -1}, "real_epochs is -1"),
    ({"data": "mnits"}, "data is 'mnits'.*Did you mean 'mnist'"),
])  # fmt: skip
def test_bad_settings_are_one_error(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(TOY, **changes)


def test_the_books_judgements_name_teachers_that_are_experiments():
    found = [one for one in EXPERIMENTS.values() if isinstance(one, Judgement)]
    assert {"judged", "judged-others", "judged-small", "judged-real"} <= {one.name for one in found}
    named = [name for one in found[1:] for name in one.teachers]
    assert set(named) <= EXPERIMENTS.keys()
    assert json.dumps(found[0].configuration())
    record = Record("x", found[0].configuration(), {}, "", {}, "", "2026-01-01", 0, None, {}, {"cells": {}})
    assert found[0].summary(record) == "judged-small: 6 teachers, 0 cells"
