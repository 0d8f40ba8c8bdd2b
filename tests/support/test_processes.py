"""Two processes give the same updates as one with both students."""

from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from gtnlib import MLP, Dataset, GradientMatching, Implicit, PixelTeacher, Split, Unrolled, fit

METAGRADS = {
    "unrolled": partial(Unrolled, real_batch_size=12),
    "implicit": partial(Implicit, "neumann", neumann_terms=2, damping=5.0, real_batch_size=12),
    "matching": partial(GradientMatching, real_batch_size=4, updates_per_student=2),
}


def learn(seed=0):
    """Three updates by every method with two students per step: teachers, histories, callbacks."""
    random = torch.Generator().manual_seed(5)
    labels = torch.arange(60) % 3
    split = Split(torch.randn(60, 1, 8, 8, generator=random) + labels.view(-1, 1, 1, 1), labels, 3)
    data, results = Dataset("toy", split, split, split), {}
    for name, make in METAGRADS.items():
        calls = []
        teacher = PixelTeacher(2, 4, batch_size=4, shape=(1, 8, 8), num_classes=3, seed=seed)
        history = fit(teacher, make(), partial(MLP, widths=(8,), activation="tanh"), data, 3,
                      students_per_step=2, validate_every=3, progress=False,
                      callback=lambda step, *_: calls.append(step))  # fmt: skip
        results[name] = teacher.images.detach(), history.loss, calls, len(history.validation)
    return results


def work(rank, folder):
    torch.set_num_threads(1)
    store = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    torch.save(learn(seed=rank), f"{folder}/{rank}.pt")  # rank 0's teacher is the one that counts
    with pytest.raises(ValueError, match="students_per_step is 1, but must be a multiple of the 2"):
        blank = Split(torch.zeros(10, 1, 28, 28), torch.arange(10))
        fit(PixelTeacher(), Unrolled(), MLP, Dataset("blank", blank, blank, blank), 1)
    dist.destroy_process_group()


def test_two_processes_equal_one_with_both_students(tmp_path):
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    alone = learn()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name in METAGRADS:
        torch.testing.assert_close(first[name][0], alone[name][0], rtol=1e-5, atol=1e-6)
        assert torch.equal(first[name][0], second[name][0])
        assert first[name][1] == pytest.approx(alone[name][1], rel=1e-5)
        assert first[name][2:] == alone[name][2:] == ([0, 1, 2], 1)
        assert second[name][2:] == ([], 0)
