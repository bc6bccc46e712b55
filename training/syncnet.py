"""`python -m training syncnet --data DIR --output DIR`: train the sync expert, or go on training it.

Trained contrastively from noise, the expert stays at chance for days (spec 5.3). Here both towers first learn to
predict 14 measured mouth numbers, minutes of work, and are then taught to meet: with a softmax over the whole batch,
whose hard negatives are other moments of the same clip, and with Wav2Lip's own cosine BCE, which keeps the cosine a
probability.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.syncnet import FRAMES, SyncNetExpert, frames_to_expert

from .audio_tower import augment_mel
from .clips import Clip, ClipSet, load_clips
from .config import Recipe, load_recipe, to_toml
from .loop import LOG_EVERY, Clock, add_run_arguments, stop_requested
from .sync_loss import load_expert
from .sync_windows import SyncBatch, SyncBatches, faces_of, mel_row, starts
from .teacher import Teacher, distillation_loss

log = logging.getLogger(__name__)
LAGS = 15  # frames to each side in which the offset of a clip is looked for
VAL_WINDOWS = 24  # of each clip


def contrastive_loss(audio: Tensor, face: Tensor, negative: Tensor, temperature: float) -> Tensor:
    """Symmetric softmax cross entropy of matching rows against their negatives; unit vectors [B, D], bool [B, B]."""
    logits = audio @ face.T / temperature
    matching = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(~(negative | matching), -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target))


def probability_loss(audio: Tensor, face: Tensor, negative: Tensor) -> Tensor:
    """Wav2Lip's BCE on the cosine: matching rows and as many negatives, every other one the hardest of its row."""
    cosine = (audio @ face.T).clamp(1e-7, 1 - 1e-7)
    hardest = cosine.masked_fill(~negative, -1).argmax(1)
    some = negative.float().argmax(1)  # the first negative: as good as random, rows are in random order
    row = torch.arange(len(cosine), device=cosine.device)
    other = cosine[row, torch.where(row % 2 == 0, hardest, some)]
    return -0.5 * (cosine[row, row].log().mean() + (1 - other).log().mean())


@torch.inference_mode()
def measure(expert: SyncNetExpert, data: ClipSet, clips: list[Clip]) -> dict[str, float]:
    """On clips: how often the true sound beats one from elsewhere in the clip, how often the offset is found, BCE.

    Returns:
        accuracy (true against shifted by five frames or more, per window), offset_within_1 (share of clips whose mean
        cosine over up to 24 windows peaks within a frame of it, among +-15), loss (BCE, half positives).
    """
    right, found, losses = [], [], []
    for clip in clips:
        count = starts(clip)
        if count <= 2 * LAGS:
            continue
        first = np.unique(np.linspace(LAGS, count - 1 - LAGS, VAL_WINDOWS).astype(int))
        face = expert.embed_face(frames_to_expert(faces_of(data, clip, first)))
        lags = np.arange(-LAGS, LAGS + 1)
        places = np.clip(first[:, None] + lags, 0, clip.frames - 2)
        mel = torch.from_numpy(mel_row(data, clip, places.ravel()))[:, None]
        audio = expert.embed_audio(mel).view(len(first), len(lags), -1)
        cosine = (audio * face[:, None]).sum(2)
        far = np.abs(lags) >= FRAMES
        right.append((cosine[:, LAGS, None] > cosine[:, far]).float().mean().item())
        found.append(abs(int(cosine.mean(0).argmax()) - LAGS) <= 1)
        clear = cosine.clamp(1e-7, 1 - 1e-7)
        losses.append(-0.5 * (clear[:, LAGS].log().mean() + (1 - clear[:, far]).log().mean()).item())
    return {"accuracy": float(np.mean(right)), "offset_within_1": float(np.mean(found)), "loss": float(np.mean(losses))}


