"""Networks, optimisers and one step of the generator's training; its state to and from a checkpoint."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoints import sha256_file
from models.identity import Recogniser
from models.networks.patchgan import MultiScalePatchGAN
from models.networks.wavsyncswap import WavSyncSwap

from .batches import Batch
from .config import Recipe, from_checkpoint
from .engine import Engine
from .keeper import Record, read_record, write
from .lip_reader import LipReader
from .loop import LOG_EVERY
from .losses import GeneratorLosses, critic_loss
from .second_recogniser import MobileFaceNet
from .shares import gradient_norms, shares, unweighted
from .sync_loss import SyncLoss
from .warm_start import warm_start

log = logging.getLogger(__name__)
HEAD_START = 100  # steps the critic learns before the generator listens to it
YOUNG = 0.08  # the average's half-life is never more than this share of the images seen: it must forget the noise


def average_decay(half_life: int, batch: int, step: int) -> float:
    """Share of the average that stays after a step.

    Args:
        half_life: images until half of an average is forgotten; 0 = there is no averaging.
        batch: images of a step.
        step: steps done, at least 1.
    """
    images = min(half_life, YOUNG * batch * step)
    return 0.5 ** (batch / images) if images else 0.0


def critic_of(px: int) -> MultiScalePatchGAN:
    """The critic of crops of a side (spec A21)."""
    return MultiScalePatchGAN(scales=2, layers=3 if px <= 128 else 4, width=32)


class Trainer:
    """One run's state.

    Attributes:
        system: what is trained.
        net: its network in training form.
        tower: the audio tower of it, frozen; None = it is deaf.
        average: exponential moving average of its state dict.
        step: steps done.
        record: what its checkpoints say beside that.
    """

    def __init__(
        self,
        recipe: Recipe,
        tower: nn.Module | None,
        recogniser: Recogniser,
        reader: LipReader | None,
        second: MobileFaceNet | None = None,
        engine: Engine | None = None,
        compiled: bool = True,
        sync: SyncLoss | None = None,
    ) -> None:
        torch.manual_seed(recipe.schedule.seed)
        model, optim = recipe.model, recipe.optim
        self.engine = engine or Engine(precision=optim.precision)
        self.recipe, self.step, self.device, self.record = recipe, 0, self.engine.device, Record()
        self.system, self.id_dim = recipe.system, recogniser.dim
        self.net = self.system.build(model, self.id_dim)
        self.tower: nn.Module | None = getattr(self.net, "audio_encoder", None)
        if self.tower is not None and tower is not None:
            self.tower.load_state_dict(tower.state_dict())
            self.tower.requires_grad_(False)
        called = self.system.called(self.net)
        self.critic = critic_of(model.px)
        self.run_net = self.engine.setup(called, compiled)
        self.run_critic = self.engine.setup(self.critic, compiled)
        self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        learnt = [p for p in self.net.parameters() if p.requires_grad]
        self.optimizer = self._adam(learnt, optim.lr)
        self.critic_optimizer = self._adam(list(self.critic.parameters()), optim.discriminator_lr)
        self.losses = GeneratorLosses(recipe.loss, model.px, recogniser, reader, second, self.device, compiled)
        self.sync = sync

    def _adam(self, parameters: list[nn.Parameter], rate: float) -> torch.optim.Adam:
        return torch.optim.Adam(parameters, rate, (0.5, 0.999), fused=self.device.type == "cuda")

    def train_step(self, batch: Batch) -> dict[str, Any]:
        """One update of both networks.

        Args:
            batch: this process's rows of the step's batch.

        Returns:
            The weighted losses over the whole batch by name; on steps that are logged also "critic", the critic's loss,
            "raw", the losses without their weights, and "share", how much of the gradient at the generated picture
            each one makes.

        Raises:
            FloatingPointError: a loss or gradient is no number; nothing was updated, in no process.
        """
        schedule = self.recipe.schedule
        logged = (self.step + 1) % LOG_EVERY == 0 or self.step + 1 == schedule.steps
        self._set_rate()
        if self.sync:
            self.sync.look(self.system.called(self.net), self.step, self.engine.precise(), self.engine.any)
        self.net.train()
        if self.tower is not None:
            self.tower.eval()  # frozen means frozen: its batch statistics too
        self.optimizer.zero_grad(set_to_none=True)
        parts = [batch.part(i, schedule.accumulate).to(self.device) for i in range(schedule.accumulate)]
        drawn, values, squares = [], [], []
        for part in parts:
            with self.engine.alone(self.run_net, part is not parts[-1]), self.engine.alone(self.run_critic):
                picture, losses = self._losses(part, eager=logged)
                if logged:
                    squares.append(gradient_norms(losses, picture, self.engine.backward).square())
                self.engine.backward(torch.stack(list(losses.values())).sum() / len(parts))
            drawn.append(picture.detach())
            values.append(torch.stack(list(losses.values())).detach())
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.optim.clip)
        means = self.engine.mean(torch.stack(values).mean(0))
        result: dict[str, Any] = dict(zip(losses, means.tolist(), strict=True))
        if not torch.isfinite(means.sum() + norm):
            raise FloatingPointError(
                f"Step {self.step} gave a loss of {means.sum().item()} and a gradient of norm {norm.item()}: {result}. "
                "Nothing was updated. Lower optim.lr and start again: the run goes on from its last checkpoint."
            )
        self.optimizer.step()
        details: dict[str, Any] = {}
        if logged:
            details["raw"] = unweighted(result, self.recipe.loss)
            if self.sync and "sync" in result:  # its weight rises
                details["raw"]["sync"] = result["sync"] / self.sync.weight(self.step)
            details["share"] = shares(list(losses), self.engine.mean(torch.stack(squares).sum(0)))
        if self.step >= schedule.gan_start - HEAD_START:
            told = self._critic_step(parts, drawn)
            if logged:  # asking for a number waits for the device
                details["critic"] = told.item()
        self.step += 1
        self._update_average()
        return {**result, **details}

    def _losses(self, batch: Batch, eager: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """What the generator draws, [B, 3, px, px], and the weighted losses of it."""
        precise = self.engine.precise
        with torch.compiler.set_stance("force_eager" if eager else "default"):
            picture = self.run_net(batch.crops, batch.mel, batch.given)
            picture = picture.view_as(picture)  # gradients are taken here; further up they belong to the engine
            losses = {
                **self.losses.reconstruction(batch, picture),
                **self.losses.identity(batch, picture, self.step, precise()),
                **self.losses.lips(batch, picture, precise()),
            }
            if self.sync:
                losses.update(self.sync(batch, picture, self.step, precise()))
            if self.step >= self.recipe.schedule.gan_start:
                losses.update(self.losses.realism(self.run_critic, batch, picture, precise()))
        return picture, losses

    def _critic_step(self, parts: list[Batch], drawn: list[Tensor]) -> Tensor:
        """One update of the critic on the same pictures; its loss over the whole batch."""
        # The generator's backward pass left gradients here. Switching requires_grad off and on instead would be
        # cheaper, but a compiled critic keeps what it saw first.
        self.critic_optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for part, picture in zip(parts, drawn, strict=True):
            with self.engine.alone(self.run_critic, part is not parts[-1]):
                loss = critic_loss(self.run_critic, part.truth, picture, self.engine.precise()) / len(parts)
                self.engine.backward(loss)
            total += loss.detach()
        self.critic_optimizer.step()
        return self.engine.mean(total)

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
        decay = average_decay(self.recipe.optim.ema_images, self.recipe.schedule.batch, self.step)
        state = self.net.state_dict()
        smooth = [name for name, value in state.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[name] for name in smooth], [state[name] for name in smooth], 1 - decay)
        for name in state.keys() - set(smooth):
            self.average[name].copy_(state[name])

    def averaged(self) -> nn.Module:
        """A copy of the network with the averaged weights, in eval mode, where the run is; see `System.called`."""
        net = self.system.build(self.recipe.model, self.id_dim).to(self.device)
        net.load_state_dict(self.average)
        return self.system.called(net).eval()

    def start_from(self, path: Path) -> str:
        """Take what fits from a weights file; the audio tower, replaced or not, stays frozen.

        Returns:
            A table of what was loaded, see `warm_start`.

        Raises:
            ValueError: as `warm_start` and `System.check_start`.
        """
        self.system.check_start()
        assert isinstance(self.net, WavSyncSwap)
        table = warm_start(self.net, path)
        self.record.start.append([path.name, sha256_file(path)])
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
        write(path, {**state, "average": self.average, "sync_opened": opened}, self, self.recipe)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same network; other changes of the recipe hold from here on, and are told.

        Raises:
            ValueError: the checkpoint is of another network.
        """
        state = torch.load(path, map_location=self.device, weights_only=True)
        made, wanted = asdict(from_checkpoint(state["recipe"])), asdict(self.recipe)
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
        self.average, self.step, self.record = state["average"], state["step"], read_record(state)
        if self.sync:
            self.sync.opened = state.get("sync_opened")
