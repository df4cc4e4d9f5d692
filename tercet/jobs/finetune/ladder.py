"""tercet finetune --ladder: the cheapest thing that works.

From the cheapest rung upwards, each is measured on the same rows, and the climb ends where the next
one is no better than chance could have made it. Knows how rungs are compared, kept and told of; how
one learns is ``rungs``'.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, chain
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tercet.errors import InputError
from tercet.evaluate.classification import Gain, paired_gain
from tercet.files import written, written_folder
from tercet.hf import is_adapter, library_of
from tercet.jobs.finetune.card import card
from tercet.jobs.finetune.classify import ClassifyTask
from tercet.jobs.finetune.fit import watched
from tercet.jobs.finetune.job import Job, together
from tercet.jobs.finetune.kinds import One
from tercet.jobs.finetune.rungs import Cost, Rungs
from tercet.jobs.finetune.splits import held_back, stratified
from tercet.jobs.finetune.task import Scores, Splits
from tercet.jobs.flags import say
from tercet.jobs.recipe import RESULT
from tercet.language_model import LanguageModel, load
from tercet.model import Network

FOLDS = 5  # of the rows, if not said otherwise; of many rows not all are asked
WARM, TIMED = 3, 30  # calls: before the clock runs, and under it
WHOLE = "whole"  # beside fold-0, fold-1 ...: learned from all rows
RUNG, COST, LOGITS = "rung.json", "cost.json", "held.safetensors"


@dataclass(frozen=True)
class Rung:
    """What came of a rung: scores on the rows that rungs are compared by, and on the test rows, of
    the model that was kept; what it cost, and what comparing it took beside; bytes and milliseconds
    a text of the folder."""

    name: str
    validation: Scores
    test: Scores | None
    facts: dict[str, float]
    flops: float
    seconds: float
    compared_seconds: float
    bytes: int
    latency_ms: float

    def write(self, path: Path) -> None:
        with written(path) as draft:
            draft.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Rung:
        values = json.loads(path.read_text(encoding="utf-8"))
        for name in ("validation", "test"):
            values[name] = values[name] and Scores(**values[name])
        return cls(**values)


# which rung --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """The rung to keep, by its place, and why no dearer one was worth it; None: there is one still
    to be tried."""

    place: int
    reason: str | None


def choose(names: Sequence[str], rights: Sequence[np.ndarray]) -> Choice:
    """By the rows (B,) that each rung got right, from the cheapest upwards, until one gains no more
    on the one before than chance may, or nothing is left to gain. Of these last two, both learned
    by then and in use the same network, the one that got more right is kept, of equals the cheaper:
    of few rows next to no gain is beyond chance, and the likelier one is the better guess.

    The interval is that of the paired difference: all have read the same rows, most of which two
    rungs both get right or both wrong, so that two Wilson intervals side by side still overlap
    where the difference is beyond doubt. Out of fold, rows of one fold share a model, and those of
    two folds most of their training rows, for which no interval accounts without bias (Bengio and
    Grandvalet 2004): it is a little too narrow, and the climb goes a rung too far rather than too
    short.
    """
    kept = 0
    for place, right in enumerate(rights):
        if place:
            gain = paired_gain(rights[kept], right)
            before, kept = kept, place if gain.gain > 0 else kept
            if gain.low <= 0:
                said = f"{names[place]} gains {_points(gain)} on {names[before]}"
                return Choice(kept, said if gain.high < 0 else f"{said}, which may be chance")
        if (most := paired_gain(right, np.ones_like(right))).low <= 0:
            return Choice(kept, f"all that is left to gain, {_points(most)}, may be chance")
    return Choice(kept, None if len(rights) < len(names) else "there is no other rung")


def _points(gain: Gain) -> str:
    middle, low, high = (100 * share for share in (gain.gain, gain.low, gain.high))
    return f"{middle:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})"


# the climb ---------------------------------------------------------------------------------------


class Climb:
    """A fine-tuning job whose rungs are learned, compared and kept."""

    def __init__(self, job: Job) -> None:
        assert isinstance(job.task, ClassifyTask) and job.recipe.ladder is not None
        if not isinstance(job.task.kind, One):
            raise InputError(
                "--ladder is for texts with the name of one label each, and the labels of these "
                f"rows are of the kind {job.task.facts['kind']!r}; leave it out, or, if they are "
                "names, set classify.kind=label"
            )
        self.job, self.task, self.settings = job, job.task, job.recipe.ladder
        examples = [*job.splits.train, *job.splits.validation]
        self.rungs = Rungs(job.task, job.recipe, examples, quiet=job.quiet)
        self.rows, self.held, self.folds = self._parts()
        self.names = self.rungs.names(self.rows)
        self.targets = self.rungs.targets[self.held]

    def _parts(self) -> tuple[list[int], list[int], list[list[int]]]:
        """The examples that the kept models learn, those that rungs are compared on, and the folds
        of these, where that is out of fold: then all are learned."""
        recipe, train = self.job.recipe, self.job.splits.train
        every, share, wanted = list(range(len(train))), recipe.data.validation, self.settings.rows
        if not isinstance(share, float):
            return every, list(range(len(train), len(self.rungs.examples))), []
        if recipe.folds is None and share * len(train) >= wanted:
            held = held_back(train, share)
            return sorted({*every} - {*held}), held, []
        folds = stratified(train, recipe.folds or FOLDS)
        if recipe.folds is None:  # a tenth of 9,600 rows tells half a point from chance no more
            sizes = accumulate(map(len, folds))
            folds = folds[: 1 + sum(size < wanted for size in sizes)]  # 4,000 rows: three of five
        return every, sorted(chain(*folds)), folds

    def run(self) -> dict[str, Any]:
        """What result.json holds. The best model so far stands in ``model`` from the first rung
        on."""
        done: list[Rung] = []
        rights: list[np.ndarray] = []
        choice = Choice(0, None)
        self._say(f"the ladder's rungs, the cheapest first: {', '.join(self.names)}")
        for name in self.names:
            if choice.reason and not self.settings.all:
                break
            done.append(self._rung(name))
            rights.append((self._said(name).argmax(-1) == self.targets).numpy())
            choice = choose(self.names, rights)
            self._put(done[choice.place].name)
            self._say(f"{name}: {done[-1].validation}")
        result = self._result(done, choice)
        (self.job.folder / "model" / "README.md").write_text(card(result), encoding="utf-8")
        return result

    def findings(self, best: str) -> dict[str, Any]:
        """As ``Job.findings``; out of fold all rows were learned, and only test rows tell of
        mistakes."""
        train, held = ([self.rungs.examples[i] for i in part] for part in (self.rows, self.held))
        splits = Splits(train, () if self.folds else held, self.job.splits.test)
        with watched("findings", self.job.quiet):
            return self.task.findings(load(self.job.folder / "model"), splits, [])

    def clear(self) -> None:
        """Away with the models of the rungs, when the result is written: one of them is kept."""
        for name in self.names:
            shutil.rmtree(self.job.folder / name / "model", ignore_errors=True)

    def _say(self, sentence: str) -> None:
        if not self.job.quiet:
            say(sentence)

    # one rung ------------------------------------------------------------------------------------

    def _rung(self, name: str) -> Rung:
        """Measured on the folder of its model, as it was saved."""
        where = self.job.folder / name
        if (where / RUNG).exists():
            return Rung.read(where / RUNG)
        compared = [
            self._learned(name, f"fold-{i}", sorted({*self.rows} - {*held}), held)
            for i, held in enumerate(self.folds)
        ]
        cost = self._learned(name, WHOLE, self.rows, self.held)
        model, test = load(where / "model"), self.job.splits.test
        said = self._said(name)
        facts = self.task.calibrated(model.network, said, self.targets).facts
        with watched(name, self.job.quiet):
            tested = self.task.scores(model.network, test) if test else None
        found = Rung(
            name,
            self.task.kind.scores(said, self.targets),
            tested,
            facts | {"temperature": model.extras.temperature},
            cost.flops,
            cost.seconds,
            sum(one.seconds for one in compared),
            sum(path.stat().st_size for path in (where / "model").rglob("*") if path.is_file()),
            self._latency(model),
        )
        found.write(where / RUNG)
        return found

    def _learned(self, name: str, part: str, rows: list[int], held: list[int]) -> Cost:
        """What learning these rows cost, now or before; what it says of the held ones is kept, and
        of the whole its model."""
        where = self.job.folder / name / part
        if not (where / COST).exists():

            def keep(network: Network) -> None:
                if part != WHOLE or not self.folds:
                    self._write(where / LOGITS, network, held)
                if part == WHOLE:
                    # out of fold, the other networks' logits stand for those of this one, which has
                    # learned all rows
                    finished = self.task.calibrated(network, self._said(name), self.targets)
                    self.job.save(network, finished, self.job.folder / name / "model")

            cost = self.rungs.learn(name, rows, where, keep)
            with written(where / COST) as draft:
                draft.write_text(json.dumps(asdict(cost)), encoding="utf-8")
        shutil.rmtree(where / "checkpoints", ignore_errors=True)  # the cost stands without them
        return Cost(**json.loads((where / COST).read_text(encoding="utf-8")))

    def _write(self, path: Path, network: Network, held: list[int]) -> None:
        found = self.task.logits(network, [self.rungs.examples[i] for i in held])
        with written(path) as draft:
            save_file({"logits": found}, draft)

    def _said(self, name: str) -> Tensor:
        """(held, labels) of the rows that rungs are compared on, none of them learned."""
        where = self.job.folder / name
        if not self.folds:
            return load_file(where / WHOLE / LOGITS)["logits"]
        found = torch.empty(len(self.rows), len(self.task.kind.names))
        for i, held in enumerate(self.folds):
            found[torch.tensor(held)] = load_file(where / f"fold-{i}" / LOGITS)["logits"]
        return found[torch.tensor(self.held)]

    def _latency(self, model: LanguageModel) -> float:
        """Milliseconds of one text, the median of a few dozen calls on several texts."""
        texts = [self.rungs.examples[i].text for i in self.held[:TIMED]]
        found = []
        for call in range(WARM + TIMED):
            begun = perf_counter()
            model.classify(texts[call % len(texts)], overflow=self.job.recipe.data.overflow)
            found.append(1e3 * (perf_counter() - begun))
        return median(found[WARM:])

    def _put(self, name: str) -> None:
        """The rung's model becomes the job's, if it has not."""
        source = self.job.folder / name / "model"
        if source.is_dir():
            with written_folder(self.job.folder / "model", instead_of=["*"]) as place:
                shutil.copytree(source, place, dirs_exist_ok=True)

    # all of them ---------------------------------------------------------------------------------

    def _result(self, done: Sequence[Rung], choice: Choice) -> dict[str, Any]:
        best, model = done[choice.place], self.job.folder / "model"
        return {
            "task": self.job.recipe.task,
            "model": self.job.recipe.model,
            "metric": "accuracy",
            "best": best.name,
            "validation": together({best.name: best.validation}),
            "test": together({best.name: best.test}) if best.test else None,
            "runs": {one.name: {"seconds": one.seconds, "flops": one.flops} for one in done},
            "seconds": sum(one.seconds + one.compared_seconds for one in done),
            "adapter": self.job.model.base if is_adapter(model) else None,
            "library": library_of(model),
            "facts": best.facts,
            "data": self.task.facts,
            "ladder": {
                "how": self._how(),
                "reason": choice.reason,
                "left_out": self.names[len(done) :],
                "pretraining": self._pretraining(),
                "rungs": [asdict(one) for one in done],
            },
        }

    def _how(self) -> str:
        if not self.folds:
            return "validation"
        n, some = len(self.folds), len(self.held) < len(self.rows)
        return f"out of {n} of {FOLDS} folds" if some else f"out of {n} folds"

    def _pretraining(self) -> dict[str, float] | None:
        """What the body took, where its folder stands in the run that trained it."""
        path = Path(self.job.model.base or "").parent / RESULT
        try:
            done = json.loads(path.read_text(encoding="utf-8"))
            return {"tokens": done["tokens"], "seconds": done["seconds"]}
        except (OSError, ValueError, KeyError, TypeError):
            return None
