"""A run that tunes a model on conversations: objectives instruct and prefer.

What differs from other runs: it begins with a model and its chat template, reads conversations, and
learns answers alone; the model may get new tokens, and an adapter may learn in its place.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tercet.config import TransformerConfig
from tercet.data import Answers, Choices, Mixture, Talks, Tokens
from tercet.data.corpus import Corpus
from tercet.data.draw import Draw
from tercet.data.instructions import Instructions, Limit, prepare_instructions
from tercet.data.manifest import MANIFEST
from tercet.data.preparation import Progress
from tercet.data.shape import Shape
from tercet.errors import InputError
from tercet.jobs import recipe as recipes
from tercet.jobs.train.reference import measured, reference
from tercet.jobs.train.run import Run
from tercet.jobs.train.settings import Data
from tercet.language_model import LanguageModel, load
from tercet.language_model.identity import fingerprint
from tercet.language_model.loading import BITS
from tercet.model import Network, Transformer
from tercet.model.lora import LoRA, adapt, adapters, chosen, linears, merge, sizes
from tercet.model.quantize import quantise
from tercet.model.vocabulary import add_tokens
from tercet.text import Tokenizer
from tercet.text.chat import ChatTemplate
from tercet.train import CrossEntropy, Preference
from tercet.train.loop import Objective

BASE = "base"  # the folder, in the run's, of a model that an adapter lies on and nobody else has
REFERENCE = "reference"


@dataclass(frozen=True)
class Tuning(Run):
    """The parts of a run of objective instruct or prefer."""

    @property
    def prefers(self) -> bool:
        return self.recipe.objective.kind == "prefer"

    # what it reads ---------------------------------------------------------------------------

    def prepare(self, progress: Progress | None = None) -> bool:
        """Compile the recipe's conversations into the folder, and for pairs of answers compute
        what the model says of them; nothing (False) of what is done."""
        fresh = not (self.place / MANIFEST).exists()
        if fresh:
            objective = self.recipe.objective
            sources = {name: _instructions(data) for name, data in self.recipe.data.items()}
            limit = Limit(objective.length, objective.overflow)
            self._check(self._loaded.config)
            if self.lora is not None:
                chosen(linears(self._loaded.network), self.lora.targets)  # raises for unknown ones
            shutil.rmtree(self.folder / BASE, ignore_errors=True)  # of another model, say
            prepare_instructions(
                self.place, sources, self.template, limit, pairs=self.prefers, progress=progress
            )
        elif (made := self.corpus.manifest.settings.get("template")) != self.template.hash:
            raise InputError(
                f"{self.place}: was compiled with the chat template {str(made)[:12]}, and that of "
                f"{self.recipe.model.folder} is {self.template.hash[:12]} now; choose another "
                "--folder, or bring the model back"
            )
        if self.lora is not None:
            _ = self.start  # which writes its base, where that is nobody else's
        if self.prefers:
            for name, splits in self.corpus.sources.items():
                self._pairs(name, "train", splits.train, progress)
                self._pairs(name, "validation", splits.validation, progress)
        return fresh

    @cached_property
    def corpus(self) -> Corpus:
        return Corpus.open(self.place, talks=True)

    def verify_data(self) -> None:
        Corpus.open(self.place, verify=True, talks=True)

    @cached_property
    def tokenizer(self) -> Tokenizer:  # type: ignore[override]
        """The model's, with its template and the template's hash."""
        return self.template.signed

    @cached_property
    def template(self) -> ChatTemplate:
        return ChatTemplate.of(self._loaded.tokenizer)

    @property
    def step_tokens(self) -> float:
        return self.recipe.batch.tokens

    def draw(self, *, validation: bool = False) -> Draw:
        draws, weights = [], []
        for name, splits in self.corpus.sources.items():
            tokens = splits.validation if validation else splits.train
            if not len(tokens):
                continue
            size = self.recipe.batch.tokens if validation else self.step_tokens
            seed = self.recipe.seed
            if self.prefers:
                draws.append(self._pairs(name, "validation" if validation else "train", tokens))
            else:
                draws.append(Talks(tokens, size, seed))
            weights.append(self.recipe.data[name].weight)
        if not draws:
            raise InputError(
                "there are no conversations for validation; give data.validation a share or files"
            )
        return draws[0] if len(draws) == 1 else Mixture(draws, weights)

    def _pairs(
        self, name: str, split: str, tokens: Tokens, progress: Progress | None = None
    ) -> Choices:
        """The pairs of a split with their reference."""
        pairs = Choices(tokens, self.recipe.batch.tokens, self.recipe.seed)
        if (kept := self._references.get((name, split))) is None:
            at_once = self.recipe.batch.micro_tokens or self.recipe.batch.tokens
            key = self._key(name, split)
            path = self.folder / REFERENCE / f"{name}.{split}"
            kept = reference(path, key, pairs, self._says, at_once, progress)
            self._references[name, split] = kept
        pairs.reference = kept
        return pairs

    @cached_property
    def _references(self) -> dict[tuple[str, str], np.ndarray]:
        return {}

    @cached_property
    def _says(self) -> Callable:
        return measured(self.start.network, self.device, self.bfloat16)

    def _key(self, name: str, split: str) -> dict[str, str]:
        facts = getattr(self.corpus.manifest.sources[name], split)
        seals = json.dumps([shard.sha256 for shard in (facts.index, *facts.shards)])
        return {
            "model": self._fingerprint,
            "data": seals,
            "bfloat16": str(self.bfloat16),
        }

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.start)

    @cached_property
    def shape(self) -> Shape:
        return Answers()

    def about(self) -> str:
        """How much there is to learn, and what of it was left out or cut."""
        said = []
        kind = "pairs of answers" if self.prefers else "conversations"
        for name, source in self.corpus.manifest.sources.items():
            each = 2 if self.prefers else 1
            counts = [facts.documents // each for facts in (source.train, source.validation)]
            line = f"{name}: {counts[0]:,} {kind} to learn from{self._tokens_learned(name)}, and "
            line += f"{counts[1]:,} for validation"
            line += "".join(f"; left out: {n:,} {why}" for why, n in source.skipped.items())
            said.append(line)
        return f"{'; '.join(said)}; an epoch is {self.draw().steps_per_epoch:,.1f} steps"

    def _tokens_learned(self, name: str) -> str:
        manifest = self.corpus.manifest
        learned = manifest.settings["learned"][name]["train"]
        return f", {learned:,} of {manifest.sources[name].train.tokens:,} tokens learned"

    def prompt(self, text: str) -> str:
        """A question as the template asks it, in text; what every text begins with is left to the
        tokenizer."""
        tokenizer = self.tokenizer
        ids, before = self.template.prompt([{"role": "user", "content": text}]), tokenizer.around[0]
        ids = ids[len(before) :] if before and ids[: len(before)] == before else ids
        return tokenizer.decode(ids, skip_special=False)

    # what is trained -------------------------------------------------------------------------

    @cached_property
    def _loaded(self) -> LanguageModel:
        """The model as it lies there; an adapter is merged into it."""
        assert self.recipe.model.folder is not None
        (folder,) = recipes.expanded([self.recipe.model.folder])
        model = load(folder)
        model.network.requires_grad_(True)
        if adapters(model.network):
            merge(model.network)
            model.base = None  # nobody has this one
        return model

    @cached_property
    def start(self) -> LanguageModel:
        """The model that learns, before the first step: with rows for new tokens, and the tokens
        that end an answer among those that end a text."""
        loaded, tokenizer = self._loaded, self.tokenizer
        network, base = loaded.network, loaded.base
        if tokenizer.vocab_size > loaded.tokenizer.vocab_size:
            add_tokens(network, loaded.tokenizer.vocab_size, tokenizer.vocab_size, self.recipe.seed)
            base = None
        ends = tuple(self.corpus.manifest.settings["ends"])
        ends += tuple(end for end in network.config.eos_ids if end not in ends)
        network.config = network.config.replace(eos_ids=ends)
        model = LanguageModel(network, tokenizer, loaded.extras)
        model.base = base
        if self.lora is not None and base is None:
            if not (self.folder / BASE / "config.json").exists():
                model.save(self.folder / BASE)
            model.base = f"../{BASE}"  # from the folder of the adapter
        if bits := BITS.get(self.recipe.model.precision):
            assert isinstance(network, Transformer)
            quantise(network, bits)
            network.heads.packed = None  # the loss reads the table itself
        return model

    @cached_property
    def config(self) -> TransformerConfig:  # type: ignore[override]
        self._check(self.start.config)
        return self.start.config

    @property
    def lora(self) -> LoRA | None:
        """The adapter that learns in the model's place, if one does."""
        told = self.recipe.train.lora
        if told is None:
            return None
        return LoRA(told.rank, told.alpha, told.dropout, tuple(told.targets))

    def network(self) -> Network:
        """As it stands before the first step; a new one at every call. Under an adapter the tables
        learn too where there are new tokens, which nothing else could tell apart."""
        network = copy.deepcopy(self.start.network)
        if self.lora is not None:
            adapt(network, self.lora, self.recipe.seed)
            if self.template.added:
                network.tokens.weight.requires_grad_(True)
                assert network.heads.output is not None
                network.heads.output.weight.requires_grad_(True)
        return network.to(self.device)

    def learned(self, parameters: int) -> int:
        if (lora := self.lora) is None:
            return parameters
        layers = linears(self.start.network)
        sides = sum(sum(sizes(layers[name])) for name in chosen(layers, lora.targets))
        tables = 1 if self.config.tie_embeddings else 2
        rows = self.config.vocab_size * self.config.d_model * tables
        return lora.rank * sides + (rows if self.template.added else 0)

    def model(self, network: Network) -> LanguageModel:
        found = LanguageModel(network, self.tokenizer, self.start.extras)
        found.base = self.start.base
        return found

    @property
    def objective(self) -> Objective:
        wanted = self.recipe.objective
        if self.prefers:
            return Preference(wanted.beta, wanted.smoothing)
        return CrossEntropy(wanted.smoothing, wanted.r_drop)

    @property
    def measure(self) -> Objective:
        return Preference(self.recipe.objective.beta) if self.prefers else CrossEntropy()


def _instructions(data: Data) -> Instructions:
    files = tuple(recipes.expanded(data.files))
    if isinstance(data.validation, list):
        return Instructions(files, tuple(recipes.expanded(data.validation)), data.form)
    return Instructions(files, data.validation, data.form)
