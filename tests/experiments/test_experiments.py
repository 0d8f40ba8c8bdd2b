"""The command line of the experiments, from list to table; every shipped record is checked."""

import copy
import json
import re

import pytest
import torch
from killing import killed

import gtnlib.experiments.distillation as module
from gtnlib import DataError, DivergenceError, fit
from gtnlib.experiments import EXPERIMENTS, Context, Distillation, Mixture
from gtnlib.experiments.__main__ import main
from gtnlib.experiments.records import RECORDED, Record, shipped
from gtnlib.experiments.settings.search import SEARCHERS
from gtnlib.support.files import read_tensors
from gtnlib.support.identity import differences
from gtnlib.teachers.files import load_teacher

TOYS = {
    "toy-pixels": Distillation(
        "toy-pixels", "tiny", "PixelTeacher", {"images_per_class": 2, "steps": 3}, "Unrolled",
        {"real_batch_size": 16}, "MLP", {"widths": [8]}, {"outer_steps": 6, "validate_every": 2},
        start="random", teacher_seeds=2, evaluation_seeds=3),
    "toy-matching": Distillation(
        "toy-matching", "tiny", "PixelTeacher", {"images_per_class": 1, "steps": 2}, "GradientMatching",
        {"real_batch_size": 8}, "MLP", {"widths": [8]}, {"outer_steps": 40}),
    "toy-long": Distillation(
        "toy-long", "tiny", "PixelTeacher", {"images_per_class": 1, "steps": 2}, "GradientMatching",
        {"real_batch_size": 8}, "MLP", {"widths": [8]}, {"outer_steps": 80}, teacher_seeds=2),
    "toy-diverging": Distillation(
        "toy-diverging", "tiny", "PixelTeacher", {"rate": 1e30}, "Unrolled", {}, "MLP", {"widths": [8]},
        {"outer_steps": 3}),
}  # fmt: skip


@pytest.fixture
def command(toy, tmp_path, monkeypatch, capsys):
    """command(…) is the exit status, standard output and error of the command line, on `toy` data."""
    monkeypatch.setattr(module, "load_dataset", lambda name, device: toy)

    def call(*words, folder=tmp_path / "shipped", experiments=TOYS):
        words = [*words, "--device", "cpu"] if words[0] in ("run", "check") else words
        status = main(list(map(str, words)), experiments, folder)
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def recorded(command, tmp_path):
    """A folder with the record of toy-pixels."""
    assert command("run", "toy-pixels", "--out", tmp_path / "out")[0] == 0
    return tmp_path / "out"


def numbers(record):
    """All of a record but what depends on the clock and the machine's memory."""
    record = copy.deepcopy(vars(record))
    for name in ("started", "seconds", "peak_memory_mb"):
        del record[name]
    del record["curves"]["seconds"]
    record["curves"]["validation"] = [[[step, value] for step, _, value in teacher]
                                      for teacher in record["curves"]["validation"]]  # fmt: skip
    return record


def stop_after(monkeypatch, steps):
    """Ctrl-C after so many outer steps of the next `fit`s together."""
    left = [steps]

    def stopped(*arguments, callback, **keywords):
        def call(*now):
            callback(*now)
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt

        return fit(*arguments, callback=call, **keywords)

    monkeypatch.setattr(module, "fit", stopped)


# ---------------------------------------------------------------- list, show, table


