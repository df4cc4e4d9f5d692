"""A run of objective reward: a model answers questions, a user's function says what each answer is
worth, and what was worth more becomes likelier (GRPO).

Each step's answers are written by the network as it stands. They are a pure function of weights,
seed and step, so a run that goes on writes what it would have written.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tercet.config import TransformerConfig
from tercet.data import Batch, Sample, Stream, keyed
from tercet.data.draw import Draw
from tercet.data.rollouts import Rollout, Rollouts, asked, in_parts
from tercet.errors import InputError
from tercet.generate import Sampling
from tercet.generate.engine import generate
from tercet.generate.prompts import Finished
from tercet.generate.sampling import GREEDY
from tercet.jobs import recipe as recipes
from tercet.jobs.train.tuning import Tuning
from tercet.model import Network
from tercet.train import PolicyGradient, Recipe, Rewarded
from tercet.train.loop import Objective
from tercet.train.objectives import target_likelihoods
from tercet.train.policy import advantages


@dataclass(frozen=True)
class Rewarding(Tuning):
    """The parts of a run of objective reward."""

    @property
    def step_tokens(self) -> float:
        """Of a step's rows, each of which is answered several times."""
        return self.recipe.batch.tokens / self.recipe.objective.samples

    def check(self) -> None:
        super().check()
        assert self.reward

    @cached_property
    def reward(self) -> Callable[[str, str, str], Any]:
        """Of the prompt as the model reads it, its answer, and the answer that the row has."""
        assert self.recipe.objective.reward is not None
        return load_reward(self.recipe.objective.reward)

    def _check(self, config: TransformerConfig) -> None:
        super()._check(config)
        wanted = self.recipe.objective
        whole = wanted.length + wanted.max_new_tokens
        if whole > config.context_length:
            raise InputError(
                f"objective.length {wanted.length} and objective.max_new_tokens "
                f"{wanted.max_new_tokens} are {whole} together, beyond the model's context of "
                f"{config.context_length}; shorten one of the two"
            )

    # what a step reads -----------------------------------------------------------------------

    def draw(self, *, validation: bool = False) -> Draw:
        found = super().draw(validation=validation)
        if not validation and found.fewest < 1:
            raise InputError(
                f"batch.tokens {self.recipe.batch.tokens:,} are those of all objective.samples "
                f"{self.recipe.objective.samples} answers to a question; {self.step_tokens:,.0f} "
                "are fewer than the longest row has: raise batch.tokens, or lower samples"
            )
        return found

    def stream(
        self, *, rank: int = 0, world: int = 1, network: Network | None = None
    ) -> Stream | Rollouts:
        """Without a network, the questions alone."""
        if network is None:
            return super().stream(rank=rank, world=world)
        micro = self.recipe.batch.micro_tokens

        def answer(questions: Sequence[Sample], step: int) -> list[Rollout]:
            return self.answers(network, questions, step)

        return Rollouts(self.draw(), answer, micro, rank, world)

    def first_batches(self) -> list[Batch]:
        """As large as the first step's would be, were its answers those of the rows."""
        stream = super().stream()
        samples = [s for s in stream.samples(0) for _ in range(self.recipe.objective.samples)]
        size = self.recipe.batch.micro_tokens or self.recipe.batch.tokens
        each = max(1, round(len(samples) * size / sum(s.n_tokens for s in samples)))
        return [self.shape.batch(samples[i : i + each]) for i in range(0, len(samples), each)]

    def answers(self, network: Network, questions: Sequence[Sample], step: int) -> list[Rollout]:
        """So many answers to each as the recipe says, a group behind the other."""
        wanted = self.recipe.objective
        copies = [one for one in questions for _ in range(wanted.samples)]
        seed = keyed(self.recipe.seed, "answers", step)
        sampling = Sampling(temperature=wanted.temperature)
        found = self._rollouts(network, copies, sampling, seed)
        rewards = torch.tensor([one.reward for one in found], dtype=torch.float64)
        worth = advantages(rewards.view(-1, wanted.samples)).flatten().tolist()
        return [dataclasses.replace(one, advantage=a) for one, a in zip(found, worth)]

    def validation(self, network: Network | None = None) -> Iterator[Batch]:
        """Without a network, the rows with their own answers; with one, its likeliest answers and
        their rewards."""
        if network is None:
            yield from super().validation()
            return
        read = 0
        for questions in self.draw(validation=True).epoch(0):
            found = self._rollouts(network, questions, GREEDY, 0)
            batch = Rollouts.shape.batch(found)
            yield dataclasses.replace(batch, groups=(1,) * len(found)).to(self.device)
            # the same questions each time, however long the answers are
            read += sum(question.n_tokens for question in questions)
            if self.recipe.evaluate.tokens is not None and read >= self.recipe.evaluate.tokens:
                return

    def _rollouts(
        self, network: Network, questions: Sequence[Sample], sampling: Sampling, seed: int
    ) -> list[Rollout]:
        parts = [asked(one) for one in questions]
        written = generate(
            network,
            [prompt.tolist() for prompt, _ in parts],
            max_new_tokens=self.recipe.objective.max_new_tokens,
            sampling=sampling,
            eos_ids=network.config.eos_ids,
            seed=seed,
        )
        count = self.recipe.objective.samples
        found = [
            _rollout(one, number % count, prompt, answer, self._worth(prompt, answer, hoped))
            for number, (one, (prompt, hoped), answer) in enumerate(zip(questions, parts, written))
        ]
        return self._referred(found) if self.recipe.objective.kl and sampling != GREEDY else found

    def _referred(self, found: list[Rollout]) -> list[Rollout]:
        """With what the model that the run began with says of their tokens."""
        wanted, network = self.recipe.objective, self.start.network.to(self.device).eval()
        kind, said = self.device.type, []
        with torch.no_grad(), torch.autocast(kind, torch.bfloat16, self.bfloat16):
            for part in in_parts(found, self.recipe.batch.micro_tokens):
                batch = Rollouts.shape.batch(part).to(self.device)
                said.append(target_likelihoods(network, batch, wanted.temperature).cpu())
        counts = [len(one.places) for one in found if one.places is not None]
        return [
            dataclasses.replace(one, reference=part)
            for one, part in zip(found, torch.cat(said).split(counts), strict=True)
        ]

    # what it is worth ------------------------------------------------------------------------

    def _worth(self, prompt: torch.Tensor, answer: Finished, hoped: torch.Tensor) -> float:
        question = self.tokenizer.decode(prompt.tolist(), skip_special=False)
        said, wanted = self._text(answer.ids), self._text(hoped.tolist())
        name = self.recipe.objective.reward
        try:
            found: Any = self.reward(question, said, wanted)
        except Exception as error:
            raise InputError(
                f"the reward {name} raised {type(error).__name__}: {error}, for the answer "
                f"{said!r} to {question!r}, of which the row has {wanted!r}; mend it, and --resume"
            ) from error
        if not math.isfinite(worth := _number(found)):
            raise InputError(
                f"the reward {name} gave {found!r} for the answer {said!r} to {question!r}, of "
                f"which the row has {wanted!r}; it must give a finite number: mend it, and --resume"
            )
        return worth

    def _text(self, ids: Sequence[int]) -> str:
        """An answer as chat shows it."""
        around, ends = self.template.answer, self.config.eos_ids
        text = self.tokenizer.decode([i for i in ids if i not in ends], skip_special=False)
        return text.removeprefix(around.before).removesuffix(around.after)

    # what is learned -------------------------------------------------------------------------

    def about(self) -> str:
        wanted = self.recipe.objective
        return f"{super().about()}; {wanted.samples} answers to each question, by {wanted.reward}"

    def _tokens_learned(self, name: str) -> str:
        """What is learned is not written yet."""
        return ""

    @property
    def train(self) -> Recipe:
        """The loss is near 0 whatever is learned: none of it is a leap."""
        return dataclasses.replace(super().train, spike=0.0)

    @property
    def objective(self) -> Objective:
        return PolicyGradient(self.recipe.objective.kl, self.recipe.objective.temperature)

    @property
    def measure(self) -> Objective:
        return Rewarded()


