"""Trains the bundled face detector and its landmark refiner on composed pictures.

A producer process composes canvases: faces of photos, talking clips and scenes at 12 to 300 px, several on one canvas,
over other pictures and noise, turned, recoloured, blurred, covered. `python -m training.distill.detector --help`.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.multiprocessing as mp
from numpy.typing import NDArray
from torch import Tensor, nn

from models.checkpoints import load_into, load_weights, save_weights
from models.geometry import crop_matrices, warp_crops
from models.networks.facedetector import REFINER_SIDE, STRIDES, UNIT, FaceDetector

from .faces_data import Picture, read_clips, read_photos, read_scenes

log = logging.getLogger(__name__)

SIDE = 256  # px of a training canvas
MOST_FACES = 10
LEVEL_SIZES = ((0, 44), (44, 100), (100, 10_000))  # px of the box's longer side, a level of STRIDES each
MIRRORED = [1, 0, 2, 4, 3]  # landmarks of a mirrored face
BACKGROUNDS = "brick chelsea coffee coins grass gravel moon page rocket immunohistochemistry cat clock".split()


def backgrounds() -> list[NDArray[np.uint8]]:
    """Pictures without a face, from scikit-image's own files."""
    import skimage.data

    result = []
    for name in BACKGROUNDS:
        try:
            picture = getattr(skimage.data, name)()
        except (AttributeError, OSError, ModuleNotFoundError):  # some need a download
            continue
        if picture.ndim == 2:
            picture = np.repeat(picture[..., None], 3, 2)
        result.append(np.ascontiguousarray(picture[..., :3]))
    return result


