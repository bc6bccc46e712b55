"""Distil a small permissively licensed face embedding into a thin IResNet-18, on a CPU, in minutes.

Function matching (Beyer et al. 2022): teacher and student see the very same strongly augmented pictures, so that a few
dozen people give an unlimited set of inputs. Most pictures are morphs (soft mixtures of two faces after elastic warps),
which stand for people who are not in the data. One process draws pictures and asks the teacher; this one trains on the
growing pool.

The teacher's 128 numbers are turned by a fixed matrix with orthonormal rows into 512, which keeps every cosine.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.multiprocessing as mp
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.checkpoints import load_into, load_weights, save_weights
from models.networks.arcface import IResNet
from training.distill import faces_data

IDENTITY = "wavsyncswap-iresnet18q-v2"
CANVAS, MARGIN = 144, 16  # aligned crops carry a border, so that shifted and turned crops are real pixels
BLOCKS, WIDTH, DIM = (2, 2, 2, 2), 0.25, 512


class Teacher:
    """MobileFaceNet, 128-D: unit sum of the embeddings of a picture and of its mirror image (ONNX, one CPU thread)."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Aligned crops uint8 [N, 112, 112, 3] RGB -> unit vectors [N, 128]."""
        mean, deviation = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
        planes = ((crops / np.float32(255) - mean) / deviation).transpose(0, 3, 1, 2)
        out = []
        for plane in planes:
            both = [np.ascontiguousarray(view) for view in (plane, plane[:, :, ::-1])]
            out.append(sum(self._session.run(None, {self._input: view[None]})[0][0] for view in both))
        vectors = np.stack(out)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def projection(seed: int = 0) -> NDArray[np.float32]:
    """Fixed [128, 512] matrix with orthonormal rows."""
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((DIM, 128)))
    return np.float32((q * np.sign(np.diag(r))).T)


def _field(batch: int, cells: int, channels: int) -> Tensor:
    """Smooth random fields [batch, channels, 112, 112], unit variance at the nodes."""
    return F.interpolate(torch.randn(batch, channels, cells, cells), size=112, mode="bicubic", align_corners=False)


def _warped(canvas: Tensor, strength: Tensor) -> Tensor:
    """Random similarity and elastic warp of [B, 3, 144, 144] into [B, 3, 112, 112]; strength [B] 0..1."""
    batch = len(canvas)
    angle, scale = torch.randn(batch) * 0.07 * strength, torch.exp(torch.randn(batch) * 0.06 * strength) * 112 / CANVAS
    flip = torch.where(torch.rand(batch) < 0.5, -1.0, 1.0)
    shift = torch.randn(batch, 2) * 0.03 * strength[:, None]
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack([cos * flip, -sin, shift[:, 0], sin * flip, cos, shift[:, 1]], 1).view(batch, 2, 3)
    grid = F.affine_grid(theta, [batch, 3, 112, 112], align_corners=False)
    elastic = _field(batch, 4, 2) * (0.035 * strength * (torch.rand(batch) < 0.6))[:, None, None, None]
    return F.grid_sample(canvas, grid + elastic.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)


def _colour(images: Tensor) -> Tensor:
    """Random exposure, contrast, gamma, tint, saturation (to grey) and side light on [B, 3, 112, 112] 0..1."""
    batch = len(images)

    def amount(deviation: float, channels: int = 1) -> Tensor:
        return torch.randn(batch, channels, 1, 1) * deviation

    grey = images.mean(1, keepdim=True)
    saturation = torch.where(torch.rand(batch, 1, 1, 1) < 0.12, torch.zeros(1), torch.exp(amount(0.25)))
    images = grey + (images - grey) * saturation
    centre = images.mean((1, 2, 3), keepdim=True)
    images = (images - centre) * torch.exp(amount(0.2)) + centre + amount(0.07)
    images = images * torch.exp(amount(0.06, 3)) * torch.exp(_field(batch, 2, 1) * 0.15)
    return images.clamp(1e-3, 1) ** torch.exp(amount(0.15))


def _degraded(images: Tensor) -> Tensor:
    """Loss of resolution, noise, covered rectangles: what small, compressed or partly hidden faces look like."""
    out = []
    for image in images:
        if torch.rand(()) < 0.4:
            side = int(torch.randint(24, 100, ()))
            small = F.interpolate(image[None], size=side, mode="area")
            image = F.interpolate(small, size=112, mode="bicubic" if torch.rand(()) < 0.5 else "bilinear")[0]
        if torch.rand(()) < 0.3:
            image = image + torch.randn_like(image) * torch.rand(()) * 0.06
        if torch.rand(()) < 0.15:
            (y, x), (h, w) = torch.randint(0, 90, (2,)).tolist(), torch.randint(8, 50, (2,)).tolist()
            image = image.clone()
            image[:, y : y + h, x : x + w] = torch.rand(3, 1, 1)
        out.append(image)
    return torch.stack(out).clamp(0, 1)


