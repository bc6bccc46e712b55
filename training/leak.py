"""Does the mouth follow the sound, and only that? Three numbers that a healthy generator keeps apart (spec A10, A12).

Lip-sync generators fail silently in two ways: they ignore the sound and copy the reference's mouth, or they see the
mouth they are to draw. Both look perfect in the training loss.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from models.mouth import mouth
from models.networks.wavsyncswap import mask_lower_half

from .batches import Batch

# pairs [B, 6, px, px], mel [B, 1, 80, 16], identity vectors [B, D] -> pictures [B, 3, px, px]
Network = Callable[[Tensor, Tensor, Tensor], Tensor]


@torch.no_grad()
def leaks(
    network: Network, batch: Batch, mask: Callable[[Tensor], Tensor] = mask_lower_half, seed: int = 0
) -> dict[str, float]:
    """How the generated mouth changes with what goes in.

    Args:
        network: in eval mode, so that rows do not depend on each other.
        batch: two rows or more.
        mask: what hides the lower half of the target.
        seed: of the noise that is put there.

    Returns:
        audio: mean change of the mouth, in grey levels of 255, when each row hears another row's sound. 0 = deaf.
        reference: the same when the reference's lower half is another row's, with its skin and light; large in a good
            generator too, so read it beside `audio`: if that stays near 0 while this is large, lips are copied.
        mask: share of the pictures that change at all when the target's lower half is noise before it is masked. Must
            be exactly 0.

    Raises:
        ValueError: a batch of one row has no other sound.
    """
    if len(batch.truth) < 2:
        raise ValueError("The leak check gives rows each other's sound; one row has no other. Draw a larger batch.")
    target, reference = batch.truth, batch.crops[:, 3:]
    far = len(target) // 2  # rows side by side may be frames of one window
    other, half = reference.roll(far, 0), target.shape[-2] // 2
    noise = torch.rand(target.shape, generator=torch.Generator().manual_seed(seed)).to(target)
    noisy, mixed = target.clone(), reference.clone()
    noisy[..., half:, :], mixed[..., half:, :] = noise[..., half:, :], other[..., half:, :]

    def drawn(target: Tensor, reference: Tensor, mel: Tensor) -> Tensor:
        return network(torch.cat([mask(target), reference], 1), mel, batch.given).float()

    as_it_is = drawn(target, reference, batch.mel)

    def mouth_change(pictures: Tensor) -> float:
        return 255 * (mouth(pictures) - mouth(as_it_is)).abs().mean().item()

    return {
        "audio": mouth_change(drawn(target, reference, batch.mel.roll(far, 0))),
        "reference": mouth_change(drawn(target, mixed, batch.mel)),
        "mask": (drawn(noisy, reference, batch.mel) != as_it_is).flatten(1).any(1).float().mean().item(),
    }
