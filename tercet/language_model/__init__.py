"""LanguageModel: a network, its tokenizer and what the two do together; ``load`` returns one."""

from tercet.language_model.conversing import Reply as Reply
from tercet.language_model.conversion import Conversion as Conversion
from tercet.language_model.conversion import convert as convert
from tercet.language_model.loading import load as load
from tercet.language_model.model import LanguageModel as LanguageModel
