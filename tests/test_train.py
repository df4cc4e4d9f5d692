"""The loop: gradients do not depend on the cut, a resumed run is the run, Ctrl-C loses nothing."""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path

import pytest
import torch

from tercet.config import TransformerConfig
from tercet.data import (
    Causal,
    Masked,
    Masking,
    Rows,
    SentencePairs,
    Stream,
    TextPairs,
    Tokens,
    Translation,
)
from tercet.errors import InputError
from tercet.model import build
from tercet.train import (
    Average,
    Averages,
    Checkpoints,
    NextSentence,
    Optimizer,
    Recipe,
    Recorder,
    Schedule,
    State,
    fit,
)
from tercet.train.objectives import CrossEntropy, cross_entropy

SMALL = TransformerConfig(
    vocab_size=50,
    context_length=32,
    d_model=16,
    d_ff=24,
    n_heads=2,
    decoder_layers=2,
    dropout=0.1,
    eos_ids=(1,),
    start_id=0,
)
TEXT = torch.randint(2, 50, (2000,), generator=torch.Generator().manual_seed(0))


def rows(text: torch.Tensor = TEXT) -> Rows:
    return Rows(Tokens.of([text.tolist()], None), 16, 8)


def causal(micro_tokens: int = 128) -> Stream:
    return Stream(rows(), Causal(), micro_tokens)


def families(micro_tokens: int):
    """Family -> network and data, dropout off."""
    plain = SMALL.replace(dropout=0.0)
    draw = torch.Generator().manual_seed(1)
    lengths = [n for i in range(8) for n in (3 + i % 7, 1 + i % 5)]
    ragged = [torch.randint(2, 50, (n,), generator=draw).tolist() for n in lengths]
    pairs = TextPairs(Tokens.of(ragged, None), None, rows=8)
    return {
        "decoder": (build(plain), causal(micro_tokens)),
        "encoder": (
            build(plain.replace(encoder_layers=2, decoder_layers=0, heads=("masked",))),
            Stream(rows(), Masked(Masking(1, 50)), micro_tokens),
        ),
        "encoder-decoder": (
            build(plain.replace(encoder_layers=1)),
            Stream(pairs, Translation(0, 1), micro_tokens),
        ),
    }


@pytest.mark.parametrize("family", ["decoder", "encoder", "encoder-decoder"])
def test_gradients_do_not_depend_on_how_a_step_is_cut(family: str):
    found = []
    for micro_tokens in (128, 40, 16):
        net, data = families(micro_tokens)[family]
        net.double()
        batches = data(2)
        targets = sum(batch.n_targets for batch in batches)
        for batch in batches:
            (cross_entropy(net, batch) / targets).backward()
        found.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("family", ["decoder", "encoder", "encoder-decoder"])
def test_r_drop_compares_two_draws_of_dropout_in_training_alone(family: str):
    net, data = families(128)[family]
    net = build(net.config.replace(dropout=0.3)).double()
    (batch,) = data(2)
    torch.manual_seed(3)
    losses = [cross_entropy(net, batch) for _ in range(2)]
    torch.manual_seed(3)
    both = CrossEntropy(r_drop=0.5)(net, batch)
    assert both > sum(losses) / 2  # a divergence is never below 0
    torch.manual_seed(3)
    twice = CrossEntropy(r_drop=1.0)(net, batch)
    torch.testing.assert_close(twice - both, both - sum(losses) / 2)
    (both / batch.n_targets).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.eval()
    torch.testing.assert_close(CrossEntropy(r_drop=0.5)(net, batch), cross_entropy(net, batch))