class SyncTrainer:
    """Expert, the heads of its supervised start, optimiser and one step."""

    def __init__(self, recipe: Recipe, device: str = "cpu", compiled: bool = True) -> None:
        torch.manual_seed(recipe.schedule.seed)
        self.recipe, self.step, self.device = recipe, 0, torch.device(device)
        self.expert = SyncNetExpert().to(self.device)
        self.heads = nn.ModuleList([nn.Linear(512, 14), nn.Linear(512, 14)]).to(self.device)
        everything = [*self.expert.parameters(), *self.heads.parameters()]
        teacher = recipe.syncnet.teacher
        self.teacher = Teacher(Path(teacher), self.device) if teacher else None
        self.optimizer = torch.optim.AdamW(everything, recipe.syncnet.lr, weight_decay=0.05)
        faster: Any = torch.compile if compiled else lambda module: module
        self.audio, self.face = faster(self.expert.audio_encoder), faster(self.expert.face_encoder)

    def train_step(self, batch: SyncBatch) -> dict[str, float]:
        """One update; supervised until `syncnet.supervised_steps`, both tasks after that.

        Raises:
            RuntimeError: the loss is no number; nothing was updated.
        """
        config = self.recipe.syncnet
        self._set_rate()
        self.expert.train()
        random = torch.Generator().manual_seed(self.step)
        faces = frames_to_expert(batch.faces.to(self.device))
        mel = augment_mel(batch.mel, random).to(self.device)
        precise = torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.optim.precision == "bf16")
        with precise:
            audio, face = self.audio(mel).flatten(1).float(), self.face(faces).flatten(1).float()
        lips, negative = batch.lips.to(self.device), batch.negative.to(self.device)
        read = [head(x) for head, x in zip(self.heads, (audio, face), strict=True)]
        losses = {
            f"lips_{name}": functional.smooth_l1_loss(numbers, lips)
            for name, numbers in zip(("audio", "face"), read, strict=True)
        }
        if self.step >= config.supervised_steps:
            audio, face = functional.normalize(audio, dim=1), functional.normalize(face, dim=1)
            losses["contrastive"] = contrastive_loss(audio, face, negative, config.temperature)
            losses["probability"] = probability_loss(audio, face, negative)
            if self.teacher:
                cosines = self.teacher.cosines(batch.mel.to(self.device), faces)
                losses["distillation"] = config.distillation * distillation_loss(audio, face, cosines)
        total = torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.expert.parameters(), 1.0)
        if not torch.isfinite(total + norm):
            raise RuntimeError(f"Step {self.step} gave a loss of {total.item()}. Lower syncnet.lr and start again.")
        self.optimizer.step()
        self.step += 1
        return {name: loss.item() for name, loss in losses.items()}

    def _set_rate(self) -> None:
        config = self.recipe.syncnet
        left = 1 - self.step / config.steps
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * min(1.0, (self.step + 1) / self.recipe.optim.warmup, left / 0.5 + 0.02)

    def save(self, path: Path) -> None:
        """Write a checkpoint; a half-written one never replaces a whole one."""
        parts: dict[str, Any] = {"expert": self.expert, "heads": self.heads, "opt": self.optimizer}
        state = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**state, "step": self.step, "recipe": asdict(self.recipe)}, f"{path}.tmp")
        os.replace(f"{path}.tmp", path)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.expert.load_state_dict(state["expert"])
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["opt"])
        self.step = state["step"]


def train(
    data: ClipSet,
    output: Path,
    recipe: Recipe,
    device: str = "cpu",
    compiled: bool = True,
    init: Path | None = None,
) -> SyncTrainer:
    """Train to the recipe's last step, resuming when `output` holds syncnet.pt; metrics on the val clips on the way.

    `init` names an expert to start from instead of noise; it is ignored when a run is resumed.
    """
    output.mkdir(parents=True, exist_ok=True)
    config = recipe.syncnet
    trainer, checkpoint = SyncTrainer(recipe, device, compiled), output / "syncnet.pt"
    if checkpoint.exists():
        trainer.restore(checkpoint)
        log.info("resumed at step %d", trainer.step)
    elif init:
        trainer.expert.load_state_dict(load_expert(init).state_dict())
        log.info("started from the expert in %s, all of it", init.name)
    batches = SyncBatches(data, data.of("train", generated=True), recipe.schedule.seed)
    (output / "recipe.toml").write_text(to_toml(recipe), encoding="utf-8")
    with stop_requested() as stop, (output / "syncnet.jsonl").open("a") as lines:
        clock, size = Clock(trainer.step), config.clips * config.windows
        while trainer.step < config.steps and not stop.is_set():
            losses = trainer.train_step(clock.waited(lambda: batches(trainer.step, config.clips, config.windows)))
            last = trainer.step == config.steps
            entry: dict[str, float] = {}
            if trainer.step % config.measure_every == 0 or trainer.step == 1 or last:
                numbers = measure(trainer.expert.eval(), data, data.of("val"))
                entry = {f"val_{name}": round(value, 4) for name, value in numbers.items()}
                trainer.save(checkpoint)
                log.info("step %d saved: %s", trainer.step, entry)
            if entry or trainer.step % LOG_EVERY == 0:
                lines.write(
                    json.dumps({"step": trainer.step, **clock.rates(trainer.step, size), **losses, **entry}) + "\n"
                )
                lines.flush()
        trainer.save(checkpoint)
    return trainer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training syncnet`."""
    parser.add_argument("--data", type=Path, required=True, help="folder with talking/ and landmarks.npz")
    parser.add_argument("--output", type=Path, required=True, help="run folder: checkpoint, log, prepared clips")
    add_run_arguments(parser)
    parser.add_argument(
        "--init", type=Path, metavar="FILE", help="expert to start from, such as lipsync_expert.pth (default: noise)"
    )
    parser.add_argument(
        "--teacher", metavar="FILE", help="frozen expert to learn from beside the data: sets syncnet.teacher"
    )
    parser.add_argument(
        "--sanity", action="store_true", help="only see whether 32 windows of 8 clips can be learnt by heart; minutes"
    )


def run(args: argparse.Namespace) -> int:
    """Train, or go on training; with --sanity status 1 says that the check failed."""
    teacher = [f"syncnet.teacher={json.dumps(args.teacher)}"] if args.teacher else []
    recipe = load_recipe(args.recipe, [*args.set, *teacher])
    for file in filter(None, (recipe.syncnet.teacher, args.init)):
        load_expert(Path(file))  # what is wrong with it is told before any work
    data = load_clips(args.data, args.output / "clips")
    if args.sanity:
        from .sync_sanity import check

        verdict = check(data, recipe, args.device, not args.no_compile)
        print(verdict)
        return 0 if verdict.passed else 1
    trainer = train(data, args.output, recipe, args.device, not args.no_compile, args.init)
    done = trainer.step >= recipe.syncnet.steps
    print(f"{'Done' if done else 'Stopped and saved'} after step {trainer.step}: {args.output}/syncnet.pt")
    return 0
