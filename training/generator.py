"""The generator's training loop: mouth-weighted L1, identity on swapped pairs, then a multi-scale PatchGAN.

`python -m training generator --data DIR --output DIR`. A first, small loop; batches are a pure function of the step,
so a run that was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoints import load_into, load_weights
from models.identity import Recogniser, load_recogniser
from models.networks.patchgan import MultiScalePatchGAN, least_squares_loss, weak_feature_matching
from models.networks.wavsyncswap import WavSyncSwap

from .audio_tower import pretrain
from .batches import Batch, Batches, aligned_faces
from .clips import ClipSet, load_clips
from .lip_reader import LipReader, load_reader, pretrain_reader
from .second_recogniser import MobileFaceNet, second_recogniser
from .sources import source_bank

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Everything a run depends on beside the data; stored in its checkpoints."""

    width: str = "small"
    px: int = 96
    skips: str = "adain"
    blend: bool = True
    steps: int = 4000
    gan_start: int = 2000  # step at which adversarial and feature-matching losses begin
    tower_steps: int = 1400
    batch: int = 32
    swapped: int = 12  # rows of a batch whose source is another identity
    lr: float = 5e-4  # before the GAN; a fifth of it after
    discriminator_lr: float = 2e-4
    l1: float = 10.0
    low: float = 5.0  # L1 of 8-px averages on swapped rows: pose, light and colour of the target
    identity: float = 2.0  # by the generator's own recogniser
    identity_rows: int = 16  # rows of a batch, counted from the end, whose identity is looked at
    second_identity: float = 2.0  # by the second recogniser, where the data folder has one
    second_rows: int = 6
    lips: float = 1.0  # what a frozen lip reader sees in the generated and in the true mouth, swapped rows too
    reader_steps: int = 1200
    feature_matching: float = 5.0
    adversarial: float = 1.0
    ema: float = 0.999
    seed: int = 0


