"""Records and teachers come back as they were saved, and what is neither is refused."""

import json
import pickle
import statistics
import subprocess
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from gtnlib import MLP, DataError, GeneratorTeacher, PixelTeacher, evaluate
from gtnlib.experiments import machine
from gtnlib.experiments.machine import commit, device_name, peak_memory_mb, versions
from gtnlib.experiments.records import RECORDED, Record, shipped
from gtnlib.support.files import read_tensors, unsealed, write_tensors
from gtnlib.teachers.files import load_teacher, rounded, save_teacher
from gtnlib.teachers.generator import Generator

CPU = torch.device("cpu")


def example():
    return Record(
        name="toy", configuration={"rate": 0.1, "widths": [8], "note": "[1,\n 2]"},
        seeds={"fit": [0], "evaluation": [0, 1]}, device=device_name(CPU), versions=versions(),
        commit=commit(), started="2026-01-02T03:04:05+00:00", seconds=1.5, peak_memory_mb=peak_memory_mb(CPU),
        curves={"loss": [[1.0, 0.1 + 0.2, 1e-30]], "none": []}, results={"test_accuracy": [[0.5, 0.6]]},
    )  # fmt: skip


def test_a_record_comes_back_as_it_was(tmp_path):
    record = example()
    record.save(tmp_path / "toy.json")
    assert Record.load(tmp_path / "toy.json") == record
    assert "[0.5,0.6]" in (tmp_path / "toy.json").read_text()  # lists of numbers stay on one line


MALFORMED = {
    "missing": lambda r: r.pop("seconds"),
    "extra": lambda r: r.update(more=1),
    "name": lambda r: r.update(name=3),
    "configuration": lambda r: r.update(configuration=[]),
    "started": lambda r: r.update(started="yesterday"),
    "seeds": lambda r: r["seeds"].update(fit=[0.5]),
    "seeds as text": lambda r: r["seeds"].update(fit="0"),
    "version": lambda r: r["versions"].update(torch=2),
    "seconds": lambda r: r.update(seconds=-1),
    "seconds as truth": lambda r: r.update(seconds=True),
    "memory": lambda r: r.update(peak_memory_mb="much"),
    "huge": lambda r: r["results"].update(test_accuracy=[[10**400]]),
    "curve": lambda r: r["curves"].update(loss=[[1.0, "two"]]),
    "result": lambda r: r["results"].update(test_accuracy=[[None]]),
    "not a number": lambda r: r["results"].update(test_accuracy=[[float("nan")]]),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_record_is_refused(name, tmp_path):
    path = tmp_path / "toy.json"
    example().save(path)
    values = unsealed(json.loads(path.read_text()))  # as a file from before there were digests
    MALFORMED[name](values)
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match="toy.json is not a record, or is damaged"):
        Record.load(path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"\xff\xfe", pickle.dumps(example), b"[" * 10**5],
    ids=["empty", "truncated", "list", "number", "binary", "pickle", "deep"],
)  # fmt: skip
def test_what_is_no_record_is_refused(content, tmp_path):
    (tmp_path / "toy.json").write_bytes(content)
    with pytest.raises(DataError, match="toy.json is not a record, or is damaged"):
        Record.load(tmp_path / "toy.json")


def test_text_in_a_record_is_left_alone(tmp_path):
    record = example()
    record.configuration["title"] = "[ 1,   2 ]"
    record.save(tmp_path / "toy.json")
    assert Record.load(tmp_path / "toy.json") == record


def test_a_missing_record_or_teacher_is_a_missing_file(tmp_path):
    for load in (Record.load, load_teacher):
        with pytest.raises(FileNotFoundError):
            load(tmp_path / "none")


def test_a_record_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write .*toy.json"):
        example().save(tmp_path / "file" / "toy.json")


def test_the_place_of_a_run_is_named():
    threads = torch.get_num_threads()
    assert device_name(CPU).endswith("1 thread" if threads == 1 else f"{threads} threads")
    assert versions()["torch"] == torch.__version__ and set(versions()) == {"python", "torch", "gtnlib"}
    assert 10 < peak_memory_mb(CPU) < 1e6


