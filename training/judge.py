"""Measures a generator on the validation people: mouth against baselines, lips and identity on swapped pairs.

`python -m training judge --data DIR --weights FILE --output DIR` writes `judge.json` and `judge.md`.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from models.generator import FaceGenerator, load_generator
from models.identity import FaceEmbedding, load_recogniser
from models.metrics.sync_model import SyncModel, load_sync_model
from models.mouth import mouth, mouth_psnr
from models.references import DISTANCE, references_within

from .batches import aligned_faces, arcface_matrix
from .clips import MARGIN, OPENING, Clip, ClipSet, load_clips, speech_part
from .judge_sync import judge_sync, sync_table
from .lip_reader import LipReader, load_reader, reader_path
from .second_recogniser import second_recogniser
from .sources import clip_vectors

log = logging.getLogger(__name__)

Embed = Callable[[Tensor], Tensor]  # aligned faces [B, 3, 112, 112] RGB in [0, 1] -> unit vectors [B, D]


def unit_crops(data: ClipSet, clip: Clip) -> Tensor:
    """The clip's crops without the training margin, float32 [N, 3, px, px]."""
    edge = round(data.crops.shape[1] * MARGIN / (1 + 2 * MARGIN))
    crops = data.crops[clip.start : clip.start + clip.frames, edge:-edge, edge:-edge]
    return torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2).float() / 255


def mouth_scores(pictures: Tensor, truth: Tensor) -> tuple[float, float]:
    """Mean PSNR (dB) and SSIM of the mouth region, [N, 3, S, S] against the same shape."""
    pairs = zip(mouth(pictures).numpy(), mouth(truth).numpy(), strict=True)
    ssim = [structural_similarity(a, b, channel_axis=0, data_range=1.0) for a, b in pairs]
    return float(mouth_psnr(pictures, truth).mean()), float(np.mean(ssim))


def identity_vector(vectors: Tensor, recogniser: str) -> FaceEmbedding:
    """Mean of unit vectors [N, D] as an embedding."""
    mean = nn.functional.normalize(vectors.mean(0), dim=0).numpy()
    return FaceEmbedding(vector=mean, recogniser=recogniser, quality=1.0, count=len(vectors))


