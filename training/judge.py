"""Measures a generator on the validation people: mouth against three baselines, identity on swapped pairs.

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
from torch import Tensor

from models.generator import Generator, load_generator
from models.identity import FaceEmbedding, load_recogniser

from .batches import aligned_faces, arcface_matrix
from .clips import MARGIN, STORED, Clip, ClipSet, load_clips
from .sources import clip_vectors

log = logging.getLogger(__name__)

Embed = Callable[[Tensor], Tensor]  # aligned faces [B, 3, 112, 112] RGB in [0, 1] -> unit vectors [B, D]


def unit_crops(data: ClipSet, clip: Clip) -> Tensor:
    """The clip's crops without the training margin, float32 [N, 3, 96, 96]."""
    edge = round(STORED * MARGIN / (1 + 2 * MARGIN))
    crops = data.crops[clip.start : clip.start + clip.frames, edge:-edge, edge:-edge]
    return torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2).float() / 255


def mouth_scores(pictures: Tensor, truth: Tensor) -> tuple[float, float]:
    """Mean PSNR (dB) and SSIM of the mouth region, [N, 3, S, S] against the same shape."""
    side = truth.shape[-1]
    rows, columns = slice(int(0.58 * side), int(0.90 * side)), slice(int(0.28 * side), int(0.72 * side))
    a, b = pictures[..., rows, columns].numpy(), truth[..., rows, columns].numpy()
    psnr = -10 * np.log10(np.maximum(((a - b) ** 2).mean((1, 2, 3)), 1e-8))
    ssim = [structural_similarity(x, y, channel_axis=0, data_range=1.0) for x, y in zip(a, b, strict=True)]
    return float(psnr.mean()), float(np.mean(ssim))


def identity_vector(vectors: Tensor, recogniser: str) -> FaceEmbedding:
    """Mean of unit vectors [N, D] as an embedding."""
    mean = torch.nn.functional.normalize(vectors.mean(0), dim=0).numpy()
    return FaceEmbedding(vector=mean, recogniser=recogniser, quality=1.0, count=len(vectors))


