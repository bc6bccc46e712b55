from __future__ import annotations

import numpy as np
import torch

from training.shelf import Shelf


def test_pictures_held_by_a_device_are_those_of_the_file(clip_set):
    filed, held = (Shelf(clip_set.crops, torch.device("cpu")) for _ in range(2))
    held._held = torch.from_numpy(clip_set.crops)  # what a GPU would hold
    rows = np.array([5, 0, 17, 5])
    assert torch.equal(filed.rows(rows), torch.from_numpy(clip_set.crops[rows]))
    assert torch.equal(held.rows(rows), filed.rows(rows))
    groups = [np.array([3]), np.array([1, 2, 9]), np.array([4, 4, 6, 7, 8, 30])]
    means = filed.means(groups)
    assert means.dtype == torch.uint8
    assert torch.equal(means[0], torch.from_numpy(clip_set.crops[3]))
    assert (held.means(groups).int() - means.int()).abs().max() <= 1  # a half may round either way
