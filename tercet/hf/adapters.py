"""peft's folders of adapters, in and out: adapter_config.json and adapter_model.safetensors.

Names go through the tables of names.py, both ways. A matrix that they fuse of several of ours (q, k
and v in one) has one A and the rows of B of each; written, ours stand in it as a block diagonal of
higher rank. Knows no architecture.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tercet.errors import InputError, undamaged
from tercet.hf.embedding import write_json
from tercet.hf.matching import OPS, Link, choose_form, matched
from tercet.hf.names import OUTPUT, Table
from tercet.hf.weights import Weights
from tercet.model.lora import Adapted, adapters, attach, freeze, sizes
from tercet.text.special import read_json

SETTINGS, TENSORS = "adapter_config.json", "adapter_model.safetensors"
BEFORE = "base_model.model."
# What is read, or says nothing about what the network computes.
KNOWN = {
    *("alpha_pattern", "base_model_name_or_path", "fan_in_fan_out", "lora_alpha", "lora_dropout"),
    *("peft_type", "r", "rank_pattern", "use_rslora", "bias", "init_lora_weights"),
    # which layers: the tensors say so themselves
    *("exclude_modules", "layers_pattern", "layers_to_transform", "modules_to_save"),
    "target_modules",
    *("auto_mapping", "inference_mode", "megatron_core", "peft_version", "qalora_group_size"),
    *("revision", "task_type", "eva_config", "runtime_config"),
}
# Starts that leave the base as it is. The others (of its singular values, say) change it.
STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
TASKS = {"classifier": "SEQ_CLS", "tagger": "TOKEN_CLS", "span": "QUESTION_ANS"}


@dataclass(frozen=True)
class AdapterFolder:
    """What stands in a folder. pairs: module -> (A (rank, D), B (M, rank)); whole: tensors that
    take the place of the base's, heads say; names without what stands before all of them."""

    folder: Path
    settings: dict[str, Any]
    pairs: dict[str, tuple[Tensor, Tensor]]
    whole: dict[str, Tensor]

    def scale(self, module: str, rank: int) -> float:
        """Of a module's B A. A pattern stands for the end of a name, as in peft."""
        alpha = self.settings.get("lora_alpha", 8)
        for pattern, value in (self.settings.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                alpha = value
                break
        return alpha / (math.sqrt(rank) if self.settings.get("use_rslora") else rank)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and no model of its own."""
    return (folder / SETTINGS).is_file() and not [*folder.glob("model*.safetensors")]


def base_of(folder: Path) -> str:
    """The base that an adapter's folder names; a relative path is looked for from there first."""
    base = _settings(folder).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise InputError(
            f"{folder / SETTINGS}: names no base (base_model_name_or_path {base!r}); load the base "
            f"and give it the adapter: tercet.load(base, adapter={str(folder)!r})"
        )
    beside = folder / base
    return str(beside) if beside.is_dir() else base


def read_adapter(folder: str | Path) -> AdapterFolder:
    """Raises InputError for what is no adapter, is damaged, or computes what is not computed here,
    by name."""
    folder = Path(folder)
    settings = _settings(folder)
    _refuse(folder, settings)
    path = folder / TENSORS
    if not path.is_file():
        pickled = " (adapter_model.bin is a pickle and is not read)"
        said = pickled if (folder / "adapter_model.bin").is_file() else ""
        raise InputError(f"{folder}: has no {TENSORS}{said}; save the adapter as safetensors")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: is no whole safetensors file ({error}); fetch it again") from (
            error
        )
    halves: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = name.removeprefix(BEFORE)
        if match := re.fullmatch(r"(.+)\.lora_([AB])\.weight", short):
            halves.setdefault(match[1], {})[match[2]] = tensor
        elif "lora_" in short:
            raise InputError(f"{path}: {name} is a kind of adapter that is not supported")
        else:
            whole[short] = tensor
    odd = [
        module
        for module, half in halves.items()
        if half.keys() != {"A", "B"}
        or (half["A"].ndim, half["B"].ndim) != (2, 2)
        or half["A"].shape[0] != half["B"].shape[1]
    ]
    if odd or not tensors:
        what = f"{', '.join(sorted(odd)[:5])}: A and B do not fit" if odd else "it is empty"
        raise InputError(f"{path}: damaged, {what}; save it again")
    pairs = {module: (half["A"], half["B"]) for module, half in halves.items()}
    found = AdapterFolder(folder, settings, pairs, whole)
    with undamaged(folder / SETTINGS):
        try:
            for module, (a, _) in pairs.items():
                float(found.scale(module, len(a)))
        except re.error as error:
            raise InputError(f"{folder / SETTINGS}: alpha_pattern: {error}") from error
    return found


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS
    if not path.is_file():
        raise InputError(f"{folder}: has no {SETTINGS}; name the folder of an adapter")
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: must hold an object, not {type(values).__name__}")
    return values


