"""One process here; test_processes.py has two."""

from __future__ import annotations

import torch
from torch import nn

from training.global_batch import GlobalBatchNorm, whole, with_global_statistics


def test_global_batch_norm_equals_the_plain_one():
    torch.manual_seed(0)
    plain, ours = nn.BatchNorm2d(5), GlobalBatchNorm(5)
    with torch.no_grad():
        plain.weight.uniform_(0.5, 2)
        plain.bias.uniform_(-1, 1)
    ours.load_state_dict(plain.state_dict())
    for training in (True, True, False):
        x = torch.randn(4, 5, 6, 7, requires_grad=True)
        y = x.detach().clone().requires_grad_()
        weight = torch.randn(4, 5, 6, 7)
        a, b = plain.train(training)(x), ours.train(training)(y)
        torch.testing.assert_close(a, b)
        (a * weight).sum().backward()
        (b * weight).sum().backward()
        torch.testing.assert_close(x.grad, y.grad)
        torch.testing.assert_close(plain.weight.grad, ours.weight.grad)
        torch.testing.assert_close(plain.state_dict(), ours.state_dict())


def test_statistics_stay_exact_far_from_zero_and_types_stay_as_they_are():
    x = 1000 + torch.randn(8, 2, 8, 8)
    assert GlobalBatchNorm(2)(x).std(correction=0).item() - 1 < 1e-3
    assert GlobalBatchNorm(2)(x.bfloat16()).dtype == torch.bfloat16


def test_conversion_keeps_names_parameters_and_what_is_no_2d_batch_norm():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm1d(4)))
    parameters, names = list(module.parameters()), list(module.state_dict())
    converted = with_global_statistics(module)
    assert isinstance(converted[1], GlobalBatchNorm)
    assert type(converted[2][0]) is nn.BatchNorm1d
    assert list(converted.state_dict()) == names
    assert all(a is b for a, b in zip(converted.parameters(), parameters, strict=True))


def test_one_process_holds_the_whole_batch():
    rows = torch.randn(3, 4)
    assert torch.equal(whole(rows), rows)
