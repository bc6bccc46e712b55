"""New faces for the frames of one chunk, in three steps: cut out, draw, lay in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from .face_work import FaceWork, as_arrays, as_pictures
from .memory import wait_for
from .stages import Stopwatch

if TYPE_CHECKING:
    from .face_track import FaceTrack
    from .generator import FaceGenerator
    from .identity import FaceEmbedding
    from .references import References


@dataclass(frozen=True)
class ChunkReferences:
    """The clip's references with the numbers [n] of a chunk's frames in the source and of their shots."""

    references: References
    frames: NDArray[np.integer]
    shots: NDArray[np.integer]

    def choose(self, crops: torch.Tensor, there: NDArray[np.integer]) -> torch.Tensor:
        """References for the crops uint8 [m, 3, S, S] of the chunk's frames `there`; the same on the CPU."""
        return as_pictures(self.references.choose(as_arrays(crops), self.frames[there], self.shots[there]))


class ChunkSwap:
    """A chunk on its way; each step needs the one before, and may be another thread's.

    Args:
        frames: uint8 [n, H, W, 3] RGB; written to where they are nobody else's.
        track: the same n frames.
        windows: float32 [n, 1, 80, 16].
        generator: a loaded generator.
        watch: is told how long each stage was busy.
    """

    def __init__(
        self,
        frames: NDArray[np.uint8],
        track: FaceTrack,
        windows: torch.Tensor,
        generator: FaceGenerator,
        watch: Stopwatch | None = None,
    ) -> None:
        self._frames, self._generator, self._watch = frames, generator, watch or Stopwatch()
        self._work = FaceWork(frames, track, generator.device)
        self._heard = windows[torch.from_numpy(self._work.there)]
        self._cut: tuple[torch.Tensor, torch.Tensor | None] | None = None
        self._drawn: torch.Tensor | None = None

    def cut(self, references: ChunkReferences | None = None) -> None:
        """Cut the faces out.

        Args:
            references: chooses among other crops; None = each crop is its own reference.
        """
        if not len(self._work.there):
            return
        with self._watch("warp"):
            crops = self._work.crops(self._generator.px)
            shown = None if references is None else references.choose(crops, self._work.there)
            wait_for(crops.device)  # so that each stage's time is its own
        self._cut = crops, shown

    def draw(self, embedding: FaceEmbedding | None, alive: Callable[[], None] = lambda: None) -> None:
        """Draw new faces; does nothing where that is done already.

        Args:
            embedding: source identity, None = the target's own.
            alive: called after every batch; may raise to interrupt.
        """
        if self._cut is None:
            return
        (crops, shown), self._cut = self._cut, None
        with self._watch("net"):
            self._drawn = self._generator.generate(
                crops, self._heard, embedding, shown, progress=lambda *_: alive(), to=self._work.device
            )
            wait_for(self._drawn.device)

    def paste(self, feather: float, colour_match: str) -> NDArray[np.uint8]:
        """The frames with new faces, uint8 [n, H, W, 3]; those without the face are as they were.

        Pastes what is drawn and not yet pasted, so that it may be called early and again.

        Args:
            feather: see `SwapOptions`.
            colour_match: see there.
        """
        if self._drawn is not None:
            with self._watch("paste"):
                self._frames = self._work.pasted(self._drawn, feather, colour_match)
            self._drawn = None
        return self._frames
