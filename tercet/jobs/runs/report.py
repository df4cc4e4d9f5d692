"""tercet report: a page about a run, from what its folder holds; while it works, too.

Reads the log, the recipe, the manifest of the data and the flight recorder's names. Long curves are
drawn in stretches, and the page says how long they are.
"""

from __future__ import annotations

import json
import math
import shlex
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from tercet.errors import undamaged
from tercet.jobs import recipe as recipes
from tercet.jobs.finetune import is_finetuning
from tercet.jobs.finetune.page import page as finetuned
from tercet.jobs.flags import say
from tercet.jobs.runs import Summary, short
from tercet.jobs.runs.story import Story, speed
from tercet.report import (
    Axis,
    Fact,
    Html,
    Page,
    Series,
    code,
    commands,
    facts,
    fold,
    in_stretches,
    line_plot,
    sample,
    side_by_side,
    table,
)
from tercet.train.log import Row
from tercet.train.progress import clock

SEEN = {
    "accuracy": "Pairs of which the chosen answer has gained more",
    "margin": "How much more, times beta",
    "reward": "What an answer is worth",
    "ended": "Share of answers that ended by themselves",
    "answer_tokens": "Tokens of an answer",
}
SHOWN = 8  # earlier samples of a prompt, and skipped steps
UNITS = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))  # of training time
VERBS = {"decoder": "generate", "encoder": "fill", "encoder-decoder": "translate"}


def run(
    run: Annotated[Positional[Path], arg(metavar="RUN", help_behavior_hint="")],
) -> None:
    """Draw a run: loss, speed, samples, recipe, data and events, in one page without a network;
    of a fine-tuning, what it is worth.

      tercet report runs/first

    Args:
        run: a run folder, of a run that works or has ended; report.html is written there
    """
    say(f"{report(run)} is written")


def report(folder: Path) -> Path:
    """Write the page; its path."""
    if is_finetuning(folder / recipes.RECIPE):
        return finetuned(folder).write(folder / "report.html")
    story = Story.of(folder)
    return page(story).write(folder / "report.html")


def page(story: Story) -> Page:
    now = story.now
    found = Page(
        now.recipe.about.strip() or f"Training {story.folder.name}",
        lead=_lead(now),
        kicker=f"tercet report {story.folder} · {now.said} · {time.strftime('%Y-%m-%d %H:%M')}",
    )
    found.add(_facts(now))
    found.section("Learning", *_learning(story))
    found.section("The way there", *_way(story))
    if story.lines["sample"]:
        found.section("What it wrote", *_samples(story))
    found.section("What happened", *_events(story))
    found.section("The data", *_data(story))
    found.section("Type next", commands(*_next(story)))
    found.section(
        "The recipe", "With all that stands at its default.", code(recipes.text(now.recipe))
    )
    return found


def _lead(now: Summary) -> str:
    article = "An" if now.family.startswith("e") else "A"
    size = "" if now.parameters is None else f" of {short(now.parameters)} parameters"
    steps = f"{now.step:,} of {'?' if now.steps is None else f'{now.steps:,}'} steps"
    return f"{article} {now.family}{size}: {steps}, {now.said}."


def _facts(now: Summary) -> Html:
    speed = now.tokens_per_second
    left = (now.steps - now.step) * now.seconds / now.step if now.steps and now.step else 0.0
    items = []
    if now.validation is not None:
        note, name = f"step {now.best_step:,}", "loss"
        if now.recipe.objective.rewards:
            name = "reward"
        elif now.recipe.objective.kind != "prefer":
            note += f", perplexity {math.exp(min(now.validation, 700.0)):,.2f}"
        items.append(Fact(f"{now.validation:.4f}", f"best validation {name}", note))
    if now.loss is not None:
        items.append(Fact(f"{now.loss:.4f}", "training loss", "mean of the last 20 steps"))
    items.append(Fact(short(now.tokens), "tokens read", f"{now.step:,} steps"))
    if speed is not None:
        items.append(Fact(f"{speed:,.0f}", "tokens a second", "of the time in training steps"))
    note = f"about {clock(left)} left" if now.state == "running" and left else "in training steps"
    items.append(Fact(clock(now.seconds), "spent", note))
    return facts(*items)


# learning ----------------------------------------------------------------------------------------