def compose(
    random: np.random.Generator, pictures: list[Picture], empty: list[NDArray[np.uint8]]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """One canvas and its labels.

    Returns:
        uint8 [256, 256, 3] RGB; float32 [10, 15]: kind (1 face, -1 ignore, 0 nothing), box, landmarks in pixels.
    """
    canvas: NDArray[Any] = _background(random, empty)
    labels = np.zeros((MOST_FACES, 15), np.float32)
    count = int(random.choice([0, 1, 2, 3, 5], p=[0.08, 0.47, 0.2, 0.15, 0.1]))
    for _ in range(count):
        picture = pictures[random.integers(len(pictures))]
        if len(picture.boxes):
            canvas, labels = _paste(random, canvas, labels, picture, alone=count == 1)
    if random.random() < 0.3:
        x, y, w, h = (random.integers(0, SIDE, 4) // (1, 1, 4, 4)).tolist()
        canvas[y : y + h, x : x + w] = random.integers(0, 256, 3)
    return _recolour(random, canvas), labels


def _background(random: np.random.Generator, empty: list[NDArray[np.uint8]]) -> NDArray[Any]:
    if random.random() < 0.3:
        cells = int(random.integers(1, 33))
        noise = random.integers(0, 256, (cells, cells, 3)).astype(np.uint8)
        return cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC if random.random() < 0.7 else 0)
    source = empty[random.integers(len(empty))]
    scale = np.exp(random.uniform(np.log(0.3), np.log(2)))
    centre = (source.shape[1] / 2, source.shape[0] / 2)
    matrix: NDArray[Any] = cv2.getRotationMatrix2D(centre, random.uniform(-30, 30), scale)
    matrix[:, 2] += SIDE / 2 - np.array(source.shape[1::-1]) / 2 + random.uniform(-60, 60, 2)
    return cv2.warpAffine(source, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)


def _paste(
    random: np.random.Generator, canvas: NDArray, labels: NDArray, picture: Picture, alone: bool
) -> tuple[NDArray, NDArray]:
    """A turned, scaled picture over the canvas: all of it when `alone`, else a window round its first face."""
    chosen = int(random.integers(len(picture.boxes)))
    box = picture.boxes[chosen]
    size = np.exp(random.uniform(np.log(12), np.log(300 if alone else 110)))
    scale = size / max(box[2:] - box[:2])
    angle, flip = random.normal(0, 0.22), random.random() < 0.5
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[-cos if flip else cos, -sin], [-sin if flip else sin, cos]])
    place = random.uniform(min(size * 0.4, SIDE / 2), max(SIDE - size * 0.4, SIDE / 2), 2)
    matrix = np.column_stack([linear, place - linear @ ((box[:2] + box[2:]) / 2)])
    flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    source: NDArray[Any] = picture.image
    prescale = 1.0
    if scale < 0.5:  # area averaging first: warping alone would alias
        prescale = 2 * scale
        source = cv2.resize(source, None, fx=prescale, fy=prescale, interpolation=flags)
    warp = matrix @ np.diag([1 / prescale, 1 / prescale, 1])
    layer = cv2.warpAffine(source, warp, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
    white = np.full(source.shape[:2], 255, np.uint8)
    mask = cv2.warpAffine(white, warp, (SIDE, SIDE), flags=cv2.INTER_NEAREST) > 0
    if not alone or random.random() < 0.3:
        reach = size * random.uniform(0.62, 1.3)
        x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
        mask &= (abs(x - place[0]) < reach) & (abs(y - place[1]) < reach)
    canvas = np.where(mask[..., None], layer, canvas)
    for row in labels:  # faces that this one covers are faces no more, or doubtful ones
        if row[0] == 1:
            x, y = np.clip(row[5:15].reshape(5, 2).round().astype(int), 0, SIDE - 1).T
            hidden = mask[y, x].mean()
            row[0] = 0 if hidden > 0.9 else -1 if hidden > 0 else 1
    return canvas, _label(labels, picture, matrix, flip, mask)


def _label(labels: NDArray, picture: Picture, matrix: NDArray, flip: bool, mask: NDArray) -> NDArray:
    regions = [(1, b, p) for b, p in zip(picture.boxes, picture.landmarks, strict=True)]
    regions += [(-1, b, np.zeros((5, 2), np.float32)) for b in picture.ignore]
    for kind, box, points in regions:
        free = np.flatnonzero(labels[:, 0] == 0)
        if not len(free):
            break
        corners = np.array([[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]])
        centre = matrix[:, :2] @ (corners.mean(0)) + matrix[:, 2]
        half = (box[2:] - box[:2]) / 2 * np.hypot(matrix[0, 0], matrix[1, 0])
        x, y = centre.round().astype(int)
        if not (0 <= x < SIDE and 0 <= y < SIDE and mask[y, x]):
            continue
        five = (points[MIRRORED] if flip else points) @ matrix[:, :2].T + matrix[:, 2]
        inside = ((five > -4) & (five < SIDE + 4)).all()
        kind = kind if max(half) * 2 >= 11 and (kind < 0 or inside) else -1
        labels[free[0]] = np.concatenate([[kind], centre - half, centre + half, five.ravel()])
    return labels


def _recolour(random: np.random.Generator, canvas: NDArray) -> NDArray[np.uint8]:
    x: Any = canvas.astype(np.float32) * np.exp(random.normal(0, 0.15, 3) + random.normal(0, 0.25)) + random.normal(
        0, 12
    )
    if random.random() < 0.15:
        x = np.repeat(x.mean(2, keepdims=True), 3, 2)
    if random.random() < 0.3:
        x = cv2.GaussianBlur(x, (0, 0), random.uniform(0.4, 1.8))
    x += random.normal(0, random.uniform(0, 8), x.shape)
    x = x.clip(0, 255).astype(np.uint8)
    if random.random() < 0.3:
        x = cv2.imdecode(cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(25, 90))])[1], 1)
    return np.asarray(x, np.uint8)


