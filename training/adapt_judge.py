"""`adapt --halves`: what adaptation to a clip's first half does to its second, by judges that have no part in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.adapters import merge
from models.face_work import as_pictures
from models.footage import Footage
from models.frames import FrameArray, to_rgb_uint8
from models.generator import FaceGenerator
from models.identity import FaceEmbedding, Recogniser
from models.metrics.sync import score_crops
from models.metrics.sync_model import SyncModel
from models.mouth import mouth_psnr
from models.pipeline import Sound
from models.resample import SAMPLE_RATE, to_mono_16k

from .batches import aligned_faces, arcface_matrix

SWAPPED = 10  # frames that a source is put into


@dataclass(frozen=True)
class Judges:
    """What measures beside pixels.

    Attributes:
        recogniser: tells who a swapped face is, and gave the sources' vectors.
        sync: tells how well lips and sound go together.
        sound: of the whole video; None = sync is not measured.
        sources: faces to swap in.
    """

    recogniser: Recogniser
    sync: SyncModel
    sound: Sound | None
    sources: tuple[FaceEmbedding, ...] = ()


def halves(footage: Footage) -> tuple[Footage, Footage]:
    """A clip's first and second half; the person's identity is that of the whole."""
    middle = len(footage) // 2
    return footage.part(0, middle), footage.part(middle, len(footage))


def measure(generator: FaceGenerator, clip: Footage, judges: Judges) -> dict[str, float]:
    """How a generator draws a clip.

    Args:
        generator: in inference form.
        clip: frames to draw; references come from among them.
        judges: see `Judges`.

    Returns:
        Mouth PSNR (dB), LSE-D and LSE-C with the face kept, by its own sound and by that of another part; mouth PSNR
        from the person's identity; mean cosine of swaps to their sources.
    """
    truth, shown = (as_pictures(np.ascontiguousarray(crops)) for crops in (clip.crops, clip.references()))
    exact, far = generator.fit(truth), len(clip) // 3
    result: dict[str, float] = {}
    for name, windows in (("own sound", clip.windows), ("another sound", clip.windows.roll(far, 0))):
        made = generator.generate(truth, windows, None, shown)
        result[f"PSNR, face kept, {name}"] = float(mouth_psnr(made, exact).mean())
        if judges.sound is not None and clip.speaks:
            result[f"LSE-D, {name}"], result[f"LSE-C, {name}"] = _sync(made, clip, judges)
    if clip.person is not None:
        made = generator.generate(truth, clip.windows, clip.person, shown)
        result["PSNR, own identity, own sound"] = float(mouth_psnr(made, exact).mean())
    if judges.sources:
        few = torch.linspace(0, len(clip) - 1, SWAPPED).long()
        drawn = (generator.generate(truth[few], clip.windows[few], who, shown[few]) for who in judges.sources)
        cosines = [_cosine(made, who, judges.recogniser) for made, who in zip(drawn, judges.sources, strict=True)]
        result["cosine of swaps to their sources"] = float(np.mean(cosines))
    return result


def _sync(made: Tensor, clip: Footage, judges: Judges) -> tuple[float, float]:
    """LSE-D and LSE-C of crops against the clip's own sound from their first frame on."""
    assert judges.sound is not None
    mono = to_mono_16k(*judges.sound)[int(clip.frames[0] / clip.fps * SAMPLE_RATE) :]
    video = FrameArray(to_rgb_uint8(made.permute(0, 2, 3, 1)), clip.fps)
    report = score_crops(video, (mono[None].numpy(), SAMPLE_RATE), judges.sync, valid_only=True)
    return report.distance, report.confidence


def _cosine(made: Tensor, source: FaceEmbedding, recogniser: Recogniser) -> float:
    """Mean cosine of crops [n, 3, px, px] to a face."""
    theta = torch.from_numpy(arcface_matrix()[:2]).float().expand(len(made), 2, 3)
    with torch.inference_mode():
        vectors = recogniser.embed(aligned_faces(made, theta))
    return float((vectors @ torch.from_numpy(source.vector)).mean())


def table(before: dict[str, float], after: dict[str, float]) -> str:
    """Markdown: a row a number."""
    rows = [
        f"| {name} | {before[name]:.3f} | {after[name]:.3f} | {after[name] - before[name]:+.3f} |" for name in before
    ]
    return "\n".join(["| second half | unadapted | adapted | change |", "|---|---|---|---|", *rows])


def compare(generator: FaceGenerator, state: dict[str, Tensor], clip: Footage, judges: Judges) -> str:
    """The table of a generator without and with an adapter's terms, which are merged into it here."""
    before = measure(generator, clip, judges)
    merge(generator.network, state, "the adapter")
    return table(before, measure(generator, clip, judges))
