"""Architecture search: candidates ranked after a short training, against their ranking after a full one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from gtnlib.data.load import STATISTICS
from gtnlib.experiments.base import Check, Context, Experiment, Tally, compared
from gtnlib.experiments.lessons import Lessons, Measuring, check_recipes, job, measured_again
from gtnlib.experiments.records import Record
from gtnlib.judge.training import Recipe
from gtnlib.students.space import SPACE, Architecture, sample_architectures
from gtnlib.support.errors import check_choice, check_count
from gtnlib.support.identity import differences
from gtnlib.support.jobs import run_jobs

SMALLEST_TOLERANCE = 0.02
SAMPLE = 8
OF_TRUTH = ("truth", "truth_seeds", "candidates", "candidate_seed", "limit", "space", "data")


@dataclass(frozen=True)
class Search(Experiment):
    """Real validation accuracy of every candidate after each proxy's training and after the full one.

    Parameters
    ----------
    truth: lessons and recipe of the full training on real data, and truth_seeds of it per candidate.
    truth_from: name of a recorded search of the same candidates, whose full trainings, the same too, are
        taken over; None to train them.
    proxies: by name, lessons and recipe of a short training, and proxy_seeds of it per candidate,
        measured on proxy_images of the validation split, or all: after a training so short, to
        measure would take longer.
    candidates, candidate_seed, limit, space: of `sample_architectures`.

    The record's results hold, for truth and each proxy, validation accuracy (candidates, seeds) and
    loss (mean cross-entropy; not in older records) and training seconds (candidates,), and for truth the
    test accuracy as well; `gtnlib.judge.ranking` makes of them what a figure shows. The test split is
    never used to choose.
    """

    pooled = True
    truth: tuple[Lessons, Recipe]
    proxies: Mapping[str, tuple[Lessons, Recipe]]
    truth_from: str | None = None
    truth_seeds: int = 2
    proxy_seeds: int = 1
    proxy_images: int | None = None
    candidates: int = 100
    candidate_seed: int = 0
    limit: int = 4_000_000
    space: Mapping[str, Sequence] = field(default_factory=lambda: dict(SPACE))
    data: str = "mnist"

    def __post_init__(self):
        for name in ("truth_seeds", "proxy_seeds", "candidates", "limit"):
            check_count(name, getattr(self, name))
        if self.proxy_images is not None:
            check_count("proxy_images", self.proxy_images)
        if "truth" in self.proxies:
            raise ValueError("no proxy can be called 'truth'.")
        for name, (lessons, recipe) in {**self.proxies, "truth": self.truth}.items():
            check_recipes(name, lessons, [recipe])
        check_choice("data", self.data, STATISTICS)

    def architectures(self) -> list[Architecture]:
        return sample_architectures(self.candidates, self.candidate_seed, limit=self.limit, space=self.space)

    def _job(self, candidate: Architecture, name: str, seeds: Sequence[int], folder: Path) -> dict:
        lessons, recipe = self.truth if name == "truth" else self.proxies[name]
        splits = ["validation", "test"] if name == "truth" else ["validation"]
        images = None if name == "truth" else self.proxy_images
        student = ["Architecture", asdict(candidate)]
        return job(student, lessons, recipe, seeds, splits, self.data, folder, images)

    def _jobs(self, folder: Path) -> Iterator[tuple[str, dict]]:
        """One per proxy and candidate; of the full training, which takes long, one per seed as well."""
        candidates = list(enumerate(self.architectures()))
        for seed in range(0 if self.truth_from else self.truth_seeds):
            for i, candidate in candidates:
                yield f"truth-{i:04}-{seed}", self._job(candidate, "truth", [seed], folder)
        for name in self.proxies:
            for i, candidate in candidates:
                yield f"{name}-{i:04}", self._job(candidate, name, range(self.proxy_seeds), folder)

    def _recorded_truth(self, folder: Path) -> dict:
        """The full trainings of `truth_from`. ValueError if it has none of these candidates."""
        path = folder / f"{self.truth_from}.json"
        if not path.exists():
            make = f"`run {self.truth_from} --out DIR`"
            raise ValueError(f"there is no record {path} to take the truth from. Make one by {make}, and "
                             "name its folder by --teachers.")  # fmt: skip
        record, own = Record.load(path), self.configuration()
        theirs, ours = ({key: of.get(key) for key in OF_TRUTH} for of in (record.configuration, own))
        if found := differences(theirs, ours):
            raise ValueError(f"{path} is of other full trainings or candidates: {'; '.join(found)}.")
        return record.results["truth"]

    def run(self, context: Context) -> Record:
        recorded = self._recorded_truth(context.teachers) if self.truth_from else None
        tally, work = Tally(self, context), self.work_folder(context.folder)
        carry_out = Measuring(context.teachers, str(context.device))
        found = run_jobs(dict(self._jobs(context.teachers)), carry_out, work / "candidates", context.pool,
                         context.progress)  # fmt: skip

        def gathered(parts: list[list[dict]], *splits: str) -> dict:
            """Over the parts of every candidate: accuracies by split, losses, mean seconds; and the steps."""
            times = [[s for part in row for s in part["seconds"]] for row in parts]
            accuracy = {split: [[value for part in row for value in part["accuracy"][split]] for row in parts]
                        for split in splits}  # fmt: skip
            loss = [[round(one, 5) for part in row for one in part["loss"]["validation"]] for row in parts]
            return {**accuracy, "loss": loss, "seconds": [round(sum(row) / len(row), 4) for row in times],
                    "steps": parts[0][0]["steps"]}  # fmt: skip

        everyone = range(self.candidates)
        truth = recorded or gathered(
            [[found[f"truth-{i:04}-{seed}"] for seed in range(self.truth_seeds)] for i in everyone],
            "validation", "test")  # fmt: skip
        proxies = {name: [[found[f"{name}-{i:04}"]] for i in everyone] for name in self.proxies}
        return tally.record(
            seeds={"truth": list(range(self.truth_seeds)), "proxy": list(range(self.proxy_seeds))},
            seconds=sum(sum(result["seconds"]) for result in found.values()),
            curves={},
            results={"truth": truth,
                     "proxies": {name: gathered(rows, "validation") for name, rows in proxies.items()}},
        )  # fmt: skip

    def check(self, record: Record, context: Context, students: int = 5) -> Check:
        """Train a sample of candidates anew, by every proxy in turn, with new seeds.

        A network's accuracy after a short training scatters, and two trainings do not say how much: all but
        one of the sample must agree with the recorded ones by the `spread` over all candidates, see
        `agreement`, or be within two percentage points.
        """
        check_count("students", students)
        architectures, names, again_of = self.architectures(), list(self.proxies), {}
        seeds = range(self.proxy_seeds, self.proxy_seeds + max(students, 2))
        places = range(len(architectures))[:: max(1, len(architectures) // SAMPLE)][:SAMPLE]
        for k, i in enumerate(places):
            name = names[k % len(names)]
            again = self._job(architectures[i], name, seeds, context.teachers)
            recorded = record.results["proxies"][name]["validation"][i]
            again_of[f"{architectures[i]} by {name}"] = measured_again(
                again, recorded, context, SMALLEST_TOLERANCE, spread(record.results["proxies"][name])
            )
        return compared(self, "candidates", again_of, allowed=1)

    def summary(self, record: Record) -> str:
        truth, proxies = record.results["truth"], record.results["proxies"]
        return f"{self.name}: {len(truth['validation'])} candidates, {len(proxies)} proxies"


def spread(proxy: Mapping) -> float:
    """Standard deviation of a candidate's trainings by a recorded proxy: root mean square over all of
    them, 0 if each has one training only.
    """
    values = np.array(proxy["validation"])
    return float(np.sqrt(values.var(1, ddof=1).mean())) if values.shape[1] > 1 else 0.0
