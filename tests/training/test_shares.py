from __future__ import annotations

import pytest
import torch

from training.config import LossConfig
from training.shares import gradient_norms, shares, unweighted


def test_norms_are_those_of_the_gradients_and_leave_the_graph_usable():
    weight = torch.ones(2, 8, requires_grad=True)
    picture = (2 * weight).view_as(weight)
    losses = {"a": 3 * picture.sum(), "b": picture[0].square().sum(), "c": weight.sum()}
    norms = gradient_norms(losses, picture, lambda loss, **options: loss.backward(**options))
    assert norms.tolist() == pytest.approx([3 * 4, 4 * 8**0.5, 0])
    assert weight.grad is None
    sum(losses.values()).backward()
    assert weight.grad is not None
    assert weight.grad[1].tolist() == [7] * 8


def test_shares_add_up():
    assert shares(["a", "b"], torch.tensor([9.0, 1.0])) == {"a": 0.75, "b": 0.25}


def test_weights_are_taken_out_by_the_names_of_the_losses():
    config = LossConfig(l1=10, feature_matching=4, lips=0)
    found = unweighted({"l1": 5.0, "matching": 2.0, "lips": 0.0}, config)
    assert found == {"l1": 0.5, "matching": 0.5}
