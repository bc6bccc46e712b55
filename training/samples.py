"""People who are held out of the training: one number of how well they are drawn, pictures, a video with its sound."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.frames import to_rgb_uint8
from models.mouth import mouth_weights
from models.networks.wavsyncswap import mask_lower_half
from models.references import references_within
from models.video import read_audio
from models.video_writer import VideoWriter

from .batches import Batch, Batches, SourceBank, sample
from .clips import FPS, Clip, ClipSet
from .data.reader import read_wav
from .sources import Embedder, clip_vectors

MOST_CLIPS, MOST_FRAMES = 8, 75  # 3 s of each: enough to see, and little to hold
OWN, SWAPPED = 24, 8  # rows of the fixed batch
SHOWN = 4  # rows of each kind in the picture
VECTORS = 4  # identity vectors of a clip

Seen = Callable[[Tensor], Tensor]


class HeldOut:
    """The first seconds of a few val clips, the same ones whenever they are looked at.

    Args:
        data: prepared clips.
        folder: data folder; the video's sound is in its shards, or is CLIP.wav in one of its folders, or is absent.
        recogniser: the generator's.
        px: side of the crops.
        seen: what the network may see of targets.

    Raises:
        ValueError: `data` has no val clip.
    """

    def __init__(
        self, data: ClipSet, folder: Path, recogniser: Embedder, px: int, seen: Seen = mask_lower_half
    ) -> None:
        clips = data.of("val")
        if not clips:
            raise ValueError("Nobody is held out: the data has no clip of the split val.")
        self.data = excerpt(data, clips[:: -(-len(clips) // MOST_CLIPS)])
        self.sound = find_sound(folder, self.data.clips[0])
        self.px, self.seen = px, seen
        vectors, labels, rows = [], [], []
        for clip in self.data.clips:
            vectors.append(clip_vectors(self.data, clip, recogniser, VECTORS))
            labels += [clip.identity] * VECTORS
            rows += (clip.start + np.linspace(0, clip.frames - 1, VECTORS).astype(int)).tolist()
        self.bank, self.bank_rows = SourceBank(torch.cat(vectors), labels), np.array(rows)
        others = SWAPPED if len(set(labels)) > 1 else 0
        self.batch: Batch = Batches(self.data, self.data.clips, self.bank, px, 0, seen=seen)(0, OWN + others, others)

    @torch.inference_mode()
    def l1(self, net: nn.Module) -> float:
        """Mean absolute error with weights on the mouth as in the loss, of pictures with their own identity."""
        batch, weights = self.batch, mouth_weights(self.px)
        drawn = draw(net, batch.crops[:OWN], batch.mel[:OWN], batch.source[:OWN])
        return ((drawn - batch.truth[:OWN]).abs() * weights).mean().item()

    @torch.inference_mode()
    def grid(self, net: nn.Module) -> NDArray[np.uint8]:
        """Columns source, target, reference, generated, ground truth; own identity above, others below.

        Returns:
            uint8 [rows * px, 5 * px, 3] RGB.
        """
        chosen = [*range(SHOWN), *range(OWN, min(OWN + SHOWN, len(self.batch.truth)))]
        crops, mel, truth, source = (
            x[chosen] for x in (self.batch.crops, self.batch.mel, self.batch.truth, self.batch.source)
        )
        drawn = draw(net, crops, mel, source)
        rows = self.bank_rows[(source @ self.bank.vectors.T).argmax(1).numpy()]
        columns = (self._plain(rows), crops[:, :3], crops[:, 3:], drawn, truth)
        return to_rgb_uint8(torch.cat(columns, 3).permute(0, 2, 3, 1).flatten(0, 1))

    @torch.inference_mode()
    def video(self, net: nn.Module, path: Path) -> None:
        """Write the first clip beside what the network makes of it with another person's identity, with its sound."""
        clip = self.data.clips[0]
        rows = np.arange(clip.start, clip.start + clip.frames)
        truth = self._plain(rows)
        levels = to_rgb_uint8(truth.permute(0, 2, 3, 1))
        chosen = references_within(levels, np.ones(clip.frames, bool), np.zeros(clip.frames, int))
        reference = torch.from_numpy(chosen).permute(0, 3, 1, 2).float() / 255
        crops = torch.cat([self.seen(truth), reference], 1)
        mel = torch.from_numpy(self.data.windows[rows])[:, None]
        people = zip(self.bank.vectors, self.bank.labels, strict=True)
        source = next((vector for vector, name in people if name != clip.identity), self.bank.vectors[0])
        with VideoWriter(path, 2 * self.px, self.px, FPS, self.sound) as writer:
            for part in torch.arange(clip.frames).split(25):
                drawn = draw(net, crops[part], mel[part], source.expand(len(part), -1))
                writer.write(to_rgb_uint8(torch.cat([truth[part], drawn], 3).permute(0, 2, 3, 1)))

    def _plain(self, rows: NDArray[np.integer]) -> Tensor:
        """Stored crops of some rows as they are, float32 [N, 3, px, px]."""
        return sample(self.data.crops[rows], np.tile(np.eye(3), (len(rows), 1, 1)), self.px)


def draw(net: nn.Module, *inputs: Tensor) -> Tensor:
    """What a network makes of CPU tensors, wherever it is; on the CPU."""
    device = next(net.parameters()).device
    return net(*(x.to(device) for x in inputs)).cpu()


def excerpt(data: ClipSet, clips: list[Clip]) -> ClipSet:
    """The beginnings of some clips as a set of their own."""
    rows: list[int] = []
    kept: list[Clip] = []
    for clip in clips:
        frames = min(clip.frames, MOST_FRAMES)
        start = kept[-1].start + kept[-1].frames if kept else 0
        kept.append(replace(clip, start=start, frames=frames))
        rows += range(clip.start, clip.start + frames)
    return ClipSet(kept, data.crops[rows], data.windows[rows], data.lips[rows])


def find_sound(folder: Path, clip: Clip) -> tuple[NDArray[np.float32], int] | None:
    """A clip's sound, samples [C, T] and their rate, out of its shard or the file beside it; None = there is none."""
    if (folder / "index.json").is_file():
        stored = read_wav(folder, clip.name)
        return None if stored is None else read_audio(io.BytesIO(stored))
    path = next(folder.glob(f"*/{clip.name}.wav"), None)
    return None if path is None else read_audio(path)
