"""What `gallery` draws with and measures by: the networks, the demo's two people and its sentence."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from models.audio import MEL_SILENCE, N_MELS, WINDOW_COLUMNS
from models.chunk_swap import ChunkSwap
from models.face_track import FaceTrack
from models.face_work import as_pictures
from models.faces import largest_face, load_detector
from models.generator import load_generator
from models.geometry import warp_crops
from models.identity import FaceEmbedding, load_recogniser
from models.mouth import mouth
from models.pipeline import SwapOptions
from models.sound import DrivingMel, seconds_of
from models.tracks import track_faces

from .clips import FPS, OPENING
from .demo import SPEECH, astronaut, hopper
from .infer import open_sound
from .lip_reader import load_reader, reader_path

Picture = NDArray[np.uint8]


class Studio:
    """See the module.

    Args:
        weights: "builtin" or the path of a generator's file.

    Raises:
        ValueError: the file is missing, damaged, or no generator.
        ImportError: a portrait's package is not installed.
    """

    def __init__(self, weights: str) -> None:
        self.generator = load_generator(weights, "cpu", "fp32")
        self.detector, self.recogniser = load_detector("builtin"), load_recogniser("builtin")
        self.portraits = {"Collins": astronaut(), "Hopper": hopper()}
        self.faces = {name: largest_face(picture, self.detector) for name, picture in self.portraits.items()}
        self.people = {n: self.recogniser.embed_image(p, self.detector) for n, p in self.portraits.items()}
        sound = open_sound(SPEECH)
        count = round(seconds_of(sound) * FPS)
        self.speech = DrivingMel(sound, SwapOptions().speech_gate).windows(count, FPS, self.generator.mel_lag)
        self.loudness = self.speech.mean((1, 2, 3)).numpy()
        self.loudest = self.speech[[int(self.loudness.argmax())]]
        self.silence = torch.full((1, 1, N_MELS, WINDOW_COLUMNS), MEL_SILENCE)

    def draw(self, still: Picture, windows: torch.Tensor, who: FaceEmbedding | None) -> tuple[Picture, FaceTrack]:
        """A still that says something, as the whole job makes it.

        Args:
            still: uint8 [H, W, 3].
            windows: mel windows [n, 1, 80, 16].
            who: whose face is put in; None = the face is kept.

        Returns:
            Frames uint8 [n, H, W, 3], and where the face is in them.

        Raises:
            ValueError: no face is found.
        """
        track = track_faces([still[None]], self.detector, FPS).pick(np.zeros(len(windows), int))
        frames = np.repeat(still[None], len(windows), 0)
        swap, options = ChunkSwap(frames, track, windows, self.generator), SwapOptions()
        swap.cut()
        swap.draw(who)
        return swap.paste(options.feather, options.colour_match), track

    def cosines(self, picture: Picture, source: str, target: str) -> tuple[float, float]:
        """Likeness of a picture's largest face to two people."""
        vector = self.recogniser.embed_image(picture, self.detector).vector
        return float(vector @ self.people[source].vector), float(vector @ self.people[target].vector)

    def mouth_change(self, before: Picture, after: Picture, track: FaceTrack) -> float:
        """Mean absolute difference of the mouth region in the network's crop, grey levels of 255."""
        crops = warp_crops(np.stack([before, after]), track.matrices[[0, 0]], self.generator.px)
        first, second = mouth(as_pictures(crops)).float()
        return float((first - second).abs().mean())

    def lips(self, frames: Picture, track: FaceTrack) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Opening and width of the lips in frames [n, H, W, 3], in spreads of the training frames: [n] each."""
        crops = as_pictures(warp_crops(frames, track.matrices, self.generator.px)).float() / 255
        with torch.inference_mode():
            numbers = load_reader(reader_path("builtin"))(crops).numpy()  # type: ignore[arg-type]
        return numbers[:, OPENING], numbers[:, OPENING + 1]
