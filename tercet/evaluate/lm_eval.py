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
from tercet.generate.texts import Request
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
        cut = [[kept(read[i], limit, f"request {i + 1}") for i in part] for part in parts]
        found: dict[int, Foretold] = {}
        for number, answers in foretold(self.model.network, cut):
            found |= zip(parts[number], answers, strict=True)
        return [found[number] for number in range(len(read))]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What each (context, settings) goes on with, up to its stop strings. Of a context that
        leaves no room for the new tokens, the end is read."""
        texts: dict[int, str] = {}
        asked: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            asked.setdefault(repr(request.args[1]), []).append(number)
        for numbers in asked.values():
            request = self._request(requests[numbers[0]].args[1])
            room = self.model.limit - (request.max_new_tokens or 0)
            if room < 1:
                raise InputError(
                    f"{request.max_new_tokens:,} new tokens leave no room in the model's "
                    f"{self.model.limit:,}; set max_gen_toks lower"
                )
            for at in range(0, len(numbers), TOGETHER):
                part = numbers[at : at + TOGETHER]
                prompts = [self.model.writer.ids(requests[i].args[0])[-room:] for i in part]
                written = self.model.writer.answers(prompts, request)
                texts |= {i: answer.text for i, answer in zip(part, written, strict=True)}
        return [texts[number] for number in range(len(requests))]

    def _request(self, settings: dict[str, Any]) -> Request:
        wanted = dict(normalize_gen_kwargs(settings, NEW_TOKENS))
        sampling = Sampling(
            float(wanted.pop("temperature", 0.0)),
            wanted.pop("top_k", None),
            wanted.pop("top_p", None),
            wanted.pop("min_p", None),
        )
        stop = tuple(text for text in wanted.pop("until", []) if text)
        most, _ = int(wanted.pop("max_gen_toks")), wanted.pop("do_sample", None)
        if wanted:
            raise InputError(f"unknown settings {', '.join(wanted)}; leave them out")
        return Request(most, sampling, stop)


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
