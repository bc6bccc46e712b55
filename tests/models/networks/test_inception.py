"""FID's Inception: the public key layout, golden values, and where it differs from torchvision's network."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from models.networks import build


def test_keys_and_shapes_are_torchvisions():
    inception_v3 = pytest.importorskip("torchvision.models").inception_v3
    with torch.device("meta"):
        public = inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False).state_dict()
        own = build("fid_inception").state_dict()
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in public.items()}


def test_golden_values(golden):
    """The numbers of pytorch-fid 0.3.0 with the same weights, from which this network differs by nothing at all."""
    network = golden.fill(build("fid_inception"))
    pictures = functional.interpolate(
        golden.uniform(14, 2, 3, 96, 96), (299, 299), mode="bilinear", align_corners=False
    )
    with torch.no_grad():
        features = network(2 * pictures - 1)
    assert features.shape == (2, 2048)
    golden.check(features, 0.123731, 0.165718, (0.0, 0.033297, 0.089356, 0.168415))


def test_wrong_input():
    network = build("fid_inception")
    with pytest.raises(ValueError, match=r"\[B,3,299,299\], got \[1, 1, 299, 299\]"):
        network(torch.zeros(1, 1, 299, 299))
