"""What the first cell of a chapter says."""

import sys
from types import ModuleType

import torch

from gtnlib.show.notebook import warn_without_gpu


def test_colab_without_a_gpu_is_told_so_and_nobody_else(monkeypatch, capsys):
    warn_without_gpu()
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    warn_without_gpu()
    assert not capsys.readouterr().out
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    warn_without_gpu(3)
    assert "No GPU is chosen" in (said := capsys.readouterr().out) and "about 3 minutes" in said
