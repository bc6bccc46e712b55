"""Clips of a made-up face in the layout of the data guide, with landmarks."""

from __future__ import annotations

import numpy as np
from scipy.io import wavfile

from models.video_writer import VideoWriter
from training.clips import BLENDSHAPES
from training.research_layout import LEFT_EYE, MOUTH_LEFT, MOUTH_RIGHT, NOSE_TIP, RIGHT_EYE

FRAMES, SIDE = 6, 64
MESH = {
    **dict.fromkeys(LEFT_EYE, (24, 26)),
    **dict.fromkeys(RIGHT_EYE, (40, 26)),
    NOSE_TIP: (32, 34),
    MOUTH_LEFT: (26, 44),
    MOUTH_RIGHT: (38, 44),
    10: (32, 12),
    152: (32, 56),
    13: (32, 43),
    14: (32, 45),
}
HEAD = "file,wav,identity,split,av_lag_left\n"


def write_data(folder, brightness: int, names: str = "ab"):
    """Grey clips of one brightness, one of each person; the last one is for validation."""
    (folder / "talking").mkdir(parents=True)
    arrays = {"index": np.array(list(MESH)), "blendshape_names": np.array(BLENDSHAPES)}
    rows = ""
    for i, name in enumerate(names):
        with VideoWriter(folder / "talking" / f"{name}.mp4", SIDE, SIDE, 25, None) as writer:
            writer.write(np.full((FRAMES, SIDE, SIDE, 3), brightness, np.uint8))
        wavfile.write(folder / "talking" / f"{name}.wav", 16000, np.zeros(640 * FRAMES, np.int16))
        arrays[f"{name}/points"] = np.tile(np.array(list(MESH.values())) * 64, (FRAMES, 1, 1)).astype(np.int16)
        arrays[f"{name}/blendshapes"] = np.zeros((FRAMES, len(BLENDSHAPES)), np.float16)
        rows += f"{name}.mp4,{name}.wav,{name},{'val' if i else 'train'},0\n"
    np.savez(folder / "landmarks.npz", **arrays)
    (folder / "talking" / "manifest.csv").write_text(HEAD + rows)
    return folder