def draw(canvases: Tensor, groups: list[Tensor], batch: int) -> Tensor:
    """Random training pictures, about two in three of them morphs of two people.

    Args:
        canvases: uint8 [N, 3, 144, 144] aligned crops with border.
        groups: row numbers of each person; people are drawn uniformly.
        batch: how many.

    Returns:
        uint8 [batch, 3, 112, 112].
    """

    def pick() -> Tensor:
        people = torch.randint(len(groups), (batch,)).tolist()
        rows = torch.stack([groups[p][torch.randint(len(groups[p]), ())] for p in people])
        return _warped(canvases[rows].float() / 255, torch.rand(batch))

    first, second = pick(), pick()
    # A soft mask from a coarse random field: no gain = even mixture, high gain = patchwork of the two faces.
    gain = torch.exp(torch.rand(batch, 1, 1, 1) * 4 - 2)
    mask = torch.sigmoid(_field(batch, int(torch.randint(2, 5, ())), 1) * gain + torch.randn(batch, 1, 1, 1) * 0.7)
    morph = (torch.rand(batch, 1, 1, 1) < 0.65).float()
    mask = 1 - morph * mask
    return (_degraded(_colour(first * mask + second * (1 - mask))) * 255).round().byte()


def fill_pool(
    canvases: Tensor, groups: list[Tensor], teacher: Path, pool: Tensor, targets: Tensor, count: Tensor, seed: int
) -> None:
    """Producer process: draws pictures and teacher vectors into shared tensors until they are full."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    ask, matrix = Teacher(teacher), projection()
    while (start := int(count)) < len(pool):
        images = draw(canvases, groups, min(32, len(pool) - start))
        pool[start : start + len(images)] = images
        targets[start : start + len(images)] = torch.from_numpy(ask(images.permute(0, 2, 3, 1).numpy()) @ matrix)
        count += len(images)


def load_people(data: Path) -> tuple[Tensor, list[str], list[bool]]:
    """All aligned faces: canvases uint8 [N, 3, 144, 144], identity names, held-out flags."""
    pictures = faces_data.read_photos(data)
    pictures += faces_data.read_clips(data, "talking", 12) + faces_data.read_clips(data, "talking_generated", 16)
    pictures += [p for p in faces_data.read_scenes(data, 1.0) if not p.held_out]
    crops, names, held_out = [], [], []
    for picture in pictures:
        for face in range(len(picture.boxes)):
            if np.linalg.norm(picture.landmarks[face, 1] - picture.landmarks[face, 0]) < 12:
                continue
            crops.append(faces_data.aligned(picture, CANVAS, MARGIN, face))
            # Nobody is named in scenes: each face counts as a person of its own, drawn rarely.
            names.append(picture.identity or f"scene-{len(crops) % 12}")
            held_out.append(picture.held_out)
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous(), names, held_out


def embed(network: nn.Module, crops: Tensor) -> NDArray[np.float32]:
    """uint8 [N, 3, 112, 112] -> unit vectors [N, 512], in float32 and evaluation mode."""
    network.eval()
    with torch.no_grad():
        parts = [F.normalize(network(part.float() / 127.5 - 1)) for part in crops.split(64)]
    return torch.cat(parts).numpy()


def verification(vectors: NDArray, names: list[str]) -> dict[str, float]:
    """Same/different statistics over all pairs: AUC, mean cosines, best threshold and its accuracy."""
    cosine = vectors @ vectors.T
    upper = np.triu_indices(len(names), 1)
    same = np.array([names[i] == names[j] for i, j in zip(*upper, strict=True)])
    values = cosine[upper]
    order = np.argsort(values)
    ranks = np.empty(len(values))
    ranks[order] = np.arange(1, len(values) + 1)
    positives, negatives = int(same.sum()), int((~same).sum())
    auc = (ranks[same].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    far = float(np.quantile(values[~same], 0.999))
    return {
        "people": len(set(names)), "pictures": len(names), "same_pairs": positives, "different_pairs": negatives,
        "auc": round(float(auc), 5), "same_mean": round(float(values[same].mean()), 3),
        "different_mean": round(float(values[~same].mean()), 3), "threshold_far_1e-3": round(far, 3),
        "tar_at_far_1e-3": round(float((values[same] > far).mean()), 3),
    }  # fmt: skip


def measure(network: nn.Module, data: Path, teacher: Path) -> dict[str, dict]:
    """Student beside teacher: on all photos, on held-out people's photos, on held-out clips (cosine to the teacher)."""
    photos = [p for p in faces_data.read_photos(data) if p.source == "photo"]
    clips = [p for p in faces_data.read_clips(data, "talking", 25) if p.held_out]
    ask, matrix, result = Teacher(teacher), projection(), {}
    sets = {"faces_all": photos, "faces_held_out": [p for p in photos if p.held_out], "talking_val": clips}
    for name, pictures in sets.items():
        crops = np.stack([faces_data.aligned(p, 112, 0) for p in pictures])
        truth = ask(crops) @ matrix
        mine = embed(network, torch.from_numpy(crops).permute(0, 3, 1, 2))
        names = [p.identity for p in pictures]
        result[name] = {
            "student": verification(mine, names),
            "teacher": verification(truth, names),
            "cosine_student_teacher": round(float((mine * truth).sum(1).mean()), 4),
        }
    return result


