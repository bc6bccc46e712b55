"""What is known of a track's frames beside the pictures: sound, speech, pose, and what the lips do."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from models.references import pose_thumbnail
from models.speech import speech_activity

from ..batches import sample
from ..clips import FPS
from ..lip_reader import SIDE, LipReader, load_reader
from .footage import samples_of
from .items import Item, Settings
from .listening import hear, load_tower
from .pictures import Strip
from .sound import REACH, cut_samples, track_sound
from .tracking import strip_of
from .work import Work

CHUNK = 64  # pictures held at a time


def features(item: Item, work: Work, settings: Settings) -> dict:
    """Sound, mel, share of silence, pose thumbnails and, with a lip reader, mouth numbers of every track."""
    samples = samples_of(work)
    sound = torch.from_numpy(samples.astype(np.float32) / 32767)
    activity = speech_activity(sound).numpy()
    reader = load_reader(settings.reader) if settings.reader else None
    tower = load_tower() if settings.listens else None
    silence = {}
    for track in work.result("track")["tracks"]:
        name, strip = track["name"], strip_of(work, track["name"])
        part = track_sound(sound, track["first"], track["frames"])
        speaking = frame_activity(activity, track["first"], track["frames"])
        lips = {} if reader is None else {"lips": read_lips(reader, strip)}
        around = cut_samples(samples, track["first"] - REACH, track["frames"] + 2 * REACH)
        work.save_arrays(f"{name}.npz", **part.arrays(), samples=around, poses=poses_of(strip), **lips)
        if tower is not None:
            work.save_arrays(f"{name}.heard.npz", heard=hear(tower, part))
        silence[name] = round(float((speaking < 0.5).mean()), 4)
    return {"silence": silence}


def frame_activity(activity: NDArray[np.float32], first: int, frames: int) -> NDArray[np.float32]:
    """Speech activity of mel columns -> of frames, float32 [frames]: the column at each frame's middle."""
    middle = (2 * (first + np.arange(frames)) + 1) * 40 // int(FPS)
    return activity[middle.clip(0, len(activity) - 1)]


def poses_of(strip: Strip) -> NDArray[np.float32]:
    """Pose thumbnails of all pictures, float32 [N, 72]."""
    return np.stack([pose_thumbnail(crop) for crops in strip.chunks(CHUNK) for crop in crops])


@torch.inference_mode()
def read_lips(reader: LipReader, strip: Strip) -> NDArray[np.float32]:
    """Mouth numbers of all pictures, in units of their spread where the reader was trained, float32 [N, 14]."""
    read = [reader(sample(crops, np.tile(np.eye(3), (len(crops), 1, 1)), SIDE)) for crops in strip.chunks(CHUNK)]
    return torch.cat(read).numpy()
