"""A run: its folder, and the parts that its recipe names, put together.

Training, replaying, verifying and showing all build the same parts here, so that what is looked at
afterwards is what was trained.
"""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from tercet.config import TransformerConfig
from tercet.data import Batch, Mixture, Stream
from tercet.data.corpus import Corpus
from tercet.data.draw import Draw
from tercet.data.manifest import MANIFEST
from tercet.data.preparation import Progress
from tercet.data.prepare import Learn, prepare
from tercet.data.rollouts import Rollouts
from tercet.data.shape import Shape
from tercet.errors import InputError
from tercet.jobs import recipe as recipes
from tercet.jobs.precision import in_bfloat16
from tercet.jobs.train.samples import draw_of, learned_shape, shape_of, source_of, special_of
from tercet.jobs.train.settings import RunRecipe
from tercet.language_model import LanguageModel, load
from tercet.model import Network, build
from tercet.presets import preset
from tercet.text import Tokenizer
from tercet.text.train import Kind
from tercet.train import (
    Average,
    Averages,
    Checkpoints,
    CrossEntropy,
    NextSentence,
    Optimizer,
    Recipe,
    Schedule,
)
from tercet.train.loop import Objective


@dataclass(frozen=True)
class Run:
    """A run folder and its recipe; the parts are made when they are asked for."""

    folder: Path
    recipe: RunRecipe

    @classmethod
    def open(cls, folder: Path) -> Run:
        """A run that exists. Raises InputError where the folder holds none."""
        path = folder / recipes.RECIPE
        if not path.exists():
            raise InputError(
                f"{folder} holds no run (no {recipes.RECIPE}); name a folder of tercet train"
            )
        return cls.of(folder, recipes.load(str(path)))

    @classmethod
    def of(cls, folder: Path, recipe: RunRecipe) -> Run:
        """A run of the kind that its objective wants."""
        from tercet.jobs.train.rewarding import Rewarding
        from tercet.jobs.train.tuning import Tuning

        kind = Tuning if recipe.objective.tunes else Run
        return (Rewarding if recipe.objective.rewards else kind)(folder, recipe)

    # what it reads ---------------------------------------------------------------------------

    def prepare(self, progress: Progress | None = None) -> bool:
        """Tokenise the recipe's files into the folder; nothing (False) where that is done, so that
        a run goes on without them."""
        if (self.place / MANIFEST).exists():
            return False
        wanted = self.recipe.vocabulary
        places = [place for place in (wanted.folder, self.recipe.model.folder) if place]
        if self.place != self.folder / "data":
            Corpus.open(self.place)  # which says what is missing
        sources = {name: source_of(data) for name, data in self.recipe.data.items()}
        if places:
            tokenizer, *others = map(Tokenizer.load, places)
            if any(other.hash != tokenizer.hash for other in others):
                raise InputError(
                    f"tokenizer.folder {places[0]} is not the tokenizer that the model of "
                    f"{places[1]} learned with; name the same folder for both"
                )
        else:
            kind = typing.cast(Kind, wanted.kind)
            special = special_of(self.recipe.objective.kind)
            tokenizer = Learn(kind, wanted.vocab_size, special, wanted.lowercase)
        prepare(self.folder / "data", sources, tokenizer, progress=progress)
        return True

    def verify_data(self) -> None:
        """Holds each byte of what was prepared to its checksum. Raises InputError."""
        Corpus.open(self.place, verify=True)

    @property
    def place(self) -> Path:
        """Where its tokens lie."""
        prepared = next(iter(self.recipe.data.values())).prepared
        if prepared is None:
            return self.folder / "data"
        return Path(recipes.expanded([prepared])[0])

    @cached_property
    def corpus(self) -> Corpus:
        """What was prepared for it, or of what was prepared for all the sources that it names."""
        if self.place == self.folder / "data":
            return Corpus.open(self.place)
        whole = Corpus.open(self.place)
        for folder in (self.recipe.vocabulary.folder, self.recipe.model.folder):
            if folder is not None:
                Corpus.open(self.place, tokenizer=Tokenizer.load(folder))
        pairs = self.recipe.objective.kind == "pairs"
        if pairs != (whole.manifest.kind == "pairs"):
            raise InputError(
                f"{self.place} holds {whole.manifest.kind}, and objective.kind "
                f"{self.recipe.objective.kind!r} reads {'pairs' if pairs else 'texts'}"
            )
        one = len(self.recipe.data) == 1 and not whole.sources.keys() & self.recipe.data.keys()
        names = [whole.named(None if one else name) for name in self.recipe.data]
        return Corpus(self.place, whole.manifest, {name: whole.sources[name] for name in names})

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return self.corpus.tokenizer

    def draw(self, *, validation: bool = False) -> Draw:
        """Which samples a step reads. The validation split is cut the same way, in its order."""
        sources = self.corpus.sources
        splits = {name: s.validation if validation else s.train for name, s in sources.items()}
        splits = {name: tokens for name, tokens in splits.items() if len(tokens)}
        if not splits:
            raise InputError("there are no texts for validation; give data.validation a share")
        draws = [draw_of(self, tokens) for tokens in splits.values()]
        if len(draws) == 1:
            return draws[0]
        return Mixture(draws, [self.recipe.data[name].weight for name in splits])

    @cached_property
    def shape(self) -> Shape:
        """How samples become a batch."""
        return shape_of(self)

    def about(self) -> str | None:
        """What was left out, or what else must not go without a word."""
        left_out = self.draw().left_out
        return left_out and f"{left_out:,} pairs longer than objective.length are left out" or None

    def stream(
        self, *, rank: int = 0, world: int = 1, network: Network | None = None
    ) -> Stream | Rollouts:
        """The loop's data. network: that which learns, where what is read depends on it."""
        micro = self.recipe.batch.micro_tokens
        return Stream(self.draw(), learned_shape(self), micro, rank=rank, world=world)

    def first_batches(self) -> list[Batch]:
        """Those of the first step, or others of their sizes."""
        return self.stream()(0)

    def validation(self, network: Network | None = None) -> Iterator[Batch]:
        """The validation split once, or as much of it as the recipe says. network: that which is
        measured, where what is read depends on it."""
        read = 0
        for samples in self.draw(validation=True).epoch(0):
            batch = self.shape.batch(samples)
            yield batch.to(self.device)
            read += batch.n_tokens
            if self.recipe.evaluate.tokens is not None and read >= self.recipe.evaluate.tokens:
                return

    # what is trained -------------------------------------------------------------------------

    def check(self) -> None:
        """All that can be wrong in a recipe without a look at its files: raises InputError."""
        train, model = self.recipe.train, self.recipe.model
        if train.optimizer not in ("adamw", "muon"):
            raise InputError(f"train.optimizer {train.optimizer!r} is unknown; use adamw or muon")
        if len(train.betas) != 2 or not all(0 <= beta < 1 for beta in train.betas):
            raise InputError(f"train.betas {train.betas} must be two numbers from 0 to below 1")
        if not 0 < self.recipe.objective.rate < 1:
            raise InputError(f"objective.rate {self.recipe.objective.rate} must be between 0 and 1")
        assert self.train and self.objective
        Average(train.ema, train.average_last, self.recipe.evaluate.every)
        if model.preset is not None:
            self._check(preset(model.preset).replace(**self._changes))

    @property
    def _changes(self) -> dict[str, typing.Any]:
        """YAML has no tuples, and reads 1e-5 as a word."""
        kinds = {field.name: str(field.type) for field in dataclasses.fields(TransformerConfig)}
        found = dict(self.recipe.model.change)
        for name, value in found.items():
            if isinstance(value, list):
                found[name] = tuple(value)
            elif isinstance(value, str) and kinds[name].startswith("float"):
                found[name] = recipes.number(value) or value
        return found

    @cached_property
    def config(self) -> TransformerConfig:
        """The preset with the recipe's changes, and what the tokenizer decides."""
        model, tokenizer = self.recipe.model, self.tokenizer
        if model.folder is not None:
            self._check(self.start.config)
            return self.start.config
        assert model.preset is not None
        base = preset(model.preset)
        eos = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
        told = {"vocab_size": tokenizer.vocab_size, "bos_id": tokenizer.bos_id, "eos_ids": eos}
        told |= {"pad_id": tokenizer.pad_id}
        if base.family == "encoder-decoder":
            start = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.pad_id
            told["start_id"] = start if start is not None else tokenizer.eos_id
        if base.family == "encoder":
            pairs = ("pooler", "next_sentence") if self.recipe.objective.next_sentence else ()
            told["heads"] = ("masked", *pairs)
        config = base.replace(**{**told, **self._changes})
        self._check(config)
        return config

    def _check(self, config: TransformerConfig) -> None:
        kind, length = self.recipe.objective.kind, self.recipe.objective.length
        family = recipes.family(self.recipe)
        if config.family != family:
            raise InputError(
                f"objective.kind {kind!r} trains the family {family}; the model is of the "
                f"{config.family} family: choose another preset or kind"
            )
        drawn = config.dropout, config.attention_dropout, config.activation_dropout
        if self.recipe.objective.r_drop and not any(drawn):
            raise InputError(
                f"objective.r_drop {self.recipe.objective.r_drop} compares two draws of dropout, "
                "and the model has none; leave r_drop out, or set model.change.dropout (0.3, say)"
            )
        if length > config.context_length:
            raise InputError(
                f"objective.length {length} is beyond the model's context of "
                f"{config.context_length}; shorten it or set model.change.context_length"
            )

    @cached_property
    def device(self) -> torch.device:
        """A GPU where there is one; under torchrun every process has its own."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))

    @property
    def bfloat16(self) -> bool:
        return in_bfloat16(self.recipe.train.bfloat16, self.device)

    @cached_property
    def start(self) -> LanguageModel:
        """The model that the run goes on from."""
        assert self.recipe.model.folder is not None
        return load(self.recipe.model.folder)

    def network(self) -> Network:
        """As it stands before the first step."""
        if self.recipe.model.folder is not None:
            return self.start.network.to(self.device)
        return build(self.config, self.recipe.seed).to(self.device)

    def model(self, network: Network) -> LanguageModel:
        """A network of this run as what can be used and saved."""
        return LanguageModel(network, self.tokenizer)

    def prompt(self, text: str) -> str:
        """What the model reads where the recipe's ``evaluate.prompts`` have this."""
        return text

    @property
    def objective(self) -> Objective:
        wanted = self.recipe.objective
        tokens = CrossEntropy(wanted.smoothing, wanted.r_drop)
        return NextSentence(tokens) if wanted.next_sentence else tokens

    def learned(self, parameters: int) -> int:
        """How many of so many parameters learn."""
        return parameters

    @property
    def measure(self) -> Objective:
        """What the validation split is measured by."""
        return CrossEntropy()

    def optimizer(self, network: Network) -> Optimizer:
        train = self.recipe.train
        betas = (train.betas[0], train.betas[1])
        return Optimizer(
            network, kind=train.optimizer, weight_decay=train.weight_decay, betas=betas
        )

    def averages(self, network: Network) -> Averages:
        train = self.recipe.train
        every = self.recipe.evaluate.every
        return Averages(network, Average(train.ema, train.average_last, every))

    def checkpoints(
        self, network: Network, optimizer: Optimizer, averages: Averages
    ) -> Checkpoints:
        keep = self.recipe.checkpoint.keep
        return Checkpoints(self.folder / "checkpoints", network, optimizer, averages, keep=keep)

    @property
    def train(self) -> Recipe:
        """The loop's own settings."""
        train = self.recipe.train
        names = ("learning_rate", "steps", "clip", "on_trouble", "spike")
        return Recipe(
            **{name: getattr(train, name) for name in names},
            bfloat16=self.bfloat16,
            seconds=train.seconds,
            schedule=Schedule(train.schedule, train.warmup, train.decay, train.final),
            seed=self.recipe.seed,
        )

    def with_recipe(self, recipe: RunRecipe) -> Run:
        return dataclasses.replace(self, recipe=recipe)