def relation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the two cosine matrices of a batch."""
    return F.mse_loss(student @ student.T, teacher @ teacher.T)


def train(
    network: nn.Module, pool: Tensor, targets: Tensor, count: Tensor, *, seconds: float, batch: int, rate: float
) -> None:
    """Train in place for `seconds` on the part of the pool that exists, cosine schedule, bfloat16 autocast."""
    decay = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=rate)
    compiled = torch.compile(network)
    running, step, begun = 0.0, 0, 0.0
    while True:
        ready = int(count)
        rows = torch.randint(ready, (batch,))
        images = pool[rows].float() / 127.5 - 1
        if torch.rand(()) < 0.5:
            images = images.flip(3)  # the teacher's vector is that of picture and mirror image together
        with torch.autocast("cpu", torch.bfloat16):
            raw = compiled(images.contiguous(memory_format=torch.channels_last))
        mine, truth = F.normalize(raw.float()), targets[rows]
        loss = (1 - (mine * truth).sum(1)).mean() + 4 * relation_loss(mine, truth)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        begun = begun or time.monotonic()  # the first step includes compilation
        done = (time.monotonic() - begun) / seconds
        for group in optimiser.param_groups:
            group["lr"] = (
                rate * min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1))))
            )
        optimiser.step()
        step += 1
        running += loss.item()
        if step % 100 == 0:
            print(f"{100 * done:5.1f} %  step {step}  pool {ready}  loss {running / 100:.4f}", flush=True)
            running = 0.0
        if done >= 1:
            return


def save(network: nn.Module, path: Path, metrics: dict) -> None:
    """Half-precision safetensors with a description in its header."""
    metadata = {
        "id": IDENTITY,
        "network": "iresnet18",
        "config": {"width": WIDTH},
        "input": "RGB [B, 3, 112, 112], (value * 255 - 127.5) / 127.5",
        "alignment": "ArcFace five points, similarity, 112 x 112",
        "output": "512-D, to be normalised; single pass, no mirrored average",
        "teacher": "MobileFaceNet 128-D (foamliu/MobileFaceNet, Apache-2.0), picture + mirror image",
        "projection": {"rows": 128, "columns": DIM, "seed": 0},
        "data": "faces, talking, talking_generated, scenes",
        "licence": "research / demo weights, non-commercial research use",
        "metrics": metrics,
    }
    state = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, state, metadata)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.distill.recogniser", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with faces/, talking/, scenes/, weights/")
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write (about 8 MB)")
    parser.add_argument("--minutes", type=float, default=12, help="training time after compilation (default: 12)")
    parser.add_argument("--pool", type=int, default=60000, help="most augmented pictures to draw, 38 kB each")
    parser.add_argument("--batch", type=int, default=64, help="pictures a step (default: 64)")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate of AdamW (default: 0.002)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the trainer; the producer has its own")
    parser.add_argument("--start", type=Path, help="continue from this safetensors file")
    parser.add_argument("--seed", type=int, default=0, help="of weights and augmentation (default: 0)")
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    teacher = options.data / "weights" / "mobilefacenet_128.onnx"
    canvases, names, held_out = load_people(options.data)
    people = sorted({name for name, held in zip(names, held_out, strict=True) if not held})
    groups = [torch.tensor([i for i, n in enumerate(names) if n == person and not held_out[i]]) for person in people]
    print(f"{sum(map(len, groups))} pictures of {len(people)} people; {sum(held_out)} pictures held out", flush=True)
    pool = torch.empty(options.pool, 3, 112, 112, dtype=torch.uint8).share_memory_()
    targets, count = torch.empty(options.pool, DIM).share_memory_(), torch.zeros((), dtype=torch.long).share_memory_()
    producer = mp.get_context("spawn").Process(
        target=fill_pool, args=(canvases, groups, teacher, pool, targets, count, options.seed + 1), daemon=True
    )
    producer.start()
    network = IResNet(BLOCKS, width=WIDTH, dim=DIM)
    if options.start:
        load_into(network, load_weights(options.start)[0], options.start.name)
    while int(count) < 10 * options.batch:
        time.sleep(0.5)
    network.train()
    try:
        train(network, pool, targets, count, seconds=60 * options.minutes, batch=options.batch, rate=options.rate)
    finally:
        producer.terminate()
        metrics = measure(network, options.data, teacher)
        save(network, options.output, metrics)
        print(json.dumps(metrics, indent=1))


if __name__ == "__main__":
    main()
