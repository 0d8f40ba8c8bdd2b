"""Every file that the library writes: whole, the same for the same content, nothing foreign or flipped."""

import gzip
import io
import json
import os
import struct
import tracemalloc
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gtnlib import (
    MLP, DataError, GeneratorTeacher, PixelTeacher, TeachingSet, Unrolled, fit, load_dataset,
)  # fmt: skip
from gtnlib.data.load import read_idx
from gtnlib.experiments.records import RECORDED, Record
from gtnlib.support.files import digest_of, read_tensors, write_tensors, write_whole
from gtnlib.support.jobs import run_jobs
from gtnlib.teachers.files import load_teacher, save_teacher

SMALL = {"shape": (1, 8, 8), "num_classes": 3}
WRITTEN = Path(__file__).parents[1] / "written"


def pixels(**keywords):
    return PixelTeacher(1, 2, **SMALL, **keywords)


def trained(path, toy, seed=0):
    return fit(pixels(), Unrolled(real_batch_size=6), partial(MLP, widths=(4,)), toy, 2, seed, progress=False,
               checkpoint=path).loss  # fmt: skip


RECORD = Record("toy", {"a": 1}, {"fit": [0]}, "CPU", {"torch": "2"}, "abc", "2026-01-01", 1.0, None,
                {"loss": [2.5]}, {"accuracy": [0.125]})  # fmt: skip
JOB = {"0000": {"n": 1}}
KINDS = {  # name: how it is written, and read again
    "checkpoint": (trained, trained),
    "teacher": (lambda path, toy: save_teacher(pixels(), path), lambda path, toy: load_teacher(path)),
    "teaching set": (lambda path, toy: pixels().export(path), lambda path, toy: TeachingSet.load(path)),
    "record": (lambda path, toy: RECORD.save(path), lambda path, toy: Record.load(path)),
    "job": (
        lambda path, toy: run_jobs(JOB, lambda job: {"square": 0.25}, path.parent, progress=False),
        lambda path, toy: run_jobs(JOB, None, path.parent, progress=False),
    ),
}
every_kind = pytest.mark.parametrize("write, read", KINDS.values(), ids=KINDS.keys())


@pytest.fixture
def path(tmp_path, request):
    return tmp_path / "0000.json"  # a name that suits the job as well