def _refuse(folder: Path, settings: dict[str, Any]) -> None:
    refused = [f"{key}={value!r}" for key, value in settings.items() if value and key not in KNOWN]
    if settings.get("peft_type") != "LORA":
        refused.append(f"peft_type={settings.get('peft_type')!r}")
    if settings.get("bias", "none") != "none":
        refused.append(f"bias={settings['bias']!r}")
    if settings.get("init_lora_weights", True) not in STARTS:
        refused.append(f"init_lora_weights={settings['init_lora_weights']!r}")
    if refused:
        raise InputError(
            f"{folder / SETTINGS}: these settings are not honoured: {'; '.join(refused)}; merge "
            "the adapter into its base where it was made, and load that"
        )


def laid_over(
    found: AdapterFolder, table: Table, names: dict[str, str], weights: Weights
) -> tuple[Table, dict[str, str]]:
    """A base's names with an adapter's whole tensors in their place, and the forms that have a
    place for them; heads of the base that such a form lacks are left out."""
    weights.lay_over(found.whole)
    own = {name.removeprefix(table.prefix): name for name in found.whole}
    names = names | own
    heads = [name for name in own if not matched(name, table.body)]
    forms = tuple(f for f in table.forms if all(matched(name, f.rules) for name in heads))
    if not forms:
        raise InputError(
            f"{found.folder}: holds {', '.join(sorted(heads)[:5])}, a head that a model of this "
            "kind does not have here"
        )
    if not heads:
        return table, names
    own_heads = {name: n for name, n in names.items() if name in own or matched(name, table.body)}
    form = choose_form(replace(table, forms=forms), own_heads, [], tied=True)
    kept = {n: f for n, f in names.items() if n in own_heads or matched(n, form.rules)}
    return replace(table, forms=(form,)), kept


# the network --------------------------------------------------------------------------------------


def apply_adapter(network: nn.Module, found: AdapterFolder, links: list[Link], prefix: str) -> None:
    """Puts a folder's pairs onto the network, and freezes all but them and a task's heads. links:
    of the network, in names without ``prefix``."""
    modules = {link.theirs.removesuffix(".weight"): link for link in links if _weight(link)}
    short = {module: module.removeprefix(prefix) for module in found.pairs}
    unknown = sorted(
        module
        for module, name in short.items()
        if name not in modules or not _adaptable(network, modules[name])
    )
    if unknown:
        raise InputError(
            f"{found.folder}: adapts {', '.join(unknown[:5])}, which this base lacks, or which "
            "takes no adapter here (tables and the output layer); check that the adapter belongs "
            "to the base"
        )
    dropout = float(found.settings.get("lora_dropout") or 0)
    for module, (a, b) in found.pairs.items():
        names = [name.removesuffix(".weight") for name in modules[short[module]].ours]
        for name, rows in zip(names, b.chunk(len(names))):
            _attach(network, found, module, name, a, rows, dropout)
    freeze(network)


def _attach(
    network: nn.Module,
    found: AdapterFolder,
    module: str,
    name: str,
    a: Tensor,
    b: Tensor,
    dropout: float,
) -> None:
    size = sizes(network.get_submodule(name))
    if (len(b), a.shape[1]) != size:
        raise InputError(
            f"{found.folder}: the adapter of {module} is for a matrix of {len(b)} × {a.shape[1]}, "
            f"the base's is {' × '.join(map(str, size))}; check that they belong together"
        )
    # a fused matrix' A may have more rows than one of ours has
    layer = attach(network, name, 1, found.scale(module, len(a)), dropout)
    for own, tensor in (("a", a), ("b", b)):
        kept = tensor.to(layer.a).contiguous().clone()
        setattr(layer, own, nn.Parameter(kept))


def _weight(link: Link) -> bool:
    return link.theirs.endswith(".weight")


def _adaptable(network: nn.Module, link: Link) -> bool:
    if OUTPUT in link.ours:
        return False
    return all(
        isinstance(network.get_submodule(name.removesuffix(".weight")), nn.Linear)
        for name in link.ours
    )


# writing ------------------------------------------------------------------------------------------


