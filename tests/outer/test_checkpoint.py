"""Stop anywhere, go on, and end with the same numbers bit for bit; and refuse what is no checkpoint."""

import json
import os
import pickle
from functools import partial

import gtnlib.support.files
import pytest
import torch
from killing import killed
from safetensors.torch import save_file

from gtnlib import (
    MLP, ConvNet, DataError, DivergenceError, GeneratorTeacher, GradientMatching, Implicit,
    PixelTeacher, Unrolled, fit,
)  # fmt: skip
from gtnlib.support.files import read_tensors, write_tensors

STUDENT = partial(MLP, widths=(8,), activation="tanh")
METAGRADS = {
    "unrolled": partial(Unrolled, real_batch_size=16),
    "implicit": partial(Implicit, "neumann", neumann_terms=2, damping=5.0, batches=2, real_batch_size=16),
    "warm": partial(
        Implicit, "neumann", neumann_terms=2, damping=5.0, updates_per_student=3, real_batch_size=16
    ),
    "drawn": partial(Unrolled, real_batch_size=16, loss_steps=2),
    "stochastic": partial(
        Implicit, "stochastic-neumann", neumann_terms=3, damping=5.0, real_batch_size=16, estimate_every=3
    ),
    "cg": partial(Implicit, solver="cg", products=2, batches=2, real_batch_size=16),
    "matching": partial(GradientMatching, real_batch_size=8, updates_per_student=4),
}
every_metagrad = pytest.mark.parametrize("make_metagrad", METAGRADS.values(), ids=METAGRADS.keys())
STEPS = 7


def pixels(**keywords):
    return PixelTeacher(1, 3, shape=(1, 8, 8), num_classes=3, **keywords)


def generated(curriculum="learned"):
    return GeneratorTeacher(3, 6, curriculum=curriculum, noise_size=4, hidden=8, channels=4, shape=(1, 8, 8),
                            num_classes=3)  # fmt: skip


def train(make_teacher, make_metagrad, data, path=None, student=STUDENT, steps=STEPS, **keywords):
    """A new teacher as training left it, and its history."""
    teacher = make_teacher()
    asked = {"seed": 5, "validate_every": 2, "checkpoint": path, "progress": False}
    history = fit(teacher, make_metagrad(), student, data, steps, **{**asked, **keywords})
    return teacher, history


def stop_at(step, error):
    def callback(now, teacher, history):
        if now == step:
            raise error

    return callback


def assert_same(one, other):
    for (name, a), (_, b) in zip(one[0].state_dict().items(), other[0].state_dict().items()):
        assert torch.equal(a, b), name
    assert [r[:2] for r in one[1]] == [r[:2] for r in other[1]]
    assert one[1].validation == other[1].validation


# ---------------------------------------------------------------- going on


@every_metagrad
@pytest.mark.parametrize(
    "make_teacher", [pixels, generated, partial(generated, "fresh")], ids=["pixels", "learned", "fresh"]
)
def test_a_stopped_run_ends_like_an_unbroken_one(make_teacher, make_metagrad, toy, tmp_path):
    """Stopped three times, at steps where students are new, in training, and at their last update."""
    path, seen = tmp_path / "run.safetensors", []
    whole = train(make_teacher, make_metagrad, toy)
    for step, error in ((0, KeyboardInterrupt), (3, SystemExit), (4, KeyboardInterrupt)):
        stop = partial(train, make_teacher, make_metagrad, toy, path, callback=stop_at(step, error))
        if error is SystemExit:
            with pytest.raises(SystemExit):
                stop()
        else:
            assert len(stop()[1]) == step + 1
    resumed = train(make_teacher, make_metagrad, toy, path, callback=lambda step, *_: seen.append(step))
    assert seen == [4, 5, 6]  # a step is whole once the callback has returned
    assert_same(resumed, whole)


@pytest.mark.parametrize("method", ["unrolled", "matching"])
def test_several_students_of_several_kinds_go_on(method, toy, tmp_path):
    kinds = [STUDENT, partial(MLP, widths=(4,)), partial(ConvNet, width=2)]
    asked = {"student": kinds, "students_per_step": 3}
    whole = train(pixels, METAGRADS[method], toy, **asked)
    path = tmp_path / "run.safetensors"
    train(pixels, METAGRADS[method], toy, path, callback=stop_at(2, KeyboardInterrupt), **asked)
    assert_same(train(pixels, METAGRADS[method], toy, path, **asked), whole)


