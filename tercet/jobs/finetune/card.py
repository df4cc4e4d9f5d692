"""What came of a fine-tuning, in sentences, and as the model card of its folder. No torch."""

from __future__ import annotations

from typing import Any

from tercet.jobs.flags import aligned

PIPELINES = {  # what the hub calls a task
    "classify": "text-classification",
    "tag": "token-classification",
    "answer": "question-answering",
    "embed": "sentence-similarity",
    "rank": "text-ranking",
    "seq2seq": "text2text-generation",
}


def metric_of(figures: dict[str, float], chosen: str) -> str:
    """What a split is told in: what the best epoch was chosen by; where the split's rows are of
    another kind, such as test pairs with scores behind pairs without, its own first figure."""
    return chosen if chosen in figures else next(iter(figures))


def sentences(result: dict[str, Any]) -> list[str]:
    """A line for each split: of several runs mean and standard deviation, then the best one's. Of a
    ladder its table."""
    if "ladder" in result:
        return [*aligned(rungs(result)).splitlines(), *about_choice(result)]
    lines = []
    for split in ("validation", "test"):
        found = result[split]
        if found is None:
            continue
        best, several = result["best"], len(found["runs"]) > 1
        if several:
            metric = metric_of(found["mean"], result["metric"])
            mean, sd = found["mean"][metric], found["sd"][metric]
            lines.append(
                f"{split}: {metric} {mean:.4f} ± {sd:.4f} in the mean of {len(found['runs'])} runs"
            )
        name = f" of {best}, the best on validation" if several else ""
        n = found["n"]
        if best in found["sentences"]:
            lines.append(
                f"{split}{name}: {found['sentences'][best]} ({n:,} example{'s' * (n != 1)})"
            )
        mean = found["mean"]
        if mean.get("low", 1.0) <= mean.get("commonest", 0.0):
            lines.append(
                f"{split}: not shown to be better than always saying the commonest label, which is "
                f"right in {mean['commonest']:.1%}; --ladder tries other ways to learn"
            )
    seconds, n = result["seconds"], len(result["runs"])
    lines.append(f"{seconds:,.1f} seconds of training steps in {n} run{'s' * (n > 1)}")
    return lines