@pytest.mark.parametrize("average", [Average(), Average(ema=0.9), Average(last=2, every=2)])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(
    kind: str, average: Average, tmp_path: Path
):
    recipe = Recipe(1e-2, steps=8, schedule=Schedule(warmup=2))

    def begin(seed: int = 0):
        net = build(SMALL, seed)
        optimizer, averages = Optimizer(net, kind=kind), Averages(net, average)
        losses: list[float] = []
        note = (1, lambda state: losses.append(state.last["loss"]))
        kept = Checkpoints(tmp_path, net, optimizer, averages)
        return net, optimizer, averages, losses, note, kept

    whole, optimizer, averages, full, note, _ = begin()
    parts = {"averages": averages, "actions": [note]}
    fit(whole, causal(48), cross_entropy, recipe, optimizer, **parts)

    first, optimizer, averages, before, note, kept = begin()

    def stop(state: State) -> None:
        if state.step == 5:
            kept.save(state)
            raise KeyboardInterrupt

    parts = {"averages": averages, "actions": [note, (1, stop)]}
    with pytest.raises(KeyboardInterrupt):
        fit(first, causal(48), cross_entropy, recipe, optimizer, **parts)

    second, optimizer, averages, after, note, kept = begin(seed=9)
    state = kept.load()
    assert state is not None and state.step == 5
    parts = {"averages": averages, "actions": [note]}
    fit(second, causal(48), cross_entropy, recipe, optimizer, state=state, **parts)
    assert before + after == full
    with averages.applied():
        for (name, a), b in zip(whole.named_parameters(), second.parameters()):
            assert average != Average() or torch.equal(a, b), name


def test_the_first_interrupt_ends_the_step_and_saves():
    net = build(SMALL)
    seen, saved = [], []

    def press(state: State) -> None:
        if state.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        fit(
            net,
            causal(),
            cross_entropy,
            Recipe(1e-3, steps=50),
            Optimizer(net),
            actions=[(1, press), (1000, lambda state: seen.append(state.step))],
            on_stop=lambda state: saved.append(state.step),
        )
    assert saved in ([3], [4]) and not seen
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("corrections", [0, 3])
def test_a_budget_fixes_the_steps_once_or_corrects_them(corrections: int):
    net = build(SMALL)
    planned = []
    state = fit(
        net,
        causal(),
        cross_entropy,
        Recipe(1e-3, seconds=0.4, corrections=corrections),
        Optimizer(net),
        actions=[(1, lambda state: planned.append(state.steps))],
    )
    counts = [steps for steps in planned if steps is not None]
    assert state.done and 1 <= len(set(counts)) <= len(state.plan) <= corrections + 1
    assert planned[0] is None and state.step == counts[-1] == list(state.plan.values())[-1]


def test_a_budget_that_was_decided_is_not_measured_again():
    net = build(SMALL)
    state = State(plan={"6": 9})
    end = fit(net, causal(), cross_entropy, Recipe(1e-3, seconds=1e-4), Optimizer(net), state=state)
    assert end.step == 9 and end.plan == {"6": 9}


def test_training_learns():
    net = build(SMALL.replace(dropout=0.0))
    data = Stream(rows(torch.arange(2, 18).repeat(100)), Causal())
    losses: list[float] = []
    note = (1, lambda state: losses.append(state.last["loss"]))
    recipe = Recipe(1e-2, steps=60, schedule=Schedule(warmup=5))
    fit(net, data, cross_entropy, recipe, Optimizer(net, kind="muon"), actions=[note])
    assert losses[-1] < 0.6 < 2.0 < losses[0]


def test_an_action_may_end_the_run():
    net = build(SMALL)

    def enough(state: State) -> None:
        state.stopped = "enough" if state.step == 4 else None

    recipe = Recipe(1e-3, steps=50)
    state = fit(net, causal(), cross_entropy, recipe, Optimizer(net), actions=[(1, enough)])
    assert state.step == 4 and state.stopped == "enough"


# trouble -----------------------------------------------------------------------------------------


def poisoned(at: int):
    """The next token's loss, which is not a number from call number ``at`` on, once."""
    calls = iter(range(10_000))

    def objective(model, batch):
        loss = cross_entropy(model, batch)
        return loss * float("nan") if next(calls) == at else loss

    return objective