@every_metagrad
def test_interrupted_inside_a_step_the_file_holds_the_last_whole_one(make_metagrad, toy, tmp_path):
    """Draws and fresh noise of the broken step are forgotten."""
    metagrad, path = make_metagrad(), tmp_path / "run.safetensors"
    make_teacher, calls, method = partial(generated, "fresh"), [], metagrad.differentiate

    def differentiate(*arguments):
        calls.append(1)
        loss = method(*arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return loss

    metagrad.differentiate = differentiate
    history = train(make_teacher, lambda: metagrad, toy, path)[1]
    assert len(history) == 2 == len(read_tensors(path, "checkpoint")[1]["training"]["records"])
    assert_same(train(make_teacher, make_metagrad, toy, path), train(make_teacher, make_metagrad, toy))


def test_the_same_teacher_goes_on_in_a_notebook(toy, tmp_path):
    """Where it stands is in the file, not in the teacher that is handed in."""
    teacher, path = pixels(), tmp_path / "run.safetensors"
    for step in (3, 5):
        train(lambda: teacher, Unrolled, toy, path, callback=stop_at(step, KeyboardInterrupt))
    train(pixels, Unrolled, toy, path, callback=stop_at(5, KeyboardInterrupt))  # as a new process would
    assert_same(train(lambda: teacher, Unrolled, toy, path), train(pixels, Unrolled, toy))
    teacher.start_from(toy.train)
    with pytest.raises(ValueError, match="the teacher started from other values there"):
        train(lambda: teacher, Unrolled, toy, path)


def test_compiled_students_go_on(toy, tmp_path, quick_compile):
    path, whole = tmp_path / "run.safetensors", train(pixels, METAGRADS["matching"], toy, compile=True)
    stop = stop_at(2, KeyboardInterrupt)
    train(pixels, METAGRADS["matching"], toy, path, compile=True, callback=stop)
    assert_same(train(pixels, METAGRADS["matching"], toy, path, compile=True), whole)


def test_a_finished_run_gives_its_history_and_teacher_without_training(toy, tmp_path):
    path = tmp_path / "run.safetensors"
    finished = train(generated, Unrolled, toy, path)
    before = path.read_bytes()
    again = train(generated, Unrolled, toy, path, callback=lambda *_: pytest.fail("it trained"))
    assert_same(again, finished)
    assert again[1].records == finished[1].records and path.read_bytes() == before


def test_divergence_leaves_the_last_good_step_in_the_file(toy, tmp_path):
    path, student = tmp_path / "run.safetensors", partial(MLP, widths=(8, 8), activation="softplus")

    def explode(step, teacher, history):
        if step == 1:
            teacher.log_rate.data.fill_(80)

    for _ in range(2):  # going on, it diverges again at the same step
        with pytest.raises(DivergenceError, match="outer step 2: .*as step 1 made it") as caught:
            train(pixels, Unrolled, toy, path, student, callback=explode)
        training = read_tensors(path, "checkpoint")[1]["training"]
        assert training["records"] == [list(record) for record in caught.value.history.records]
        assert len(training["records"]) == 2


def test_it_is_written_as_often_as_asked(toy, tmp_path, monkeypatch):
    written = []

    def count(path, kind, tensors, state):
        written.append(len(state["training"]["records"]))
        write_tensors(path, kind, tensors, state)

    monkeypatch.setattr("gtnlib.outer.checkpoint.write_tensors", count)
    train(pixels, Unrolled, toy, tmp_path / "often", checkpoint_seconds=0)
    assert written == list(range(STEPS + 1))
    written.clear()
    train(pixels, Unrolled, toy, tmp_path / "seldom", checkpoint_seconds=1e9)
    assert written == [0, STEPS]


@pytest.mark.usefixtures("random_state_untouched")
def test_random_state_is_left_alone(toy, tmp_path):
    path = tmp_path / "run.safetensors"
    train(generated, METAGRADS["matching"], toy, path, callback=stop_at(2, KeyboardInterrupt))
    train(generated, METAGRADS["matching"], toy, path)


# ---------------------------------------------------------------- killed


@pytest.mark.parametrize("method, kills", [("unrolled", 5), ("warm", 5), ("matching", 5)])
def test_killed_at_random_moments_it_ends_like_an_unbroken_run(method, kills, toy, tmp_path):
    """SIGKILL, with a checkpoint written after every step, and some of the kills within a write."""
    path, make_teacher = tmp_path / "run.safetensors", partial(generated, "fresh")
    found = killed("fit", method, path, kills, 0)
    assert found["killed"] == kills and found["writing"] >= 1
    assert os.listdir(tmp_path) == [path.name]
    resumed = train(make_teacher, METAGRADS[method], toy, path, steps=60,
                    callback=lambda *_: pytest.fail("it was not finished"))  # fmt: skip
    assert_same(resumed, train(make_teacher, METAGRADS[method], toy, steps=60))


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_stop_within_a_write_leaves_the_old_file(moment, toy, tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    train(pixels, Unrolled, toy, path, callback=stop_at(2, KeyboardInterrupt))
    before = path.read_bytes()

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(gtnlib.support.files.os, moment, stop)
    with pytest.raises(KeyboardInterrupt):
        train(pixels, Unrolled, toy, path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


# ---------------------------------------------------------------- what is refused


@pytest.fixture
def stopped(toy, tmp_path):
    """A checkpoint of an interrupted run."""
    path = tmp_path / "run.safetensors"
    train(pixels, METAGRADS["matching"], toy, path, callback=stop_at(1, KeyboardInterrupt))
    return path


OTHERS = {
    "teacher.steps is 3 there, but 4 here": {"make_teacher": lambda: PixelTeacher(
        1, 4, shape=(1, 8, 8), num_classes=3)},
    "teacher.rate is 0.02 there, but 0.1 here": {"make_teacher": partial(pixels, rate=0.1)},
    "teacher.seed is 0 there, but 1 here": {"make_teacher": partial(pixels, seed=1)},
    "teacher.class is 'PixelTeacher' there, but 'GeneratorTeacher' here": {"make_teacher": generated},
    "metagrad.real_batch_size is 8 there, but 9 here": {
        "make_metagrad": partial(GradientMatching, real_batch_size=9, updates_per_student=4)},
    "metagrad.class is 'GradientMatching' there, but 'Unrolled' here": {"make_metagrad": Unrolled},
    "student.keywords.widths is .8. there, but .9. here": {
        "student": partial(MLP, widths=(9,), activation="tanh")},
    "outer_steps is 7 there, but 8 here": {"outer_steps": 8},
    "seed is 5 there, but 6 here": {"seed": 6},
    "rate is 0.1 there, but 0.2 here": {"rate": 0.2},
    "clip is 2.0 there, but None here": {"clip": None},
    "validate_every is 2 there, but 3 here": {"validate_every": 3},
    "compile is 'auto' there, but False here": {"compile": False},
    "precision is 'float32' there, but 'bfloat16' here": {"precision": "bfloat16"},
}  # fmt: skip


@pytest.mark.parametrize("message", OTHERS)
def test_a_checkpoint_of_another_run_is_refused(message, stopped, toy):
    before = stopped.read_bytes()
    asked = {"make_teacher": pixels, "make_metagrad": METAGRADS["matching"], **OTHERS[message]}
    steps = asked.pop("outer_steps", STEPS)
    teacher = asked.pop("make_teacher")()
    start = {name: value.clone() for name, value in teacher.state_dict().items()}
    keywords = {"student": STUDENT, "seed": 5, "validate_every": 2, "progress": False, **asked}
    metagrad = keywords.pop("make_metagrad")()
    with pytest.raises(ValueError, match=f"of another run.*{message}.*not changed"):
        fit(teacher, metagrad, data=toy, outer_steps=steps, checkpoint=stopped, **keywords)
    assert stopped.read_bytes() == before
    assert all(torch.equal(value, start[name]) for name, value in teacher.state_dict().items())


class Boom:
    def __reduce__(self):
        return os.mkdir, ("it-ran",)


def without(path, *names):
    tensors, state = read_tensors(path, "checkpoint")
    for name in names:
        tensors.pop(name, None)
        state["training"].pop(name, None)
    write_tensors(path, "checkpoint", tensors, state)


def changed(path, **values):
    tensors, state = read_tensors(path, "checkpoint")
    state["training"].update(values)
    write_tensors(path, "checkpoint", tensors, state)


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "truncated header": lambda path: path.write_bytes(path.read_bytes()[:50]),
    "text": lambda path: path.write_text("images per class: 10\n" * 50),
    "pickle": lambda path: path.write_bytes(pickle.dumps(Boom())),
    "torch.save": lambda path: torch.save({"a": Boom()}, path),
    "foreign safetensors": lambda path: save_file({"a": torch.zeros(3)}, path),
    "a teacher": lambda path: write_tensors(path, "teacher", {"a": torch.zeros(3)}, {}),
    "no state": lambda path: save_file({}, path, {"format": "gtnlib checkpoint"}),
    "state is no JSON": lambda path: save_file({}, path, {"format": "gtnlib checkpoint", "state": "{"}),
    "state is a list": lambda path: save_file({}, path, {"format": "gtnlib checkpoint", "state": "[]"}),
    "state is empty": lambda path: save_file({}, path, {"format": "gtnlib checkpoint", "state": "{}"}),
    "deep": lambda path: save_file(
        {}, path, {"format": "gtnlib checkpoint", "state": json.dumps("[" * 10**5)[1:-1]}),
    "no tensor": lambda path: without(path, "teacher.images"),
    "no generator": lambda path: without(path, "generator"),
    "no student": lambda path: without(path, "student.0.w"),
    "no records": lambda path: without(path, "records"),
    "records": lambda path: changed(path, records=[[1.0, "two", 3.0]]),
    "record too long": lambda path: changed(path, records=[[1.0, 2.0, 3.0, 4.0]]),
    "students": lambda path: changed(path, students=[None, None]),
    "compiled": lambda path: changed(path, compiled="yes"),
    "memories": lambda path: changed(path, memories=[{"largest": "big"}]),
    "memory": lambda path: changed(path, memories=["none"]),
    "huge": lambda path: changed(path, born=10**400, typical=10**400),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_no_checkpoint_is_refused(name, stopped, toy, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    DAMAGES[name](stopped)
    before = stopped.is_file() and stopped.read_bytes()
    teacher = pixels()
    with pytest.raises(DataError, match="run.safetensors.*damaged"):
        train(lambda: teacher, METAGRADS["matching"], toy, stopped)
    assert torch.equal(teacher.images, pixels().images) and not (tmp_path / "it-ran").exists()
    assert before == (stopped.is_file() and stopped.read_bytes())


def test_a_file_in_place_of_the_folder_is_one_error_at_the_start(toy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write .*run: .*another folder"):
        train(pixels, Unrolled, toy, tmp_path / "file" / "run", callback=lambda *_: pytest.fail("it trained"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_error(toy, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="cannot write"):
        train(pixels, Unrolled, toy, tmp_path / "run")
    tmp_path.chmod(0o700)


def test_a_full_disk_is_one_error_and_the_old_checkpoint_stays(stopped, toy, monkeypatch):
    before, full = stopped.read_bytes(), OSError(28, "No space left on device")

    def fsync(file):
        raise full

    monkeypatch.setattr(gtnlib.support.files.os, "fsync", fsync)
    with pytest.raises(OSError, match="cannot write .*run.safetensors: No space left.*unchanged") as caught:
        train(pixels, METAGRADS["matching"], toy, stopped)
    assert caught.value.__cause__ is full and full.__context__ is None
    assert stopped.read_bytes() == before and os.listdir(stopped.parent) == [stopped.name]


@pytest.mark.parametrize("keywords, error, message", [
    ({"checkpoint": 3}, TypeError, "checkpoint must be a path or None, got 3"),
    ({"checkpoint_seconds": -1}, ValueError, "checkpoint_seconds is -1"),
    ({"checkpoint_seconds": "30"}, TypeError, "checkpoint_seconds must be a number"),
])  # fmt: skip
def test_bad_arguments(keywords, error, message, toy):
    with pytest.raises(error, match=message):
        train(pixels, Unrolled, toy, **keywords)