def curve_cells(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The label curve as a header and rows: a figure with its interval, or over several seeds with
    its deviation."""
    curve = result["curve"]
    metric = metric_of(curve["points"][0]["mean"], result["metric"])
    header = ["rows", "weights", f"{curve['split']} {metric}", "", "steps"]
    cells = []
    for one in curve["points"]:
        mean, sd = one["mean"], one["sd"][metric]
        spread = f"± {sd:.4f}" if sd is not None else ""
        if metric == "accuracy" and "low" in mean:
            spread = f"{mean['low']:.4f} to {mean['high']:.4f}{f' ({spread})' if spread else ''}"
        row = [f"{one['rows']:,}", one["start"], f"{mean[metric]:.4f}", spread]
        cells.append([*row, f"{one['steps']:,}"])
    return header, cells


def curve_lines(result: dict[str, Any]) -> list[str]:
    """The label curve as lines of text; none where there is none."""
    if "curve" not in result:
        return []
    header, cells = curve_cells(result)
    widths = [max(len(row[i]) for row in (header, *cells)) for i in range(len(header))]
    return ["  ".join(f"{cell:>{w}}" for cell, w in zip(row, widths)) for row in (header, *cells)]


def rungs(result: dict[str, Any]) -> list[list[str]]:
    """A ladder's table: a header, and a row a rung. FLOPs and seconds are those of learning once;
    how the rungs were compared stands below it."""
    ladder, tested = result["ladder"], result["test"] is not None
    header = ["rung", f"accuracy, {ladder['how']}", *(["accuracy, test"] if tested else [])]
    lines = [[*header, "TFLOPs", "seconds", "MB", "ms a text"]]
    for one in ladder["rungs"]:
        scores = [one["validation"]["figures"], *([one["test"]["figures"]] if tested else [])]
        lines.append(
            [
                one["name"],
                *(f"{s['accuracy']:.1%} ({s['low']:.1%} to {s['high']:.1%})" for s in scores),
                f"{one['flops'] / 1e12:,.3g}",
                f"{one['seconds']:,.1f}",
                f"{one['bytes'] / 1e6:,.1f}",
                f"{one['latency_ms']:.2f}",
            ]
        )
    if (before := ladder["pretraining"]) is not None:
        blank = [""] * (len(header) - 1)
        lines.append(["pretraining", *blank, "", f"{before['seconds']:,.1f}", "", ""])
    return lines


def about_choice(result: dict[str, Any]) -> list[str]:
    """Which rung was kept and why, and what the whole ladder took."""
    ladder = result["ladder"]
    left = f"; not tried: {', '.join(ladder['left_out'])}" if ladder["left_out"] else ""
    spent = f"{result['seconds']:,.1f} seconds in all, those of comparing the rungs among them"
    return [f"kept: {result['best']}, since {ladder['reason']}{left}", spent]


def card(result: dict[str, Any]) -> str:
    """The README.md of a model's folder, in the form that the Hugging Face hub reads. The licence
    is the user's to say."""
    data, labels = result["data"], result["data"].get("labels", [])
    counts = ", ".join(
        f"{data[name]:,} {name}" for name in ("train", "validation", "test") if data.get(name)
    )
    if "ladder" in result and result["ladder"]["how"] != "validation":
        counts += "; the kept model has learned all train rows"
    elif not data.get("validation"):
        counts += f"; of the train rows {result['validation']['n']:,} were held back for validation"
    columns = ", ".join(f"{part}: `{name}`" for part, name in data.get("columns", {}).items())
    figures = [
        f"| {name} | {split} | {value:.4f} | {_sd(result[split]['sd'][name])} |"
        for split in ("validation", "test")
        if result[split] is not None
        for name, value in result[split]["mean"].items()
    ]
    shown = ", ".join(f"`{label}`" for label in labels[:20]) + (", …" if len(labels) > 20 else "")
    return "\n".join(
        [
            "---",
            "# license: say it here; it depends on the base model and on your data",
            f"base_model: {result['model']}",
            f"library_name: {result['library']}",
            f"tags: [tercet, {PIPELINES[result['task']]}]",
            "---",
            "",
            f"# {result['model'].rstrip('/').rpartition('/')[2]}, fine-tuned: {result['task']}",
            "",
            *_found(result),
            "",
            "| figure | split | mean | deviation |",
            "|---|---|---|---|",
            *figures,
            "",
            f"Examples: {counts}.{f' Columns: {columns}.' if columns else ''}",
            *([f"Labels ({len(labels)}): {shown}."] if labels else []),
            "",
            *_about_adapter(result["adapter"]),
            _about_recipe(result),
            "",
        ]
    )


def _found(result: dict[str, Any]) -> list[str]:
    if "ladder" not in result:
        return sentences(result)
    header, *lines = (f"| {' | '.join(line)} |" for line in rungs(result))
    return [header, "|---" * len(rungs(result)[0]) + "|", *lines, "", *about_choice(result)]


def _about_recipe(result: dict[str, Any]) -> str:
    if "ladder" in result:
        return "The recipe stands beside the run."
    return f"Learning rate {result['learning_rate']:g}; the recipe stands beside the run."


def _about_adapter(base: str | None) -> list[str]:
    """How an adapter is used; nothing of a whole model."""
    if base is None:
        return []
    return [
        "This folder holds a low-rank adapter and the head, in peft's format; the weights below it "
        f"are in `{base}`. `tercet.load` of this folder takes both, `tercet merge FOLDER --out "
        "NEW` makes them one model; `peft`'s Auto classes open it, those of `transformers` the "
        "merged one.",
        "",
    ]


def _sd(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
