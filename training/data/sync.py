"""Does the sound belong to the picture, and how many frames is it off: asked of a sync expert.

Without an expert the stage leaves both unknown, and packing asks `listening` where lips were read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.checkpoints import load_into, load_weights
from models.networks.syncnet import FRAMES, SyncNetExpert, frames_to_expert

from ..batches import sample
from .items import Item, Settings
from .pictures import Strip
from .sound import TrackSound, sound_from
from .tracking import strip_of
from .work import Work

LAGS = 15  # frames to each side
WINDOWS = 48  # of a track, evenly spaced
PX = 96
FARTHEST = 10  # frames; what is farther off was found at the edge of what was looked at
PEAK = 3  # frames to each side of the best lag that belong to it
UNKNOWN = {"offset": None, "confidence": None, "by": None}
LEAST_CONTRAST = 3.0  # standard deviations of the other lags by which the best one must stand out


def too_far(offset: int) -> str:
    """Why a track with this offset is dropped."""
    return f"far off: the sound is moved by {offset:+d} frames, up to {FARTHEST} are corrected"


def load_expert(path: Path) -> SyncNetExpert:
    """An expert exported by `python -m training export`.

    Raises:
        ValueError: the file holds something else.
    """
    state, metadata = load_weights(path)
    if metadata.get("network") != "syncnet_expert":
        raise ValueError(
            f"{path.name} holds no sync expert but {metadata.get('network', 'something unnamed')}. Export one with: "
            "python -m training export RUN/syncnet.pt FILE.safetensors"
        )
    expert = SyncNetExpert(**metadata["config"])
    load_into(expert, {key: value.float() for key, value in state.items()}, path.name)
    return expert.eval()


def sync(item: Item, work: Work, settings: Settings) -> dict:
    """Offset and confidence of every track; sound far off or without relation to the lips drops the track."""
    tracks = work.result("track")["tracks"]
    if settings.sync is None:
        return {"tracks": {track["name"]: UNKNOWN for track in tracks}, "drops": {}}
    expert = load_expert(settings.sync)
    result: dict[str, dict] = {"tracks": {}, "drops": {}}
    for track in tracks:
        name = track["name"]
        part = sound_from(work.arrays(f"{name}.npz"), track["first"], track["frames"])
        offset, contrast = best_lag(lag_curve(expert, strip_of(work, name), part))
        result["tracks"][name] = {"offset": offset, "confidence": round(contrast, 3), "by": "expert"}
        if contrast < LEAST_CONTRAST:
            result["drops"][name] = f"no sync: the best lag stands out by {contrast:.1f}, {LEAST_CONTRAST:g} are needed"
        elif abs(offset) > FARTHEST:
            result["drops"][name] = too_far(offset)
    return result


@torch.inference_mode()
def lag_curve(expert: SyncNetExpert, strip: Strip, sound: TrackSound) -> NDArray[np.float64]:
    """Mean cosine of the lips and the sound moved by -15 to 15 frames, [31]."""
    first = np.unique(np.linspace(0, len(strip) - FRAMES, WINDOWS).astype(int))
    pictures = strip.read((first[:, None] + np.arange(FRAMES)).ravel())
    crops = sample(pictures, np.tile(np.eye(3), (len(pictures), 1, 1)), PX)
    face = expert.embed_face(frames_to_expert(crops.view(len(first), FRAMES, 3, PX, PX)))
    places = first[:, None] + np.arange(2 * LAGS + 1)
    asked, where = np.unique(places, return_inverse=True)  # windows of neighbouring places overlap
    windows = torch.from_numpy(sound.windows_around(LAGS)[asked])[:, None]
    heard = torch.cat([expert.embed_audio(part) for part in windows.split(256)])
    cosines = heard[torch.from_numpy(where.reshape(places.shape))] @ face[:, :, None]
    return cosines.mean((0, 2)).double().numpy()


def best_lag(curve: NDArray[np.float64]) -> tuple[int, float]:
    """The lag of the peak, and by how many standard deviations it stands above the lags away from it.

    A positive lag means that the sound comes late.
    """
    best = int(curve.argmax())
    others = np.delete(curve, np.arange(max(0, best - PEAK), min(len(curve), best + PEAK + 1)))
    return best - LAGS, float((curve[best] - others.mean()) / (others.std() + 1e-9))
