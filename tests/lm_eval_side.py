"""Asks lm-evaluation-harness, in its own environment: run as a program by test_lm_eval.py.

    python lm_eval_side.py FOLDER MODEL BACKEND PRECISION

FOLDER holds a .jsonl a task, of the columns that Tercet reads; tasks are written beside them to the
definitions that the harness publishes. BACKEND: hf, or tercet (the adapter). PRECISION: float32,
or float64 (hf). Prints a JSON object: task -> metric -> figure.
"""

# pyright: reportMissingImports=false

import json
import sys
from pathlib import Path

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

# What differs from the published files is where a column is called otherwise, and the choice of the
# columns' parts that these rows have put together already.
DEFINITIONS = {
    "arc-easy": ("{{query}}\\nAnswer:", "choices", "gold", ("acc", "acc_norm")),
    "piqa": ("{{query}}Answer:", "choices", "gold", ("acc", "acc_norm")),
    "copa": ("{{query}}", "{{[' ' + choices[0], ' ' + choices[1]]}}", "gold", ("acc",)),
    "winogrande": ("gold", "context_options", "continuation", ("acc",)),
    "hellaswag": ("{{query}}", "choices", "gold", ("acc", "acc_norm")),
    "boolq": ("{{query[9:]}}\\nAnswer:", ["no", "yes"], "gold", ("acc",)),
    "blimp": ("", "{{[good, bad]}}", 0, ("acc",)),
    "quiz": ("{{query}}", "choices", "gold", ("acc", "acc_norm", "acc_bytes")),
    "lambada": ("{{context}}", None, "{{' ' + continuation}}", ("acc", "perplexity")),
}
# What only the harness asks, of both backends.
WHOLE = ("word_perplexity", "byte_perplexity", "bits_per_byte")
DEFINITIONS |= {
    "rolling": ("", None, "{{text}}", WHOLE),
    "generate": ("{{context}}", None, "{{continuation}}", ("exact_match",)),
}
KINDS = {"rolling": "loglikelihood_rolling", "generate": "generate_until"}
HELLASWAG = """
from lm_eval.tasks.hellaswag.utils import preprocess

def process_docs(rows):
    def one(row):
        query = preprocess(row["activity_label"] + ": " + row["ctx"])
        choices = [preprocess(ending) for ending in row["endings"]]
        return {"query": query, "choices": choices, "gold": int(row["label"])}

    return rows.map(one)
"""


def write(folder: Path, name: str) -> None:
    """A task's .yaml; blimp-UID and lambada-TEXTS have the definitions of blimp and lambada."""
    kind = name if name in DEFINITIONS else name.partition("-")[0]
    text, choices, target, metrics = DEFINITIONS[kind]
    output = KINDS.get(kind, "loglikelihood" if choices is None else "multiple_choice")
    lines = [
        f"task: tercet-{name}",
        "dataset_path: json",
        f"dataset_kwargs: {{data_files: {{validation: {folder / name}.jsonl}}}}",
        "validation_split: validation",
        f"output_type: {output}",
        f'doc_to_text: "{text}"',
        f"doc_to_target: {json.dumps(target)}",
        "metric_list:",
        *(f"  - metric: {metric}" for metric in metrics),
    ]
    if choices is not None:
        lines.append(f"doc_to_choice: {json.dumps(choices)}")
    if name == "generate":
        lines.append('generation_kwargs: {until: [" ", "\\n"], max_gen_toks: 12}')
    if name == "hellaswag":
        lines.append("process_docs: !function hellaswag_rows.process_docs")
        (folder / "hellaswag_rows.py").write_text(HELLASWAG)
    (folder / f"{name}.yaml").write_text("\n".join(lines) + "\n")


def double() -> None:
    """transformers rounds norms and angles to float32 in the midst of a float64 model."""
    import torch
    from transformers.models.llama import modeling_llama as llama
    from transformers.models.qwen3 import modeling_qwen3 as qwen3

    def norm(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.rms_norm(x, x.shape[-1:], self.weight, self.variance_epsilon)

    def turn(self: torch.nn.Module, x: torch.Tensor, position_ids: torch.Tensor):
        assert self.rope_type == "default"
        pairs = torch.arange(0, 2 * len(self.inv_freq), 2, dtype=torch.float64)
        base = self.config.rope_parameters["rope_theta"]
        angles = position_ids[..., None].double() * base ** (-pairs / (2 * len(pairs)))
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()

    for kind in (llama.LlamaRMSNorm, qwen3.Qwen3RMSNorm):
        kind.forward = norm
    for kind in (llama.LlamaRotaryEmbedding, qwen3.Qwen3RotaryEmbedding):
        kind.forward = turn


def main(place: str, model: str, backend: str, precision: str) -> None:
    folder = Path(place)
    if precision == "float64":
        double()
    names = sorted(file.stem for file in folder.glob("*.jsonl"))
    for name in names:
        write(folder, name)
    if backend == "tercet":
        import tercet.evaluate.lm_eval  # noqa: F401
    found = simple_evaluate(
        model=backend,
        model_args={"pretrained": model} | ({"dtype": precision} if backend == "hf" else {}),
        tasks=[f"tercet-{name}" for name in names],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        batch_size=16,
        device="cpu",
        log_samples=False,
    )
    assert found is not None
    results = found["results"]
    kept = {
        name: {
            metric.removesuffix(",none"): figure
            for metric, figure in results[f"tercet-{name}"].items()
            if metric.endswith(",none")
        }
        for name in names
    }
    print(json.dumps(kept))


if __name__ == "__main__":
    main(*sys.argv[1:])
