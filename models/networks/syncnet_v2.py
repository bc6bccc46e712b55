"""SyncNet of Chung and Zisserman 2016, whose distances are LSE-D and LSE-C (specification section 3.7, metrics 6.1)."""

from __future__ import annotations

from torch import Tensor, nn

FRAMES = 5  # frames of one window, 200 ms at 25 fps
SIDE = 224  # px
MFCC_SHAPE = (13, 20)  # coefficients x columns, 200 ms


class SyncNetV2(nn.Module):
    """A tower for sound and one for lips that meet in one 1024-D space; key layout of the public syncnet_v2.model.

    The embeddings are not normalised: distances between them are the metric.
    """

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_conv2d(1, 64, 3, 1),
            nn.MaxPool2d(1),  # does nothing; keeps the public numbering
            *_conv2d(64, 192, 3, 1),
            nn.MaxPool2d(3, (1, 2)),
            *_conv2d(192, 384, 3, 1),
            *_conv2d(384, 256, 3, 1),
            *_conv2d(256, 256, 3, 1),
            nn.MaxPool2d(3, 2),
            *_conv2d(256, 512, (5, 4), 0),
        )
        self.netcnnlip = nn.Sequential(
            *_conv3d(3, 96, (FRAMES, 7, 7), 2, 0),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3d(96, 256, (1, 5, 5), 2, 1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_conv3d(256, 256, (1, 3, 3), 1, 1),
            *_conv3d(256, 256, (1, 3, 3), 1, 1),
            *_conv3d(256, 256, (1, 3, 3), 1, 1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3d(256, 512, (1, 6, 6), 1, 0),
        )
        self.netfcaud = _head()
        self.netfclip = _head()

    def forward_aud(self, mfcc: Tensor) -> Tensor:
        """Windows of `models.mfcc` features [B,1,13,20] -> [B,1024].

        Raises:
            ValueError: the shape differs.
        """
        _check("mfcc", mfcc, (1, *MFCC_SHAPE))
        return self.netfcaud(self.netcnnaud(mfcc).flatten(1))

    def forward_lip(self, frames: Tensor) -> Tensor:
        """Windows of five face crops [B,3,5,224,224] float BGR in 0..255 -> [B,1024].

        Raises:
            ValueError: the shape differs.
        """
        _check("frames", frames, (3, FRAMES, SIDE, SIDE))
        return self.netfclip(self.netcnnlip(frames).flatten(1))

    def forward(self, mfcc: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Embed both sides of windows; shapes and errors as `forward_aud` and `forward_lip` -> (sound, lips)."""
        return self.forward_aud(mfcc), self.forward_lip(frames)


def _conv2d(inputs: int, outputs: int, kernel: int | tuple[int, int], padding: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, 1, padding), nn.BatchNorm2d(outputs), nn.ReLU()]


def _conv3d(inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int, padding: int) -> list[nn.Module]:
    """Stride and padding in space only: no layer moves in time."""
    conv = nn.Conv3d(inputs, outputs, kernel, (1, stride, stride), (0, padding, padding))
    return [conv, nn.BatchNorm3d(outputs), nn.ReLU()]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


def _check(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(value.shape[1:]) != shape:
        raise ValueError(f"SyncNet v2 expects {name} [B,{','.join(map(str, shape))}], got {list(value.shape)}.")
