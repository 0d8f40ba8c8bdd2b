"""Would another recipe do better? Ideas for every cell, each with a part of its outer steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gtnlib.experiments.distillation import Distillation
from gtnlib.experiments.settings.cells import METHODS, gtn_100, pixels
from gtnlib.experiments.trials import Trials

IDEAS: Mapping[str, Mapping[str, Mapping]] = {
    "unrolled": {
        "loss after the last step only": {"metagrad_args": {"loss_at": "last"}},
        "512 real images rather than 128": {"metagrad_args": {"real_batch_size": 512}},
        "two students per outer step": {"fit_args": {"students_per_step": 2}},
        "no cosine decay": {"fit_args": {"final_rate": 1.0}},
    },
    "implicit": {
        "20 Neumann terms": {"metagrad_args": {"neumann_terms": 20}},
        "a damping of 1": {"metagrad_args": {"damping": 1.0}},
        "students kept for 5 updates": {"metagrad_args": {"updates_per_student": 5}},
        "two students per outer step": {"fit_args": {"students_per_step": 2}},
    },
    "matching": {
        "layerwise cosine": {"metagrad_args": {"distance": "layerwise-cosine"}},
        "squared error": {"metagrad_args": {"distance": "squared-error"}},
        "256 real images per class rather than 64": {"metagrad_args": {"real_batch_size": 256}},
        "students kept for 40 updates": {"metagrad_args": {"updates_per_student": 40}},
    },
}


def tried(method: str, one: Distillation, part: int = 3) -> Trials:
    """Ideas for a cell, each with one `part` of its outer steps."""
    shorter = {**one.fit_args, "outer_steps": one.fit_args["outer_steps"] // part}
    return Trials(
        name=f"tried-{one.name}",
        title=f"ideas for {one.name}, each with {shorter['outer_steps']} outer steps",
        base=replace(one, fit_args=shorter, teacher_seeds=1),
        changes={"as it is": {}, **IDEAS[method]},
    )


LIST = [
    *(tried(method, pixels(method, per_class)) for method in METHODS for per_class in (1, 10)),
    *(tried(method, pixels(method, 50), part=10) for method in METHODS),
    *(tried(method, gtn_100(method)) for method in METHODS),
]