# ---------------------------------------------------------------- content


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def places(content: bytes) -> list[int]:
    """Where a bit of the values is: in the tensors, in the numbers of a JSON text."""
    if content[:1] in b"{[":
        values = content[: content.index(b'"version"')]
        return [i for i, c in enumerate(values) if c in b"0123456789"]
    return list(range(len(content) // 3, len(content), 1 + len(content) // 60))


@every_kind
def test_a_flipped_bit_is_found(write, read, path, toy):
    write(path, toy)
    content, good = path.read_bytes(), read(path, toy)
    found = 0
    for place in places(content):
        path.write_bytes(flipped(content, place))
        try:
            back = read(path, toy)
        except DataError:
            found += 1
        else:  # a byte that the format does not use
            assert str(back) == str(good), place
    assert found > len(places(content)) / 2
    path.write_bytes(content)
    assert str(read(path, toy)) == str(good)


@every_kind
def test_a_file_of_a_later_version_is_refused(write, read, path, toy, monkeypatch):
    for module in ("support.files", "teachers.teaching_set"):
        monkeypatch.setattr(f"gtnlib.{module}.VERSION", 2)
    write(path, toy)
    monkeypatch.undo()
    with pytest.raises(DataError, match="format version 2, but this gtnlib reads 1"):
        read(path, toy)


@every_kind
def test_the_same_content_is_the_same_bytes(write, read, tmp_path, toy):
    found = []
    for name in "abcd":
        (tmp_path / name).mkdir()
        write(tmp_path / name / "0000.json", toy)
        found.append((tmp_path / name / "0000.json").read_bytes())
    if write is trained:  # whose seconds differ
        found = [digest_of(read_tensors(tmp_path / name / "0000.json", "checkpoint")[0]) for name in "abcd"]
    assert len(set(found)) == 1


def test_a_digest_is_of_names_types_shapes_values_and_state():
    tensors = {"a": torch.arange(4.0), "b": torch.zeros(2, 2)}
    others = [
        {"a": tensors["a"]}, {**tensors, "b": torch.zeros(4)}, {**tensors, "b": torch.zeros(2, 2).int()},
        {**tensors, "a": -tensors["a"]}, {"b": tensors["a"], "a": tensors["b"]},
    ]  # fmt: skip
    digests = [digest_of(t) for t in (tensors, *others)] + [digest_of(tensors, {"seed": 1})]
    assert len(set(digests)) == len(digests)
    assert digest_of(tensors) == digest_of({name: tensors[name].clone() for name in "ba"})
    assert digest_of({"h": torch.ones(1, dtype=torch.bfloat16), "e": torch.ones(0), "s": torch.ones(())})


def test_files_from_before_digests_open():
    assert load_teacher(WRITTEN / "teacher-pixels.safetensors") and TeachingSet.load(WRITTEN / "set.npz")
    shipped = sorted(RECORDED.glob("*.safetensors"))
    assert shipped and all(load_teacher(path) for path in shipped)


def test_a_file_that_lost_its_digest_is_no_older_one(tmp_path):
    pixels().export(tmp_path / "set.npz")
    for lost in ("sha256", "version"):
        with np.load(tmp_path / "set.npz") as arrays:
            left = {name: array for name, array in arrays.items() if name != lost}
        np.savez(tmp_path / "other.npz", **left)
        with pytest.raises(DataError, match="other.npz"):
            TeachingSet.load(tmp_path / "other.npz")
    header = {"format": "gtnlib teacher", "state": "{}", "more": ""}
    save_file({"a": torch.zeros(1)}, tmp_path / "teacher", header)
    with pytest.raises(DataError, match="teacher"):
        load_teacher(tmp_path / "teacher")


# ---------------------------------------------------------------- places


@every_kind
def test_a_link_where_the_file_is_put_together_is_not_followed(write, read, path, toy):
    target = path.with_name("victim")
    target.write_text("untouched")
    os.symlink(target, path.with_name(path.name + ".part"))
    write(path, toy)
    assert target.read_text() == "untouched" and not path.is_symlink()
    assert str(read(path, toy)) == str(read(path, toy))


def test_the_new_file_is_made_exclusively(tmp_path, monkeypatch):
    """Even if a link is put there in the moment before."""
    monkeypatch.setattr(Path, "unlink", lambda part, missing_ok: os.symlink(tmp_path / "victim", part))
    with pytest.raises(OSError, match="cannot write .*file: File exists"):
        write_whole(tmp_path / "file", b"content")
    assert sorted(os.listdir(tmp_path)) == ["file.part"]


@every_kind
def test_a_tilde_is_the_home_folder(write, read, tmp_path, toy, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(home))
    path = Path("~/deep/0000.json")
    write(path, toy)
    assert (home / "deep" / "0000.json").is_file() and not (tmp_path / "~").exists()
    read(path, toy)


def test_a_tilde_in_the_places_of_data(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own").mkdir()
    for how in ({"root": "~/own"}, {}):
        monkeypatch.setenv("GTNLIB_DATA", "~/own")
        with pytest.raises(DataError, match=f"in {tmp_path}/own or"):
            load_dataset("kmnist", download=False, **how)
    with pytest.raises(ValueError, match="root is '~nobody-at-all/x', but could not determine home"):
        load_dataset("kmnist", "~nobody-at-all/x", download=False)
    (tmp_path / "own" / "idx").write_bytes(b"\0\0\x08\1\0\0\0\1\7")
    assert read_idx("~/own/idx").tolist() == [7]


# ---------------------------------------------------------------- sizes


def npz(path, **headers):
    """An npz whose entries have the given headers as they are, then zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, (header, size) in headers.items():
            head = header if isinstance(header, bytes) else npy(header)
            with archive.open(name + ".npy", "w", force_zip64=True) as file:
                file.write(head)
                for _ in range(size // 2**20):
                    file.write(bytes(2**20))
                file.write(bytes(size % 2**20))
    return path


def npy(text: str) -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


def header(shape) -> bytes:
    made = io.BytesIO()
    described = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(made, described)
    return made.getvalue()


def wide(path):
    path.write_bytes(b"\0\0\x08\x40" + struct.pack(">64I", *[1] * 64) + b"\0")


def gzipped(path, size, promised):
    with gzip.open(path.with_suffix(".gz"), "wb", 1) as file:
        file.write(b"\0\0\x08\1" + struct.pack(">I", promised))
        for _ in range(size // 2**20):
            file.write(bytes(2**20))


def teacher_of(path, **arguments):
    save_teacher(pixels(), path)
    tensors, state = read_tensors(path, "teacher")
    arguments = {**state["arguments"], **arguments}
    write_tensors(path, "teacher", tensors, {**state, "arguments": arguments})


SET, IDX = TeachingSet.load, lambda path: read_idx(path if path.exists() else path.with_suffix(".gz"))
CRAFTED = {  # name: how it is read, and written
    "npz: token": (SET, lambda path: npz(path, images=("{'descr': '''", 0))),
    "npz: syntax": (SET, lambda path: npz(path, images=("{'descr': (((", 0))),
    "npz: recursion": (SET, lambda path: npz(path, images=("(" * 9999, 0))),
    "npz: huge shape": (SET, lambda path: npz(path, images=(header((10**6, 1, 1000, 1000)), 0))),
    "npz: overflowing shape": (SET, lambda path: npz(path, images=(header((2**40, 2**40, 1, 1)), 0))),
    "npz: negative shape": (SET, lambda path: npz(path, images=(header((-1, 1, 1, 1)), 4))),
    "npz: bomb": (SET, lambda path: npz(path, images=(header((10, 1, 28, 28)), 2**31))),
    "npz: honest bomb": (SET, lambda path: npz(path, images=(header((2**29, 1, 1, 1)), 2**31))),
    "idx: dimensions": (IDX, wide),
    "idx: no dimensions": (IDX, lambda path: path.write_bytes(b"\0\0\x08\0\7")),
    "idx: bomb": (IDX, lambda path: gzipped(path, 2**27, 10)),
    "idx: honest bomb": (IDX, lambda path: gzipped(path, 2**27, 2**27)),
    "teacher: images": (load_teacher, lambda path: teacher_of(path, images_per_class=10**6)),
    "teacher: steps": (load_teacher, lambda path: teacher_of(path, steps=10**8)),
    "teacher: shape": (load_teacher, lambda path: teacher_of(path, shape=[1, 10**4, 10**4])),
    "teacher: classes": (load_teacher, lambda path: teacher_of(path, num_classes=10**7)),
}


@pytest.mark.parametrize("read, write", CRAFTED.values(), ids=CRAFTED.keys())
def test_a_crafted_file_is_one_error_and_takes_no_memory(read, write, tmp_path, monkeypatch):
    for module in ("support.files", "data.load"):
        monkeypatch.setattr(f"gtnlib.{module}.LIMIT", 2**26)
    write(tmp_path / "file")
    before = resident()
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=str(tmp_path)):
            read(tmp_path / "file")
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    assert resident() - before < 2**26


def resident() -> int:
    """Highest memory so far, in bytes; 0 where it cannot be told."""
    status = Path("/proc/self/status")
    return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 if status.exists() else 0


def test_images_without_rows_are_no_data(tmp_path):
    for part, n in (("train", 10_020), ("t10k", 30)):
        for what, shape in (("images-idx3", (n, 0, 28)), ("labels-idx1", (n,))):
            content = struct.pack(f">{1 + len(shape)}I", 0x800 + len(shape), *shape) + bytes(np.prod(shape))
            (tmp_path / f"{part}-{what}-ubyte").write_bytes(content)
    with pytest.raises(DataError, match="have no pixels"):
        load_dataset("kmnist", tmp_path, download=False, device="cpu")


# ---------------------------------------------------------------- histories

HISTORIES = {
    "too short": {"records": [[1.0, 2.0]]},
    "text": {"records": ["123"]},
    "text within": {"records": [["1", "2", "3"]]},
    "truth": {"records": [[True, 1.0, 1.0]]},
    "a table": {"records": {"1": [1.0, 2.0, 3.0]}},
    "validation text": {"validation": ["12"]},
    "validation step": {"validation": [[0.5, 0.5]]},
    "more steps than asked for": {"records": [[1.0, 1.0, 1.0]] * 3},
}


@pytest.mark.parametrize("change", HISTORIES.values(), ids=HISTORIES.keys())
def test_a_history_of_another_shape_is_refused(change, tmp_path, toy):
    path = tmp_path / "run"
    trained(path, toy)
    tensors, state = read_tensors(path, "checkpoint")
    write_tensors(path, "checkpoint", tensors, {**state, "training": {**state["training"], **change}})
    before = path.read_bytes()
    with pytest.raises(DataError, match="run is not a checkpoint, or is damaged"):
        trained(path, toy)
    assert path.read_bytes() == before


def test_a_json_text_with_nan_is_none(tmp_path):
    (tmp_path / "0000.json").write_text(json.dumps({"job": {"n": 1}, "result": {"square": float("nan")}}))
    with pytest.raises(DataError, match="NaN, which is no number"):
        run_jobs(JOB, None, tmp_path, progress=False)


# ---------------------------------------------------------------- judging


def test_export_and_judging_leave_fresh_noise_as_it_was(tmp_path):
    teacher = GeneratorTeacher(2, 6, curriculum="fresh", noise_size=4, hidden=8, channels=4, **SMALL)
    before = teacher.noise.detach().clone()
    sets = [teacher.teaching_set(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    teacher.export(tmp_path / "set.npz", torch.Generator().manual_seed(2))
    assert torch.equal(teacher.noise, before)
    assert torch.equal(sets[0].images, sets[1].images) and not torch.equal(sets[0].images, sets[2].images)