def mouth_weights(px: int) -> Tensor:
    """L1 weights [1, 1, px, px], mean 1: lower half twice, the mouth twice more (spec section 9)."""
    weights = torch.ones(px, px)
    weights[px // 2 :] += 1
    weights[int(0.58 * px) : int(0.90 * px), int(0.28 * px) : int(0.72 * px)] += 2
    return (weights / weights.mean())[None, None]


def recoloured(faces: Tensor, seed: int) -> Tensor:
    """Aligned faces [B, 3, 112, 112] with random gain and a random share of their colour.

    Without it the generator learns to please the recogniser with orange noses and blue eyelids.
    """
    random = torch.Generator().manual_seed(seed)
    share = torch.rand(len(faces), 1, 1, 1, generator=random)
    gain = torch.exp(0.15 * torch.randn(len(faces), 3, 1, 1, generator=random))
    return torch.lerp(faces.mean(1, keepdim=True), faces, share) * gain


class Trainer:
    """Networks, optimisers and one step."""

    def __init__(
        self,
        recipe: Recipe,
        tower: nn.Module,
        recogniser: Recogniser,
        reader: LipReader,
        second: MobileFaceNet | None = None,
        compiled: bool = True,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.reader, self.second = reader.eval().requires_grad_(False), second
        self.recipe, self.step, self.recogniser = recipe, 0, recogniser
        self.net = WavSyncSwap(recipe.width, recipe.px, recipe.skips, id_dim=recogniser.dim, blend=recipe.blend)
        self.net.audio_encoder.load_state_dict(tower.state_dict())
        self.net.audio_encoder.requires_grad_(False)
        self.critic = MultiScalePatchGAN(scales=2, layers=3, width=32)
        recogniser.network.eval().requires_grad_(False)
        self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        learnt = [p for p in self.net.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(learnt, recipe.lr, (0.5, 0.999))
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), recipe.discriminator_lr, (0.5, 0.999))
        self.weights = mouth_weights(recipe.px)
        faster = torch.compile if compiled else lambda function: function
        self.run_net, self.run_critic, self.run_embed = (faster(f) for f in (self.net, self.critic, recogniser.embed))

    def generator_losses(self, batch: Batch, generated: Tensor, adversarial: bool) -> dict[str, Tensor]:
        """Weighted losses of a step by name."""
        recipe, same = self.recipe, len(generated) - batch.swapped
        difference = (generated - batch.truth).abs()
        losses = {"l1": recipe.l1 * (difference[:same] * self.weights).mean()}
        pooled = nn.functional.avg_pool2d(generated[same:] - batch.truth[same:], 8)
        losses["low"] = recipe.low * pooled.abs().mean()
        losses.update(self.identity_losses(batch, generated))
        with torch.autocast("cpu", torch.bfloat16):
            read = self.reader(torch.cat([generated, batch.truth])).float()
        losses["lips"] = recipe.lips * nn.functional.smooth_l1_loss(*read.chunk(2))
        if adversarial:
            with torch.autocast("cpu", torch.bfloat16):
                fake, real = self.run_critic(generated), self.run_critic(batch.truth)
            losses["adversarial"] = recipe.adversarial * least_squares_loss(fake, 1.0)
            losses["matching"] = recipe.feature_matching * weak_feature_matching(fake, real)
        return losses

    def identity_losses(self, batch: Batch, generated: Tensor) -> dict[str, Tensor]:
        """Weighted distances of a batch's last rows to their sources: the swapped ones and a few more."""
        recipe, rows = self.recipe, slice(-self.recipe.identity_rows, None)
        faces = recoloured(aligned_faces(generated[rows], batch.to_arcface[rows]), self.step)
        with torch.autocast("cpu", torch.bfloat16):
            vectors = self.run_embed(faces).float()
        losses = {"identity": recipe.identity * (1 - (vectors * batch.source[rows]).sum(1)).mean()}
        if self.second is not None and batch.second is not None:
            rows = slice(-recipe.second_rows, None)
            distance = 1 - (self.second.embed(faces[rows]) * batch.second[rows]).sum(1)
            losses["second_identity"] = recipe.second_identity * distance.mean()
        return losses

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """LSGAN loss of the critic on real and generated pictures."""
        with torch.autocast("cpu", torch.bfloat16):
            outputs = self.run_critic(real), self.run_critic(fake.detach())
        return 0.5 * (least_squares_loss(outputs[0], 1.0) + least_squares_loss(outputs[1], 0.0))

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One update of both networks; returns the losses."""
        recipe, adversarial = self.recipe, self.step >= self.recipe.gan_start
        self._set_rate()
        self.net.train()
        self.net.audio_encoder.eval()  # frozen means frozen: its batch statistics too
        with torch.autocast("cpu", torch.bfloat16):
            generated = self.run_net(batch.crops, batch.mel, batch.source)
        losses = self.generator_losses(batch, generated, adversarial)
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        if not torch.isfinite(total):
            raise RuntimeError(f"Loss is {total.item()} in step {self.step}: {losses}. Lower lr and resume.")
        self.optimizer.step()
        if adversarial or self.step >= recipe.gan_start - 100:  # the critic gets a short head start
            losses["critic"] = self.critic_loss(batch.truth, generated)
            # The generator's backward pass left gradients here. Switching requires_grad off and on instead would be
            # cheaper, but a compiled critic keeps what it saw first.
            self.critic_optimizer.zero_grad(set_to_none=True)
            losses["critic"].backward()
            self.critic_optimizer.step()
        self.step += 1
        self._update_average()
        return {name: loss.item() for name, loss in losses.items()}

    def _set_rate(self) -> None:
        """Short warm-up; cosine to a fifth over the last tenth of each phase; a fifth from the GAN on."""
        recipe = self.recipe
        rate = recipe.lr * min(1.0, (self.step + 1) / 100)
        if self.step >= recipe.gan_start:
            left = (recipe.steps - self.step) / max(1, recipe.steps - recipe.gan_start)
            rate = recipe.lr * 0.4 * min(1.0, left / 0.3 + 0.02)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _update_average(self) -> None:
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.net.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def averaged(self) -> WavSyncSwap:
        """A copy of the network with the averaged weights, in eval mode."""
        net = WavSyncSwap(**self.net.config)
        net.load_state_dict(self.average)
        return net.eval()

    def start_from(self, path: Path) -> None:
        """Take the networks' weights, audio tower included, from an exported file of the same layout.

        Weights of a network without `blend` fit one that has it: it then starts by drawing nearly everything.
        """
        state, _ = load_weights(path)
        state = {key: value.float() for key, value in state.items()}
        last = state["output_block.2.weight"], state["output_block.2.bias"]
        if self.recipe.blend and len(last[0]) == 3:
            state["output_block.2.weight"] = torch.cat([last[0], torch.zeros_like(last[0][:1])])
            state["output_block.2.bias"] = torch.cat([last[1], torch.tensor([2.0])])  # sigmoid(2) = 0.88
        load_into(self.net, state, path.name)
        self.net.audio_encoder.requires_grad_(False)
        self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}

    def save(self, path: Path) -> None:
        """Write a checkpoint; a half-written one never replaces a whole one."""
        parts: dict[str, Any] = {
            "net": self.net,
            "critic": self.critic,
            "opt": self.optimizer,
            "critic_opt": self.critic_optimizer,
        }
        state = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**state, "average": self.average, "step": self.step, "recipe": asdict(self.recipe)}, f"{path}.tmp")
        os.replace(f"{path}.tmp", path)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same recipe."""
        state = torch.load(path, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["opt"])
        self.critic_optimizer.load_state_dict(state["critic_opt"])
        self.average, self.step = state["average"], state["step"]


def train(data: ClipSet, folder: Path, output: Path, recipe: Recipe, init: Path | None = None) -> Trainer:
    """Train to the last step of the recipe, resuming when `output` holds a checkpoint.

    Args:
        data: prepared clips.
        folder: data folder with faces/ and, if there is a second recogniser, weights/.
        output: run folder.
        recipe: what to do.
        init: exported weights to start from instead of noise; ignored when a run is resumed.
    """
    output.mkdir(parents=True, exist_ok=True)
    recogniser, second = load_recogniser("builtin"), second_recogniser(folder)
    bank = source_bank(data, folder / "faces", recogniser, second)
    batches = Batches(data, data.of("train", generated=True), bank, recipe.px, recipe.seed)
    reader = _reader(data, batches, output, recipe)
    trainer = Trainer(recipe, _tower(data, output, recipe), recogniser, reader, second)
    checkpoint = output / "last.pt"
    if checkpoint.exists():
        trainer.restore(checkpoint)
        log.info("resumed at step %d", trainer.step)
    elif init:
        trainer.start_from(init)
        log.info("started from %s", init)
    started, first = time.monotonic(), trainer.step
    with (output / "log.jsonl").open("a") as lines:
        while trainer.step < recipe.steps:
            losses = trainer.train_step(batches(trainer.step, recipe.batch, recipe.swapped))
            if trainer.step % 20 == 0:
                speed = (trainer.step - first) * recipe.batch / (time.monotonic() - started)
                lines.write(json.dumps({"step": trainer.step, "samples_per_s": round(speed, 1), **losses}) + "\n")
                lines.flush()
            if trainer.step % 250 == 0 or trainer.step == recipe.steps:
                trainer.save(checkpoint)
                log.info("step %d saved, %.0f samples/s", trainer.step, speed)
    return trainer


def _tower(data: ClipSet, output: Path, recipe: Recipe) -> nn.Module:
    path = output / "audio_tower.pt"
    tower: nn.Module = WavSyncSwap(recipe.width, recipe.px).audio_encoder
    if path.exists():
        tower.load_state_dict(torch.load(path, weights_only=True))
        return tower
    tower, numbers = pretrain(data, recipe.tower_steps, 0.5 if recipe.width == "small" else 1.0, recipe.seed)
    torch.save(tower.state_dict(), path)
    (output / "audio_tower.json").write_text(json.dumps(numbers))
    return tower


def _reader(data: ClipSet, batches: Batches, output: Path, recipe: Recipe) -> LipReader:
    path = output / "lip_reader.pt"
    if path.exists():
        return load_reader(path)
    reader, numbers = pretrain_reader(data, batches, recipe.reader_steps, recipe.seed)
    torch.save(reader.state_dict(), path)
    (output / "lip_reader.json").write_text(json.dumps(numbers))
    return reader


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training generator`."""
    parser.add_argument("--data", type=Path, required=True, help="folder with talking/, faces/ and landmarks.npz")
    parser.add_argument("--output", type=Path, required=True, help="run folder: checkpoints, log, prepared clips")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="optimiser steps (default %(default)s)")
    parser.add_argument("--gan-start", type=int, default=Recipe.gan_start, help="step at which the GAN begins")
    parser.add_argument("--skips", choices=("none", "adain"), default=Recipe.skips, help="encoder skips (spec A2)")
    parser.add_argument("--init", type=Path, help="exported weights to start from (default: noise)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches")


def run(args: argparse.Namespace) -> int:
    """Train, or go on training."""
    data = load_clips(args.data, args.output / "clips")
    recipe = Recipe(steps=args.steps, gan_start=args.gan_start, skips=args.skips, seed=args.seed)
    train(data, args.data, args.output, recipe, args.init)
    return 0
