"""Number types, measured on real crops with the bundled network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.audio import driving_mel, load_mel, open_ended_windows
from models.face_work import as_pictures
from models.faces import load_detector
from models.generator import load_generator
from models.geometry import warp_crops
from models.identity import FaceEmbedding
from models.precision import BOUND, set_precision
from models.tracks import track_faces
from models.video import VideoFile

CLIPS = ("reagan_01", "purple_woman_01", "grid_e_01")  # nobody of them was trained on
FRAMES = 24


@pytest.mark.parametrize("own", [True, False], ids=["own face", "another face"])
@pytest.mark.parametrize("clip", CLIPS)
def test_bfloat16_draws_real_crops_to_within_a_grey_level(shared_data, clip, own):
    with VideoFile(shared_data / "talking" / f"{clip}.mp4") as video:
        frames, sound = video.read(0, FRAMES), video.audio()
        track = track_faces(iter([frames]), load_detector(), video.info.fps)
        windows = open_ended_windows(driving_mel(load_mel(*sound)), FRAMES, video.info.fps, -1)
    crops = as_pictures(warp_crops(frames, track.matrices, 96))
    generator = load_generator(precision="fp32")
    vector = np.random.default_rng(0).standard_normal(512).astype(np.float32)
    face = None if own else FaceEmbedding(vector / np.linalg.norm(vector), generator.recogniser, 1.0, 1)
    exact = generator.generate(crops, windows, face)
    set_precision(generator.network, torch.bfloat16)
    rough = generator.generate(crops, windows, face)
    difference = float((rough - exact).abs().mean())
    print(f"{clip}: {255 * difference:.3f} grey levels")
    assert 0 < difference < BOUND