def refiner_sample(random: np.random.Generator, picture: Picture) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A crop aligned by disturbed landmarks, uint8 [64, 64, 3], and the true landmarks in it, float32 [5, 2]."""
    points = picture.landmarks[0].astype(np.float64)
    eyes = np.linalg.norm(points[1] - points[0])
    angle, scale = random.normal(0, 0.12), np.exp(random.normal(0, 0.10))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    guess = (points - points.mean(0)) @ turn.T + points.mean(0) + random.normal(0, 0.09 * eyes, 2)
    matrix = crop_matrices(guess[None] + random.normal(0, 0.04 * eyes, (1, 5, 2)) + 0.5)
    crop = warp_crops(picture.image[None], matrix, REFINER_SIDE)[0]
    truth = (points + 0.5) @ matrix[0, :, :2].T + matrix[0, :, 2]
    if random.random() < 0.5:
        crop, truth = np.ascontiguousarray(crop[:, ::-1]), ((1, 0) + truth * (-1, 1))[MIRRORED]
    return _recolour(random, crop), truth.astype(np.float32)


def produce(pictures: list[Picture], pool: dict[str, Tensor], seed: int) -> None:
    """Producer process: fills the shared pools, one canvas and two refiner crops at a time, then starts over."""
    cv2.setNumThreads(1)
    random = np.random.default_rng(seed)
    empty = backgrounds()
    meshed = [p for p in pictures if p.source in ("talking", "generated")]
    stills = [p for p in pictures if p.source in ("photo", "ai_generated")]
    groups = [meshed, stills, [p for p in pictures if p.source == "scene" and len(p.boxes)]]
    size, at = len(pool["canvas"]), 0
    while True:
        group = groups[random.choice(3, p=(0.4, 0.4, 0.2))]
        canvas, label = compose(random, group if random.random() < 0.5 else pictures, empty)
        pool["canvas"][at % size], pool["label"][at % size] = torch.from_numpy(canvas), torch.from_numpy(label)
        for i in range(2):
            source = meshed if random.random() < 0.75 else stills
            crop, truth = refiner_sample(random, source[random.integers(len(source))])
            pool["crop"][2 * at % (2 * size) + i] = torch.from_numpy(crop)
            pool["truth"][2 * at % (2 * size) + i] = torch.from_numpy(truth)
        at += 1
        pool["count"].fill_(min(at, size))


def detection_loss(maps: list[Tensor], labels: Tensor) -> Tensor:
    """Focal score loss, and smooth L1 of sides and landmarks in the cells near a face's centre.

    Args:
        maps: raw output for [B, 3, 256, 256].
        labels: float32 [B, 10, 15] of `compose`.
    """
    total, positives = torch.zeros(()), 1.0
    centre, half = (labels[..., 1:3] + labels[..., 3:5]) / 2, (labels[..., 3:5] - labels[..., 1:3]) / 2
    size = 2 * half.amax(-1)
    for stride, (low, high), level in zip(STRIDES, LEVEL_SIZES, maps, strict=True):
        cells = (torch.arange(SIDE // stride) + 0.5) * stride
        where = torch.stack(torch.meshgrid(cells, cells, indexing="xy"), -1)[None, None]
        distance = (where - centre[:, :, None, None]).abs().amax(-1)  # [B, K, h, w]
        own = ((labels[..., 0] == 1) & (size >= low) & (size < high))[..., None, None]
        near = ((labels[..., 0] == 1) & (size >= low / 1.5) & (size < high * 1.5))[..., None, None]
        reach = (0.25 * size)[..., None, None].clamp_min(1.6 * stride)
        hit = own & (distance < 0.75 * stride)
        doubtful = (labels[..., 0] == -1)[..., None, None] & (distance < half.amax(-1)[..., None, None])
        ignore = (near & (distance < reach)) | doubtful
        positive, ignore = hit.any(1), ignore.any(1)
        p = level[:, 0].sigmoid().clamp(1e-5, 1 - 1e-5)
        score = torch.where(positive, -((1 - p) ** 2) * p.log(), -(p**2) * (1 - p).log() * ~ignore)
        total = total + score.sum()
        b, y, x = torch.nonzero(positive, as_tuple=True)
        face = labels[b, hit[b, :, y, x].float().argmax(1)]
        place = where[0, 0, y, x]
        sides = torch.cat([place - face[:, 1:3], face[:, 3:5] - place], 1) / (UNIT * stride)
        points = (face[:, 5:].unflatten(1, (5, 2)) - place[:, None]).flatten(1) / (UNIT * stride)
        found = level[b, :, y, x]
        relative = (UNIT * stride / (face[:, 3:5] - face[:, 1:3]).amax(1).clamp_min(8))[:, None]  # errors per face size
        sides_error = (nn.functional.softplus(found[:, 1:5]) - sides) * relative
        points_error = (found[:, 5:] - points) * relative
        zero = torch.zeros(())
        total = total + 8 * nn.functional.smooth_l1_loss(
            sides_error, zero.expand_as(sides_error), reduction="sum", beta=0.05
        )
        total = total + 8 * nn.functional.smooth_l1_loss(
            points_error, zero.expand_as(points_error), reduction="sum", beta=0.05
        )
        positives += len(b)
    return total / positives


def train(network: FaceDetector, pool: dict[str, Tensor], minutes: float, batch: int, peak: float) -> None:
    """AdamW with one cosine over the given minutes."""
    optimizer = torch.optim.AdamW(network.parameters(), peak, weight_decay=0.01)
    started, step, sums = time.monotonic(), 0, np.zeros(2)
    while (done := (time.monotonic() - started) / (60 * minutes)) < 1:
        rate = peak * min(1, (step + 1) / 100) * (0.5 * (1 + np.cos(np.pi * done)) + 0.01)
        for group in optimizer.param_groups:
            group["lr"] = rate
        count = int(pool["count"])
        rows, crops = torch.randint(count, (batch,)), torch.randint(2 * count, (4 * batch,))
        with torch.autocast("cpu", torch.bfloat16):
            maps = network(pool["canvas"][rows].permute(0, 3, 1, 2).float() / 255)
            points = network.refiner(pool["crop"][crops].permute(0, 3, 1, 2).float() / 255)
        detection = detection_loss(maps, pool["label"][rows])
        refinement = nn.functional.smooth_l1_loss(points, pool["truth"][crops], beta=0.01)
        optimizer.zero_grad(set_to_none=True)
        (detection + 20 * refinement).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        step += 1
        sums += (detection.item(), refinement.item())
        if step % 100 == 0:
            log.info("%3.0f %% step %d pool %d detection %.3f refiner %.5f", 100 * done, step, count, *sums / 100)
            sums[:] = 0


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.distill.detector", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with faces/, talking/, scenes/")
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write (about 2 MB)")
    parser.add_argument("--minutes", type=float, default=12, help="training time (default: 12)")
    parser.add_argument("--batch", type=int, default=16, help="canvases a step (default: 16)")
    parser.add_argument("--pool", type=int, default=12000, help="canvases kept at a time, 200 kB each")
    parser.add_argument("--threads", type=int, default=1, help="threads of the trainer; the producer has its own")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate of AdamW (default: 0.002)")
    parser.add_argument("--start", type=Path, help="continue from this safetensors file")
    parser.add_argument("--seed", type=int, default=0, help="of weights and pictures (default: 0)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    pictures = read_photos(options.data) + read_clips(options.data, "talking", 10)
    pictures += read_clips(options.data, "talking_generated", 15) + read_scenes(options.data, 1.0)
    pictures = [picture for picture in pictures if not picture.held_out]
    log.info("%d pictures", len(pictures))
    shapes = {"canvas": (options.pool, SIDE, SIDE, 3), "crop": (2 * options.pool, REFINER_SIDE, REFINER_SIDE, 3)}
    pool = {name: torch.zeros(shape, dtype=torch.uint8).share_memory_() for name, shape in shapes.items()}
    pool["label"] = torch.zeros(options.pool, MOST_FACES, 15).share_memory_()
    pool["truth"] = torch.zeros(2 * options.pool, 5, 2).share_memory_()
    pool["count"] = torch.zeros((), dtype=torch.long).share_memory_()
    producer = mp.get_context("spawn").Process(target=produce, args=(pictures, pool, options.seed + 1), daemon=True)
    producer.start()
    while int(pool["count"]) < 20 * options.batch:
        time.sleep(0.5)
    network = FaceDetector().train()
    if options.start:
        load_into(network, load_weights(options.start)[0], options.start.name)
    try:
        train(network, pool, options.minutes, options.batch, options.rate)
    finally:
        producer.terminate()
        save(network, options.output)


def save(network: FaceDetector, path: Path) -> None:
    """Half-precision safetensors with a description in its header."""
    metadata = {
        "id": "wavsyncswap-facedetector-v1",
        "network": "facedetector",
        "config": {},
        "input": "RGB [B, 3, H, W] in [0, 1], sides multiples of 32",
        "landmarks": "left eye, right eye, nose tip, left and right mouth corner, as in the image",
        "data": "faces, talking, talking_generated (face-mesh labels), scenes (labels of MTCNN, MIT)",
        "licence": "research / demo weights, non-commercial research use",
    }
    save_weights(path, {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}, metadata)


if __name__ == "__main__":
    main()
