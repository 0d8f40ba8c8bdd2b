"""Networks that nobody here wrote: each gets the gradient of plain autograd, or one clear error.

From torchvision and timm, without weights, small and on small images; nothing of them is known but that
they are classifiers.
"""

import warnings

import gtnlib.inner.compiled
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from timm.models import nfnet
from torch import nn
from torch.func import functional_call

from gtnlib import Dataset, FlatStudent, PixelTeacher, Split, StudentRun, Unrolled, evaluate
from gtnlib.inner.compiled import CompiledStudent
from gtnlib.students.build import make_student

CLASSES = 3
TV = torchvision.models


def groups(channels, **keywords):
    return nn.GroupNorm(1, channels)


def batch(channels, **keywords):
    """Batch normalisation by the batch at hand."""
    return nn.BatchNorm2d(channels, track_running_stats=False)


def vision(build, norm=groups, **keywords):
    known = {} if norm is None else {"norm_layer": norm}
    return lambda: build(num_classes=CLASSES, **known, **keywords)


def image(name, size, **keywords):
    return lambda: timm.create_model(name, pretrained=False, num_classes=CLASSES, **keywords), size


def mixer(**keywords):
    return lambda: timm.models.MlpMixer(CLASSES, 16, patch_size=8, num_blocks=1, embed_dim=8, **keywords)


# name: what builds it, side of its images, and the one clear error, or None.
BLOCKS = [TV.convnext.CNBlockConfig(8, None, 2)]
STATE, DRAWS = "keeps state in its buffer", "draws random numbers"
ZOO = {
    "resnet18, batch norm": (
        lambda: TV.ResNet(TV.resnet.BasicBlock, [1, 1, 1, 1], CLASSES, norm_layer=batch), 32, None),
    "resnet18, group norm": (vision(TV.resnet18, groups), 16, None),
    "resnet18 as it is": (vision(TV.resnet18, None), 16, STATE),
    "squeezenet1_1": (vision(TV.squeezenet1_1, None, dropout=0.0), 32, None),
    "squeezenet1_1 as it is": (vision(TV.squeezenet1_1, None), 32, DRAWS),
    "shufflenet as it is": (vision(TV.shufflenet_v2_x0_5, None), 32, STATE),
    "densenet as it is": (vision(lambda **k: TV.DenseNet(4, (1, 1), 8, **k), None), 16, STATE),
    "convnext": (lambda: TV.ConvNeXt(BLOCKS, num_classes=CLASSES), 16, None),
    "convnext, stochastic depth": (
        lambda: TV.ConvNeXt(BLOCKS, 0.5, num_classes=CLASSES), 16, DRAWS),
    "vit": (lambda: TV.VisionTransformer(16, 8, 1, 2, 8, 16, num_classes=CLASSES), 16, None),
    "swin": (lambda: TV.SwinTransformer([2, 2], 8, [2], [2], [4, 4], num_classes=CLASSES,
                                        stochastic_depth_prob=0.0), 16, None),
    "googlenet": (lambda: TV.GoogLeNet(CLASSES, aux_logits=False, init_weights=False), 32, STATE),
    "timm vit_tiny": (*image("vit_tiny_patch16_224", 16, img_size=16, patch_size=8, depth=1, embed_dim=12,
                             num_heads=2), None),
    "timm deit": (*image("deit_tiny_patch16_224", 16, img_size=16, patch_size=8, depth=1, embed_dim=12,
                         num_heads=2, drop_path_rate=0.0), None),
    "vit, dropout": (
        lambda: TV.VisionTransformer(16, 8, 1, 2, 8, 16, num_classes=CLASSES, dropout=0.1), 16, DRAWS),
    "mobilenet_v2": (vision(TV.mobilenet_v2, groups, width_mult=0.1, dropout=0.0,
                            inverted_residual_setting=[[1, 8, 1, 1]]), 16, None),
    "mobilenet_v2 as it is": (vision(TV.mobilenet_v2, None, width_mult=0.1), 32, STATE),
    "timm resnet10t": (*image("resnet10t", 32, stem_width=4, channels=(4, 4, 4, 4), norm_layer=batch), None),
    "timm resnet10t as it is": (*image("resnet10t", 32), STATE),
    "timm vit_tiny, dropout": (*image("vit_tiny_patch16_224", 16, img_size=16, patch_size=8, depth=1,
                                      embed_dim=12, num_heads=2, proj_drop_rate=0.1), DRAWS),
    "timm mixer": (mixer(), 16, None),
    "timm resmlp": (mixer(block_layer=timm.models.mlp_mixer.ResBlock, mlp_ratio=2,
                          norm_layer=timm.models.mlp_mixer.Affine), 16, None),
    "timm convnext_atto": (*image("convnext_atto", 32, depths=(1, 0, 0, 0), dims=(4, 4, 4, 4)), None),
    "timm nfnet": (
        lambda: nfnet.NormFreeNet(nfnet.NfCfg((1,), (8,), stem_type="3x3", stem_chs=4, group_size=4,
                                              num_features=8), CLASSES), 16, None),
    "timm convmixer as it is": (*image("convmixer_768_32", 14), STATE),
}  # fmt: skip
STEPS, RATE, MOMENTUM = 2, 0.01, 0.5


