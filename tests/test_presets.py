"""Presets: the counts that papers and published checkpoints state, exactly, on the meta device."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.hf.writing import row_for
from tercet.model import build
from tercet.presets import PRESETS, preset

# PEERS §3, and the published checkpoints' own counts. A translation model of Marian's kind and BART
# keep a bias of the output that their reference holds as a buffer; it is added on the line.
EXACT = {
    "transformer-base": 63_082_496,
    "transformer-big": 214_245_376,
    "marian-base": 74_410_496 - 2 * 512 * 512 + 58_101,  # their sinusoids are stored
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-3b": 2_851_598_336,
    "t5-11b": 11_307_321_344,
    "t5-v1.1-small": 76_961_152,
    "t5-v1.1-base": 247_577_856,
    "t5-v1.1-large": 783_150_080,
    "t5-v1.1-xl": 2_849_757_184,
    "t5-v1.1-xxl": 11_135_332_352,
    "bart-base": 139_420_416 + 50_265,
    "bart-large": 406_291_456 + 50_265,
    "bert-tiny": 4_385_920,
    "bert-mini": 11_170_560,
    "bert-small": 28_763_648,
    "bert-medium": 41_373_184,
    "bert-base": 109_482_240,
    "bert-large": 335_141_888,
    "minilm-l6": 22_713_216,
    "minilm-l12": 33_360_000,
    "roberta-base": 124_697_433,
    "roberta-large": 355_412_057,
    "distilbert-base": 66_985_530,
    "modernbert-base": 149_655_232,
    "modernbert-large": 395_881_664,
    "gpt1": 116_534_784,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "gpt3-175b": 174_604_259_328,
    "llama2-7b": 6_738_415_616,
    "llama2-13b": 13_015_864_320,
    "llama2-70b": 68_976_648_192,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3.1-405b": 405_853_388_800,
    "llama3.2-1b": 1_235_814_400,
    "llama3.2-3b": 3_212_749_824,
    "mistral-7b": 7_241_732_096,
    "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360,
}
# Brown et al. 2020, table 2.1: what the paper calls each size
GPT3_NAMED = {
    "gpt3-small": 125e6,
    "gpt3-medium": 350e6,
    "gpt3-large": 760e6,
    "gpt3-xl": 1.3e9,
    "gpt3-2.7b": 2.7e9,
    "gpt3-6.7b": 6.7e9,
    "gpt3-13b": 13.0e9,
    "gpt3-175b": 175.0e9,
}

# A child's ru_maxrss starts at that of the process that forked it (Linux keeps it over exec), so
# the peak is read where exec resets it.
IN_LIMITS = """
import pathlib
from tercet.model import build
from tercet.presets import preset
network = build(preset("gpt3-175b"), seed=None)
count = sum(parameter.numel() for parameter in network.parameters())
status = dict(row.split(":") for row in pathlib.Path("/proc/self/status").read_text().splitlines())
print(count, status["VmHWM"].split()[0])
"""


def count(config: TransformerConfig) -> int:
    return sum(parameter.numel() for parameter in build(config, seed=None).parameters())


@pytest.mark.parametrize("name", EXACT)
def test_published_counts_exactly(name: str) -> None:
    assert count(preset(name)) == EXACT[name]


@pytest.mark.parametrize("name", GPT3_NAMED)
def test_gpt3_sizes_are_what_the_paper_calls_them(name: str) -> None:
    config = preset(name)
    assert count(config) == pytest.approx(GPT3_NAMED[name], rel=0.02)
    assert config.local_layers == tuple(range(1, config.decoder_layers, 2)) and config.window


def test_the_heads_of_pretraining_are_a_replacement_away() -> None:
    config = preset("bert-base").replace(heads=("masked", "pooler", "next_sentence"))
    assert count(config) == 110_106_428  # BertForPreTraining


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_configuration_that_json_keeps(name: str) -> None:
    config = preset(name)
    assert TransformerConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_native_to_transformers_but_for_two_families(name: str) -> None:
    """Interleaved sinusoids and alternating bands have no row there."""
    assert (row_for(preset(name)) is None) == name.startswith(("transformer-", "gpt3-"))


@pytest.mark.parametrize("family", ["encoder", "decoder", "encoder-decoder"])
def test_our_own_sizes_grow_and_build(family: str) -> None:
    configs = [preset(f"tercet-{size}-{family}") for size in ("tiny", "small", "base")]
    assert all(config.family == family for config in configs)
    counts = [count(config) for config in configs]
    assert counts == sorted(counts) and counts[0] < 2e7 and counts[2] > 1e8


@pytest.mark.parametrize(
    "asked, nearest", [("gpt2-meduim", "gpt2-medium"), ("BERT-Base", "bert-base")]
)
def test_an_unknown_name_says_the_nearest(asked: str, nearest: str) -> None:
    with pytest.raises(InputError, match=f"{asked!r}.*{nearest!r}"):
        preset(asked)


def test_a_name_like_nothing_lists_them_all() -> None:
    with pytest.raises(InputError, match="transformer-base.*tercet-base-decoder"):
        preset("???")


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc/self/status")
def test_gpt3_on_the_meta_device_in_a_gigabyte() -> None:
    done = subprocess.run([sys.executable, "-c", IN_LIMITS], capture_output=True, text=True)
    parameters, kilobytes = done.stdout.split()
    assert int(parameters) == 174_604_259_328, done.stderr
    assert int(kilobytes) * 1024 < 1e9
