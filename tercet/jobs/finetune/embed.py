"""Task `embed`: sentence vectors by contrastive learning.

Rows are pairs that belong together (in-batch negatives, and hard ones of the rows' own or mined),
pairs that people scored (CoSENT), texts alone (SimCSE), or a retrieval folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tercet.data import Stream
from tercet.data.groups import Grouped, Groups
from tercet.data.related import Related
from tercet.errors import InputError
from tercet.evaluate.retrieval import retrieval
from tercet.evaluate.similarity import uniformity
from tercet.hf import Extras
from tercet.jobs.finetune.bodies import dropping
from tercet.jobs.finetune.mining import (
    Mining,
    agreement,
    dense_order,
    groups_of_texts,
    judged_rows,
    with_negatives,
)
from tercet.jobs.finetune.related import RelatedData, RelatedTask, read_related
from tercet.jobs.finetune.settings import FinetuneRecipe
from tercet.jobs.finetune.task import Finished, Say, Scores, Splits
from tercet.language_model import LanguageModel
from tercet.model import Network, build
from tercet.text import CutReport
from tercet.train import InBatch, Ordered
from tercet.train.loop import Objective


class EmbedTask(RelatedTask):
    """``metrics`` and what is measured follow from the validation rows: Spearman for scored pairs,
    a search for plain ones."""

    def __init__(
        self, recipe: FinetuneRecipe, model: LanguageModel, data: RelatedData, say: Say
    ) -> None:
        super().__init__(recipe, model, data, say)
        self.metrics = _figures(data.splits.validation or data.splits.train)
        self.facts: dict[str, Any] = {"pool": self.pool, **data.facts}
        scored = [row.score is not None for row in data.splits.train]
        if recipe.train.dropout == 0 and _alone(data.splits.train):
            raise InputError(
                "train.dropout 0 with texts alone: a text is compared with itself under another "
                "draw of dropout, so there must be some; set 0.1, or give pairs"
            )
        if "uniformity" in self.metrics and (held := _held(recipe, data.splits)) < 2:
            raise InputError(
                f"of texts alone the distances between validation texts are measured, and there "
                f"would be {held}: give more rows, or two or more in a validation file"
            )
        frozen, layers = recipe.train.freeze, model.config.n_layers
        if frozen is not None and frozen >= layers:
            raise InputError(
                f"train.freeze {frozen}: of a model with layers up to {layers} and no head nothing "
                "would learn; freeze fewer"
            )
        if any(scored) and recipe.embed.negatives:
            raise InputError(
                f"embed.negatives {recipe.embed.negatives} are for pairs without scores; leave it "
                "out, or take the scores out of the rows"
            )

    @property
    def pool(self) -> str:
        """How states become a vector: as asked, as the folder says, or as the family reads."""
        own = "last" if self.model.config.family == "decoder" else "mean"
        return self.recipe.embed.pool or self.model.extras.embedding.pool or own

    def network(self, seed: int) -> Network:
        """The body; heads that guess tokens go, since nothing keeps them right."""
        old = self.model.network
        heads = tuple(name for name in old.config.heads if name == "pooler")
        changes = dropping(old.config, self.recipe.train.dropout)
        config = old.config.replace(heads=heads, **changes)
        new = build(config, seed)
        own = old.state_dict()
        new.load_state_dict({name: own[name] for name in new.state_dict()})
        return new

    def _stream(self, examples: Sequence[Related], seed: int) -> Stream:
        wanted, report = self.recipe.embed, CutReport()
        rows = list(examples)
        if wanted.negatives:
            mining = Mining(wanted.negatives, wanted.among, wanted.margin)
            rows = with_negatives(
                self.model, rows, mining, passages=self.data.documents.values(), seed=seed
            )
            count = sum(len(row.texts) - 2 for row in rows)
            self.say(f"{count:,} hard negatives beside {len(rows):,} pairs")
        groups = groups_of_texts(self.model, rows, report)
        if str(report):
            self.say(f"{report} (limit {self.model.limit:,})")
        draw = Groups(groups, rows=min(self.recipe.train.rows, len(groups)), seed=seed)
        return Stream(draw, Grouped(), self.recipe.train.micro_tokens)

    def objective(self, examples: Sequence[Related]) -> Objective:
        wanted = self.recipe.embed
        if examples[0].score is not None:
            return Ordered(self.pool, wanted.scale)
        return InBatch(self.pool, wanted.temperature, wanted.symmetric)

    def scores(self, network: Network, examples: Sequence[Related]) -> Scores:
        model = LanguageModel(network, self.model.tokenizer, self.extras)
        rows = list(examples)
        if rows[0].score is not None:
            found = agreement(model, rows, together=False)
            return Scores({"spearman": found}, f"Spearman {found:.4f}", len(rows))
        if _alone(rows):
            spread = -uniformity(model.embed([row.texts[0] for row in rows]))
            return Scores({"uniformity": spread}, f"uniformity {-spread:.3f}", len(rows))
        queries, documents, judged = judged_rows(rows)
        documents |= self.data.others(documents.values())
        one = retrieval(dense_order(model, queries, documents, depth=10), judged)
        figures = {"ndcg": one.ndcg, "recall": one.recall, "mrr": one.mrr}
        return Scores(figures, f"{one} among {len(documents):,} texts", one.n)

    @property
    def extras(self) -> Extras:
        settings = dataclasses.replace(self.model.extras.embedding, pool=self.pool)
        return dataclasses.replace(self.model.extras, embedding=settings)

    def finish(self, network: Network, validation: Sequence[Related]) -> Finished:
        return Finished(self.extras)


def _alone(rows: Sequence[Related]) -> bool:
    return all(row.texts[:1] * len(row.texts) == row.texts for row in rows)


def _held(recipe: FinetuneRecipe, splits: Splits) -> int:
    """How many examples a run is validated on."""
    if recipe.folds is not None:
        return len(splits.train) // recipe.folds
    share = recipe.data.validation
    if isinstance(share, float):
        return max(1, round(share * len(splits.train)))
    return len(splits.validation)


def _figures(rows: Sequence[Related]) -> tuple[str, ...]:
    if rows[0].score is not None:
        return ("spearman",)
    return ("uniformity",) if _alone(rows) else ("ndcg", "recall", "mrr")


def embed(recipe: FinetuneRecipe, model: LanguageModel, say: Say) -> tuple[EmbedTask, Splits]:
    """Reads what the recipe names. See ``Reader``."""
    data = read_related(recipe, say)
    return EmbedTask(recipe, model, data, say), data.splits