def write_adapter(
    network: nn.Module, folder: Path, links: list[Link], *, base: str, heads: Iterable[str]
) -> None:
    """The adapters of a network, and whatever else of it is trained, as a folder of peft's. links:
    of the network, in the names of the file that the base would be."""
    own = adapters(network)
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    scales: dict[str, float] = {}
    for link in links:
        names = [name.removesuffix(".weight") for name in link.ours]
        layers = [own.get(name) for name in names]
        if _weight(link) and any(layer is not None for layer in layers):
            module = link.theirs.removesuffix(".weight")
            pairs[module], scales[module] = _joined(network, names, layers)
    state, tensors = _plain_state(network), {}
    named = network.named_parameters(remove_duplicate=False)
    trained = {name for name, p in named if p.requires_grad}
    whole = {_saved(link) for link in links if trained & set(link.ours)}
    if whole & pairs.keys():
        raise InputError(
            f"{', '.join(sorted(whole & pairs.keys()))}: is partly adapted and partly trained as a "
            "whole, which peft's format cannot say; save the merged model"
        )
    for link in links:
        if _saved(link) in whole:
            tensors[BEFORE + link.theirs] = link.op.write([state[n] for n in link.ours])
    for module, (a, b) in pairs.items():
        tensors |= {f"{BEFORE}{module}.lora_A.weight": a, f"{BEFORE}{module}.lora_B.weight": b}
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    matrices = {link.theirs.removesuffix(".weight") for link in links if _weight(link)}
    settings = _written(pairs, scales, next(iter(own.values())), matrices)
    settings |= {
        "base_model_name_or_path": base,
        "modules_to_save": sorted(whole) or None,
        "task_type": next((TASKS[head] for head in heads if head in TASKS), None),
        # matrices that are stored (in, out)
        "fan_in_fan_out": any(
            link.op in (OPS["transpose"], OPS["split-columns"]) for link in links
        ),
    }
    write_json(folder / SETTINGS, settings)
    save_file(tensors, folder / TENSORS, metadata={"format": "pt"})


def _joined(
    network: nn.Module, names: list[str], layers: list[Adapted | None]
) -> tuple[tuple[Tensor, Tensor], float]:
    """One A and B of a matrix that may be several of ours, and the scale."""
    there = [layer for layer in layers if layer is not None]
    scale, first = there[0].scale, there[0].a.detach()
    if len(there) == len(layers) and all(torch.equal(layer.a, first) for layer in there):
        if all(layer.scale == scale for layer in there):
            return (first, torch.cat([layer.b.detach() for layer in there])), scale
    rows, at, total = [], 0, sum(len(layer.a) for layer in there)
    for name, layer in zip(names, layers):
        height = sizes(network.get_submodule(name))[0] if layer is None else len(layer.b)
        block = first.new_zeros(height, total)
        if layer is not None:
            block[:, at : at + len(layer.a)] = layer.b.detach() * (layer.scale / scale)
            at += len(layer.a)
        rows.append(block)
    return (torch.cat([layer.a.detach() for layer in there]), torch.cat(rows)), scale


def _written(
    pairs: dict[str, tuple[Tensor, Tensor]],
    scales: dict[str, float],
    any_layer: Adapted,
    matrices: set[str],
) -> dict[str, Any]:
    """adapter_config.json: the commonest rank and alpha, the others by name."""
    ranks = {module: len(a) for module, (a, _) in pairs.items()}
    alphas = {module: scales[module] * rank for module, rank in ranks.items()}
    rank, alpha = (Counter(x.values()).most_common(1)[0][0] for x in (ranks, alphas))
    others = {re.escape(module): r for module, r in ranks.items() if r != rank}
    dropout = any_layer.dropout.p if isinstance(any_layer.dropout, nn.Dropout) else 0.0
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": dropout,
        "target_modules": _endings(pairs, matrices),
        "rank_pattern": others,
        "alpha_pattern": {re.escape(m): a for m, a in alphas.items() if a != alpha},
        "use_rslora": False,
        "use_dora": False,
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _endings(targets: Iterable[str], matrices: set[str]) -> list[str]:
    """The shortest endings of names that mean the targets and no other matrix."""
    targets, found = set(targets), set()
    for name in targets:
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            ending = ".".join(parts[-count:])
            meant = {m for m in matrices if m == ending or m.endswith(f".{ending}")}
            if meant <= targets and not parts[-count].isdigit():
                found.add(ending)
                break
        else:
            found.add(name)
    return sorted(found)


def _saved(link: Link) -> str:
    """The module of a tensor."""
    return link.theirs.rpartition(".")[0]


def _plain_state(network: nn.Module) -> dict[str, Tensor]:
    """Names as they are without adapters."""
    return {name.replace(".base.", "."): tensor for name, tensor in network.state_dict().items()}