def data_of(size):
    images = torch.randn(6, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Dataset("zoo", *[Split(images, torch.arange(6) % CLASSES, CLASSES)] * 3)


def plain_autograd(module, teacher, real):
    """The gradient at the images of the real loss after the steps, every step recorded."""
    learned = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
    w = {name: p.clone().requires_grad_() for name, p in learned.items()}
    m = {name: torch.zeros_like(p) for name, p in w.items()}
    x, labels = teacher.images.detach().clone().requires_grad_(), teacher.labels
    rate, momentum = (value.detach() for value in teacher.rates(0))  # rounded, as logarithms in float32
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        for _ in range(STEPS):
            loss = F.cross_entropy(functional_call(module, w, (x,)), labels)
            gradient = torch.autograd.grad(loss, list(w.values()), create_graph=True)
            m = {name: momentum * m[name] + g for name, g in zip(w, gradient)}
            w = {name: w[name] - rate * m[name] for name in w}
        scored = F.cross_entropy(functional_call(module, w, (real.images,)), real.labels)
    return torch.autograd.grad(scored, x)[0]


class Whole:
    """All images as the real batch, in their order."""

    def __init__(self, split):
        self.split = split

    def at(self, drawn):
        return self.split.images, self.split.labels


@pytest.mark.parametrize("build, size, refused", ZOO.values(), ids=ZOO.keys())
def test_a_foreign_network_has_the_right_gradient_or_one_clear_error(build, size, refused, monkeypatch):
    monkeypatch.setattr(gtnlib.inner.compiled, "_kernels", {})
    monkeypatch.setattr(torch, "compile", lambda graph, **keywords: graph)  # as traced
    data = data_of(size)
    teacher = PixelTeacher(1, STEPS, shape=(3, size, size), num_classes=CLASSES, rate=RATE,
                           momentum=MOMENTUM).double()  # fmt: skip
    if refused:
        with pytest.raises((ValueError, TypeError), match=refused):
            evaluate(teacher, build, data, 1)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what cannot be compared, and so runs eagerly
        module = make_student(build, data.shape, CLASSES, 0).double()
        expected = plain_autograd(module, teacher, data.train)
        for kind in (FlatStudent, CompiledStudent):
            teacher.images.grad, student = None, kind(module)
            student.rehearse(data.train.images, CLASSES)
            metagrad = Unrolled(True, "last", len(data.train))
            drawn = metagrad.draw(teacher, 0, data.train, torch.Generator().manual_seed(0))
            metagrad.differentiate(teacher, StudentRun.start(student), Whole(data.train), drawn)
            error = (teacher.images.grad - expected).norm() / expected.norm()
            assert error < 1e-6, (kind.__name__, float(error))
