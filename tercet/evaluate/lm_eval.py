"""Tercet's models for EleutherAI's lm-evaluation-harness, which must be installed, and is imported
here alone. Its own command, with the model "tercet":

    python -m tercet.evaluate.lm_eval run --model tercet --model_args pretrained=FOLDER --tasks piqa
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows

from tercet.errors import InputError
from tercet.evaluate.choice import endings, first_token, kept, spelled
from tercet.evaluate.perplexity import check_scores
from tercet.generate import Sampling
from tercet.generate.engine import generate
from tercet.generate.texts import cut
from tercet.language_model import load
from tercet.represent.score import Ending, Foretold, foretold

TOGETHER = 32  # texts written at a time
NEW_TOKENS = 256  # where a task does not say how many


@register_model("tercet")
class TercetLM(LM):
    """pretrained: a folder or a name of the hub. precision and context: as of ``tercet.load``. The
    sizes of batches are Tercet's own business: what the harness says of them is not needed."""

    def __init__(
        self,
        pretrained: str,
        precision: str = "float32",
        context: int | None = None,
        batch_size: Any = None,
        max_batch_size: Any = None,
        device: Any = None,
    ) -> None:
        super().__init__()
        if device not in (None, "cpu"):
            raise InputError(f"device {device!r}: this adapter computes on the cpu; leave it out")
        self.model = load(pretrained, precision=precision, context=context)
        check_scores(self.model)

    @property
    def tokenizer_name(self) -> str:
        """Under which answers are kept: of another tokenizer, other answers."""
        return self.model.tokenizer.hash

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """(log-probability, whether greedy) of each (context, continuation)."""
        pairs = [(f"request {i}", *request.args) for i, request in enumerate(requests, 1)]
        read = endings(self.model.tokenizer, pairs)
        answers = self._foretold(read, [context for _, context, _ in pairs])
        return [(answer.log_probability, answer.greedy) for answer in answers]

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """The log-probability of each whole text, in the harness's own windows, each of which is
        full and whose tokens are foretold once.

        As its backend for transformers has it, a begin-of-text token stands before the text even
        where the tokenizer puts one there itself, which is then foretold too.
        """
        limit, tokenizer = self.model.limit, self.model.tokenizer
        read, owners = [], []
        ids = spelled(tokenizer, [request.args[0] for request in requests])
        for number, request in enumerate(requests):
            before = first_token(tokenizer, f"request {number + 1}")
            for window, targets in get_rolling_token_windows(
                ids[request.args[0]], before, limit, 1
            ):
                read.append(Ending([*window, targets[-1]], len(targets)))
                owners.append(number)
        sums = [0.0] * len(requests)
        for number, answer in zip(owners, self._foretold(read, range(len(read)))):
            sums[number] += answer.log_probability
        return sums

    def _foretold(self, read: Sequence[Ending], groups: Sequence[Any]) -> list[Foretold]:
        """Of each; those of one group are likely to have a beginning in common."""
        numbers: dict[Any, list[int]] = {}
        for number, group in enumerate(groups):
            numbers.setdefault(group, []).append(number)
        parts = list(numbers.values())
        limit = self.model.limit
        ends = [[kept(read[i], limit) for i in part] for part in parts]
        found: dict[int, Foretold] = {}
        for number, answers in foretold(self.model.network, ends):
            found |= zip(parts[number], answers, strict=True)
        return [found[number] for number in range(len(read))]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What each (context, settings) goes on with, up to its stop strings. Of a context that
        leaves no room for the new tokens, the end is read.

        The new tokens are a text of their own, as the backend for transformers has it: where the
        tokenizer marks words by a space before them, it does not begin with one.
        """
        texts: dict[int, str] = {}
        asked: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            asked.setdefault(repr(request.args[1]), []).append(number)
        for numbers in asked.values():
            settings = _settings(requests[numbers[0]].args[1])
            for at in range(0, len(numbers), TOGETHER):
                part = numbers[at : at + TOGETHER]
                written = self._written([requests[i].args[0] for i in part], *settings)
                texts |= zip(part, written, strict=True)
        return [texts[number] for number in range(len(requests))]

    def _written(
        self, contexts: Sequence[str], most: int, sampling: Sampling, stop: Sequence[str]
    ) -> list[str]:
        writer, room = self.model.writer, self.model.limit - most
        if room < 1:
            raise InputError(
                f"{most:,} new tokens leave no room in the model's {self.model.limit:,}; set "
                "max_gen_toks lower"
            )

        def text(ids: list[int]) -> str:
            return self.model.tokenizer.decode([token for token in ids if token not in writer.ends])

        finished = generate(
            self.model.network,
            [writer.ids(context)[-room:] for context in contexts],
            max_new_tokens=most,
            sampling=sampling,
            eos_ids=writer.ends,
            rules=writer.rules,
            stopped=lambda _, ids: cut(text(ids), stop)[0],
        )
        texts = [text(one.ids) for one in finished]
        ends = [cut(one, stop) for one in texts]
        return [one[:end] if found else one for one, (found, end) in zip(texts, ends, strict=True)]


def _settings(said: dict[str, Any]) -> tuple[int, Sampling, list[str]]:
    """How many new tokens at most, how each is chosen, and what ends a text."""
    wanted = dict(normalize_gen_kwargs(said, NEW_TOKENS))
    most, stop = int(wanted.pop("max_gen_toks")), [text for text in wanted.pop("until") if text]
    wanted.pop("do_sample")  # the temperature says it
    limits = [wanted.pop(name, None) for name in ("top_k", "top_p", "min_p")]
    sampling = Sampling(float(wanted.pop("temperature", 0.0)), *limits)
    if wanted:
        raise InputError(f"unknown settings {', '.join(wanted)}; leave them out")
    return most, sampling, stop


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
