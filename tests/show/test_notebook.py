"""What the first cell of a chapter says."""

import sys
from types import ModuleType

import pytest
import torch

from gtnlib.show.notebook import warn_without_gpu


@pytest.mark.parametrize("minutes, said", [(1, "about a minute on"), (3, "about 3 minutes on")])
def test_colab_without_a_gpu_is_told_so_and_nobody_else(minutes, said, monkeypatch, capsys):
    warn_without_gpu(minutes)
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    warn_without_gpu(minutes)
    assert not capsys.readouterr().out
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    warn_without_gpu(minutes)
    assert "No GPU is chosen" in (printed := capsys.readouterr().out) and said in printed
