"""Experiments that train students on recorded teachers and real images: comparisons and searches."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import gtnlib.experiments.comparison as comparison
import gtnlib.experiments.cost as costs
import gtnlib.experiments.lessons as module
from gtnlib import PixelTeacher, evaluate
from gtnlib.experiments import EXPERIMENTS, Comparison, Context, Cost, Lessons, Search
from gtnlib.experiments.__main__ import main
from gtnlib.experiments.lessons import named_student
from gtnlib.experiments.records import RECORDED, Record
from gtnlib.experiments.search import spread
from gtnlib.judge.protocols import LESSON, LONG, Protocol
from gtnlib.judge.training import Recipe
from gtnlib.students.space import SPACE
from gtnlib.teachers.files import load_teacher, save_teacher
from gtnlib.teachers.real import Stream

CPU = torch.device("cpu")
SMALL = ("MLP", {"widths": [8]})
TOYS = {
    "toy-comparison": Comparison(
        "toy-comparison", "tiny",
        sources={
            "pixels": (Lessons("taught"), [Recipe()]),
            "shuffled": (Lessons("taught", shuffled=True), [Recipe()]),
            "real": (Lessons("real", 6), [Recipe("sgd", 1e-6), Recipe("sgd", 0.1), Recipe("sgd", 1e6)]),
        },
        students={"narrow": SMALL, "wide": ("MLP", {"widths": [16]})}, steps=(2, 6), seeds=3,
        selection_images=30),
    "toy-search": Search(
        "toy-search", "tiny", truth=(Lessons("passes", 20), Recipe("adam", 0.01, 12)),
        proxies={"pixels": (Lessons("taught"), Recipe()),
                 "herding": (Lessons("herding", 6, 12), Recipe("sgd", 0.1, 2))},
        truth_seeds=2, proxy_seeds=2, candidates=4, limit=20_000, space={**SPACE, "depth": (1, 2)}),
}  # fmt: skip


@pytest.fixture
def folder(toy, tmp_path, monkeypatch):
    """A folder with one recorded teacher of the toy data, which is what experiments load here."""
    monkeypatch.setattr(module, "_data", lambda name, device: toy)
    module._built.cache_clear()
    teacher = PixelTeacher(images_per_class=2, shape=(1, 8, 8), num_classes=3, steps=6, rate=0.1)
    teacher.start_from(toy.train, torch.Generator().manual_seed(0))
    save_teacher(teacher, tmp_path / "taught.safetensors")
    yield tmp_path
    module._built.cache_clear()


@pytest.fixture
def context(folder):
    return Context(folder, CPU, progress=False, teachers=folder)


def numbers(record):
    """All of the results but seconds."""
    text = json.dumps(record.results)
    return re.sub(r'"seconds": (\[[^]]*\]|[\d.e-]+)', '""', text)


@pytest.mark.parametrize("name", TOYS)
def test_interrupted_runs_end_with_the_same_record(name, context, tmp_path, monkeypatch):
    experiment = TOYS[name]
    whole = experiment.run(replace(context, folder=tmp_path / "whole"))
    assert Record.load(tmp_path / "whole" / f"{name}.json") == whole
    calls, carry_out = [], module.measure

    def interrupted(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return carry_out(*arguments, **keywords)

    monkeypatch.setattr(module, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        experiment.run(context)
    again = experiment.run(context)
    work = [path for path in (tmp_path / f"{name}.run").rglob("*.json") if path.name != "progress.json"]
    assert len(calls) == len(work) + 1  # only what was under way is done twice
    assert numbers(again) == numbers(whole) and again.seeds == whole.seeds
    assert again.configuration == experiment.configuration()


def test_a_comparison_measures_every_cell_as_evaluate_does(context, toy):
    experiment = TOYS["toy-comparison"]
    record = experiment.run(context)
    cells = {tuple(cell["place"]): cell for cell in record.results["cells"]}
    assert len(cells) == 3 * 2 * 2
    teacher = load_teacher(context.teachers / "taught.safetensors")
    for steps, place in ((2, (0, 1, 0)), (6, (0, 1, 1))):
        student = named_student("MLP", {"widths": [16]})
        wanted = evaluate(teacher, student, toy, 3, steps).accuracy.values
        assert cells[place]["test_accuracy"] == pytest.approx(wanted)
        assert cells[place]["steps"] == steps and cells[place]["recipe"] == 0
    assert all(cells[2, student, steps]["recipe"] == 1 for student in (0, 1) for steps in (0, 1))
    assert "12 cells × 3 students" in experiment.summary(record)
    found = comparison.accuracies(record)
    assert list(found) == list(experiment.cells())
    assert [list(accuracy.values) for accuracy in found.values()] == [
        cell["test_accuracy"] for cell in record.results["cells"]
    ]


def test_a_protocol_by_epochs_may_stand_where_a_recipe_does(context, toy):
    protocol = Protocol(epochs=5, rate=0.1, batch_size=4)
    experiment = replace(TOYS["toy-comparison"], name="toy-epochs", steps=(None,),
                         sources={"pixels, long": (Lessons("taught"), [protocol])})  # fmt: skip
    record = experiment.run(context)
    teacher = load_teacher(context.teachers / "taught.safetensors")
    for cell, widths in zip(record.results["cells"], ([8], [16]), strict=True):
        student = named_student("MLP", {"widths": widths})
        wanted = evaluate(teacher, student, toy, 3, protocol=protocol).accuracy.values
        assert cell["test_accuracy"] == pytest.approx(wanted) and cell["steps"] == 10


def test_recipes_are_chosen_on_validation_by_other_students(context, monkeypatch):
    seen, carry_out = [], module.measure
    monkeypatch.setattr(module, "measure", lambda job, **k: seen.append(job) or carry_out(job, **k))
    TOYS["toy-comparison"].run(context)
    trials, finals = seen[: 4 * 3], seen[4 * 3 :]
    assert {tuple(job["splits"]) for job in trials} == {("validation",)}
    assert {tuple(job["splits"]) for job in finals} == {("test",)} and len(finals) == 12
    chosen_by, measured = ({seed for job in jobs for seed in job["seeds"]} for jobs in (trials, finals))
    assert not chosen_by & measured
    assert {job["images"] for job in trials} == {30} and {job["images"] for job in finals} == {None}


def test_a_shuffled_teacher_keeps_its_rates_and_images(context, toy):
    lessons = Lessons("taught", shuffled=True).build(toy, 6, context.teachers)
    plain = Lessons("taught").build(toy, 6, context.teachers).teaching_set()
    one, other = (lessons.teaching_set(torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert torch.equal(one.rate, plain.rate) and torch.equal(one.images, plain.images)
    assert sorted(one.order.tolist()) == sorted(plain.order.tolist())
    teacher = load_teacher(context.teachers / "taught.safetensors")
    assert one.steps == other.steps == teacher.steps


@pytest.mark.parametrize("source, images", [("real", None), ("real", 9), ("k_centre", 9), ("herding", None)])
def test_real_lessons_have_so_many_distinct_images(source, images, toy, tmp_path):
    teacher = Lessons(source, 6, images).build(toy, 4, tmp_path)
    lessons = teacher.teaching_set(torch.Generator().manual_seed(0))
    assert lessons.order.shape == (4, 6) and len(lessons.images) == (images or 24)
    assert isinstance(Lessons("passes", 20).build(toy, 4, tmp_path), Stream)


def test_a_search_holds_every_candidate(context):
    experiment = TOYS["toy-search"]
    results = experiment.run(context).results
    truth, proxies = results["truth"], results["proxies"]
    assert [len(row) for row in truth["validation"]] == [2] * 4 == [len(row) for row in truth["test"]]
    assert proxies.keys() == {"pixels", "herding"}
    for name, steps in (("pixels", 6), ("herding", 2)):
        assert [len(row) for row in proxies[name]["validation"]] == [2] * 4
        assert proxies[name]["steps"] == steps and len(proxies[name]["seconds"]) == 4
        assert [len(row) for row in proxies[name]["loss"]] == [2] * 4
        assert all(loss > 0 for row in proxies[name]["loss"] for loss in row)
    assert truth["steps"] == 12
    record = Record.load(context.folder / "toy-search.json")
    assert experiment.summary(record).startswith("toy-search: 4 candidates")


def test_a_search_takes_the_truth_of_another(context):
    found = TOYS["toy-search"].run(context).results
    short = {"herding": (Lessons("herding", 6, 12), Recipe("adam", 0.01, 2))}
    other = replace(TOYS["toy-search"], name="toy-other", truth_from="toy-search", proxies=short)
    results = other.run(context).results
    assert results["truth"] == found["truth"] and results["proxies"].keys() == {"herding"}
    assert len(list((context.folder / "toy-other.run" / "candidates").glob("*.json"))) == 4
    with pytest.raises(ValueError, match="toy-search.json is of other full trainings.*limit is"):
        replace(other, limit=19_000).run(context)
    with pytest.raises(ValueError, match="there is no record .*none.json .* `run none --out DIR`"):
        replace(other, truth_from="none").run(context)


def test_the_spread_of_a_search_is_over_all_candidates():
    assert spread({"validation": [[0.1, 0.3], [0.5, 0.5]]}) == pytest.approx(0.1)  # √((0.02 + 0) / 2)
    assert spread({"validation": [[0.1], [0.5]]}) == 0


@pytest.mark.parametrize("name", TOYS)
def test_check_passes_for_what_was_measured_and_fails_for_what_was_not(name, folder, capsys):
    words = ["--out", str(folder), "--device", "cpu"]
    assert main(["run", name, *words], TOYS, folder) == 0
    assert main(["check", name, *words, "--students", "3"], TOYS, folder) == 0
    assert "measured again" in capsys.readouterr().out
    record = Record.load(folder / f"{name}.json")
    if name == "toy-comparison":
        for cell in record.results["cells"]:
            cell["test_accuracy"] = [0.01] * 3
    else:
        for proxy in record.results["proxies"].values():
            proxy["validation"] = [[0.01, 0.01]] * 4
    record.save(folder / f"{name}.json")
    assert main(["check", name, *words, "--students", "3"], TOYS, folder) == 1
    assert "recorded 1.0" in capsys.readouterr().out
    assert main(["table"], TOYS, folder) == 0 and name in capsys.readouterr().out


@pytest.mark.parametrize("name", TOYS)
def test_a_record_of_other_settings_is_neither_checked_nor_finished(name, folder, capsys):
    words = ["--out", str(folder), "--device", "cpu"]
    assert main(["run", name, *words], TOYS, folder) == 0
    changed = {name: replace(TOYS[name], data="kmnist")}
    for command in (["check"], ["run", "--resume"]):
        assert main([command[0], name, *command[1:], *words], changed, folder) == 2
        assert "was made with other settings: data is 'mnist' there" in capsys.readouterr().err
    record = Record.load(folder / f"{name}.json")
    replace(record, name="stranger").save(folder / f"{name}.json")
    assert main(["check", name, *words], TOYS, folder) == 2
    assert "is the record of stranger" in capsys.readouterr().err


def test_the_order_of_sources_does_not_matter_to_a_check(folder, capsys):
    words, name = ["--out", str(folder), "--device", "cpu"], "toy-comparison"
    assert main(["run", name, *words], TOYS, folder) == 0
    turned = replace(TOYS[name], sources=dict(reversed(TOYS[name].sources.items())))
    assert main(["check", name, *words, "--students", "3"], {name: turned}, folder) == 0


def test_teachers_may_lie_in_another_folder(folder, capsys):
    words = ["run", "toy-search", "--out", str(folder / "out"), "--device", "cpu"]
    assert main(words, TOYS, folder / "shipped") == 2
    assert "Make one by `run taught --out DIR`" in capsys.readouterr().err
    assert main([*words, "--resume", "--teachers", str(folder)], TOYS, folder / "shipped") == 0


def test_a_run_resumed_by_other_code_names_both(context, monkeypatch):
    base = sys.modules["gtnlib.experiments.base"]
    for version in ("one", "two", "two"):
        monkeypatch.setattr(base, "commit", lambda version=version: version)
        record = TOYS["toy-comparison"].run(context)
    assert record.commit == "one, then two"


@pytest.mark.parametrize(
    "recipe, message",
    [(Recipe(steps=2), "whose recipe must have a rate"), (Recipe("sgd", 0.1), "which prescribe no number")],
)
def test_what_real_images_do_not_prescribe_must_be_given(recipe, message):
    with pytest.raises(ValueError, match=f"'short' are real images, {message}"):
        sources = {"short": (Lessons("herding", 6, 12), [recipe])}
        replace(TOYS["toy-comparison"], sources=sources, steps=(None,))
    with pytest.raises(ValueError, match=f"'short' are real images, {message}"):
        replace(TOYS["toy-search"], proxies={"short": (Lessons("herding", 6, 12), recipe)})


def test_a_teacher_that_changed_is_noticed(context, toy):
    experiment = TOYS["toy-search"]
    experiment.run(context)
    other = PixelTeacher(images_per_class=2, shape=(1, 8, 8), num_classes=3, steps=6)
    save_teacher(other, context.teachers / "taught.safetensors")
    with pytest.raises(ValueError, match="is of another job: sha256 is"):
        experiment.run(context)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_teacher_that_is_missing_is_one_error(workers, folder, capsys):
    (folder / "taught.safetensors").unlink()
    words = ["run", "toy-search", "--out", str(folder / "out"), "--device", "cpu", "--workers", str(workers)]
    assert main(words, TOYS, folder) == 2
    assert "there is no recorded teacher" in capsys.readouterr().err


@pytest.mark.parametrize("make, message", [
    (lambda: Lessons("real", 0), "batch_size is 0"),
    (lambda: Lessons("real", images=0), "images is 0"),
    (lambda: Lessons("real", shuffled=True), "shuffled is for recorded teachers, but source is 'real'"),
    (lambda: replace(TOYS["toy-comparison"], students={"a": ("MPL", {})}), "a student is 'MPL'.*'MLP'"),
    (lambda: replace(TOYS["toy-comparison"], students={"a": ("MLP", {"width": 3})}), "'width'.*'widths'"),
    (lambda: replace(TOYS["toy-comparison"], sources={"a": (Lessons("real"), [])}), "'a' has no recipe"),
    (lambda: replace(TOYS["toy-comparison"], sources={"a": (Lessons("real"), [LONG])}), "leave steps unset"),
    (lambda: replace(TOYS["toy-comparison"], steps=(None,), sources={"a": (Lessons("real"), [LESSON])}),
     "must be by epochs"),
    (lambda: replace(TOYS["toy-comparison"], seeds=0), "seeds is 0"),
    (lambda: replace(TOYS["toy-search"], candidates=0), "candidates is 0"),
    (lambda: replace(TOYS["toy-search"], proxies={"truth": (Lessons("real"), Recipe())}), "'truth'"),
    (lambda: replace(TOYS["toy-search"], data="minst"), "data is 'minst'"),
])  # fmt: skip
def test_a_configuration_is_checked_when_it_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


COST = Cost("toy-cost", "tiny", {"unrolled": ("Unrolled", {"real_batch_size": 8}),
                                 "matching": ("GradientMatching", {"real_batch_size": 2})},
            steps=(1, 2), widths=((2,), (3,)), steps_of_widths=2, rounds=2, repeats=2,
            teacher_args={"batch_size": 10})  # fmt: skip


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="no peak of memory can be forgotten")
def test_costs_are_measured_in_processes_of_their_own(tmp_path, monkeypatch):
    processes, carry_out = [], costs.in_fresh_process
    monkeypatch.setattr(costs, "in_fresh_process", lambda job: processes.append(job) or fake(job))

    def fake(job):
        return {"seconds": [1.0, 3.0, 2.0], "baseline": 100.0, "peak": 110.0 + job["steps"]}

    record = COST.run(Context(tmp_path, CPU, progress=False))
    assert [(cell["method"], cell["steps"], cell["width"]) for cell in record.results["cells"]] == [
        (0, 1, [2]), (1, 1, [2]), (0, 2, [2]), (1, 2, [2]), (0, 2, [3]), (1, 2, [3])]  # fmt: skip
    assert [job["repeat"] for job in processes] == [0] * 6 + [1] * 6
    assert record.results["cells"][0] == {"method": 0, "steps": 1, "width": [2], "seconds": [2.0, 2.0],
                                          "megabytes": [11.0, 11.0], "baseline": [100.0, 100.0]}  # fmt: skip
    assert Record.load(tmp_path / "toy-cost.json").results == record.results
    assert COST.check(record, Context(tmp_path, CPU)).passed
    record.results["cells"][0]["megabytes"] = [50.0, 50.0]
    outcome = COST.check(record, Context(tmp_path, CPU))
    assert not outcome.passed and "unrolled, 1 steps: 50 MiB, now 11" in outcome.message
    found = carry_out({**COST.settings()[0], "device": "cpu", "threads": 1})
    assert len(found["seconds"]) == 2 and 100 < found["baseline"] < found["peak"] + 1


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="no peak of memory can be forgotten")
def test_an_outer_step_is_measured_here_as_there(capsys, monkeypatch):
    job = {**COST.settings()[1], "rounds": 1, "device": "cpu", "threads": 1}
    monkeypatch.setattr("sys.argv", ["cost", json.dumps(job)])
    costs.main()
    found = json.loads(capsys.readouterr().out)
    assert len(found["seconds"]) == 1 and found["seconds"][0] > 0 and found["peak"] > 100


PEAK = """
import torch
from gtnlib.experiments.cost import measure
sizes = iter([300, 60, 60])
_, baseline, peak = measure(lambda: torch.ones(next(sizes) * 2**18).sum(), 2, torch.device("cpu"))
print(peak - baseline)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="no peak of memory can be forgotten")
def test_peaks_of_memory_are_those_of_the_rounds():
    """The first call holds 300 MiB, the later ones 60. In a process that gives back what is freed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True,
                          env=environment)  # fmt: skip
    assert 50 < float(done.stdout) < 200


def test_the_books_comparisons_can_be_carried_out(mnist):
    """Every student can be built, and every source that needs no record."""
    for experiment in EXPERIMENTS.values():
        if isinstance(experiment, Comparison):
            for student in experiment.students.values():
                assert named_student(*student)(mnist.shape, 10)(mnist.test.images[:2]).shape == (2, 10)
            for lessons, _ in experiment.sources.values():
                assert not lessons.recorded or lessons.source in EXPERIMENTS
        if isinstance(experiment, Search):
            assert len(experiment.architectures()) >= 100
            used = [lessons for lessons, _ in experiment.proxies.values() if lessons.recorded]
            assert all(lessons.source in EXPERIMENTS for lessons in used)
    assert RECORDED.exists()