def test_commit_is_that_of_the_code(tmp_path, monkeypatch):
    def git(*arguments):
        command = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(machine, "PACKAGE", tmp_path)
    (tmp_path / "__init__.py").write_text("")
    git("init")
    assert commit().startswith("gtnlib ")  # in a repository, but not of it
    git("add", "__init__.py")
    git("commit", "-m", "one")
    assert commit() == git("rev-parse", "HEAD")
    (tmp_path / "__init__.py").write_text("changed = 1")
    assert commit() == git("rev-parse", "HEAD") + "+dirty"
    monkeypatch.setenv("PATH", "")
    assert commit().startswith("gtnlib ")


def test_shipped_lists_the_records_of_a_folder(tmp_path):
    assert shipped(tmp_path) == []
    for name in ("b.json", "a.json", "a.safetensors", "README.md"):
        (tmp_path / name).write_text("")
    assert shipped(tmp_path) == ["a", "b"]


# ---------------------------------------------------------------- teachers

SMALL = {"shape": (1, 8, 8), "num_classes": 3}
TEACHERS = {
    "pixels": lambda: PixelTeacher(2, 3, batch_size=4, weight_decay=0.1, seed=3, **SMALL),
    "fixed rates": lambda: PixelTeacher(1, 2, momentum=0.0, learn_rates=False, **SMALL),
    "generated": lambda: GeneratorTeacher(4, 6, batches=2, noise_size=4, hidden=8, channels=4, **SMALL),
    "fresh": lambda: GeneratorTeacher(2, 6, curriculum="fresh", noise_size=4, hidden=8, channels=6, **SMALL),
    "own Generator": lambda: GeneratorTeacher(
        2, 6, noise_size=5, generator=Generator(5, (1, 8, 8), 3, hidden=12, channels=4), **SMALL),
}  # fmt: skip
every_teacher = pytest.mark.parametrize("make_teacher", TEACHERS.values(), ids=TEACHERS.keys())


@every_teacher
def test_a_teacher_comes_back_in_half_precision(make_teacher, toy, tmp_path):
    teacher, path = make_teacher(), tmp_path / "teacher.safetensors"
    with torch.no_grad():
        teacher.log_rate.add_(torch.rand(teacher.steps) / 3)
    save_teacher(teacher, path)
    back, expected = load_teacher(path), rounded(teacher)
    assert type(back) is type(teacher) and back.weight_decay == teacher.weight_decay
    for (name, a), (_, b) in zip(back.state_dict().items(), expected.state_dict().items(), strict=True):
        assert torch.equal(a, b) and a.dtype == b.dtype, name
    assert torch.equal(back.log_rate, teacher.log_rate)
    assert [p.requires_grad for p in back.parameters()] == [p.requires_grad for p in teacher.parameters()]
    reports = [evaluate(t, partial(MLP, widths=(8,)), toy, 2).accuracy.values for t in (back, expected)]
    assert reports[0] == reports[1]
    save_teacher(back, tmp_path / "again")
    for one, other in zip(read_tensors(path, "teacher"), read_tensors(tmp_path / "again", "teacher")):
        assert one.keys() == other.keys()
    kinds = {name: t.dtype for name, t in read_tensors(path, "teacher")[0].items()}
    assert {kinds.pop("log_rate"), kinds.pop("momentum_logit")} == {torch.float32}
    assert set(kinds.values()) <= {torch.float16, torch.int64}


def test_a_foreign_generator_is_refused(tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Unflatten(1, (1, 8, 8)))
    teacher = GeneratorTeacher(2, 6, noise_size=4, generator=network, **SMALL)
    with pytest.raises(ValueError, match="generator is a Sequential, but only the default.*export"):
        save_teacher(teacher, tmp_path / "teacher")
    with pytest.raises(TypeError, match="teacher must be one of PixelTeacher, GeneratorTeacher, got Linear"):
        save_teacher(torch.nn.Linear(1, 1), tmp_path / "teacher")


BUILT = TEACHERS["pixels"]().arguments


def altered(path, tensors=(), **state):
    old, kept = read_tensors(path, "teacher")
    write_tensors(path, "teacher", {**old, **dict(tensors)}, {**kept, **state})


