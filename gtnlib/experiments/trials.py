"""What was tried: a distillation with one thing changed at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from gtnlib.data.load import load_dataset
from gtnlib.experiments.base import Check, Context, Experiment, Tally, sampled
from gtnlib.experiments.distillation import Distillation, elapsed, kept, shortened
from gtnlib.experiments.records import Record
from gtnlib.judge.evaluate import evaluate
from gtnlib.judge.report import Statistic
from gtnlib.support.errors import DivergenceError, check_choice
from gtnlib.teachers.files import rounded

CHECKED = 2  # outer steps that `check` repeats
TOLERANCE = 0.02  # of their losses: another machine rounds otherwise


@dataclass(frozen=True)
class Trials(Experiment):
    """One teacher for every change of a distillation, judged on the validation split.

    base: the distillation. changes: by words, the fields of `Distillation` to replace; of those that
    are tables, such as `fit_args`, only the entries that are named.

    The record's results hold for every change the validation accuracy of `base.evaluation_seeds`
    students of its teacher and the outer steps it had, fewer than asked for if it diverged; the curves,
    its losses and [outer step, seconds, validation accuracy] on the way.
    """

    base: Distillation
    changes: Mapping[str, Mapping]

    def __post_init__(self):
        self.variants()

    def variants(self) -> dict[str, Distillation]:
        """By words. Raises ValueError or TypeError for a change that `Distillation` does not allow."""
        names = [field.name for field in fields(Distillation) if field.name not in ("name", "title")]
        made = {}
        for words, change in self.changes.items():
            for name in change:
                check_choice(f"a name in changes[{words!r}]", name, names)
            merged: dict[str, Any] = {}
            for name, value in change.items():
                table = isinstance(value, Mapping)
                merged[name] = {**getattr(self.base, name), **value} if table else value
            made[words] = replace(self.base, **merged)
        return made

    def run(self, context: Context) -> Record:
        tally, data = Tally(self, context), load_dataset(self.base.data, device=context.device)
        work, losses, curves, results, seconds = self.work_folder(context.folder), {}, {}, {}, 0.0
        for i, (words, variant) in enumerate(self.variants().items()):
            accuracy: Sequence[float] = ()
            try:
                path = work / f"trial-{i:02}.safetensors"
                teacher, history = variant.train(variant.seed, data, path, tally, context)
                accuracy = evaluate(rounded(kept(teacher)), variant.build_student(), data,
                                    variant.evaluation_seeds, split="validation").accuracy.values  # fmt: skip
            except DivergenceError as error:
                history = error.history
            took = elapsed(history)
            losses[words] = shortened(history.loss)
            curves[words] = [[step, took[step - 1], value] for step, value in history.validation]
            results[words] = {"validation_accuracy": list(accuracy), "outer_steps": len(history)}
            seconds += history.seconds
        return tally.record(
            seeds={"fit": [self.base.seed], "evaluation": list(range(self.base.evaluation_seeds))},
            seconds=seconds, curves={"loss": losses, "validation": curves}, results=results,
        )  # fmt: skip

    def check(self, record: Record, context: Context, students: int = 5) -> Check:
        """Repeat the first outer steps of every third trial that had as many: their losses must be those
        recorded, but for rounding.
        """
        data, far = load_dataset(self.base.data, device=context.device), []
        sample = [(words, variant) for words, variant in self.variants().items()
                  if len(record.curves["loss"][words]) >= CHECKED][::3]  # fmt: skip
        for words, variant in sample:
            _, history = variant.fitted(variant.seed, data, progress=False, callback=enough,
                                        validate_every=None)  # fmt: skip
            if len(history) < CHECKED:
                raise KeyboardInterrupt  # which `fit` takes as its end
            old, new = record.curves["loss"][words][:CHECKED], history.loss
            if any(abs(a - b) > TOLERANCE * abs(b) for a, b in zip(new, old, strict=True)):
                far.append(f"{words}: losses {old}, now {shortened(new)}")
        return sampled(self, "trials", len(sample), far)

    def summary(self, record: Record) -> str:
        found = accuracies(record)
        best = max(found, key=lambda words: found[words].mean, default=None)
        outcome = "all diverged" if best is None else f"best {best!r}, {found[best]} on validation images"
        return f"{self.name}: {len(record.results)} trials, {outcome}"


def enough(step, teacher, history) -> None:
    """A callback of `fit` that ends it after the outer steps to be checked."""
    if len(history) == CHECKED:
        raise KeyboardInterrupt


def accuracies(record: Record) -> dict[str, Statistic]:
    """Validation accuracy of the students of every trial that did not diverge, by its words."""
    return {words: Statistic(tuple(result["validation_accuracy"]))
            for words, result in record.results.items() if result["validation_accuracy"]}  # fmt: skip
