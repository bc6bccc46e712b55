"""Networks, optimisers and one step of the generator's training; its state to and from a checkpoint."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.identity import Recogniser
from models.networks.patchgan import MultiScalePatchGAN
from models.networks.wavsyncswap import WavSyncSwap

from .batches import Batch
from .config import Recipe
from .lip_reader import LipReader
from .losses import GeneratorLosses, critic_loss
from .second_recogniser import MobileFaceNet
from .sync_loss import SyncLoss
from .warm_start import warm_start

log = logging.getLogger(__name__)
HEAD_START = 100  # steps the critic learns before the generator listens to it


class Trainer:
    """One run's state.

    Attributes:
        net: the generator in training form; its audio tower is frozen.
        average: exponential moving average of its state dict.
        step: steps done.
    """

    def __init__(
        self,
        recipe: Recipe,
        tower: nn.Module,
        recogniser: Recogniser,
        reader: LipReader,
        second: MobileFaceNet | None = None,
        device: str = "cpu",
        compiled: bool = True,
        sync: SyncLoss | None = None,
    ) -> None:
        torch.manual_seed(recipe.schedule.seed)
        model, optim = recipe.model, recipe.optim
        self.recipe, self.step, self.device = recipe, 0, torch.device(device)
        self.net = WavSyncSwap(**asdict(model), id_dim=recogniser.dim)
        self.net.audio_encoder.load_state_dict(tower.state_dict())
        self.net.audio_encoder.requires_grad_(False)
        self.critic = MultiScalePatchGAN(scales=2, layers=3 if model.px <= 128 else 4, width=32)  # spec A21
        self.net.to(self.device)
        self.critic.to(self.device)
        self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        learnt = [p for p in self.net.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(learnt, optim.lr, (0.5, 0.999))
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), optim.discriminator_lr, (0.5, 0.999))
        self.losses = GeneratorLosses(recipe.loss, model.px, recogniser, reader, second, self.device, compiled)
        self.sync = sync
        self.run_net = torch.compile(self.net) if compiled else self.net
        self.run_critic = torch.compile(self.critic) if compiled else self.critic

    def precise(self) -> torch.autocast:
        """The run's number type where it may be less than float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.optim.precision == "bf16")

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One update of both networks; returns the weighted losses.

        Raises:
            RuntimeError: a loss or gradient is no number; nothing was updated.
        """
        schedule = self.recipe.schedule
        batch = batch.to(self.device)
        adversarial = self.step >= schedule.gan_start
        self._set_rate()
        if self.sync:
            self.sync.look(self.net, self.step, self.precise())
        self.net.train()
        self.net.audio_encoder.eval()  # frozen means frozen: its batch statistics too
        with self.precise():
            generated = self.run_net(batch.crops, batch.mel, batch.given)
        losses = {
            **self.losses.reconstruction(batch, generated),
            **self.losses.identity(batch, generated, self.step, self.precise()),
            **self.losses.lips(batch, generated, self.precise()),
        }
        if self.sync:
            losses.update(self.sync(batch, generated, self.step, self.precise()))
        if adversarial:
            losses.update(self.losses.realism(self.run_critic, batch, generated, self.precise()))
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.optim.clip)
        if not torch.isfinite(total + norm):
            shown = {name: loss.item() for name, loss in losses.items()}
            raise RuntimeError(
                f"Step {self.step} gave a loss of {total.item()} and a gradient of norm {norm.item()}: {shown}. "
                "Nothing was updated. Lower optim.lr and start again: the run goes on from its last checkpoint."
            )
        self.optimizer.step()
        if adversarial or self.step >= schedule.gan_start - HEAD_START:
            losses["critic"] = critic_loss(self.run_critic, batch.truth, generated, self.precise())
            # The generator's backward pass left gradients here. Switching requires_grad off and on instead would be
            # cheaper, but a compiled critic keeps what it saw first.
            self.critic_optimizer.zero_grad(set_to_none=True)
            losses["critic"].backward()
            self.critic_optimizer.step()
        self.step += 1
        self._update_average()
        return {name: loss.item() for name, loss in losses.items()}

    def _set_rate(self) -> None:
        """Linear warm-up; lower once the GAN runs, and linearly to nearly nothing over the last third of that."""
        schedule, optim = self.recipe.schedule, self.recipe.optim
        rate = optim.lr * min(1.0, (self.step + 1) / max(1, optim.warmup))
        if self.step >= schedule.gan_start:
            left = (schedule.steps - self.step) / max(1, schedule.steps - schedule.gan_start)
            rate = optim.lr * optim.gan_rate * min(1.0, left / 0.3 + 0.02)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _update_average(self) -> None:
        decay = min(self.recipe.optim.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.net.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def averaged(self) -> WavSyncSwap:
        """A copy of the network with the averaged weights, in eval mode, on the CPU."""
        net = WavSyncSwap(**self.net.config)
        net.load_state_dict(self.average)
        return net.eval()

    def start_from(self, path: Path) -> str:
        """Take what fits from a weights file; the audio tower, replaced or not, stays frozen.

        Returns:
            A table of what was loaded, see `warm_start`.

        Raises:
            ValueError: as `warm_start`.
        """
        table = warm_start(self.net, path)
        self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        return table

    def save(self, path: Path) -> None:
        """Write a checkpoint; a half-written one never replaces a whole one."""
        parts: dict[str, Any] = {
            "net": self.net,
            "critic": self.critic,
            "opt": self.optimizer,
            "critic_opt": self.critic_optimizer,
        }
        state = {name: part.state_dict() for name, part in parts.items()}
        opened = self.sync.opened if self.sync else None
        state |= {"average": self.average, "step": self.step, "recipe": asdict(self.recipe), "sync_opened": opened}
        torch.save(state, f"{path}.tmp")
        os.replace(f"{path}.tmp", path)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same network; other changes of the recipe hold from here on, and are told.

        Raises:
            ValueError: the checkpoint is of another network.
        """
        state = torch.load(path, map_location=self.device, weights_only=True)
        made, wanted = state["recipe"], asdict(self.recipe)
        if made["model"] != wanted["model"]:
            raise ValueError(
                f"{path} holds the network {made['model']}, the recipe asks for {wanted['model']}. Give another "
                "--output, or the recipe.toml that lies beside the checkpoint as --recipe."
            )
        for section, values in wanted.items():
            for key, value in values.items():
                if made[section][key] != value:
                    change = (section, key, made[section][key], value, state["step"])
                    log.warning("%s.%s changes from %s to %s at step %d", *change)
        self.net.load_state_dict(state["net"])
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["opt"])
        self.critic_optimizer.load_state_dict(state["critic_opt"])
        self.average, self.step = state["average"], state["step"]
        if self.sync:
            self.sync.opened = state.get("sync_opened")