def _learning(story: Story) -> list[Html | str]:
    unit, seconds = next(
        ((name, size) for name, size in UNITS if story.now.seconds > 3 * size), UNITS[-1]
    )
    when = dict(zip(story.steps, story.seconds, strict=True))
    at = story.column("step", "evaluation")
    dots = len(at) <= 60
    by_step, by_time = (
        line_plot(
            [
                in_stretches(replace(story.curve("loss", "training"), x=x), story.size),
                Series("validation", places, story.column("loss", "evaluation"), points=dots),
            ],
            title=f"Loss by {name}",
            x=name,
            y=f"nats a {'pair' if story.now.recipe.objective.kind == 'prefer' else 'target'}",
        )
        for name, x, places in (
            ("step", story.steps, at),
            (
                unit,
                [s / seconds for s in story.seconds],
                [when.get(s, math.nan) / seconds for s in at],
            ),
        )
    )
    names = (story.lines["step"] or [{}])[0]
    parts = [name for name in names if name.startswith("loss_")]
    terms = [story.curve(name, f"term {name.removeprefix('loss_')}") for name in parts]
    drawn = [in_stretches(term, story.size) for term in terms]
    more = [line_plot(drawn, title="The terms of the training loss", y="nats a target")]
    more = [*(more if parts else []), *(_seen(story, name) for name in SEEN if name in names)]
    loss = [] if story.now.recipe.objective.rewards else [by_step, by_time]  # which says nothing
    return [_said(story), side_by_side(*loss, *more)]


def _seen(story: Story, name: str) -> Html:
    """What an objective has seen beside its loss."""
    at, found = story.column("step", "evaluation"), story.column(name, "evaluation")
    drawn = [in_stretches(story.curve(name, "training"), story.size)]
    return line_plot(
        [*drawn, Series("validation", at, found, points=True)], title=SEEN[name], y=name
    )


def _said(story: Story) -> str:
    """How the curves are drawn, and what makes the two losses differ."""
    count, size, width = len(story.steps), story.size, story.width
    said = f"The bold line is a running mean over {max(width, size):,} steps. "
    if size > 1:
        said += (
            f"{count:,} steps are drawn in stretches of {size:,}: the faint line joins the lowest "
            "and the highest step of each stretch. "
        )
    elif width > 1:
        said += "The faint line joins the single steps. "
    else:
        said = "Every step is drawn. "
    if story.now.recipe.objective.smoothing:
        said += "The training loss holds the label smoothing, the validation loss does not. "
    if story.now.recipe.objective.r_drop:
        said += "The training loss holds how far two draws of dropout are apart (R-Drop). "
    if story.now.recipe.objective.rewards:
        said += (
            "Training answers are drawn at a temperature of "
            f"{story.now.recipe.objective.temperature:g}, several to a question; those to "
            "validation questions are the likeliest: the two curves are not of like answers. "
        )
    return said + "The validation split is measured without dropout, under the averaged weights."


def _way(story: Story) -> list[Html | str]:
    rate = Series("learning rate", story.steps, story.column("rate"))
    norm = story.curve("norm", "gradient")
    clip = story.now.recipe.train.clip
    return [
        side_by_side(
            line_plot([in_stretches(rate, story.size)], title="Learning rate", y="rate"),
            line_plot(
                [in_stretches(norm, story.size)],
                title="Length of the gradient, before it is clipped",
                y=Axis("norm", log=True),
                references={"clipped above": clip} if clip else {},
            ),
            line_plot([speed(story)], title="Speed", y=Axis("tokens a second", zero=True)),
        )
    ]


# samples, events, data ---------------------------------------------------------------------------


