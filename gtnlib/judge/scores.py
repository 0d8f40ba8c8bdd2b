"""The two scores of DD-Ranking: what images are worth beyond labels and augmentation.

Li et al. (2025), "DD-Ranking: Rethinking the Evaluation of Dataset Distillation", arXiv 2505.13300;
NUS-HPC-AI-Lab/DD-Ranking, README and ddranking/metrics. All accuracies are fractions of the test split.
Their code takes the best learning rate and epoch by that split too; where there is a choice to make,
make it on the validation split.
"""

from __future__ import annotations

import math

from gtnlib.support.errors import check_number


def label_robust(real: float, synthetic: float, random: float, hard: float | None = None,
                 weight: float = 0.5) -> float:  # fmt: skip
    """LRS: near (e⁰ − e⁻¹)/(e − e⁻¹) = 0.27 for images that are worth random ones and all real ones.

        HLR = acc(all real, hard labels) − acc(synthetic, hard labels)
        IOR = acc(synthetic, its own labels) − acc(as many random real images, labelled alike)
        α = weight · IOR − (1 − weight) · HLR        LRS = (e^α − e⁻¹) / (e − e⁻¹)

    Parameters
    ----------
    real, synthetic, random: the accuracies, all trained alike.
    hard: that of the synthetic images with hard labels; default `synthetic`, whose labels are hard.
    """
    for name, value in (("real", real), ("synthetic", synthetic), ("random", random), ("weight", weight)):
        _fraction(name, value)
    hard = synthetic if hard is None else _fraction("hard", hard)
    return _score(weight * (synthetic - random) - (1 - weight) * (real - hard))


def augmentation_robust(augmented: tuple[float, float], plain: tuple[float, float],
                        gamma: float = 0.5) -> float:  # fmt: skip
    """ARS: the same of β, the gain over random real images with and without augmentation.

        β = γ · gain with augmentation + (1 − γ) · gain without        ARS = (e^β − e⁻¹) / (e − e⁻¹)

    augmented, plain: accuracies of the synthetic and of as many random real images.
    """
    _fraction("gamma", gamma)
    gains = []
    for name, (synthetic, random) in (("augmented", augmented), ("plain", plain)):
        gains.append(_fraction(name, synthetic) - _fraction(name, random))
    return _score(gamma * gains[0] + (1 - gamma) * gains[1])


def _score(x: float) -> float:
    return (math.exp(x) - math.exp(-1)) / (math.e - math.exp(-1))


def _fraction(name: str, value: float) -> float:
    if check_number(name, value, 0) > 1:
        raise ValueError(f"{name} is {value}, but must be a fraction.")
    return value
