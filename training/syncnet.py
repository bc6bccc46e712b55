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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.syncnet import FRAMES, SyncNetExpert, frames_to_expert

from .audio_tower import augment_mel
from .clips import Clip, ClipSet, load_clips
from .config import Recipe, from_checkpoint, to_toml
from .engine import Engine
from .global_batch import whole
from .keeper import Keeper, Record, data_digest, note_data, read_record, write
from .loop import Rhythm, add_run_arguments, chosen_recipe, follow, launch, stopped
from .plan import describe_syncnet
from .report import write_report
from .sync_loss import load_expert
from .sync_windows import SyncBatch, SyncBatches, faces_of, mel_row, sounding, starts
from .teacher import Teacher, distillation_loss
from .watch import Watch

log = logging.getLogger(__name__)
RECIPE = "syncnet_recipe.toml"  # in the run folder, which a generator's run may share
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

    Windows in which there is nothing to hear are not asked for.

    Returns:
        accuracy (true against shifted by five frames or more, per window), offset_within_1 (share of clips whose mean
        cosine over up to 24 windows peaks within a frame of it, among +-15), loss (BCE, half positives). Nothing where
        no clip is long enough.
    """
    right, found, losses = [], [], []
    device = next(expert.parameters()).device
    for clip in clips:
        count = starts(clip)
        if count <= 2 * LAGS:
            continue
        heard = sounding(data, clip)
        heard = heard[(heard >= LAGS) & (heard < count - LAGS)]
        if not len(heard):
            continue
        first = heard[np.unique(np.linspace(0, len(heard) - 1, VAL_WINDOWS).astype(int))]
        face = expert.embed_face(frames_to_expert(faces_of(data, clip, first).to(device)))
        lags = np.arange(-LAGS, LAGS + 1)
        places = np.clip(first[:, None] + lags, 0, clip.frames - 2)
        mel = torch.from_numpy(mel_row(data, clip, places.ravel()))[:, None]
        audio = expert.embed_audio(mel.to(device)).view(len(first), len(lags), -1)
        cosine = (audio * face[:, None]).sum(2)
        far = np.abs(lags) >= FRAMES
        right.append((cosine[:, LAGS, None] > cosine[:, far]).float().mean().item())
        found.append(abs(int(cosine.mean(0).argmax()) - LAGS) <= 1)
        clear = cosine.clamp(1e-7, 1 - 1e-7)
        losses.append(-0.5 * (clear[:, LAGS].log().mean() + (1 - clear[:, far]).log().mean()).item())
    if not right:
        return {}
    return {"accuracy": float(np.mean(right)), "offset_within_1": float(np.mean(found)), "loss": float(np.mean(losses))}


class Towers(nn.Module):
    """The expert and the heads of its supervised start, as one module."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.expert = SyncNetExpert(width)
        self.heads = nn.ModuleList([nn.Linear(self.expert.dim, 14), nn.Linear(self.expert.dim, 14)])

    def forward(self, mel: Tensor, faces: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(features [B, D], mouth numbers [B, 14]) by sound [B, 1, 80, 16] and by faces [B, 15, 48, 96]."""
        features = self.expert.audio_encoder(mel).flatten(1), self.expert.face_encoder(faces).flatten(1)
        with torch.autocast(mel.device.type, enabled=False):
            return [(x.float(), head(x.float())) for x, head in zip(features, self.heads, strict=True)]


class SyncTrainer:
    """Expert, the heads of its supervised start, optimiser and one step; `record` as in `Trainer`."""

    def __init__(self, recipe: Recipe, engine: Engine | None = None, compiled: bool = True) -> None:
        torch.manual_seed(recipe.schedule.seed)
        self.engine = engine or Engine(precision=recipe.optim.precision)
        self.recipe, self.step, self.device, self.record = recipe, 0, self.engine.device, Record()
        towers = Towers(recipe.syncnet.width)
        self.expert, self.heads = towers.expert, towers.heads
        teacher = recipe.syncnet.teacher
        self.teacher = Teacher(Path(teacher), self.device) if teacher else None
        self.run_towers = self.engine.setup(towers, compiled)
        self.optimizer = torch.optim.AdamW(towers.parameters(), recipe.syncnet.lr, weight_decay=0.05)

    def train_step(self, batch: SyncBatch) -> dict[str, float]:
        """One update; supervised until `syncnet.supervised_steps`, both tasks after that.

        The contrastive losses see the windows of all processes: negatives are as many as in one.

        Args:
            batch: this process's windows of the step's batch.

        Raises:
            FloatingPointError: the loss is no number; nothing was updated, in no process.
        """
        config = self.recipe.syncnet
        self._set_rate()
        self.expert.train()
        faces = frames_to_expert(batch.faces.to(self.device))
        (audio, heard), (face, seen) = self.run_towers(self._augmented(batch.mel).to(self.device), faces)
        lips, negative = batch.lips.to(self.device), batch.negative.to(self.device)
        losses = {
            "lips_audio": functional.smooth_l1_loss(heard, lips),
            "lips_face": functional.smooth_l1_loss(seen, lips),
        }
        if self.step >= config.supervised_steps:
            audio, face = (whole(functional.normalize(x, dim=1)) for x in (audio, face))
            losses["contrastive"] = contrastive_loss(audio, face, negative, config.temperature)
            losses["probability"] = probability_loss(audio, face, negative)
            if self.teacher:
                taught = self.teacher.vectors(batch.mel.to(self.device), faces)
                distance = distillation_loss((audio, face), (whole(taught[0]), whole(taught[1])))
                losses["distillation"] = config.distillation * distance
        values = torch.stack(list(losses.values()))
        self.optimizer.zero_grad(set_to_none=True)
        self.engine.backward(values.sum())
        norm = nn.utils.clip_grad_norm_(self.expert.parameters(), 1.0)
        means = self.engine.mean(values.detach())
        if not torch.isfinite(means.sum() + norm):
            raise FloatingPointError(
                f"Step {self.step} gave a loss of {means.sum()} and a gradient of norm {norm}: "
                f"{dict(zip(losses, means.tolist(), strict=True))}. Nothing was updated. Lower syncnet.lr and start "
                "again: the run goes on from its last checkpoint."
            )
        self.optimizer.step()
        self.step += 1
        return dict(zip(losses, means.tolist(), strict=True))

    def _augmented(self, mel: Tensor) -> Tensor:
        """This process's mel windows, each with the change that it would get in the whole batch."""
        index, count = self.engine.index, self.engine.count
        spread = mel.repeat_interleave(count, 0)  # changes are drawn for the whole batch
        return augment_mel(spread, torch.Generator().manual_seed(self.step))[index::count]

    def _set_rate(self) -> None:
        config = self.recipe.syncnet
        left = 1 - self.step / config.steps
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * min(1.0, (self.step + 1) / max(1, self.recipe.optim.warmup), left / 0.5 + 0.02)

    def save(self, path: Path) -> None:
        """Write a checkpoint; a half-written one never replaces a whole one."""
        parts: dict[str, Any] = {"expert": self.expert, "heads": self.heads, "opt": self.optimizer}
        write(path, {name: part.state_dict() for name, part in parts.items()}, self, self.recipe)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same network.

        Raises:
            ValueError: the checkpoint is of another network.
        """
        state = torch.load(path, map_location=self.device, weights_only=True)
        made, wanted = from_checkpoint(state["recipe"]).syncnet.width, self.recipe.syncnet.width
        if made != wanted:
            raise ValueError(
                f"{path} holds an expert of syncnet.width {made:g}, the recipe asks for {wanted:g}. Give another "
                f"--output, or the {RECIPE} that lies beside the checkpoint as --recipe."
            )
        self.expert.load_state_dict(state["expert"])
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["opt"])
        self.step, self.record = state["step"], read_record(state)


class SyncCourse:
    """What the loop asks of the expert's training, see `loop.Course`."""

    def __init__(self, trainer: SyncTrainer, batches: SyncBatches, data: ClipSet) -> None:
        self.trainer, self.batches, self.data = trainer, batches, data

    def draw(self, step: int) -> SyncBatch:
        """This process's windows of a step's batch."""
        config, engine = self.trainer.recipe.syncnet, self.trainer.engine
        return self.batches(step, config.clips, config.windows).part(engine.index, engine.count)

    def measure(self) -> tuple[dict[str, float], float] | None:
        """On the val clips; the best is the one that most often prefers the true sound."""
        numbers = measure(self.trainer.expert.eval(), self.data, self.data.of("val"))
        return (numbers, numbers["accuracy"]) if numbers else None

    def sample(self, watch: Watch) -> None:
        """Nothing to be seen."""


def train(
    data: ClipSet,
    folder: Path,
    output: Path,
    recipe: Recipe,
    engine: Engine | None = None,
    compiled: bool = True,
    init: Path | None = None,
) -> SyncTrainer:
    """Train to the recipe's last step, resuming when `output` holds syncnet.pt; metrics on the val clips on the way.

    `init` names an expert to start from instead of noise; it is ignored when a run is resumed.

    Raises:
        ValueError: the processes cannot share the recipe's batch.
    """
    engine, config = engine or Engine(precision=recipe.optim.precision), recipe.syncnet
    windows = config.clips * config.windows
    if windows % engine.count:
        raise ValueError(
            f"{engine.count} processes need a multiple of {engine.count} windows a step; syncnet.clips = "
            f"{config.clips} times syncnet.windows = {config.windows} is {windows}. Change one of them with --set."
        )
    output.mkdir(parents=True, exist_ok=True)
    trainer, keeper = SyncTrainer(recipe, engine, compiled), Keeper(output, "syncnet.pt", "syncnet_")
    if keeper.last.exists():
        trainer.restore(keeper.last)
        log.info("resumed at step %d", trainer.step)
    elif init:
        trainer.expert.load_state_dict(load_expert(init).state_dict())
        log.info("started from the expert in %s, all of it", init.name)
    note_data(trainer.record, data_digest(data, folder))
    batches = SyncBatches(data, data.training(), recipe.schedule.seed, engine.device)
    if engine.first:
        (output / RECIPE).write_text(to_toml(recipe), encoding="utf-8")
    rhythm = Rhythm(config.steps, windows, config.measure_every, config.measure_every, config.keep_every)
    watch = Watch(output, "syncnet.jsonl", trainer.step, config.steps, engine.first)
    follow(SyncCourse(trainer, batches, data), engine, rhythm, keeper, watch)
    return trainer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training syncnet`."""
    parser.add_argument("--data", type=Path, required=True, help="folder made by `prepare`, or of the research layout")
    parser.add_argument("--output", type=Path, required=True, help="run folder: checkpoint, log, prepared clips")
    add_run_arguments(parser)
    parser.add_argument(
        "--init", type=Path, metavar="FILE", help="expert to start from, such as lipsync_expert.pth (default: noise)"
    )
    parser.add_argument(
        "--teacher",
        metavar="FILE",
        help="frozen expert to learn from beside the data: sets syncnet.teacher (default: none)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the whole recipe, sizes, memory and data; do nothing"
    )
    parser.add_argument(
        "--sanity", action="store_true", help="only see whether 32 windows of 8 clips can be learnt by heart; minutes"
    )


def run(args: argparse.Namespace) -> int:
    """Train, or go on training; with --sanity status 1 says that the check failed."""
    teacher = [f"syncnet.teacher={json.dumps(args.teacher)}"] if args.teacher else []
    recipe = chosen_recipe(args, teacher)
    for file in filter(None, (recipe.syncnet.teacher, args.init)):
        load_expert(Path(file))  # what is wrong with it is told before any work
    if args.dry_run:
        print(describe_syncnet(recipe, args.data))
        return 0
    engine = launch(args.device, recipe.optim.precision)
    with engine.one_by_one():
        data = load_clips(args.data, args.output / "clips")
    if args.sanity:
        from .sync_sanity import check

        verdict = check(data, recipe, engine, not args.no_compile)
        print(verdict)
        return 0 if verdict.passed else 1
    trainer = train(data, args.data, args.output, recipe, engine, not args.no_compile, args.init)
    if engine.first:
        report = write_report(args.output, "syncnet.jsonl", "Sync expert", trainer.record)
        if trainer.step < recipe.syncnet.steps:
            print(stopped("syncnet", args, trainer.step, recipe.syncnet.steps, RECIPE))
        else:
            print(f"Done, see {report}. The expert: {args.output}/syncnet.pt")
    engine.close()
    return 0
