"""All records of a folder as text: the distillations, what judging their teachers gave, and the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gtnlib.experiments.base import Experiment
from gtnlib.experiments.distillation import Distillation, accuracies, pooled
from gtnlib.experiments.judgement import Judgement
from gtnlib.experiments.judgement import accuracies as of_cells
from gtnlib.experiments.records import Record, shipped
from gtnlib.judge.intervals import difference
from gtnlib.judge.scores import augmentation_robust, label_robust

DISTILLED = ("experiment", "images", "test accuracy", "teachers × students", "peak MB", "seconds", "steps")
JUDGED = ("judged", "images", "lesson", "long", "augmented", "long, gain over real", "LRS", "ARS")


def table(experiments: Mapping[str, Experiment], folder: Path) -> str:
    """One row per distillation record, rows for every judgement, a line for every other; "" for none."""
    rows, judged, lines = [], list[tuple[str, ...]](), []
    for name in shipped(folder):
        record, experiment = Record.load(folder / f"{name}.json"), experiments.get(name)
        if isinstance(experiment, Distillation):
            rows.append(distilled(record))
        elif isinstance(experiment, Judgement):
            judged += judgement(record)
        else:
            lines.append(experiment.summary(record) if experiment else f"{name}: unknown")
    parts = [columns(DISTILLED, rows), columns(JUDGED, judged), "\n".join(lines)]
    return "\n\n".join(part for part in parts if part)


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text in columns; "" if there are no rows."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in (head, *rows)
    ]
    return "\n".join(lines) if rows else ""


def distilled(record: Record) -> tuple[str, ...]:
    each = accuracies(record)
    per_class = record.configuration.get("teacher_args", {}).get("images_per_class")
    images = f"{per_class} per class" if per_class else f"{record.results['images']} generated"
    peak = "?" if record.peak_memory_mb is None else f"{record.peak_memory_mb:.0f}"
    return (record.name, images, str(pooled(each)), f"{len(each)} × {len(each[0].values)}", peak,
            f"{record.seconds:.0f}", str(record.results["outer_steps"]))  # fmt: skip


def judgement(record: Record) -> Iterator[tuple[str, ...]]:
    """Of every teacher, and of the real images: accuracies by protocol, the gain, both scores."""
    cells = record.results["cells"]
    found = of_cells(record)

    def said(name: str) -> str:
        if name not in cells:
            return "-"
        count = cells[name]["diverged"]
        return f"{found[name].full()}, {count} diverged" if count else str(found[name])

    for name in record.configuration["teachers"]:
        images = cells[f"{name}.lesson"]["images"]
        pairs = {what: (f"{name}.{what}", f"real-{images}.{what}") for what in ("long", "augmented")}
        both = {what: [found[cell] for cell in pair] for what, pair in pairs.items()
                if all(cell in cells for cell in pair)}  # fmt: skip
        gain = lrs = ars = "-"
        if "long" in both:
            one, two = both["long"]
            if len(one.values) > 1:
                gain = difference(one.values, two.values).points()
            if "all.long" in found:
                hard = found.get(f"{name}.hard", one).mean
                lrs = f"{label_robust(found['all.long'].mean, one.mean, two.mean, hard):.3f}"
            if "augmented" in both:
                augmented, plain = ([one.mean, two.mean] for one, two in (both["augmented"], both["long"]))
                ars = f"{augmentation_robust((augmented[0], augmented[1]), (plain[0], plain[1])):.3f}"
        yield (name, str(images), *(said(f"{name}.{what}") for what in ("lesson", "long", "augmented")),
               gain, lrs, ars)  # fmt: skip
    lessons = [name for name in cells if ".lesson-" in name]
    others = dict.fromkeys(name.partition(".")[0] for name in cells if name.split(".")[0] not in (
        *record.configuration["teachers"], "all"))  # fmt: skip
    for source in others:
        for lesson in [name for name in lessons if name.startswith(f"{source}.")] or [""]:
            kind, _, images = source.rpartition("-")
            length = lesson.partition("-")[2].rpartition("-")[2].replace("x", " × ")
            yield (f"{kind}, {length}" if length else kind, images, said(lesson),
                   *(said(f"{source}.{what}") for what in ("long", "augmented")), "-", "-", "-")  # fmt: skip
    if "all.long" in cells:
        yield "all real", "all", "-", said("all.long"), "-", "-", "-", "-"