def _rollout(
    question: Sample, number: int, prompt: torch.Tensor, answer: Finished, reward: float
) -> Rollout:
    ids = torch.cat([prompt, torch.tensor(answer.ids, dtype=prompt.dtype)])
    return Rollout(
        (*question.key, number),
        ids,
        places=torch.arange(len(prompt), len(ids)),
        document=question.document,
        start=question.start,
        reward=reward,
        ended=answer.finish == "stop",
    )


def _number(found: Any) -> float:
    """A number of whatever library; not a number where it is none."""
    try:
        return math.nan if isinstance(found, str | bytes) else float(found)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def load_reward(where: str) -> Callable[..., Any]:
    """The function that FILE.py:NAME or MODULE:NAME names. Raises InputError for none."""
    home, colon, name = recipes.expanded([where])[0].rpartition(":")
    if not colon or not name.isidentifier():
        raise InputError(f"objective.reward {where!r}: write FILE.py:FUNCTION, as rewards.py:exact")
    file = Path(home).resolve()
    if home.endswith(".py") and not file.is_file():
        raise InputError(f"objective.reward {where!r}: there is no file {home}")
    try:
        if home.endswith(".py"):
            module = _module(file, file.stat().st_mtime_ns)
        else:
            module = importlib.import_module(home)
    except Exception as error:
        raise InputError(
            f"objective.reward {where!r}: {home} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        there = [n for n, value in vars(module).items() if callable(value) and n[0] != "_"]
        raise InputError(
            f"objective.reward {where!r}: {home} has no function {name!r}; it has "
            f"{', '.join(there) or 'none'}"
        )
    return found


@lru_cache
def _module(file: Path, changed: int) -> ModuleType:
    """A file as a module, run once as long as it is not changed, since it may load a large judge.
    As in a script, what lies beside it can be imported."""
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    name = f"reward_{file.stem}"  # which hides no other module
    made = importlib.util.spec_from_file_location(name, file)
    assert made is not None and made.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(made)  # a dataclass looks there
    made.loader.exec_module(module)
    return module
