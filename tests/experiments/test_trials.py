"""What was tried is run, resumed, recorded and checked."""

import copy

import pytest
import torch

import gtnlib.experiments.distillation
import gtnlib.experiments.trials as module
from gtnlib.experiments import Context, Distillation, Trials
from gtnlib.experiments.records import RECORDED, Record
from gtnlib.experiments.settings import tuned

BASE = Distillation(
    "toy", "tiny", "PixelTeacher", {"images_per_class": 2, "steps": 3}, "Unrolled",
    {"real_batch_size": 16}, "MLP", {"widths": [8]}, {"outer_steps": 6, "validate_every": 2},
    start="random", teacher_seeds=2, evaluation_seeds=3)  # fmt: skip
TRIALS = Trials("toy-trials", "tiny", BASE, {
    "as it is": {},
    "longer": {"fit_args": {"outer_steps": 8}},
    "from noise": {"start": "noise"},
    "far too fast": {"teacher_args": {"rate": 1e30}},
})  # fmt: skip


@pytest.fixture
def context(toy, tmp_path, monkeypatch):
    for place in (module, gtnlib.experiments.distillation):
        monkeypatch.setattr(place, "load_dataset", lambda name, device: toy)
    return Context(tmp_path, torch.device("cpu"), progress=False)


def test_every_change_is_tried_once_and_a_divergence_is_recorded(context):
    record = TRIALS.run(context)
    assert Record.load(context.folder / "toy-trials.json").results == record.results
    outer = {words: result["outer_steps"] for words, result in record.results.items()}
    assert outer == {"as it is": 6, "longer": 8, "from noise": 6, "far too fast": 0}
    found = {words: result["validation_accuracy"] for words, result in record.results.items()}
    assert [len(values) for values in found.values()] == [3, 3, 3, 0]
    assert record.curves["loss"]["as it is"] != record.curves["loss"]["from noise"]
    assert [step for step, _, _ in record.curves["validation"]["longer"]] == [2, 4, 6, 8]
    assert "4 trials, best" in TRIALS.summary(record)


def test_a_trial_is_the_distillation_with_that_change(context):
    record = TRIALS.run(context)
    alone = Context(context.folder / "alone", context.device, progress=False)
    whole = BASE.run(alone)
    assert record.curves["loss"]["as it is"] == whole.curves["loss"][0]


def test_stopped_and_resumed_it_gives_the_same(context, monkeypatch):
    whole = TRIALS.run(Context(context.folder / "whole", context.device, progress=False))
    evaluate, left = module.evaluate, [1]

    def stopping(*arguments, **keywords):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return evaluate(*arguments, **keywords)

    monkeypatch.setattr(module, "evaluate", stopping)
    with pytest.raises(KeyboardInterrupt):
        TRIALS.run(context)
    left[0] = 10
    again = TRIALS.run(context)
    assert again.results == whole.results and again.curves["loss"] == whole.curves["loss"]


def test_an_interrupted_check_says_nothing(context, monkeypatch):
    record = TRIALS.run(context)
    monkeypatch.setattr(module, "enough", interrupt)
    with pytest.raises(KeyboardInterrupt):
        TRIALS.check(record, context)


def interrupt(step, teacher, history):
    raise KeyboardInterrupt


def test_check_repeats_the_first_steps(context):
    record = TRIALS.run(context)
    assert TRIALS.check(record, context).passed
    changed = copy.deepcopy(record)
    changed.curves["loss"]["as it is"][1] *= 1.1
    outcome = TRIALS.check(changed, context)
    assert not outcome.passed and "as it is: losses" in outcome.message


@pytest.mark.parametrize("change, error, message", [
    ({"fit_arg": {}}, ValueError, "a name in changes.*'fit_arg'.*Did you mean 'fit_args'"),
    ({"metagrad_args": {"loss_att": "last"}}, ValueError, "'loss_att'.*Did you mean 'loss_at'"),
    ({"fit_args": {"outer_steps": 0}}, ValueError, "outer_steps in fit_args is 0"),
])  # fmt: skip
def test_a_change_is_checked_when_it_is_named(change, error, message):
    with pytest.raises(error, match=message):
        Trials("toy-trials", "tiny", BASE, {"wrong": change})


def test_a_tuned_cell_has_what_the_recorded_grid_found_best():
    for name, words in tuned.CHOSEN.items():
        assert words == tuned.best(Record.load(RECORDED / f"{name}.json")), name


def test_a_tuned_cell_is_the_chosen_trial_for_longer(monkeypatch):
    monkeypatch.setattr(tuned, "CHOSEN", {"tune-pixels-implicit-10": "from random, student 0.05, Adam 0.02"})
    cell = tuned.tuned(tuned.pixels("implicit", 10), 500)
    assert (cell.start, cell.teacher_args["rate"], cell.teacher_args["final_rate"]) == (
        "random",
        0.05,
        0.0025,
    )
    assert cell.fit_args == {"rate": 0.02, "outer_steps": 500}
    assert (cell.name, cell.teacher_seeds, cell.evaluation_seeds) == ("tuned-pixels-implicit-10", 2, 10)


@pytest.mark.parametrize("kind", ["PixelTeacher", "GeneratorTeacher"])
def test_lesson_and_grid_of_a_kind_of_teacher_are_the_same_for_every_method(kind):
    trials = [one for one in tuned.TUNING if one.base.teacher == kind]
    assert {one.base.metagrad for one in trials} == {"Unrolled", "Implicit", "GradientMatching"}
    kinds = len(tuned.SETS) if kind == "PixelTeacher" else 1
    assert len({str(one.base.teacher_args) for one in trials}) == kinds
    assert len({(str(one.base.teacher_args), str(one.changes)) for one in trials}) == kinds