DAMAGES = {
    "pickle": lambda path: path.write_bytes(pickle.dumps([1])),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "foreign": lambda path: save_file({"images": torch.zeros(6, 1, 8, 8)}, path),
    "checkpoint": lambda path: write_tensors(path, "checkpoint", {}, {}),
    "no class": lambda path: write_tensors(path, "teacher", {}, {}),
    "class": lambda path: altered(path, **{"class": "Linear"}),
    "arguments": lambda path: altered(path, arguments={"colour": "red"}),
    "steps": lambda path: altered(path, arguments={"steps": -1}),
    "too many steps": lambda path: altered(path, arguments={"steps": 2**50}),
    "rate": lambda path: altered(path, arguments={"rate": 10**400}),
    "more": lambda path: altered(path, {"more": torch.zeros(1)}),
    "shape": lambda path: altered(path, {"log_rate": torch.zeros(9)}),
    "huge": lambda path: altered(path, arguments={"images_per_class": 10**8, "steps": 3}),
    "nan": lambda path: altered(path, {"images": torch.full((6, 1, 8, 8), torch.nan).half()}),
    "nan in the rates": lambda path: altered(path, {"log_rate": torch.full((3,), torch.nan)}),
    "momentum": lambda path: altered(path, {"momentum_logit": torch.full((3,), torch.inf)}),
    "order": lambda path: altered(path, {"order": torch.full((3, 4), 6)}),
    "labels": lambda path: altered(path, {"labels": torch.full((6,), 3)}),
    "negative rate": lambda path: altered(path, arguments={**BUILT, "rate": -0.1}),
    "momentum of 7": lambda path: altered(path, arguments={**BUILT, "momentum": 7}),
    "dtype": lambda path: altered(path, {"log_rate": torch.zeros(3, dtype=torch.int64)}),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_no_teacher_is_refused(name, tmp_path):
    path = tmp_path / "teacher.safetensors"
    save_teacher(TEACHERS["pixels"](), path)
    DAMAGES[name](path)
    with pytest.raises(DataError, match="teacher.safetensors.*damaged"):
        load_teacher(path)


def test_shipped_benchmarks_hold_every_method_at_every_length():
    record = Record.load(RECORDED / "benchmarks" / "cpu.json")
    for what, lengths in (("seconds", "steps"), ("megabytes", "memory_steps")):
        for name, row in record.results[what].items():
            assert list(row) == [str(steps) for steps in record.configuration[lengths]], name
            assert all(values and min(values) > 0 for values in row.values())
    peers, ours = {"higher", "TorchOpt"}, {"Unrolled", "Implicit, conjugate gradients", "GradientMatching"}
    assert peers | ours <= record.results["megabytes"].keys() <= record.results["seconds"].keys()


def test_the_parts_of_an_outer_step_add_up_to_it():
    results = Record.load(RECORDED / "benchmarks" / "limit.json").results
    for way, slowed in (("eager", 0.5), ("compiled", 0.2)):  # by the profiler, many small calls most
        assert sum(results[way]["groups"].values()) == pytest.approx(results[way]["seconds"], rel=slowed)
    assert 0 < results["seconds at the peak"] < results["compiled"]["seconds"] < results["eager"]["seconds"]
    compiled, kept = (statistics.median(results["product"][name]) for name in ("compiled", "kept graph"))
    assert 0 < compiled < kept


def test_the_minutes_of_a_method_lie_on_its_curve():
    record = Record.load(RECORDED / "benchmarks" / "minutes.json")
    starts = ("", ", from real images")
    assert record.results.keys() == {way + start for way in ("higher", "Unrolled, falling rates")
                                     for start in starts}  # fmt: skip
    for of in record.results.values():
        reached = {
            a: [m for _, m, found in of["curve"] if found >= a] for a in record.configuration["accuracy"]
        }
        assert of["minutes to"] == {f"{a:.3f}": minutes[0] for a, minutes in reached.items() if minutes} != {}


def test_the_ratio_of_two_outer_steps_is_that_of_their_seconds_in_turns():
    results = Record.load(RECORDED / "benchmarks" / "implicit.json").results
    before, now = (results[way] for way in ("before", "now"))
    ratios = [b / a for a, b in zip(before["seconds"][1:], now["seconds"][1:], strict=True)]
    assert results["ratio"] == pytest.approx(statistics.median(ratios), rel=1e-3)
    assert [step for step, _ in before["curve"]] == [step for step, _ in now["curve"]]


def test_the_shipped_benchmark_of_a_gpu_has_every_method():
    results = Record.load(RECORDED / "benchmarks" / "h100.json").results
    assert {"unrolled", "implicit", "matching"} <= results["seconds"].keys() == results["error"].keys()
    for row in results["seconds"].values():
        assert row["compiled"] and row["eager"] and min(row["compiled"] + row["eager"]) > 0