def test_list_and_show_name_every_experiment(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(EXPERIMENTS)
    for name, experiment in EXPERIMENTS.items():
        assert main(["show", name]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["configuration"]["title"] == experiment.title
        small = isinstance(experiment, Distillation) and experiment.student == "ConvNet"
        assert "small student" in experiment.title or not small


def test_every_cell_is_there_and_can_be_built(mnist):
    cells = {f"pixels-{m}-{n}" for m in ("unrolled", "implicit", "matching") for n in (1, 10, 50)}
    assert EXPERIMENTS.keys() >= cells | {"gtn-unrolled", "gtn-implicit", "gtn-matching"}
    for experiment in (e for e in EXPERIMENTS.values() if isinstance(e, Distillation)):
        teacher, metagrad = experiment.build_teacher(0, mnist), experiment.build_metagrad()
        assert metagrad.steps_per_update(teacher) >= 1
        student = experiment.build_student()(shape=mnist.shape, num_classes=10)
        assert student(mnist.test.images[:2]).shape == (2, 10)
        assert 0 < experiment.fit_args["outer_steps"] <= 3000


def test_list_show_and_table_tell_of_a_record(command, recorded):
    status, out, _ = command("list", folder=recorded)
    assert status == 0 and [line.split()[1] for line in out.splitlines()] == ["recorded", "-", "-", "-"]
    shown = json.loads(command("show", "toy-pixels", folder=recorded)[1])
    assert len(shown["record"]["results"]["test_accuracy"]) == 2
    status, out, _ = command("table", folder=recorded)
    head, row = out.splitlines()
    assert head.startswith("experiment") and row.startswith("toy-pixels  2 per class") and "2 × 3" in row
    status, out, _ = command("table")
    assert status == 0 and "no record is shipped yet" in out


# ---------------------------------------------------------------- run


def test_a_run_is_recorded(recorded, toy):
    record, experiment = Record.load(recorded / "toy-pixels.json"), TOYS["toy-pixels"]
    assert record.configuration == experiment.configuration()
    assert record.seeds == {"fit": [0, 1], "evaluation": [0, 1, 2]}
    assert [len(accuracies) for accuracies in record.results["test_accuracy"]] == [3, 3]
    assert record.results["inner_steps"] == [0, 1, 2, 3] and record.results["images"] == 6
    assert [len(loss) for loss in record.curves["loss"]] == [6, 6]
    assert [[step for step, *_ in v] for v in record.curves["validation"]] == [[2, 4, 6]] * 2
    for times, validation in zip(record.curves["seconds"], record.curves["validation"]):
        assert times == sorted(times) and all(time == times[step - 1] for step, time, _ in validation)
    for curve, final in zip(record.results["inner_accuracy"], record.results["test_accuracy"]):
        assert [c[-1] for c in curve] == pytest.approx(final, abs=1e-6)
    assert record.peak_memory_mb > 0 and record.seconds > 0


@pytest.mark.parametrize("name, stops", [("toy-pixels", (1, 4, 3)), ("toy-matching", (7, 20))])
def test_interrupted_runs_end_with_the_same_record(name, stops, command, tmp_path, monkeypatch):
    assert command("run", name, "--out", tmp_path / "whole")[0] == 0
    words = ["run", name, "--out", tmp_path / "broken"]
    for steps in stops:
        with monkeypatch.context() as patch:
            stop_after(patch, steps)
            status, _, error = command(*words)
        assert status == 130 and f"run {name} --out {tmp_path / 'broken'} --device cpu --resume" in error
        words = [*words[:4], "--resume"]
    assert command(*words)[0] == 0
    records = [Record.load(tmp_path / folder / f"{name}.json") for folder in ("whole", "broken")]
    assert numbers(records[0]) == numbers(records[1])
    contents = [(tmp_path / folder / f"{name}.safetensors").read_bytes() for folder in ("whole", "broken")]
    assert sorted(contents[0]) == sorted(contents[1])  # the order of the header is free
    before = (tmp_path / "broken" / f"{name}.json").read_bytes()
    status, out, _ = command(*words)
    assert status == 0 and "is finished" in out
    assert (tmp_path / "broken" / f"{name}.json").read_bytes() == before


def kept(folder):
    """Tensors and state of all checkpoints of toy-long, as they are but for the seconds."""
    for seed in (0, 1):
        tensors, state = read_tensors(folder / "toy-long.run" / f"teacher-{seed}.safetensors", "checkpoint")
        for record in state["training"]["records"]:
            del record[2]
        yield {name: (t.dtype, t.shape, t.numpy().tobytes()) for name, t in tensors.items()}, state


def test_killed_at_random_moments_it_ends_with_the_same_record(command, tmp_path):
    whole, out, name = tmp_path / "whole", tmp_path / "killed", "toy-long"
    found = killed("run", out, 20, 0)
    assert found["killed"] == 20 and found["writing"] >= 5
    assert command("run", name, "--out", whole)[0] == 0
    for one, other in zip(kept(whole), kept(out), strict=True):
        assert one == other
    assert numbers(Record.load(whole / f"{name}.json")) == numbers(Record.load(out / f"{name}.json"))
    contents = [read_tensors(folder / f"{name}.safetensors", "teacher") for folder in (whole, out)]
    assert contents[0][1] == contents[1][1]
    assert all(torch.equal(t, contents[1][0][key]) for key, t in contents[0][0].items())
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize("left", ["toy-pixels.json", "toy-pixels.safetensors", "toy-pixels.run"])
def test_nothing_is_overwritten_unasked(left, command, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / left).write_text("mine")
    status, _, error = command("run", "toy-pixels", "--out", tmp_path / "out")
    assert status == 2 and f"{left} exists" in error and "--resume" in error
    assert (tmp_path / "out" / left).read_text() == "mine"


def test_a_run_of_other_settings_is_not_gone_on_with(command, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        command("run", "toy-matching", "--out", tmp_path)
    other = {**vars(TOYS["toy-matching"]), "student_args": {"widths": [9]}}
    experiments = {"toy-matching": Distillation(**other)}
    status, _, error = command("run", "toy-matching", "--out", tmp_path, "--resume", experiments=experiments)
    assert status == 2 and "student_args.widths is [8] there, but [9] here" in error


@pytest.mark.parametrize("content", [
    "", "{", "[]", "null", "{}", "[" * 10**5, '{"configuration": 1, "started": 1, "peak_memory_mb": 1}',
    '{"configuration": {}, "started": "2026-01-01", "peak_memory_mb": "1"}',
    '{"configuration": {}, "started": "2026-01-01", "peak_memory_mb": 1e999}',
    '{"configuration": {}, "started": "today", "peak_memory_mb": 1}',
    '{"configuration": {}, "started": "2026-01-01", "peak_memory_mb": 1%s}' % ("0" * 400),
    b"\x80\x04cos\nsystem\n",
])  # fmt: skip
def test_damaged_progress_is_one_error(content, command, tmp_path):
    path = tmp_path / "toy-pixels.run" / "progress.json"
    path.parent.mkdir()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = path.read_bytes()
    status, out, error = command("run", "toy-pixels", "--out", tmp_path, "--resume")
    assert status == 2 and not out and len(error.splitlines()) == 1
    assert re.search(r"progress.json is damaged: .*Remove .*toy-pixels.run", error)
    assert path.read_bytes() == before


def test_divergence_says_what_it_leaves(command, tmp_path):
    status, _, error = command("run", "toy-diverging", "--out", tmp_path)
    assert status == 1 and "diverged after 0 good outer steps" in error and "Lower" in error
    assert (tmp_path / "toy-diverging.run" / "teacher-0.safetensors").exists()


def test_the_test_split_waits_for_the_end(toy, tmp_path, monkeypatch):
    """Until all teachers are trained, no split but train and validation is read."""
    used = []

    def watched(*arguments, **keywords):
        used.append("fit")
        return fit(*arguments, **keywords)

    evaluate = module.evaluate
    monkeypatch.setattr(module, "load_dataset", lambda name, device: toy)
    monkeypatch.setattr(module, "fit", watched)
    monkeypatch.setattr(module, "evaluate", lambda *a, **k: used.append("test") or evaluate(*a, **k))
    TOYS["toy-pixels"].run(Context(tmp_path, torch.device("cpu"), progress=False))
    assert used == ["fit", "fit", "test", "test"]


# ---------------------------------------------------------------- check


def test_check_compares_with_new_students(command, recorded, monkeypatch):
    seen, evaluate = [], module.evaluate
    monkeypatch.setattr(module, "evaluate", lambda *a: seen.append(list(a[3])) or evaluate(*a))
    record = Record.load(recorded / "toy-pixels.json")
    record.results["test_accuracy"][0] = [0.0, 0.5, 1.0]  # a spread that everything lies within
    record.save(recorded / "toy-pixels.json")
    status, out, _ = command("check", "toy-pixels", "--out", recorded, "--students", 4)
    assert status == 0 and "within" in out and "4 new students" in out
    assert seen == [[3, 4, 5, 6]]


def test_check_fails_where_the_numbers_are_altered(command, recorded):
    record = Record.load(recorded / "toy-pixels.json")
    mean = sum(record.results["test_accuracy"][0]) / 3
    record.results["test_accuracy"][0] = [(mean + 0.5) % 1] * 3
    record.save(recorded / "toy-pixels.json")
    status, out, _ = command("check", "toy-pixels", "--out", recorded)
    assert status == 1 and "NOT within 0.20 percentage points" in out


@pytest.mark.parametrize("results", [{}, {"test_accuracy": []}, {"test_accuracy": [[]]}, {"test_accuracy": 1},
                                     {"test_accuracy": [[95.0]]}])  # fmt: skip
def test_a_record_without_accuracies_is_refused(results, command, recorded):
    record = Record.load(recorded / "toy-pixels.json")
    record.results = results
    record.save(recorded / "toy-pixels.json")
    status, _, error = command("check", "toy-pixels", "--out", recorded)
    assert status == 2 and "has no good test accuracies" in error
    with pytest.raises(DataError):
        module.accuracies(record)


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_record_holds(name):
    experiment = EXPERIMENTS[name]
    record = Record.load(experiment.record_path(RECORDED))
    assert not differences(record.configuration, experiment.configuration())
    outcome = experiment.check(record, Context(RECORDED, torch.device("cpu"), progress=False), students=1)
    assert outcome.passed, outcome.message


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("words, message", [
    (["run", "toy-pixel"], "NAME is 'toy-pixel'.*Did you mean 'toy-pixels'"),
    (["show", "pixels"], "NAME is 'pixels', but must be one of toy-pixels"),
    (["check", "toy-pixels"], "there is no record .*toy-pixels.json.*run toy-pixels"),
    (["check", "nothing"], "NAME is 'nothing'"),
    (["run", "toy-pixels", "--workers", "2"], "--workers and --backend are for comparisons.*for toy-pixels"),
    (["shwo"], "COMMAND is 'shwo', but must be one of list, show, run, check, table. Did you mean 'show'"),
])  # fmt: skip
def test_unknown_names_are_one_error(words, message, command):
    status, out, error = command(*words)
    assert status == 2 and not out
    assert re.search(message, error)


WRONG = [[], ["run"], ["check", "a", "--students", "x"], ["list", "a"]]


@pytest.mark.parametrize("words", WRONG)
def test_wrong_usage_is_explained(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words, TOYS)
    assert caught.value.code == 2 and "usage" in capsys.readouterr().err


def test_other_bad_values_are_one_error(capsys, command, recorded):
    assert main(["run", "toy-pixels", "--device", "abacus"], TOYS) == 2
    assert "--device is 'abacus'" in capsys.readouterr().err
    status, _, error = command("check", "toy-pixels", "--out", recorded, "--students", 0)
    assert status == 2 and "students is 0" in error
    (recorded / "toy-pixels.safetensors").write_bytes(b"no teacher")
    status, _, error = command("check", "toy-pixels", "--out", recorded)
    assert status == 2 and "is not a teacher, or is damaged" in error


@pytest.mark.parametrize("change, error, message", [
    ({"teacher": "PixelsTeacher"}, ValueError, "teacher is 'PixelsTeacher'.*Did you mean 'PixelTeacher'"),
    ({"metagrad": "Unroled"}, ValueError, "metagrad is 'Unroled'.*Did you mean 'Unrolled'"),
    ({"student": "Convnet"}, ValueError, "student is 'Convnet'.*Did you mean 'ConvNet'"),
    ({"data": "minst"}, ValueError, "data is 'minst'.*Did you mean 'mnist'"),
    ({"fit_args": {"outer_step": 3}}, ValueError, "a name in fit_args is 'outer_step'.*'outer_steps'"),
    ({"fit_args": {"outer_steps": 1, "lessons": {}}}, ValueError, "lessons vary in nothing"),
    ({"fit_args": {"seed": 3}}, ValueError, "a name in fit_args is 'seed'"),
    ({"fit_args": {}}, TypeError, "outer_steps in fit_args must be a whole number, got None"),
    ({"teacher_args": {"step": 3}}, ValueError, "a name in teacher_args is 'step'.*'steps'"),
    ({"student_args": [8]}, TypeError, "student_args must be a table"),
    ({"start": "herd"}, ValueError, "start is 'herd'.*Did you mean 'herding'"),
    ({"teacher_seeds": 0}, ValueError, "teacher_seeds is 0"),
    ({"evaluation_seeds": 2.5}, TypeError, "evaluation_seeds must be a whole number"),
    ({"teacher": "GeneratorTeacher", "teacher_args": {"curriculum": "fresh"}}, ValueError,
     "start is 'random', but fresh noise"),
])  # fmt: skip
def test_a_configuration_is_checked_when_it_is_made(change, error, message):
    with pytest.raises(error, match=message):
        Distillation(**{**vars(TOYS["toy-pixels"]), **change})


def test_divergence_error_is_what_fit_raises(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "load_dataset", lambda name, device: toy)
    with pytest.raises(DivergenceError):
        TOYS["toy-diverging"].run(Context(tmp_path, torch.device("cpu"), progress=False))


def test_a_mixture_is_taught_by_all_its_students_and_resumes_to_the_same_record(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "load_dataset", lambda name, device: toy)
    settings = {**vars(TOYS["toy-pixels"]), "teacher_seeds": 1, "evaluation_seeds": 2}
    mixture = Mixture(
        **settings, others=[("MLP", {"widths": [4]}), ("Architecture", {"depth": 1, "width": 4})]
    )
    context = Context(tmp_path / "whole", torch.device("cpu"), progress=False)
    with pytest.raises(ValueError, match="a student is 'LeNett'.*Did you mean 'LeNet'"):
        Mixture(**settings, others=[("LeNett", {})])
    record = mixture.run(context)
    alone = Distillation(**settings).run(Context(tmp_path / "alone", torch.device("cpu"), progress=False))
    assert record.curves["loss"] != alone.curves["loss"]

    stopped = Context(tmp_path / "stopped", torch.device("cpu"), progress=False)
    stop_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        mixture.run(stopped)
    assert numbers(mixture.run(stopped)) == numbers(record)


@pytest.mark.parametrize("batches, size, noise, kind", [
    (1, 6, 64, "PixelTeacher"), (2, 6, 64, "PixelTeacher"), (3, 60, 2, "GeneratorTeacher"),
    (1, 7, 64, "GeneratorTeacher"),
])  # fmt: skip
def test_a_generator_ships_its_images_if_they_are_fewer_numbers(
    batches, size, noise, kind, toy, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "load_dataset", lambda name, device: toy)
    lesson = {"steps": 3, "batch_size": size, "batches": batches, "noise_size": noise, "hidden": 8,
              "channels": 2}  # fmt: skip
    settings = {**vars(TOYS["toy-matching"]), "teacher": "GeneratorTeacher", "teacher_args": lesson}
    context, experiment = Context(tmp_path, torch.device("cpu"), progress=False), Distillation(**settings)
    record = experiment.run(context)
    assert record.results["images"] == size * batches
    assert type(load_teacher(experiment.teacher_path(tmp_path))).__name__ == kind
    assert experiment.check(record, context, 3).passed


def test_teachers_for_the_search_have_not_met_its_candidates():
    candidates = {str(one) for one in EXPERIMENTS["search"].architectures()}
    for one in SEARCHERS:
        met = {str(network) for network in one.met()[1:]}
        assert len(met) == 20 and not met & candidates


@pytest.mark.parametrize("start", ["noise", "random", "herding", "k_centre"])
def test_pixels_start_where_the_distillation_says(start, toy):
    one = Distillation(**{**vars(TOYS["toy-pixels"]), "start": start})
    teacher, again, other = (one.build_teacher(seed, toy).images for seed in (0, 0, 1))
    assert torch.equal(teacher, again) and torch.equal(teacher, other) == (start in ("herding", "k_centre"))
    real = [bool((toy.train.images == image).flatten(1).all(1).any()) for image in teacher]
    assert real == [start != "noise"] * 6


def test_a_distillation_of_every_new_kind_is_run_and_checked(toy, tmp_path, monkeypatch):
    """What it was asked for is plain JSON: lists of rates, a table of lessons."""
    monkeypatch.setattr(module, "load_dataset", lambda name, device: toy)
    one = Distillation(
        "toy-varied", "tiny", "PixelTeacher",
        {"images_per_class": 2, "steps": 3, "rate": [0.1, 0.05, 0.02], "learn_labels": True}, "Unrolled",
        {"real_batch_size": 16, "window": 2}, "MLP", {"widths": [8]},
        {"outer_steps": 4, "lessons": {"augment": True, "length": [2, 4]}}, start="k_centre",
    )  # fmt: skip
    context = Context(tmp_path, torch.device("cpu"), progress=False)
    record = one.run(context)
    assert not differences(Record.load(one.record_path(tmp_path)).configuration, one.configuration())
    assert one.check(record, context, students=3).passed
    assert load_teacher(one.teacher_path(tmp_path)).teaching_set().soft