@pytest.mark.parametrize("whole", [True, False], ids=["a run", "a seed of one"])
def test_a_loss_that_is_no_number_stops_the_run_before_the_weights(whole: bool, tmp_path: Path):
    net = build(SMALL)
    if whole:  # what alone `tercet replay` can take a step of again
        (tmp_path / "recipe.yaml").touch()
    recorder, saved = Recorder(net, tmp_path / "recorder"), []

    def keep(state: State) -> None:
        saved.append((state.step, [p.clone() for p in net.parameters()]))

    remedy = "tercet replay .*@6" if whole else "what it read is in .*step-6.json"
    with pytest.raises(InputError, match=f"step 6: the loss is nan; .*{remedy}"):
        fit(
            net,
            causal(),
            poisoned(6),
            Recipe(1e-3, steps=50),
            Optimizer(net),
            on_stop=keep,
            recorder=recorder,
        )
    ((step, weights),) = saved
    assert step == 6
    assert all(torch.equal(a, b) for a, b in zip(weights, net.parameters()))
    record = json.loads((tmp_path / "recorder" / "step-6.json").read_text())
    assert record["trouble"] == "the loss is nan" and len(record["steps"]) == 7
    assert len(record["steps"][-1]["samples"][0]) == 8  # the keys of the step's rows
    assert record["steps"][0]["norms"]["tokens.weight"] > 0


def test_a_recipe_may_skip_such_a_step_and_counts_it():
    net = build(SMALL)
    before: list[torch.Tensor] = []

    def note(state: State) -> None:
        before.append(net.tokens.weight.detach().clone())

    recipe = Recipe(1e-3, steps=9, on_trouble="skip")
    state = fit(net, causal(), poisoned(6), recipe, Optimizer(net), actions=[(1, note)])
    assert state.step == 9 and state.skipped == 1
    assert torch.equal(before[5], before[6]) and not torch.equal(before[6], before[7])


def test_a_leap_of_the_loss_is_trouble_too():
    net = build(SMALL)
    calls = iter(range(10_000))

    def objective(model, batch):
        return cross_entropy(model, batch) * (3.0 if next(calls) == 120 else 1.0)

    with pytest.raises(InputError, match=r"step 120: the loss leapt to \d+.*standard deviations"):
        fit(net, causal(), objective, Recipe(1e-3, steps=200), Optimizer(net))


def test_a_gradient_is_shortened_to_the_recipes_length():
    net = build(SMALL.replace(dropout=0.0))
    (batch,) = causal()(0)
    (cross_entropy(net, batch)[0] / batch.n_targets).backward()
    wanted = torch.cat([p.grad.flatten() for p in net.parameters()])
    norm = Recorder(net).clip(0.01)
    assert norm == pytest.approx(float(wanted.norm()), rel=1e-5)
    shortened = torch.cat([p.grad.flatten() for p in net.parameters()])
    torch.testing.assert_close(shortened, wanted * 0.01 / norm)


def test_two_terms_are_divided_each_by_its_own_targets():
    config = SMALL.replace(
        decoder_layers=0,
        encoder_layers=1,
        dropout=0.0,
        token_types=2,
        heads=("masked", "pooler", "next_sentence"),
    )
    texts = [torch.randint(6, 50, (n,)).tolist() for n in (30, 25, 40, 35)]
    draw = SentencePairs(Tokens.of(texts, None), 16, 64)
    masking = Masking(5, 50, cls_id=3, sep_id=4)
    found = []
    for micro in (None, 20):
        net = build(config)
        data = Stream(draw, Masked(masking, next_sentence=True), micro)
        fit(
            net,
            data,
            NextSentence(),
            Recipe(1e-3, steps=1),
            Optimizer(net),
            actions=[(1, lambda state: found.append(state.last))],
        )
    assert found[0]["loss"] == pytest.approx(found[0]["loss_0"] + found[0]["loss_1"])
    assert found[1]["loss_1"] == pytest.approx(found[0]["loss_1"], rel=1e-4)
    assert 0.3 < found[0]["loss_1"] < 1.5  # about ln 2: two answers


# checkpoints -------------------------------------------------------------------------------------


def kept(folder: Path, net, keep: int = 1) -> Checkpoints:
    return Checkpoints(folder, net, Optimizer(net), keep=keep)


