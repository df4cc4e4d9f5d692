"""Now and then in a run: the loss of its validation split, and what the model makes of prompts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch

from tercet.answers import CutWarning
from tercet.errors import InputError
from tercet.jobs.recipe import LOG
from tercet.jobs.train.run import Run
from tercet.jobs.train.settings import MASK
from tercet.language_model import LanguageModel
from tercet.model import Network
from tercet.train import Averages, Log, State, World
from tercet.train.log import last_rows
from tercet.train.loop import seen


@dataclass(frozen=True)
class Validation:
    """Now and then: the loss of the validation split under the averaged weights, and samples.

    The best step is remembered and kept; without a better one for so many evaluations as the
    recipe's patience, the run ends.
    """

    run: Run
    network: Network
    averages: Averages
    log: Log | None  # None: in all processes but the first
    save: Callable[[State], None]
    world: World

    def __call__(self, state: State) -> None:
        loss = self.world.first(math.nan if self.log is None else self._measured(self.log, state))
        loss = loss if math.isfinite(loss) else math.inf
        if state.best is None or loss < state.best:
            state.best, state.best_step, state.waited = loss, state.step, 0
            self.save(state)
            return
        state.waited += 1
        patience = self.run.recipe.evaluate.patience
        if patience is not None and state.waited >= patience and not state.done:
            what = "reward" if self.run.recipe.objective.rewards else "loss"
            state.stopped = f"no better validation {what} in {patience} evaluations"

    def due(self, state: State) -> bool:
        """Whether the state was saved because the evaluation behind its step had failed."""
        if not state.step or state.step % self.run.recipe.evaluate.every and not state.done:
            return False
        found = last_rows(self.run.folder / LOG, "evaluation", 1)
        return not found or found[0]["step"] < state.step

    def _measured(self, log: Log, state: State) -> float:
        """The loss, which is written down. Where a user's function fails, the state is saved."""
        self.network.eval()
        try:
            with self.averages.applied():
                facts = validation_facts(self.run, self.network)
                samples = self._samples()
        except InputError:
            self.save(state)
            raise
        finally:
            self.network.train()
        log("evaluation", state.step, **facts)
        for prompt, text in samples:
            log("sample", state.step, prompt=prompt, text=text)
        return facts["loss"]

    def _samples(self) -> list[tuple[str, str]]:
        """What the model makes of the recipe's prompts."""
        asked = self.run.recipe.evaluate
        if not asked.prompts:
            return []
        model = self.run.model(self.network)
        if "fill" in model.can:
            return [(p, _filled(model, p)) for p in asked.prompts]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CutWarning)  # the prompt may slide out of sight
            answers = model.generate(
                [self.run.prompt(text) for text in asked.prompts],
                max_new_tokens=asked.max_new_tokens,
                overflow="slide",
            )
        return [(p, answer.error or str(answer)) for p, answer in zip(asked.prompts, answers)]


def _filled(model: LanguageModel, prompt: str) -> str:
    """The prompt with the likeliest token in each of its masks."""
    try:
        found = model.fill(prompt, top_k=1)
    except InputError as error:  # it is too long: no reason to end a run
        return str(error)
    fills = [one[0] if isinstance(one, list) else one for one in found]
    parts = prompt.split(MASK)
    return parts[0] + "".join(f"{fill.token}{part}" for fill, part in zip(fills, parts[1:]))


def validation_loss(run: Run, network: Network) -> float:
    """Nats a target over the validation split, without smoothing or dropout."""
    return validation_facts(run, network)["loss"]


def validation_facts(run: Run, network: Network) -> dict[str, float]:
    """The loss, and the perplexity where it is one of tokens, else what the objective sees."""
    objective, total = run.measure, 0.0
    targets = torch.zeros(1, dtype=torch.float64)
    with torch.inference_mode():
        for batch in run.validation(network):
            total += float(objective(network, batch))
            targets += batch.counts[0]
    if not targets:
        raise InputError(
            "the validation split has no targets; give longer texts or a larger share to validation"
        )
    loss = total / float(targets)
    beside = seen(objective, targets, World())
    return {"loss": loss, **(beside or {"perplexity": math.exp(min(loss, 700.0))})}
