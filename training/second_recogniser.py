"""A second recogniser for the identity loss and for judging: the data guide's MobileFaceNet, from its ONNX file.

One recogniser alone is easy to please with textures that only it takes for the person; two that were trained apart
agree on little else than the face.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from models.onnx_convert import OnnxNetwork

FILE = Path("weights") / "mobilefacenet_128.onnx"


class MobileFaceNet(nn.Module):
    """Aligned faces -> 128-D unit vectors, frozen, differentiable with respect to the faces."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, path: Path) -> None:
        super().__init__()
        import onnx

        self.network = OnnxNetwork(onnx.load(str(path)))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225])[:, None, None])
        # Depthwise convolutions run twice as fast in this layout on a CPU.
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def embed(self, faces: Tensor) -> Tensor:
        """Embed aligned faces, one view each.

        Args:
            faces: float [B, 3, 112, 112] RGB in [0, 1].

        Returns:
            float32 [B, 128], unit norm.
        """
        planes = ((faces - self.mean) / self.deviation).contiguous(memory_format=torch.channels_last)
        return nn.functional.normalize(self.network(planes).float(), dim=1)


def second_recogniser(data: Path) -> MobileFaceNet | None:
    """The recogniser in a data folder, or None where it has none."""
    return MobileFaceNet(data / FILE) if (data / FILE).exists() else None