def chosen_references(truth: Tensor) -> Tensor:
    """The references that nodes and `infer` choose for a clip of one shot, [N, 3, S, S]."""
    levels = (truth * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    chosen = references_within(levels, np.ones(len(levels), bool), np.zeros(len(levels), int))
    return torch.from_numpy(chosen).permute(0, 3, 1, 2).float() / 255


def judge_reconstruction(
    generator: FaceGenerator,
    data: ClipSet,
    clip: Clip,
    source: FaceEmbedding,
    mean_face: Tensor | None,
    reader: LipReader | None,
) -> dict[str, float]:
    """Own audio, with two kinds of reference, the own face kept and drawn from its vector; and the trivial baselines.

    The clip's mean frame is no honest competitor, since it is made of the very frames to be predicted, but a hard one.
    """
    truth, middle = unit_crops(data, clip), clip.frames // 2
    windows = torch.from_numpy(data.windows[clip.start : clip.start + clip.frames])[:, None]
    shifted = windows.roll(clip.frames // 3, 0)
    systems: dict[str, Tensor] = {}
    faces = {"own face kept": None} if generator.keeps_identity else dict[str, FaceEmbedding | None]()
    faces |= {"own vector": source} if generator.takes_identity else {}
    for kind, reference in (
        ("middle frame", truth[middle][None]),
        ("other frames", chosen_references(truth)),
    ):
        for face, identity in faces.items():
            systems[f"{kind}, {face}: generated"] = generator.generate(truth, windows, identity, references=reference)
            systems[f"{kind}, {face}: shifted audio"] = generator.generate(
                truth, shifted, identity, references=reference
            )
        systems[f"{kind}: copied"] = reference.expand_as(truth)
    systems["mean frame of the clip"] = truth.mean(0, keepdim=True).expand_as(truth)
    if mean_face is not None:
        systems["mean training face"] = mean_face.expand_as(truth)
    result: dict[str, float] = {}
    # A copy of the middle frame is perfect there, and nearly so beside it: no system may profit from that.
    judged = torch.arange(clip.frames).sub(middle).abs() >= DISTANCE
    for name, pictures in systems.items():
        result[f"{name} PSNR"], result[f"{name} SSIM"] = mouth_scores(pictures[judged], truth[judged])
        result[f"{name} lips"] = lip_correlation(reader, pictures, data, clip)
    return result


def lip_correlation(reader: LipReader | None, pictures: Tensor, data: ClipSet, clip: Clip, step: int = 1) -> float:
    """Correlation of the lip opening read from pictures of every `step`-th frame with the clip's measured opening.

    Slow changes are left out on both sides: they are posture and expression rather than speech. NaN without a reader
    and for still lips.
    """
    if reader is None:
        return float("nan")
    with torch.inference_mode():
        read = torch.cat([reader(part) for part in pictures.split(64)]).numpy()
    wanted = data.lips[clip.start : clip.start + clip.frames : step]
    if read[:, OPENING].std() < 1e-2:  # still lips; what is left is rounding
        return float("nan")
    a, b = (speech_part(numbers, 30 / step)[:, OPENING] for numbers in (read, wanted))
    return float(np.corrcoef(a, b)[0, 1])


def mean_training_face(data: ClipSet) -> Tensor | None:
    """Mean over the recorded training clips of each one's mean crop, [1, 3, px, px]; None where there are none."""
    faces = [unit_crops(data, clip)[::10].mean(0) for clip in data.of("train")]
    return torch.stack(faces).mean(0, keepdim=True) if faces else None


def judge_swap(
    generator: FaceGenerator,
    data: ClipSet,
    target: Clip,
    source: FaceEmbedding,
    references: dict[str, tuple[NDArray, NDArray]],
    judges: dict[str, Embed],
    reader: LipReader | None,
) -> dict[str, dict[str, float]]:
    """By each judge the cosines of the swapped output to the source's and to the target's own vector, and its lips."""
    truth = unit_crops(data, target)[::2]
    windows = torch.from_numpy(data.windows[target.start : target.start + target.frames : 2])[:, None]
    swapped = generator.generate(truth, windows, source, references=chosen_references(unit_crops(data, target))[::2])
    lips = lip_correlation(reader, swapped, data, target, step=2)
    seen = swapped[::3]
    theta = torch.from_numpy(arcface_matrix()[:2]).float().expand(len(seen), 2, 3)
    scores = {}
    for name, embed in judges.items():
        with torch.inference_mode():
            vector = nn.functional.normalize(embed(aligned_faces(seen, theta)).mean(0), dim=0).numpy()
        cosines = [float(vector @ reference) for reference in references[name]]
        scores[name] = {"to source": cosines[0], "to target": cosines[1], "lips": lips}
    return scores


def judge(
    generator: FaceGenerator,
    data: ClipSet,
    folder: Path,
    judges: dict[str, Embed],
    reader: LipReader | None = None,
    sync: SyncModel | None = None,
) -> dict:
    """All measurements on the val clips; every val clip is swapped with the next two people's faces.

    Raises:
        ValueError: there is no val clip.
    """
    recogniser = load_recogniser("builtin")
    if not (clips := data.of("val")):
        raise ValueError(
            f"Nobody is held out: none of {len(data.clips)} clips has the split val, and there is nothing to judge on. "
            "Name people to be kept from training in the column split of the manifest.csv."
        )
    own = {clip.name: identity_vector(clip_vectors(data, clip, recogniser), recogniser.id) for clip in clips}
    mean_face = mean_training_face(data)
    result: dict = {"reconstruction": {}, "swap": {name: {} for name in judges}, "sync": {}}
    vectors = {(name, clip.name): _mean_vector(data, clip, embed) for name, embed in judges.items() for clip in clips}
    for i, clip in enumerate(clips):
        result["reconstruction"][clip.name] = judge_reconstruction(
            generator, data, clip, own[clip.name], mean_face, reader
        )
        log.info("%s: %s", clip.name, {k: round(v, 3) for k, v in result["reconstruction"][clip.name].items()})
        others = [c for c in clips[i + 1 :] + clips[:i] if c.identity != clip.identity and generator.takes_identity][:2]
        if sync is not None and generator.hears:
            result["sync"][clip.name] = _sync(generator, data, folder, clip, others, own, sync)
        for other in others:
            pair = {name: (vectors[name, other.name], vectors[name, clip.name]) for name in judges}
            scores = judge_swap(generator, data, clip, own[other.name], pair, judges, reader)
            for name, score in scores.items():
                result["swap"][name][f"{clip.name} <- {other.name}"] = score
    return result


def _sync(
    generator: FaceGenerator,
    data: ClipSet,
    folder: Path,
    clip: Clip,
    others: list[Clip],
    own: dict[str, FaceEmbedding],
    model: SyncModel,
) -> dict[str, float]:
    """`judge_sync` with the face kept and with the next person's."""
    truth = unit_crops(data, clip)
    faces: dict[str, FaceEmbedding | None] = {"face kept": None} if generator.keeps_identity else {}
    if others:
        faces["swapped"] = own[others[0].name]
    lender = next((c for c in data.of("val") if c.identity != clip.identity), None)
    if lender is None:
        log.info("%s: sync is not judged, since nobody else is held out who could lend a voice", clip.name)
        return {}
    return judge_sync(generator, data, folder, clip, lender, truth, chosen_references(truth), faces, model)


def _mean_vector(data: ClipSet, clip: Clip, embed: Embed) -> NDArray:
    faces = unit_crops(data, clip)[:: max(1, clip.frames // 10)]
    theta = torch.from_numpy(arcface_matrix()[:2]).float().expand(len(faces), 2, 3)
    with torch.inference_mode():
        return nn.functional.normalize(embed(aligned_faces(faces, theta)).mean(0), dim=0).numpy()


def table(result: dict) -> str:
    """Markdown of the measurements: means over clips, wins, cosines; a judge of sync if there was one."""
    clips = list(result["reconstruction"].values())
    lines = [f"Mouth region, {len(clips)} val clips, own audio; lips = correlation of lip opening with the truth", ""]
    lines += ["| system | PSNR (dB) | SSIM | lips |", "|---|---|---|---|"]
    for name in (key.removesuffix(" PSNR") for key in clips[0] if key.endswith(" PSNR")):
        psnr, ssim, lips = (np.mean([clip[f"{name} {kind}"] for clip in clips]) for kind in ("PSNR", "SSIM", "lips"))
        lines.append(f"| {name} | {psnr:.2f} | {ssim:.3f} | {lips:.2f} |")
    lines.append("")
    for key in clips[0]:
        if key.endswith(": generated PSNR"):
            shifted = key.replace("generated", "shifted audio")
            wins = sum(clip[key] > clip[shifted] for clip in clips)
            kind = key.removesuffix(": generated PSNR")
            lines.append(f"Right audio beats shifted audio in PSNR on {wins} of {len(clips)} clips ({kind}).")
    lines += [
        "",
        "| swapped pairs, recogniser | n | to source | to target | source above target | lips |",
        "|---|---|---|---|---|---|",
    ]
    for name, pairs in result["swap"].items():
        if not pairs:  # the system takes no identity
            continue
        to = {kind: np.array([pair[kind] for pair in pairs.values()]) for kind in ("to source", "to target")}
        above = int((to["to source"] > to["to target"]).sum())
        source, target = to["to source"].mean(), to["to target"].mean()
        lips = np.mean([pair["lips"] for pair in pairs.values()])
        lines.append(f"| {name} | {len(pairs)} | {source:.3f} | {target:.3f} | {above} of {len(pairs)} | {lips:.2f} |")
    if result.get("sync"):
        lines += ["", *sync_table(result["sync"], result["sync model"])]
    return "\n".join(lines).rstrip() + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training judge`."""
    parser.add_argument("--data", type=Path, required=True, help="folder made by `prepare`, or of the research layout")
    parser.add_argument("--weights", default="builtin", help="generator to judge (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder for judge.json and judge.md")
    parser.add_argument(
        "--recogniser",
        type=Path,
        action="append",
        default=[],
        help="another recogniser's file to judge by; repeatable (default: none)",
    )
    parser.add_argument(
        "--reader",
        default="builtin",
        help="lip reader: builtin, lip_reader.pt of a run, or none (default: %(default)s)",
    )
    parser.add_argument(
        "--sync",
        type=Path,
        metavar="FILE",
        help="sync model that had no part in training, to tell the right sound from others (default: none)",
    )
    parser.add_argument("--clips", type=Path, help="folder of clips prepared by a training run (default: OUTPUT/clips)")


def run(args: argparse.Namespace) -> int:
    """Measure and write the report."""
    generator = load_generator(args.weights, precision="fp32")
    data = load_clips(args.data, args.clips or args.output / "clips", generator.px)
    judges: dict[str, Embed] = {"built-in (in the loss)": load_recogniser("builtin").embed}
    if second := second_recogniser(args.data):
        judges["MobileFaceNet (in the loss)"] = second.embed
    for path in args.recogniser:
        judges[f"{path.name} (in no loss)"] = load_recogniser(path).embed
    path = reader_path(args.reader)
    reader = load_reader(path) if path else None
    sync = load_sync_model(args.sync) if args.sync else None
    result = judge(generator, data, args.data, judges, reader, sync)
    if sync is not None:
        result["sync model"] = sync.name
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "judge.json").write_text(json.dumps(result, indent=1))
    (args.output / "judge.md").write_text(table(result))
    print(table(result))
    return 0
