"""The loop: gradients do not depend on the cut, a resumed run is the run, Ctrl-C loses nothing."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest
import torch

from tercet.config import TransformerConfig
from tercet.data import CausalText, MaskedText, Masking, Pairs, Rows
from tercet.errors import InputError
from tercet.model import build
from tercet.train import Optimizer, Recipe, State, cross_entropy, fit, load_latest, save_step

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


def causal(micro_batch: int = 8) -> CausalText:
    return CausalText(Rows(TEXT, 16, 8, micro_batch))


def families(micro_batch: int):
    """Family -> network and data, dropout off."""
    plain = SMALL.replace(dropout=0.0)
    draw = torch.Generator().manual_seed(1)
    ragged = [
        (
            torch.randint(2, 50, (3 + i % 7,), generator=draw).tolist(),
            torch.randint(2, 50, (1 + i % 5,), generator=draw).tolist(),
        )
        for i in range(8)
    ]
    masked = MaskedText(Rows(TEXT, 16, 8, micro_batch), Masking(1, 50))
    return {
        "decoder": (build(plain), causal(micro_batch)),
        "encoder": (
            build(plain.replace(encoder_layers=2, decoder_layers=0, heads=("masked",))),
            masked,
        ),
        "encoder-decoder": (
            build(plain.replace(encoder_layers=1)),
            Pairs(ragged, 0, 1, 8, micro_batch),
        ),
    }


@pytest.mark.parametrize("family", ["decoder", "encoder", "encoder-decoder"])
def test_gradients_do_not_depend_on_how_a_step_is_cut(family: str):
    found = []
    for micro_batch in (8, 3, 1):
        net, data = families(micro_batch)[family]
        net.double()
        batches = data(2)
        targets = sum(batch.n_targets for batch in batches)
        for batch in batches:
            (cross_entropy(net, batch) / targets).backward()
        found.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(kind: str, tmp_path: Path):
    recipe = Recipe(1e-2, steps=8, warmup=2)
    whole = build(SMALL)
    full = fit(whole, causal(3), cross_entropy, recipe, Optimizer(whole, kind=kind))

    first = build(SMALL)
    optimizer = Optimizer(first, kind=kind)

    def stop(state: State) -> None:
        if state.step == 5:
            save_step(tmp_path, first, optimizer, state)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(first, causal(3), cross_entropy, recipe, optimizer, actions=[(1, stop)])

    second = build(SMALL, seed=9)
    optimizer = Optimizer(second, kind=kind)
    state = load_latest(tmp_path, second, optimizer)
    assert state is not None and state.step == 5
    end = fit(second, causal(3), cross_entropy, recipe, optimizer, state=state)
    assert end.losses == full.losses
    for (name, a), b in zip(whole.named_parameters(), second.parameters()):
        assert torch.equal(a, b), name


def test_the_first_interrupt_ends_the_step_and_runs_the_actions(tmp_path: Path):
    net = build(SMALL)
    optimizer = Optimizer(net)
    seen = []

    def press(state: State) -> None:
        if state.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    actions = [(1, press), (1000, lambda state: seen.append(state.step))]
    with pytest.raises(KeyboardInterrupt):
        fit(net, causal(), cross_entropy, Recipe(1e-3, steps=50), optimizer, actions=actions)
    assert seen == [3] or seen == [4]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_budget_fixes_the_steps_and_corrects_them_three_times_at_most():
    net = build(SMALL)
    planned = []
    state = fit(
        net,
        causal(),
        cross_entropy,
        Recipe(1e-3, seconds=0.4),
        Optimizer(net),
        actions=[(1, lambda state: planned.append(state.steps))],
    )
    counts = [steps for steps in planned if steps is not None]
    assert state.done and 1 <= len(set(counts)) <= 4
    assert planned[0] is None and state.step == counts[-1]


def test_training_learns_and_the_rate_ends_near_zero():
    net = build(SMALL.replace(dropout=0.0))
    pattern = torch.arange(2, 18).repeat(100)
    data = CausalText(Rows(pattern, 16, 8, 8))
    recipe = Recipe(1e-2, steps=60, warmup=5)
    state = fit(net, data, cross_entropy, recipe, Optimizer(net, kind="muon"))
    assert state.losses[-1] < 0.6 < 2.0 < state.losses[0]
    assert recipe.rate(0, 60) == pytest.approx(2e-3)
    assert 0 < recipe.rate(59, 60) < 4e-4


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path):
    net = build(SMALL)
    save_step(tmp_path, net, Optimizer(net), State(step=1))
    other = build(SMALL.replace(decoder_layers=1))
    with pytest.raises(InputError, match="belongs to another model"):
        load_latest(tmp_path, other, Optimizer(other))
    assert load_latest(tmp_path / "nothing", other, Optimizer(other)) is None


def test_steps_and_seconds_exclude_each_other():
    with pytest.raises(InputError, match="give one of the two"):
        Recipe(1e-3)


def test_a_checkpoint_of_another_shape_names_both(tmp_path: Path):
    net = build(SMALL)
    save_step(tmp_path, net, Optimizer(net), State(step=1))
    wide = build(SMALL.replace(vocab_size=60))
    with pytest.raises(InputError, match=r"tokens.weight has shape \(50, 16\).*has \(60, 16\)"):
        load_latest(tmp_path, wide, Optimizer(wide))


def test_no_room_for_a_checkpoint_leaves_the_one_before(tmp_path: Path):
    net = build(SMALL)
    save_step(tmp_path, net, Optimizer(net), State(step=1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(InputError, match="step-2: cannot be written"):
            save_step(tmp_path, net, Optimizer(net), State(step=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    state = load_latest(tmp_path, net, Optimizer(net))
    assert state is not None and state.step == 1
    save_step(tmp_path, net, Optimizer(net), State(step=3))
    assert {path.name for path in tmp_path.iterdir()} == {"latest", "step-3"}
