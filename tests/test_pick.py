"""Rows of streams and of tied tables: the gradients are those of plain indexing."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from tercet.model.pick import Table, pick
from tercet.train.output_loss import cross_entropy

IDS = torch.tensor([1, 3, 3, 7, 49, 0])


def table() -> Table:
    torch.manual_seed(0)
    found = Table(50, 8)
    found.shared = True
    return found


def loss(weight: Tensor, read: Tensor, chunked: bool) -> Tensor:
    states = read.tanh()
    if chunked:
        return cross_entropy(states, weight, None, IDS)
    return F.cross_entropy(F.linear(states, weight), IDS, reduction="sum")


def test_a_tied_table_gets_the_gradients_of_both_sides():
    ours, plain = table(), table().weight
    for _ in range(2):  # the second adds to what is there
        loss(ours.weight, ours(IDS) + ours(IDS.flip(0)), chunked=True).backward()
        loss(plain, plain[IDS] + plain[IDS.flip(0)], chunked=False).backward()
    torch.testing.assert_close(ours.weight.grad, plain.grad)
    assert not ours.weight.grad.is_sparse


def test_steps_with_and_without_the_output_layer_may_follow_each_other():
    ours, plain = table(), table().weight
    for with_output in (True, False, True, False, False, True):
        ours.weight.grad = plain.grad = None
        if with_output:
            loss(ours.weight, ours(IDS), chunked=True).backward()
            loss(plain, plain[IDS], chunked=False).backward()
        else:
            ours(IDS).tanh().sum().backward()
            plain[IDS].tanh().sum().backward()
        torch.testing.assert_close(ours.weight.grad, plain.grad)


def test_only_some_gradients_may_be_asked_for_and_a_copy_is_its_own():
    ours = table()
    read = ours(IDS)
    torch.autograd.grad(loss(ours.weight, read, chunked=True), read)  # the table's is not taken
    ours(IDS).sum().backward()
    assert ours.weight.grad.sum() == 8 * len(IDS)
    (taken,) = torch.autograd.grad(loss(ours.weight, ours(IDS), chunked=True), ours.weight)
    plain = table().weight
    (expected,) = torch.autograd.grad(loss(plain, plain[IDS], chunked=False), plain)
    torch.testing.assert_close(taken, expected)
    other = copy.deepcopy(ours)
    other.weight.grad = None
    loss(other.weight, other(IDS), chunked=True).backward()
    torch.testing.assert_close(other.weight.grad, expected)


def test_picked_rows_give_their_gradient_back():
    x = torch.randn(9, 4, requires_grad=True)
    rows = torch.tensor([8, 0, 5])
    weights = torch.randn(3, 4)
    (ours,) = torch.autograd.grad((pick(x, rows) * weights).sum(), x)
    (plain,) = torch.autograd.grad((x[rows] * weights).sum(), x)
    assert torch.equal(ours, plain)
