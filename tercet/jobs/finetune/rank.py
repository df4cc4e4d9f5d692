"""Task `rank`: a cross-encoder, which reads a query and a text together and says one number.

Rows are pairs that belong together, beside which negatives are mined with the model's own vectors;
pairs with a score from 0 to 1; or a retrieval folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tercet.data import Stream
from tercet.data.groups import Grouped, Groups
from tercet.data.related import Related
from tercet.errors import InputError
from tercet.evaluate.retrieval import retrieval
from tercet.hf import Extras
from tercet.jobs.finetune.classify import with_classifier
from tercet.jobs.finetune.mining import (
    Mining,
    agreement,
    dense_order,
    groups_of_pairs,
    judged_rows,
    reranked,
    with_negatives,
)
from tercet.jobs.finetune.related import RelatedData, RelatedTask, read_related
from tercet.jobs.finetune.settings import FinetuneRecipe
from tercet.jobs.finetune.task import Finished, Say, Scores, Splits
from tercet.language_model import LanguageModel
from tercet.model import Network
from tercet.text import CutReport
from tercet.train import Ranking
from tercet.train.loop import Objective


class RankTask(RelatedTask):
    """Validation rows with scores are measured by Spearman; others by a search: the nearest texts
    by the vectors of the model as it came, and the order that the head puts them into."""

    def __init__(
        self, recipe: FinetuneRecipe, model: LanguageModel, data: RelatedData, say: Say
    ) -> None:
        super().__init__(recipe, model, data, say)
        splits = data.splits
        self.metrics = (
            ("spearman",) if _scored(splits.validation or splits.train) else ("ndcg", "mrr")
        )
        self.facts: dict[str, Any] = data.facts
        if model.config.family != "encoder":
            raise InputError(
                f"the model is of the {model.config.family} family; a query and a text are read "
                "together by an encoder: name one"
            )
        for row in (row for rows in (splits.train, splits.validation) for row in rows):
            if row.score is None and row.texts[:1] * len(row.texts) == row.texts:
                raise InputError(
                    "texts alone have no order; rows of the task rank are a query and what answers "
                    "it: name their columns with --text and --pair"
                )
            if row.score is not None and not 0 <= row.score <= 1:
                raise InputError(
                    f"the score {row.score:g} of {row.texts[0]!r:.60} is not from 0 to 1; divide "
                    "the scores by their largest, or leave the column out"
                )
        self._dense: dict[tuple[Related, ...], dict[str, list[str]]] = {}

    def network(self, seed: int) -> Network:
        return with_classifier(
            self.model.network,
            1,
            pool=self.recipe.rank.pool,
            dropout=self.recipe.train.dropout,
            seed=seed,
            model_type=self.model.extras.model_type,
        )

    def _stream(self, examples: Sequence[Related], seed: int) -> Stream:
        wanted, report = self.recipe.rank, CutReport()
        rows = list(examples)
        if not _scored(rows):
            mining = Mining(wanted.negatives, wanted.among, wanted.margin)
            passages = self.data.documents.values()
            rows = with_negatives(self.model, rows, mining, passages=passages, seed=seed)
            rows = [row for row in rows if len(row.texts) > 2]
            self.say(
                f"{sum(len(row.texts) - 2 for row in rows):,} negatives beside {len(rows):,} of "
                f"{len(examples):,} pairs"
            )
            if not rows:
                raise InputError(
                    "no pair has a negative that is far enough from its own text; lower "
                    f"rank.margin ({wanted.margin:g}), or give more texts"
                )
        groups = groups_of_pairs(self.model, rows, report)
        if str(report):
            self.say(f"{report} (limit {self.model.limit:,}, the query kept whole)")
        draw = Groups(groups, rows=min(self.recipe.train.rows, len(groups)), seed=seed)
        return Stream(draw, Grouped(), self.recipe.train.micro_tokens)

    def objective(self, examples: Sequence[Related]) -> Objective:
        return Ranking()

    def scores(self, network: Network, examples: Sequence[Related]) -> Scores:
        model = LanguageModel(network, self.model.tokenizer, self.model.extras)
        if _scored(examples):
            found = agreement(model, examples, together=True)
            return Scores({"spearman": found}, f"Spearman {found:.4f}", len(examples))
        queries, documents, judged = judged_rows(examples)
        documents |= self.data.others(documents.values())
        key = tuple(examples)
        if key not in self._dense:
            depth = self.recipe.rank.depth
            self._dense[key] = dense_order(self.model, queries, documents, depth=depth)
        before = retrieval(self._dense[key], judged)
        after = retrieval(reranked(model, queries, documents, self._dense[key]), judged)
        figures = {"ndcg": after.ndcg, "mrr": after.mrr, "dense_ndcg": before.ndcg}
        return Scores(figures, f"{after}; by vectors nDCG@{before.at} {before.ndcg:.4f}", after.n)

    def finish(self, network: Network, validation: Sequence[Related]) -> Finished:
        return Finished(Extras(model_type=self.model.extras.model_type))


def _scored(rows: Sequence[Related]) -> bool:
    return rows[0].score is not None


def rank(recipe: FinetuneRecipe, model: LanguageModel, say: Say) -> tuple[RankTask, Splits]:
    """Reads what the recipe names. See ``Reader``."""
    data = read_related(recipe, say)
    return RankTask(recipe, model, data, say), data.splits
