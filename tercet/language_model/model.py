"""LanguageModel: a network, its tokenizer and what the two do together.

Text comes in and goes out here; ids stay inside. What a family cannot do raises with what it can.
"""

from __future__ import annotations

import copy
from pathlib import Path

from tercet import hf
from tercet.errors import InputError
from tercet.files import written_folder
from tercet.language_model.representing import Representing
from tercet.language_model.writing import Writing
from tercet.model.linear import PackedLinear
from tercet.model.lora import LoRA, adapt, adapters, merge


class LanguageModel(Representing, Writing):
    """``config``, ``tokenizer``, ``network`` are the parts; the methods are what they do
    together.
    """

    def save(self, folder: str | Path) -> None:
        """A Hugging Face folder: config.json, model.safetensors, tokenizer.json and companions. Of
        an adapted model, the adapter in peft's format, which names the folder of its base;
        ``merged().save`` writes it whole.

        Raises InputError for weights of a few bits, which are for use alone (an adapter over them
        is saved), and for an adapter whose base was never a folder.
        """
        adapted = bool(adapters(self.network))
        packed = any(isinstance(module, PackedLinear) for module in self.network.modules())
        if packed and not adapted:
            raise InputError(
                "a model in int8 or int4 is not saved; load it in float32 and save that"
            )
        if adapted:
            if self.base is None:
                raise InputError(
                    "an adapter names the folder of its base, and this base has none; save the "
                    "base, load it and adapt that, or save merged()"
                )
            if Path(folder).resolve() == Path(self.base):
                raise InputError(
                    f"{folder} is the adapter's base, which it would take the place of; choose "
                    "another folder"
                )
        with written_folder(folder) as place:
            if adapted:
                hf.save_adapter(self.network, place, self.extras, base=self.base or "")
            else:
                hf.save(self.network, place, self.extras)
            self.tokenizer.save(place, types=self.config.token_types > 1)

    # adapters ------------------------------------------------------------------------------------

    def adapt(self, lora: LoRA = LoRA(), *, seed: int = 0) -> None:
        """Puts a low-rank adapter on the network, which changes nothing until it is trained;
        everything else but the heads of a task is frozen. Raises InputError for an unknown target
        or a rank above a matrix' size."""
        adapt(self.network, lora, seed)

    def merged(self) -> LanguageModel:
        """A copy with the adapter added into the matrices: as fast as a model without one."""
        network = copy.deepcopy(self.network)
        merge(network)
        return LanguageModel(network, self.tokenizer, self.extras)