def _samples(story: Story) -> list[Html | str]:
    """The last text of each prompt, those before it folded."""
    by_prompt: dict[str, list[Row]] = defaultdict(list)
    for row in story.lines["sample"]:
        by_prompt[row["prompt"]].append(row)
    found: list[Html | str] = []
    goes_on = story.now.family == "decoder" and not story.now.recipe.objective.tunes
    between = "" if goes_on else "\n"
    for prompt, written in by_prompt.items():
        *earlier, last = [
            sample(prompt + between, row["text"], note=f"step {row['step']:,}") for row in written
        ]
        found.append(last)
        if earlier:
            kept = spread(earlier, SHOWN)
            all_of = "" if len(kept) == len(earlier) else f", {len(kept)} of {len(earlier)}"
            found.append(fold(f"Earlier{all_of}", *kept))
    return found


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many, evenly from the first to the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _events(story: Story) -> list[Html | str]:
    """Beginnings, plans and troubles. A step is called by the number that replay knows it by: so
    many steps had been taken before."""
    found = [(row["step"], _event(row)) for row in story.lines["event"]]
    for row in story.lines["plan"]:
        found.append((row["step"], f"the speed is known: {row['steps']:,} steps in all"))
    skipped = {r["step"] - 1: r["loss"] for r in story.lines["step"] if float(r.get("skipped", 0))}
    troubles = _troubles(story.folder)
    for step in list(dict.fromkeys([*troubles, *skipped]))[:SHOWN]:
        what = troubles.get(step, f"the loss was {skipped.get(step)}")
        done = ", skipped" if step in skipped else ""
        found.append((step, f"{what}{done}; see tercet replay {story.folder}@{step}"))
    if len(skipped) > SHOWN:
        found.append((story.now.step, f"{len(skipped):,} steps were skipped in all"))
    rows = sorted(dict.fromkeys(found), key=lambda event: event[0])
    if not rows:
        return ["Nothing but training."]
    return [table(["step", "what"], [[step, what] for step, what in rows])]


def _event(row: Row) -> str:
    facts = {k: v for k, v in row.items() if k not in ("kind", "step", "event")}
    more = [f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in facts.items()]
    return row["event"] + (f": {', '.join(more)}" if more else "")


def _troubles(folder: Path) -> dict[int, str]:
    """Step -> what the flight recorder has written down; the first few."""
    files = (folder / "recorder").glob("step-*.json")
    numbered = sorted((int(file.stem.removeprefix("step-")), file) for file in files)
    return {
        n: json.loads(file.read_text(encoding="utf-8"))["trouble"] for n, file in numbered[:SHOWN]
    }


def _data(story: Story) -> list[Html | str]:
    """What the manifest says of the sources, and how often they were read."""
    from tercet.jobs.train.run import Run

    recipe = story.now.recipe
    path = Run.of(story.folder, recipe).place / "manifest.json"
    if not path.exists():
        return ["The data is not prepared yet."]
    with undamaged(path):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        lines, skipped, trained_on = [], [], 0
        sources = manifest["sources"]
        read = recipe.data.keys() & sources.keys() or sources.keys()
        for name, source in ((name, sources[name]) for name in sources if name in read):
            for split in ("train", "validation"):
                facts = source[split]
                lines.append(
                    [name, split, *(facts[key] for key in ("documents", "tokens", "bytes"))]
                )
                lines[-1].append(_lengths(facts["lengths"]))
            trained_on += source["train"]["tokens"]
            skipped += [f"{count:,} {why}" for why, count in source["skipped"].items() if count]
        about = f"A vocabulary of {manifest['vocab_size']:,} tokens. "
    if trained_on:
        about += (
            f"The run has read its training tokens {story.now.tokens / trained_on:,.2f} times. "
        )
    about += f"Left out: {'; '.join(skipped)}." if skipped else "No document was left out."
    header = ["source", "split", "documents", "tokens", "bytes", "tokens a document"]
    return [about, table(header, lines, align="llrrrl"), f"Checksums and files: `{path}`."]


def _lengths(lengths: dict[str, dict[str, int]]) -> str:
    """ "median 120, longest 3,000", for each side of pairs."""
    said = [
        f"{'' if side == 'document' else f'{side}: '}median {q['50']:,}, longest {q['100']:,}"
        for side, q in lengths.items()
        if q
    ]
    return "; ".join(said) or "–"


def _next(story: Story) -> list[tuple[str, str]]:
    now, folder = story.now, shlex.quote(str(story.folder))
    found = []
    if now.state in ("stopped", "running"):
        found.append(("Go on", f"tercet train {folder}/recipe.yaml --folder {folder} --resume"))
    if (story.folder / "model").is_dir():
        prompts = now.recipe.evaluate.prompts or ["..."]
        use = f"tercet {VERBS[now.family]} {folder}/model {shlex.quote(prompts[0])}"
        if now.recipe.objective.tunes:
            use = f"tercet chat {folder}/model"
        found += [
            ("Use the model", use),
            ("What it is made of", f"tercet info {folder}/model"),
        ]
    if now.step:
        found.append(
            ("What the last step read", f"tercet data show {folder} --step {now.step - 1}")
        )
    if now.recipe.objective.kind in ("masked", "spans"):
        found.append(("What is masked", f"tercet data masks {folder}"))
    others = shlex.quote(str(story.folder.parent))
    return [*found, ("Other runs beside this one", f"tercet runs {others}")]
