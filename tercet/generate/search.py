"""Beam search over one cache: many sources at once, each with its beams.

Semantics are those of `transformers` 5 (its `_beam_search`), so that a checkpoint translates as
its authors measured it; three of its rules decide ties and endings and are stated where they act.
Scores are kept in float32 whatever the network's precision is, for the same reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tercet.errors import InputError
from tercet.generate.engine import generate
from tercet.generate.prompts import CACHED_TOKENS, Finished, Ids, Text, begin, groups
from tercet.generate.reader import AnyCache, Reader, reading
from tercet.generate.sampling import NO_RULES, TokenRules
from tercet.generate.wording import NO_WORDING, Wording, share
from tercet.kernels.best import best, log_sums
from tercet.model import Network

LOST = -1.0e9  # the score of a beam that is none: below every real one, yet a number


@dataclass(frozen=True)
class Beam:
    """How wide to search and when to be content.

    beams: hypotheses kept for each source; 1 is greedy.
    length_penalty: a finished text scores sum of log-probabilities / new tokens ** penalty.
    early_stopping: True ends as soon as `beams` texts are finished; False as soon as the best
        open beam, scored at its present length, falls behind the worst finished text; "never"
        only when it could not catch up at any length (exact for a penalty of 0 or less).
    n_best: how many texts to return for each source.
    wording: what the texts must not and must say. A text that ends at its length without a forced
        word is reported ``length`` and stands behind all that hold it.
    """

    beams: int = 5
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    n_best: int = 1
    wording: Wording = NO_WORDING

    def __post_init__(self) -> None:
        for name in ("beams", "n_best"):
            if type(value := getattr(self, name)) is not int:
                raise InputError(f"{name} {value!r} must be a whole number")
        if self.beams < 1:
            raise InputError(f"beams {self.beams} must be 1 or more")
        if not 1 <= self.n_best <= self.beams:
            raise InputError(
                f"n_best {self.n_best} must lie between 1 and beams {self.beams}; widen the search"
            )
        penalty = self.length_penalty
        if not isinstance(penalty, int | float) or not -20 <= penalty <= 20:
            raise InputError(f"length_penalty {penalty!r} must be a number between -20 and 20")
        if type(self.early_stopping) is not bool and self.early_stopping != "never":
            raise InputError(
                f"early_stopping {self.early_stopping!r} is unknown; use True, False or 'never'"
            )


USUAL = Beam()


def beam_search(
    network: Network,
    prompts: Sequence[Ids] | None,
    *,
    sources: Sequence[Ids] | None = None,
    beam: Beam = USUAL,
    max_new_tokens: int | None = None,
    eos_ids: Ids | None = None,
    rules: TokenRules = NO_RULES,
) -> list[list[Finished]]:
    """The `n_best` texts of each prompt or source, best first; arguments as in `generate`.

    A list is shorter than `n_best` where the rules leave fewer different texts.
    """
    if beam.beams == 1 and beam.wording == NO_WORDING:
        greedy = generate(
            network,
            prompts,
            sources=sources,
            max_new_tokens=max_new_tokens,
            eos_ids=eos_ids,
            rules=rules,
        )
        return [[text] for text in greedy]
    texts = begin(network, prompts, sources, max_new_tokens=max_new_tokens)
    ends = tuple(network.config.eos_ids if eos_ids is None else eos_ids)
    found: dict[int, list[Finished]] = {}
    vocab = network.config.vocab_size
    with reading(network) as reader:
        for together in groups(texts, vocab, beams=beam.beams):
            tokens = sum(len(text.window) + beam.beams * text.limit for text in together)
            room = min(tokens, CACHED_TOKENS)  # a single text may ask for more than it will write
            cache = reader.cache([text.source for text in together], reordered=room)
            texts_found = _Search(beam, ends, rules, together).run(reader, cache)
            found.update(zip([text.index for text in together], texts_found, strict=True))
    return [found[i] for i in range(len(texts))]


@dataclass(frozen=True)
class _Hypothesis:
    score: float
    text: Finished


class _Search:
    """The state of a search. C beams a source; rows of the cache are (source, beam), flattened."""

    def __init__(self, beam: Beam, ends: tuple[int, ...], rules: TokenRules, texts: list[Text]):
        self.beam, self.rules, self.texts = beam, rules, texts
        self.ends = torch.tensor(ends, dtype=torch.long)
        # Every beam can end in as many ways as there are end tokens, and C must go on.
        self.n_candidates = max(2, 1 + len(ends)) * beam.beams
        self.done: list[list[_Hypothesis]] = [[] for _ in texts]

    @torch.no_grad()
    def run(self, reader: Reader, cache: AnyCache) -> list[list[Finished]]:
        C = self.beam.beams
        live = list(range(len(self.texts)))
        logits = reader.read(cache, [text.window for text in self.texts])  # (B, V)
        cache.reorder(torch.arange(len(live), device=logits.device).repeat_interleave(C))
        logits = logits.repeat_interleave(C, 0)  # (B C, V)
        scores = torch.full((len(live), C), LOST, device=logits.device)  # (B, C), float32
        scores[:, 0] = 0.0  # all beams are equal yet: continue the first one alone
        ids = torch.empty(len(live), C, 0, dtype=torch.long, device=logits.device)  # (B, C, n)
        logs = torch.empty(len(live), C, 0, device=logits.device)  # (B, C, n)
        while True:
            ids, logs, scores, beams = self._grow(live, ids, logs, scores, _plain(logits))
            rows = [row for row, source in enumerate(live) if self._open(source, ids, scores[row])]
            if not rows:
                return [[h.text for h in done[: self.beam.n_best]] for done in self.done]
            live = [live[row] for row in rows]
            kept = torch.tensor(rows, device=logits.device)
            ids, logs, scores, beams = (x[kept] for x in (ids, logs, scores, beams))
            cache.reorder((kept.unsqueeze(-1) * C + beams).flatten())
            logits = reader.read(cache, ids[:, :, -1].reshape(-1, 1).tolist())  # (B C, V)

    def _grow(
        self, live: list[int], ids: Tensor, logs: Tensor, scores: Tensor, logits: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One token more: finished texts go to `done`, the C best open ones are returned.

        ids, logs (B, C, n), scores (B, C), logits (B C, V), whose ruled-out tokens become -inf ->
        ids, logs (B, C, n + 1), scores (B, C) and the beam (B, C) that each continues.
        """
        B, C, n = ids.shape
        limits = [self.texts[source].limit for source in live]
        sums = log_sums(logits)  # (B C,)
        ruled, less = self._ruled(live, ids, logits, sums)  # (B C, V), (B C,)
        values, places = best(ruled, min(self.n_candidates, logits.shape[1]))  # (B C, k)
        k = values.shape[1]
        total = ((values - less.unsqueeze(-1)).view(B, C, k) + scores.unsqueeze(-1)).flatten(1)
        found, at = total.topk(min(self.n_candidates, C * k))  # (B, M)
        beams, tokens = at // k, places.view(B, C * k).gather(1, at)  # (B, M)
        if self.beam.wording.forced:
            total = (ruled - less.unsqueeze(-1)).view(B, C, -1) + scores.unsqueeze(-1)  # (B, C, V)
            found, beams, tokens = self._with_forced(ids, total, found, beams, tokens)
        rows = beams + C * torch.arange(B, device=beams.device).unsqueeze(-1)  # (B, M)
        new_logs = logits[rows, tokens].float() - sums[rows]
        ids = torch.cat([_take(ids, beams), tokens.unsqueeze(-1)], -1)  # (B, M, n + 1)
        logs = torch.cat([_take(logs, beams), new_logs.unsqueeze(-1)], -1)  # (B, M, n + 1)
        full = torch.tensor([limit == n + 1 for limit in limits], device=ids.device)  # (B,)
        stops = torch.isin(tokens, self.ends.to(ids.device))  # (B, M)
        ended = stops | full.unsqueeze(-1)  # (B, M)
        self._collect(live, ids, logs, found, ended, stops)
        open_scores = found + ended * LOST
        going = self._shared(ids, open_scores)  # (B, C)
        open_ids, open_logs = _take(ids, going), _take(logs, going)
        return open_ids, open_logs, open_scores.gather(1, going), beams.gather(1, going)

    def _ruled(
        self, live: list[int], ids: Tensor, logits: Tensor, sums: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What ranks the tokens (B C, V), and what is to be taken from it (B C,) for
        log-probabilities. A token that is forced is certain: its own counts 0."""
        C, n = ids.shape[1:]
        limits = [self.texts[source].limit for source in live for _ in range(C)]
        if self.rules.forces(n, limits):
            logits, sums = logits.float() - sums.unsqueeze(-1), torch.zeros_like(sums)
        self.rules.apply_(logits, n, limits)
        if self.beam.wording != NO_WORDING:
            self._worded_(live, ids, logits)
        return logits, sums

    def _worded_(self, live: list[int], ids: Tensor, scores: Tensor) -> None:
        """Takes from scores (B C, V) what the wording forbids, and the ends, while there is room,
        of texts that lack a forced word."""
        for row, written in enumerate(ids.flatten(0, 1).tolist()):
            text = self.texts[live[row // self.beam.beams]]
            banned = self.beam.wording.banned(text.window, written)
            scores[row, list(banned)] = -math.inf
            if len(written) + 1 < text.limit and self.beam.wording.progress(written)[0]:
                scores[row, self.ends.to(scores.device)] = -math.inf

    def _with_forced(
        self, ids: Tensor, total: Tensor, found: Tensor, beams: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, beams and tokens (B, M) of the candidates and of each beam's next tokens of
        forced words, with its likeliest one; sorted by score. total: (B, C, V). A filler scores
        -inf."""
        V, likeliest = total.shape[-1], total.argmax(-1).tolist()
        flat, real = (beams * V + tokens).tolist(), (found > -math.inf).tolist()
        rows = [[i for i, good in zip(*pair) if good] for pair in zip(flat, real, strict=True)]
        for b, texts in enumerate(ids.tolist()):
            for c, written in enumerate(texts):
                more = {*self.beam.wording.progress(written)[2], likeliest[b][c]}
                rows[b] += sorted({c * V + token for token in more} - set(rows[b]))
        width = max(map(len, rows))
        places = torch.tensor([row + row[:1] * (width - len(row)) for row in rows])
        filler = torch.tensor([[i >= len(row) for i in range(width)] for row in rows])
        places, filler = places.to(total.device), filler.to(total.device)
        found = total.flatten(1).gather(1, places).masked_fill(filler, -math.inf)
        found, order = found.sort(dim=1, descending=True, stable=True)
        places = places.gather(1, order)
        return found, places // V, places % V

    def _shared(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Which C of the candidates ids (B, M, n), scores (B, M) go on: (B, C)."""
        C, wording = self.beam.beams, self.beam.wording
        if not wording.forced:
            return scores.topk(C).indices
        chosen = []
        for texts, own in zip(ids.tolist(), scores.tolist(), strict=True):
            # what has ended, or is a filler, is for nobody to go on with while others are there
            banks = [wording.progress(t)[1] if s > LOST / 2 else -1 for t, s in zip(texts, own)]
            real = [i for i, bank in enumerate(banks) if bank >= 0]
            best = share([banks[i] for i in real], [own[i] for i in real], C)
            rest = [i for i, bank in enumerate(banks) if bank < 0]
            chosen.append([*(real[i] for i in best), *rest][:C])
        return torch.tensor(chosen, device=scores.device)

    def _collect(
        self, live: list[int], ids: Tensor, logs: Tensor, best: Tensor, ended: Tensor, stops: Tensor
    ) -> None:
        """Files the candidates that ended, if they are among the C best: the others are there
        only so that C can go on. Every source keeps its C best texts, best first."""
        C, n_new, wording = self.beam.beams, ids.shape[-1], self.beam.wording
        found = ended & (best > LOST)
        # a text that holds costly words is seldom among the best of all banks
        found = (found if wording.forced else found[:, :C]).nonzero().tolist()
        scores = (best / n_new**self.beam.length_penalty).tolist()
        for row, column in found:
            written = ids[row, column].tolist()
            lacking = wording.progress(written)[0]
            finish = "stop" if stops[row, column] and not lacking else "length"
            text = Finished(written, finish, logs[row, column].tolist())
            done = self.done[live[row]]
            done.append(_Hypothesis(scores[row][column] + lacking * LOST, text))
            done.sort(key=lambda hypothesis: -hypothesis.score)  # stable: of equals, the older
            del done[C:]

    def _open(self, source: int, ids: Tensor, scores: Tensor) -> bool:
        """Whether a source, whose open beams score `scores` (C,), can still find better texts."""
        done, limit, n_new = self.done[source], self.texts[source].limit, ids.shape[-1]
        if n_new == limit:
            return False
        if len(done) < self.beam.beams:
            return bool(scores[0] > LOST)  # else what is forbidden left nothing to go on with
        if self.beam.early_stopping is True:
            return False
        penalty = self.beam.length_penalty
        # With a positive penalty a longer text divides its (negative) sum by more, so the most
        # that "never" can hope for is the full length; the usual heuristic hopes for no more
        # tokens than stand.
        hoped = limit if self.beam.early_stopping == "never" and penalty > 0 else n_new
        return (scores[0] / hoped**penalty).item() > done[-1].score


def _plain(logits: Tensor) -> Tensor:
    """In a type that holds float32 scores, and to be changed."""
    return logits if logits.dtype in (torch.float32, torch.bfloat16) else logits.float()


def _take(x: Tensor, rows: Tensor) -> Tensor:
    """x (B, C, n) at rows (B, M) of its second axis -> (B, M, n)."""
    return x.gather(1, rows.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