def test_the_last_checkpoints_and_the_best_are_kept(tmp_path: Path):
    folder = kept(tmp_path, build(SMALL), keep=2)
    for step in (1, 2, 3, 4, 5):
        folder.save(State(step=step, best_step=2 if step > 1 else None))
    assert folder.steps() == [2, 4, 5]
    state = folder.load()
    assert state is not None and state.step == 5
    folder.save(State(step=3, best_step=2))  # taken up again before 4
    assert folder.steps() == [2, 3]


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path):
    kept(tmp_path, build(SMALL)).save(State(step=1))
    other = build(SMALL.replace(decoder_layers=1))
    with pytest.raises(InputError, match="belongs to another model"):
        kept(tmp_path, other).load()
    assert kept(tmp_path / "nothing", other).load() is None


def test_a_checkpoint_of_another_shape_names_both(tmp_path: Path):
    kept(tmp_path, build(SMALL)).save(State(step=1))
    wide = build(SMALL.replace(vocab_size=60))
    with pytest.raises(InputError, match=r"tokens.weight has shape \(50, 16\).*has \(60, 16\)"):
        kept(tmp_path, wide).load()


def test_no_room_for_a_checkpoint_leaves_the_one_before(tmp_path: Path):
    folder = kept(tmp_path, build(SMALL))
    folder.save(State(step=1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(InputError, match="of step 2 failed: .*step-2: .*step-1 is whole"):
            folder.save(State(step=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    state = folder.load()
    assert state is not None and state.step == 1
    folder.save(State(step=3))
    assert {path.name for path in tmp_path.iterdir()} == {"latest", "step-3"}


@pytest.mark.parametrize(
    "settings, said",
    [
        ({}, "give one of the two"),
        ({"steps": 0}, "steps 0"),
        ({"steps": 5, "clip": -1}, "clip -1"),
        ({"steps": 5, "on_trouble": "hide"}, "'hide' is unknown; use stop or skip"),
    ],
)
def test_recipes_that_cannot_be(settings: dict, said: str):
    with pytest.raises(InputError, match=said):
        Recipe(1e-3, **settings)


def test_a_step_without_targets_is_refused():
    net = build(SMALL.replace(encoder_layers=2, decoder_layers=0, heads=("masked",)))
    data = Stream(rows(), Masked(Masking(1, 50, protected=tuple(range(2, 50)))))
    with pytest.raises(InputError, match="step 0 has no targets.*set on_trouble to skip"):
        fit(net, data, cross_entropy, Recipe(1e-3, steps=2), Optimizer(net))


def test_a_recipe_may_skip_a_step_without_targets():
    net = build(SMALL.replace(encoder_layers=2, decoder_layers=0, heads=("masked",)))
    some = Stream(rows(), Masked(Masking(1, 50)))
    none = Stream(rows(), Masked(Masking(1, 50, protected=tuple(range(2, 50)))))
    recipe = Recipe(1e-3, steps=4, on_trouble="skip")

    def data(step: int):
        return (none if step == 1 else some)(step)

    state = fit(net, data, cross_entropy, recipe, Optimizer(net))
    assert (state.step, state.skipped, len(state.recent)) == (4, 1, 3)


def test_a_second_interrupt_ends_at_once():
    net, saved = build(SMALL), []

    def interrupted(state: State) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(
            net,
            causal(),
            cross_entropy,
            Recipe(1e-3, steps=9),
            Optimizer(net),
            actions=[(1, interrupted)],
            on_stop=saved.append,
        )
    assert not saved


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_decay_pulls_at_matrices_alone_and_muon_turns_those_inside_blocks(kind: str):
    net = build(SMALL.replace(positions="learned"))
    optimizer = Optimizer(net, kind=kind, weight_decay=0.5)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step(0.1)
    for name, p in net.named_parameters():
        pulled = before[name] * (0.95 if p.ndim > 1 else 1.0)
        torch.testing.assert_close(p.detach(), pulled, msg=name)
    turned = {name.rpartition("/")[0] for name in optimizer.tensors() if "momentum" in name}
    inside = {n for n, p in net.named_parameters() if ".blocks." in n and p.ndim == 2}
    assert turned == (inside if kind == "muon" else set())
