"""Folders that are damaged, incomplete or dangerous: what is wrong is named, nothing is lost."""

from __future__ import annotations

import json
import resource
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_folders import edit, network_of, same, saved, small, write

from tercet import hf
from tercet.errors import InputError
from tercet.hf.configs import ROWS
from tercet.hf.spelling import read_config
from tercet.model import build
from tercet.presets import preset
from tercet.text import Tokenizer, train_tokenizer


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: there is no such folder"):
        hf.load(tmp_path / "nowhere")


def test_folder_without_config(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"has no config.json \(it holds notes.txt\)"):
        hf.load(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").touch()
    with pytest.raises(InputError, match=r"holds a run; its model is .*/model$"):
        hf.load(tmp_path)


@pytest.mark.parametrize("text", ["{'model_type': 'bert'}", "", "\xff", "[1]"])
def test_config_that_is_no_json(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"config.json: (not JSON|must hold an obj)"):
        hf.load(tmp_path)


def test_unknown_model_type(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        hf.load(write(tmp_path, {"model_type": "mamba"}))
    assert "'mamba' is unknown" in str(caught.value)
    assert all(name in str(caught.value) for name in [*ROWS, "tercet"])


def test_unknown_and_missing_tensors_are_all_named(tmp_path: Path) -> None:
    saved(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    lost = [name for name in tensors if name.startswith("transformer.h.1.")]
    kept = {name: t for name, t in tensors.items() if name not in lost}
    write(tmp_path, small("gpt2"), kept | {"extra.one": torch.ones(1), "extra.two": torch.ones(1)})
    with pytest.raises(InputError) as caught:
        hf.load(tmp_path)
    for name in ["extra.one", "extra.two", *lost]:
        assert name in str(caught.value)


def test_a_language_model_without_its_output_table(tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="missing: lm_head.weight"):
        hf.load(tmp_path)


def test_shape_mismatch_names_tensor_and_both_shapes(tmp_path: Path) -> None:
    saved(tmp_path)
    edit(tmp_path, n_inner=30)
    with pytest.raises(InputError, match=r"h.1.mlp.c_fc.weight has shape \(12, 48\).*\(12, 30\)"):
        hf.load(tmp_path)


def test_vocabulary_larger_than_the_embedding(tmp_path: Path) -> None:
    saved(tmp_path)
    edit(tmp_path, vocab_size=50_000)
    with pytest.raises(InputError, match=r"wte.weight has shape \(29, 12\).*vocabulary 50,000"):
        hf.load(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "header", "empty", "text"])
def test_damaged_safetensors(damage: str, tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut": whole[:-100],
            "header": struct.pack("<Q", 1 << 60) + whole[8:],
            "empty": b"",
            "text": b"version https://git-lfs.github.com/spec/v1\n" * 3,
        }[damage]
    )
    with pytest.raises(InputError, match="is no whole safetensors file"):
        hf.load(tmp_path)


def test_quantised_weights(tmp_path: Path) -> None:
    saved(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "transformer.wte.weight"
    write(tmp_path, small("gpt2"), tensors | {name: tensors[name].to(torch.int8)})
    with pytest.raises(InputError, match=r"transformer.wte.weight holds torch.int8"):
        hf.load(tmp_path)


def test_pickled_weights_are_refused_and_may_be_allowed(tmp_path: Path) -> None:
    network = saved(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"pickled weights \(pytorch_model.bin\).*allow_pickle"):
        hf.load(tmp_path)
    assert same(hf.load(tmp_path, allow_pickle=True)[0], network)


class Bomb:
    def __reduce__(self) -> Any:
        return (print, ("boom",))


@pytest.mark.parametrize("old", [True, False])
def test_a_pickle_that_would_run_code_does_not(old: bool, tmp_path: Path, capsys: Any) -> None:
    saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(
        {"a": Bomb()}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=not old
    )
    with pytest.raises(InputError, match="cannot be read as a plain pickle of tensors"):
        hf.load(tmp_path, allow_pickle=True)
    assert "boom" not in capsys.readouterr().out


def test_pickles_of_old_versions(tmp_path: Path) -> None:
    network = saved(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    path = tmp_path / "pytorch_model.bin"
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    assert same(hf.load(tmp_path, allow_pickle=True)[0], network)


def test_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no weights; expected model.safetensors"):
        hf.load(write(tmp_path, small("gpt2")))


def test_our_own_spelling_is_checked_too(tmp_path: Path) -> None:
    write(tmp_path, {"model_type": "tercet", "d_modle": 3})
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InputError, match=r"'d_modle' is unknown; did you mean 'd_model'"):
        hf.load(tmp_path)


def test_a_full_disk_leaves_the_old_folder_whole(tmp_path: Path) -> None:
    network = saved(tmp_path, "llama")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # a write beyond it fails
    try:
        with pytest.raises(InputError, match="cannot be written"):
            hf.save(network_of(network.config.replace(vocab_size=99)), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert same(hf.load(tmp_path)[0], network)


def test_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    network = build(read_config(small("gpt2"), ("language",)))
    with pytest.raises(InputError, match="cannot be written"):
        hf.save(network, tmp_path / "file" / "model")


DAMAGES: list[dict[str, Any]] = [
    {"model_type": []},
    {"hidden_act": []},
    {"architectures": 5},
    {"vocab_size": True},
    {"num_hidden_layers": 2.0},
    {"num_hidden_layers": "2"},
    {"num_attention_heads": 0},
    {"rope_scaling": "yarn"},
    {"rope_scaling": {"type": "yarn"}},
    {"rope_scaling": {"type": "yarn", "factor": "2"}},
    {"rope_parameters": [1]},
    {"id2label": [1]},
    {"id2label": {"a": "b"}},
    {"tercet": 5},
    {"tercet": {"dropout": "x"}},
    {"eos_token_id": "</s>"},
    {"eos_token_id": 29},
    {"bos_token_id": -2},
    {"rms_norm_eps": "a"},
    {"rms_norm_eps": float("nan")},
    {"rope_theta": "x"},
    {"tie_word_embeddings": "yes"},
    {"bad_words_ids": [5]},
    {"bad_words_ids": 5},
    {"suppress_tokens": [29]},
    {"suppress_tokens": 5},
    {"forced_bos_token_id": "x"},
    {"forced_eos_token_id": []},
]


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_damaged_settings_are_no_traceback(damage: dict[str, Any], tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    (tmp_path / "generation_config.json").unlink()
    edit(tmp_path, **damage)
    with pytest.raises(InputError) as caught:
        hf.load(tmp_path)
    assert "\n" not in str(caught.value) and "config.json" in str(caught.value)


@pytest.mark.parametrize("name", ["generation_config.json", "modules.json"])
@pytest.mark.parametrize("content", [[1], 5, [{"type": "models.Pooling"}], "text"], ids=str)
def test_damaged_files_beside_are_named(name: str, content: Any, tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"{name}: damaged"):
        hf.load(tmp_path)


@pytest.mark.parametrize("content", [[], {"weight_map": {"a": 1}}, {"weight_map": 5}], ids=str)
def test_damaged_index(content: Any, tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="index.json: damaged"):
        hf.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("added_tokens.json", []),
        ("tokenizer_config.json", {"eos_token": 5}),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}),
        ("tokenizer_config.json", {"extra_special_tokens": 5}),
    ],
)
def test_damaged_settings_of_a_tokenizer(name: str, content: Any, tmp_path: Path) -> None:
    train_tokenizer(["a text"], vocab_size=300, special="decoder").save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(InputError):
        Tokenizer.load(tmp_path)


def test_a_smaller_vocabulary_drops_the_tokens_that_it_lacks() -> None:
    config = preset("gpt2").replace(vocab_size=97)
    assert (config.bos_id, config.eos_ids) == (None, ())
    with pytest.raises(InputError, match="eos_ids: token 97 is not in the vocabulary of 97"):
        config.replace(eos_ids=(97,))


def test_a_tokenizer_saved_over_another_is_read_alone(tmp_path: Path) -> None:
    for name in ("vocab.txt", "old.model", "source.spm", "added_tokens.json", "notes.txt"):
        (tmp_path / name).write_text("{}")
    tokenizer = train_tokenizer(["a text"], vocab_size=300, special="decoder")
    tokenizer.save(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"tokenizer.json", "tokenizer_config.json", "notes.txt"}
