"""The output layer and its loss in chunks, beside the plain computation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tercet.kernels import softmax
from tercet.train.output_loss import cross_entropy


def inputs(n: int, V: int, D: int, dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    draw = torch.Generator().manual_seed(n + V)
    shapes = (n, D), (V, D), (V,)
    tensors = [torch.randn(s, generator=draw, dtype=torch.float64).to(dtype) for s in shapes]
    targets = torch.randint(V, (n,), generator=draw)
    return [x.requires_grad_() for x in tensors], targets


def plain(tensors: list[Tensor], targets: Tensor, smoothing: float) -> Tensor:
    logits = F.linear(*tensors)
    return F.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)


def gradients(loss: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss * 0.37, tensors))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 7, 64, None])
def test_in_float64_it_is_the_plain_loss_and_its_gradients(smoothing: float, chunk: int | None):
    tensors, targets = inputs(33, 101, 12, torch.float64)
    loss = cross_entropy(*tensors, targets, smoothing=smoothing, chunk=chunk)
    other = plain(tensors, targets, smoothing)
    torch.testing.assert_close(loss, other, rtol=1e-12, atol=0)
    for a, b in zip(gradients(loss, tensors), gradients(other, tensors)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("V", [5, 64, 1003, 9000])
def test_in_float32_it_is_as_exact_as_float32(V: int, kernels: bool, monkeypatch):
    if not kernels:
        monkeypatch.setattr(softmax, "library", lambda name: None)
    tensors, targets = inputs(90, V, 32, torch.float32)
    exact = [x.detach().double().requires_grad_() for x in tensors]
    loss = cross_entropy(*tensors, targets, smoothing=0.1, chunk=40)
    other = plain(exact, targets, 0.1)
    torch.testing.assert_close(loss.double(), other, rtol=1e-6, atol=0)
    for a, b in zip(gradients(loss, tensors), gradients(other, exact)):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=2e-6 * float(b.abs().max()))


@pytest.mark.parametrize("kernels", [True, False])
def test_under_autocast_products_are_bfloat16_and_gradients_float32(kernels: bool, monkeypatch):
    if not kernels:
        monkeypatch.setattr(softmax, "library", lambda name: None)
    tensors, targets = inputs(70, 1003, 32, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(*tensors, targets, chunk=32)
    other = plain(tensors, targets, 0.0)
    torch.testing.assert_close(loss, other, rtol=3e-3, atol=0)
    for a, b in zip(gradients(loss, tensors), gradients(other, tensors)):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.02 * b.norm()


def test_logits_far_from_zero_stay_finite_and_a_nan_is_not_hidden():
    tensors, targets = inputs(64, 50, 8, torch.float32)
    with torch.no_grad():
        tensors[0].mul_(1e4)
    loss = cross_entropy(*tensors, targets)
    torch.testing.assert_close(loss, plain(tensors, targets, 0.0), rtol=1e-5, atol=0)
    assert all(x.isfinite().all() for x in gradients(loss, tensors))
    with torch.no_grad():
        tensors[0][3, 3] = torch.nan
    assert cross_entropy(*tensors, targets).isnan()


def test_no_gradient_is_made_where_none_is_wanted():
    tensors, targets = inputs(40, 60, 8, torch.float32)
    with torch.no_grad():
        value = cross_entropy(*tensors, targets)
    assert not value.requires_grad
    torch.testing.assert_close(value, plain(tensors, targets, 0.0).detach())
    frozen = [tensors[0], tensors[1].detach(), None]
    loss = cross_entropy(*frozen, targets)
    expected = plain(frozen, targets, 0.0)
    for a, b in zip(gradients(loss, frozen[:1]), gradients(expected, frozen[:1])):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_no_targets_are_no_loss_and_a_target_outside_is_refused():
    tensors, targets = inputs(40, 60, 8, torch.float32)
    loss = cross_entropy(tensors[0][:0], *tensors[1:], targets[:0])
    assert loss == 0 and not torch.autograd.grad(loss, tensors[1])[0].any()
    with pytest.raises(IndexError, match="outside of the vocabulary of 60"):
        cross_entropy(*tensors, targets + 40)


@pytest.mark.parametrize("chunk", [1, 7, 64, None])
def test_two_draws_of_dropout_are_compared_as_the_plain_divergence_does(chunk: int | None):
    tensors, targets = inputs(70, 101, 12, torch.float64)
    targets = targets[:35]
    loss = cross_entropy(*tensors, targets, smoothing=0.1, r_drop=3.0, chunk=chunk)
    p, q = F.linear(*tensors).log_softmax(-1).split(35)
    apart = F.kl_div(p, q, reduction="sum", log_target=True)
    apart = apart + F.kl_div(q, p, reduction="sum", log_target=True)
    other = (plain(tensors, targets.repeat(2), 0.1) + 3.0 / 2 * apart) / 2
    torch.testing.assert_close(loss, other, rtol=1e-12, atol=0)
    for a, b in zip(gradients(loss, tensors), gradients(other, tensors)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kernels", [True, False])
def test_two_draws_under_autocast(kernels: bool, monkeypatch):
    if not kernels:
        monkeypatch.setattr(softmax, "library", lambda name: None)
    tensors, targets = inputs(140, 1003, 32, torch.float32)
    exact = [x.detach().double().requires_grad_() for x in tensors]
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(*tensors, targets[:70], r_drop=2.0)
    other = cross_entropy(*exact, targets[:70], r_drop=2.0)
    torch.testing.assert_close(loss.double(), other, rtol=5e-3, atol=0)
    for a, b in zip(gradients(loss, tensors), gradients(other, exact)):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.03 * b.norm()