def judge_reconstruction(generator: Generator, data: ClipSet, clip: Clip, source: FaceEmbedding) -> dict[str, float]:
    """Own audio, own identity, the middle frame as reference; beside it the three trivial baselines."""
    truth = unit_crops(data, clip)
    windows = torch.from_numpy(data.windows[clip.start : clip.start + clip.frames])[:, None]
    reference = truth[clip.frames // 2][None]
    shifted = windows.roll(clip.frames // 3, 0)
    systems = {
        "generated": generator.generate(truth, windows, source, references=reference),
        "shifted audio": generator.generate(truth, shifted, source, references=reference),
        "copied reference": reference.expand_as(truth),
        "mean frame": truth.mean(0, keepdim=True).expand_as(truth),
        "same-frame reference": generator.generate(truth, windows, source),
    }
    result: dict[str, float] = {}
    for name, pictures in systems.items():
        result[f"{name} PSNR"], result[f"{name} SSIM"] = mouth_scores(pictures, truth)
    return result


def judge_swap(
    generator: Generator,
    data: ClipSet,
    target: Clip,
    source: FaceEmbedding,
    references: tuple[NDArray, NDArray],
    embed: Embed,
) -> dict[str, float]:
    """Cosines of the swapped output to the source's and to the target's own vector, by an `embed` of one's choice."""
    truth = unit_crops(data, target)[::5]
    windows = torch.from_numpy(data.windows[target.start : target.start + target.frames : 5])[:, None]
    swapped = generator.generate(truth, windows, source)
    theta = torch.from_numpy(arcface_matrix()[:2]).float().expand(len(swapped), 2, 3)
    with torch.inference_mode():
        vector = torch.nn.functional.normalize(embed(aligned_faces(swapped, theta)).mean(0), dim=0).numpy()
    return {"to source": float(vector @ references[0]), "to target": float(vector @ references[1])}


def onnx_judge(path: Path) -> Embed:
    """An independent recogniser from an ONNX file that takes RGB with ImageNet mean and deviation (data guide)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    mean, deviation = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)

    def embed(faces: Tensor) -> Tensor:
        planes = ((faces.permute(0, 2, 3, 1).numpy() - mean) / deviation).transpose(0, 3, 1, 2)
        both = [[plane, plane[:, :, ::-1]] for plane in planes]
        runs = [sum(session.run(None, {name: np.ascontiguousarray(v)[None]})[0][0] for v in views) for views in both]
        return torch.nn.functional.normalize(torch.from_numpy(np.stack(runs)), dim=1)

    return embed


def judge(generator: Generator, data: ClipSet, judges: dict[str, Embed]) -> dict:
    """All measurements on the val clips; every val clip is swapped with the next two people's faces."""
    recogniser = load_recogniser("builtin")
    clips = data.of("val")
    own = {clip.name: identity_vector(clip_vectors(data, clip, recogniser), recogniser.id) for clip in clips}
    result: dict = {"reconstruction": {}, "swap": {name: {} for name in judges}}
    for i, clip in enumerate(clips):
        result["reconstruction"][clip.name] = judge_reconstruction(generator, data, clip, own[clip.name])
        log.info("%s: %s", clip.name, {k: round(v, 3) for k, v in result["reconstruction"][clip.name].items()})
        others = [c for c in clips[i + 1 :] + clips[:i] if c.identity != clip.identity][:2]
        for name, embed in judges.items():
            vectors = {c.name: _mean_vector(data, c, embed) for c in (clip, *others)}
            for other in others:
                pair = (vectors[other.name], vectors[clip.name])
                scores = judge_swap(generator, data, clip, own[other.name], pair, embed)
                result["swap"][name][f"{clip.name} <- {other.name}"] = scores
    return result


def _mean_vector(data: ClipSet, clip: Clip, embed: Embed) -> NDArray:
    faces = unit_crops(data, clip)[:: max(1, clip.frames // 10)]
    theta = torch.from_numpy(arcface_matrix()[:2]).float().expand(len(faces), 2, 3)
    with torch.inference_mode():
        return torch.nn.functional.normalize(embed(aligned_faces(faces, theta)).mean(0), dim=0).numpy()


def table(result: dict) -> str:
    """Markdown of the measurements: means over clips, wins, cosines."""
    clips = list(result["reconstruction"].values())
    lines = [f"Mouth region, {len(clips)} val clips, own audio", "", "| system | PSNR (dB) | SSIM |", "|---|---|---|"]
    for name in ("generated", "shifted audio", "copied reference", "mean frame", "same-frame reference"):
        psnr, ssim = (np.mean([clip[f"{name} {kind}"] for clip in clips]) for kind in ("PSNR", "SSIM"))
        lines.append(f"| {name} | {psnr:.2f} | {ssim:.3f} |")
    wins = sum(clip["generated PSNR"] > clip["shifted audio PSNR"] for clip in clips)
    lines += ["", f"Right audio beats shifted audio in PSNR on {wins} of {len(clips)} clips.", ""]
    lines += [
        "| swapped pairs, recogniser | n | to source | to target | source above target |",
        "|---|---|---|---|---|",
    ]
    for name, pairs in result["swap"].items():
        to = {kind: np.array([pair[kind] for pair in pairs.values()]) for kind in ("to source", "to target")}
        above = int((to["to source"] > to["to target"]).sum())
        source, target = to["to source"].mean(), to["to target"].mean()
        lines.append(f"| {name} | {len(pairs)} | {source:.3f} | {target:.3f} | {above} of {len(pairs)} |")
    return "\n".join(lines) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training judge`."""
    parser.add_argument("--data", type=Path, required=True, help="folder with talking/, weights/ and landmarks.npz")
    parser.add_argument("--weights", default="builtin", help="generator to judge (default: the bundled one)")
    parser.add_argument("--output", type=Path, required=True, help="folder for judge.json and judge.md")
    parser.add_argument("--clips", type=Path, help="folder of clips prepared by a training run (default: OUTPUT/clips)")


def run(args: argparse.Namespace) -> int:
    """Measure and write the report."""
    data = load_clips(args.data, args.clips or args.output / "clips")
    judges: dict[str, Embed] = {"built-in": load_recogniser("builtin").embed}
    teacher = args.data / "weights" / "mobilefacenet_128.onnx"
    if teacher.exists():
        judges["MobileFaceNet (not in the loss)"] = onnx_judge(teacher)
    result = judge(load_generator(args.weights, precision="fp32"), data, judges)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "judge.json").write_text(json.dumps(result, indent=1))
    (args.output / "judge.md").write_text(table(result))
    print(table(result))
    return 0
