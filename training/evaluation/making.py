"""A system's video of a pair, in this pack's geometry or as the original programs do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from models.faces import Detector
from models.generator import FaceGenerator
from models.identity import FaceEmbedding, Recogniser, load_recogniser
from models.layouts import SIMSWAP_RECOGNISER
from models.pipeline import Sound, talking_swap
from models.upstream import simswap_identity, split, talking_swap_upstream
from models.video import VideoFile, read_audio

from ..infer import embed_faces, first_frame
from .contenders import Entry
from .pairs import Pair
from .stand_ins import stand_in


@dataclass
class Recognisers:
    """The recognisers at hand, one of which a system understands.

    Attributes:
        known: loaded.
        folder: for a stand-in of SimSwap's.
        device: where that is put.
    """

    known: list[Recogniser] = field(default_factory=list)
    folder: Path = Path()
    device: str = "cpu"

    @classmethod
    def load(cls, names: Sequence[str], folder: Path, device: str) -> Recognisers:
        """Load them by name or path; errors as `load_recogniser`."""
        return cls([load_recogniser(name, device) for name in names], folder, device)

    def of(self, system: FaceGenerator, stand_in_allowed: bool) -> Recogniser:
        """The one whose embeddings a system understands.

        Raises:
            ValueError: it is not at hand.
        """
        found = next((one for one in self.known if one.id == system.recogniser), None)
        if found is None and stand_in_allowed and system.recogniser == SIMSWAP_RECOGNISER:
            found = load_recogniser(stand_in("simswap_arcface", self.folder), self.device)
            self.known.append(found)
        if found is None:
            known = ", ".join(one.id for one in self.known)
            raise ValueError(
                f"This system understands the recogniser {system.recogniser!r}, and only {known} is at hand. Give its "
                "file with --recognisers (SimSwap's is arcface_checkpoint.tar)."
            )
        return found


@dataclass
class Maker:
    """A loaded system and what it needs.

    Attributes:
        entry: which.
        system: loaded.
        detector: finds the faces.
        recognisers: embed the source.
    """

    entry: Entry
    system: FaceGenerator
    detector: Detector
    recognisers: Recognisers

    def make(self, pair: Pair, output: Path) -> list[str]:
        """Write the video of a pair, file to file: decoding, embedding, detection and encoding are all part of it.

        Returns:
            Remarks.

        Raises:
            ValueError: the pair cannot be made; says why.
        """
        embedding = self.embed(pair)
        with VideoFile(pair.target) as video:
            sound = sound_of(pair, video)
            if not self.entry.contender.upstream:
                report = talking_swap(video, sound, embedding, output, generator=self.system, detector=self.detector)
                return list(report.remarks)
            frames = talking_swap_upstream(video, sound, embedding, output, system=self.system, detector=self.detector)
            return [f"{frames} of {video.info.frames} frames, as the original programs end a video"]

    def embed(self, pair: Pair) -> FaceEmbedding | None:
        """The source's identity, as this system takes it."""
        if not self.system.takes_identity or self.entry.contender.keep:
            return None
        recogniser = self.recognisers.of(self.system, self.entry.stand_in)
        if self.entry.contender.upstream:
            _, swap = split(self.system)
            assert swap is not None  # it takes an identity
            return simswap_identity(first_frame(pair.source), self.detector, recogniser, swap)
        return embed_faces([pair.source], recogniser, self.detector)


def sound_of(pair: Pair, target: VideoFile) -> Sound | None:
    """The sound of a pair: the target's own where it names none."""
    return target.audio() if pair.audio is None else read_audio(pair.audio)
