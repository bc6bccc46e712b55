"""Recipes: everything a generator run depends on beside the data, one TOML file each, checked before any work.

A recipe is chosen by name (`training/configs`) or by path, changed by `--set loss.l1=20`, written whole into the run
folder and into every checkpoint.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import tomli

from models.checkpoints import peek
from models.networks.wavsyncswap import PRESETS, SIZES

from .networks import SYSTEMS, System

CONFIGS = Path(__file__).parent / "configs"
T = TypeVar("T")


@dataclass(frozen=True)
class ModelConfig:
    """The network: see `models.networks.wavsyncswap.WavSyncSwap`, and `networks` for the others."""

    system: str = "wavsyncswap"  # or one to compare with, at the same width: wav2lip, simswap
    width: str = "small"
    px: int = 96
    skips: str = "adain"
    blend: bool = True
    keep: bool = False


@dataclass(frozen=True)
class ScheduleConfig:
    """How long, in optimiser steps, and in what batches."""

    steps: int = 4000
    gan_start: int = 2000  # adversarial and feature-matching losses from here on
    tower_steps: int = 1400  # supervised start of the audio tower, then frozen
    reader_steps: int = 1200  # of the lip reader, then frozen
    batch: int = 32
    swapped: int = 12  # rows of a batch whose source is another identity
    kept: int = 0  # rows without an identity vector: they teach to keep the target's own face
    save_every: int = 250
    seed: int = 0
    accumulate: int = 1  # parts a process works on one after the other: less memory, the same batch but for batch norm
    measure_every: int = 250  # held-out L1 of the averaged weights; the best one's checkpoint stays as best.pt
    keep_every: int = 0  # checkpoints that stay for good, step_N.pt; 0 = none
    sample_every: int = 1000  # pictures and a short video of held-out people; 0 = none
    windows: int = 0  # windows of 5 consecutive frames in each kind of rows (kept, own, swapped), for the sync loss
    silent: float = 0.0  # share of the single rows in which nobody speaks, lips closed
    altered: float = 0.0  # share of the single rows whose sound is changed: voices that are not in the data


@dataclass(frozen=True)
class OptimConfig:
    """Adam for both networks; the generator's rate is multiplied by `gan_rate` once the GAN runs."""

    lr: float = 5e-4
    gan_rate: float = 0.4
    discriminator_lr: float = 2e-4
    warmup: int = 100
    clip: float = 5.0  # largest norm of the generator's gradient
    ema_images: int = 22_000  # half-life of the weights' average in images, whatever the batch; 0 = no average
    precision: str = "auto"  # bf16 where the device computes it in hardware, else fp32; or one of these


@dataclass(frozen=True)
class LossConfig:
    """Weights, and how many rows of a batch (counted from its end, swapped ones first) the recognisers look at."""

    l1: float = 10.0
    low: float = 5.0  # L1 of 8-px averages on swapped rows: pose, light and colour of the target
    identity: float = 2.0  # by the generator's own recogniser
    identity_rows: int = 16
    second_identity: float = 2.0  # by the second recogniser, where the data folder has one
    second_rows: int = 6
    lips: float = 1.0  # what a frozen lip reader sees in the generated and in the true mouth, swapped rows too
    feature_matching: float = 5.0
    adversarial: float = 1.0
    sync: float = 0.0  # -log of the sync expert's probability over schedule.windows, all kinds of rows; the paper: 1
    expert: str = ""  # the expert's file: syncnet.pt of a run, its export, or lipsync_expert.pth
    # The gate before it (spec 5.1): opens when held-out windows get below sync_gate, or below sync_ratio times what the
    # expert says of their true frames. No loss is above 16.2, so a larger sync_gate opens it at once.
    sync_gate: float = 0.75
    sync_ratio: float = 1.5
    sync_start: int = 0  # step from which the gate is looked at
    sync_every: int = 250  # steps from one look to the next
    sync_ramp: int = 5000  # steps from the opening to the whole weight


@dataclass(frozen=True)
class SyncConfig:
    """The sync expert's run."""

    steps: int = 3000
    supervised_steps: int = 400  # both towers only predict mouth numbers until here
    clips: int = 8  # of a batch
    windows: int = 8  # of each clip
    lr: float = 5e-4
    temperature: float = 0.07
    measure_every: int = 100
    keep_every: int = 0  # checkpoints that stay for good, syncnet_step_N.pt; 0 = none
    width: float = 1.0  # of the network; 1 = the public layout, 0.5 = a quarter of its weights
    teacher: str = ""  # file of a frozen expert whose cosines are learnt beside the data; "" = none
    distillation: float = 10.0  # weight of that; squared differences of cosines are small


@dataclass(frozen=True)
class Recipe:
    """One generator run, and the run of the sync expert that goes with it."""

    model: ModelConfig = field(default_factory=ModelConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    syncnet: SyncConfig = field(default_factory=SyncConfig)

    @property
    def system(self) -> System:
        """What is trained."""
        return SYSTEMS[self.model.system]

    def check(self) -> None:
        """Refuse values that no run could work with.

        Raises:
            ValueError: names every fault at once.
        """
        model, schedule, optim, loss = self.model, self.schedule, self.optim, self.loss
        own = schedule.batch - schedule.swapped - schedule.kept
        rules = {
            f"model.system is one of {', '.join(SYSTEMS)}": model.system in SYSTEMS,
            f"model.width is one of {', '.join(sorted(PRESETS))}": model.width in PRESETS,
            f"model.px is one of {', '.join(map(str, SIZES))}": model.px in SIZES,
            "model.keep goes with schedule.kept above 0 and with model.skips=adain": (
                (schedule.kept > 0) == model.keep and (not model.keep or model.skips == "adain")
            ),
            "model.skips is none or adain": model.skips in ("none", "adain"),
            "schedule.steps, batch and save_every are at least 1": min(
                schedule.steps, schedule.batch, schedule.save_every
            ) >= 1,
            "schedule.batch is larger than schedule.swapped and schedule.kept (at least 0) together": (
                schedule.swapped >= 0 and schedule.kept >= 0 and schedule.swapped + schedule.kept < schedule.batch
            ),
            "schedule.accumulate and measure_every are at least 1, keep_every and sample_every at least 0": (
                min(schedule.accumulate, schedule.measure_every) >= 1
                and min(schedule.keep_every, schedule.sample_every, self.syncnet.keep_every) >= 0
            ),
            "schedule.gan_start lies between 0 and schedule.steps": 0 <= schedule.gan_start <= schedule.steps,
            "schedule.tower_steps and reader_steps are at least 1": min(
                schedule.tower_steps, schedule.reader_steps
            ) >= 1,
            "every kind of rows of a batch has 5 rows for each of schedule.windows": 0 <= schedule.windows <= min(
                (rows for rows in (schedule.swapped, schedule.kept, own) if rows > 0), default=0
            ) // 5,
            "schedule.silent and altered lie between 0 and 1": all(
                0 <= share <= 1 for share in (schedule.silent, schedule.altered)
            ),
            "optim.lr and discriminator_lr lie above 0 and below 1": all(
                0 < rate < 1 for rate in (optim.lr, optim.discriminator_lr)
            ),
            "schedule.seed lies between 0 and 2^63 - 1": 0 <= schedule.seed < 2**63,
            "optim.gan_rate is not negative, and finite": 0 <= optim.gan_rate < inf,
            "optim.warmup is not negative": optim.warmup >= 0,
            "optim.clip lies above 0 (inf = no limit)": optim.clip > 0,
            "optim.ema_images is not negative": optim.ema_images >= 0,
            "optim.precision is auto, bf16 or fp32": optim.precision in ("auto", "bf16", "fp32"),
            "syncnet.steps, clips, measure_every and temperature lie above 0, windows above 1": (
                min(self.syncnet.steps, self.syncnet.clips, self.syncnet.measure_every) > 0
                and 0 < self.syncnet.temperature < inf
                and self.syncnet.windows > 1
            ),
            "syncnet.lr lies above 0 and below 1": 0 < self.syncnet.lr < 1,
            "syncnet.supervised_steps is not negative": self.syncnet.supervised_steps >= 0,
            "syncnet.width is 0.25, 0.5 or 1": self.syncnet.width in (0.25, 0.5, 1),
            "syncnet.distillation is not negative, finite, and above 0 with syncnet.teacher": (
                0 <= self.syncnet.distillation < inf and (not self.syncnet.teacher or self.syncnet.distillation > 0)
            ),
            "loss weights and gates are not negative, and finite": all(
                0 <= value < inf for value in vars(loss).values() if not isinstance(value, str)
            ),
            "loss.sync goes with loss.expert, schedule.windows of at least 1 and loss.sync_every of at least 1": (
                not loss.sync or (bool(loss.expert) and schedule.windows >= 1 and loss.sync_every >= 1)
            ),
            "loss.expert and syncnet.teacher are names that can be written as text": all(
                name.encode(errors="ignore").decode() == name for name in (loss.expert, self.syncnet.teacher)
            ),
            "loss.identity_rows is at least loss.second_rows": self.loss.identity_rows >= self.loss.second_rows,
        }  # fmt: skip
        if model.system in SYSTEMS:
            rules |= self.system.rules(self)
        broken = [rule for rule, kept in rules.items() if not kept]
        if broken:
            raise ValueError("The recipe cannot be run: " + "; ".join(f"{rule}" for rule in broken) + ".")
        self.check_parts(1)

    def check_parts(self, processes: int) -> None:
        """Refuse a generator's batch whose kinds of rows cannot be dealt evenly over processes and their parts.

        Means over rows of a kind are only then the means of the parts' means.

        Raises:
            ValueError: names the numbers and the nearest ones that go.
        """
        schedule, loss = self.schedule, self.loss
        parts = processes * schedule.accumulate
        seen = min(loss.identity_rows, schedule.batch)
        rows = {
            "schedule.batch": schedule.batch,
            "schedule.swapped": schedule.swapped,
        }
        if loss.identity:
            rows["loss.identity_rows"] = seen
        if loss.second_identity:
            rows["loss.second_rows"] = min(loss.second_rows, seen)
        if schedule.windows:  # all frames of a window go to one process
            rows |= {"schedule.kept": schedule.kept, "schedule.windows": schedule.windows}
        odd = {name: count for name, count in rows.items() if count % parts}
        if odd:
            found = ", ".join(f"{name} = {count}" for name, count in odd.items())
            better = " ".join(f"--set {name}={-(-count // parts) * parts}" for name, count in odd.items())
            raise ValueError(
                f"{processes} process(es) of {schedule.accumulate} part(s) each need multiples of {parts} rows; "
                f"{found}. For instance: {better}"
            )


def in_precision(recipe: Recipe, precision: str) -> Recipe:
    """The same recipe in another number type."""
    return replace(recipe, optim=replace(recipe.optim, precision=precision))


def names() -> list[str]:
    """Recipes that come with the project."""
    return sorted(path.stem for path in CONFIGS.glob("*.toml"))


def load_recipe(name: str, changes: Iterable[str] = ()) -> Recipe:
    """Read, change and check a recipe.

    Args:
        name: one of `names()`, or the path of a TOML file, or of exported weights, which hold what they were trained
            with; a sync expert's file is looked for beside them.
        changes: "section.key=value" each; the value is TOML, or a bare word for a string.

    Raises:
        ValueError: unknown recipe, key or section, a value of another type, or an impossible combination.
    """
    path = CONFIGS / f"{name}.toml" if name in names() else Path(name)
    if not path.is_file():
        raise ValueError(
            f"There is no recipe {name!r}. Known: {', '.join(names())}; or give the path of a TOML file, or of weights "
            "that this project exported."
        )
    values = _of_weights(path) if path.suffix == ".safetensors" else _of_toml(path)
    for change in changes:
        _apply(values, change)
    recipe = from_mapping(Recipe, values)
    recipe.check()
    return recipe


def _of_toml(path: Path) -> dict[str, Any]:
    try:
        return tomli.loads(path.read_text(encoding="utf-8"))
    except tomli.TOMLDecodeError as error:
        raise ValueError(f"{path.name} is not valid TOML: {error}.") from error


def _of_weights(path: Path) -> dict[str, Any]:
    _, metadata = peek(path)
    if "recipe" not in metadata:
        raise ValueError(f"{path.name} does not say how it was trained. Choose among {', '.join(names())}.")
    values = asdict(from_checkpoint(metadata["recipe"]))
    expert = values["loss"]["expert"]
    if expert and (path.parent / expert).is_file():
        values["loss"]["expert"] = str(path.parent / expert)
    return values


def portable(recipe: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """A recipe's sections without the folders of one machine: the sync expert by its file's name alone."""
    values = {section: dict(keys) for section, keys in recipe.items()}
    values["loss"]["expert"] = Path(values["loss"]["expert"]).name
    return values


def from_checkpoint(values: Mapping[str, Any]) -> Recipe:
    """The recipe in a checkpoint, perhaps an older one: keys that it lacks have their defaults, others are gone."""
    known = asdict(Recipe())
    return from_mapping(
        Recipe,
        {
            section: {key: value for key, value in keys.items() if key in known[section]}
            for section, keys in values.items()
            if section in known
        },
    )


def from_mapping(kind: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build a configuration, checking every key and type.

    Raises:
        ValueError: an unknown key (with the nearest known one) or a value of another type.
    """
    hints = get_type_hints(kind)
    known: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, 1)
            hint = f"Did you mean {where}{near[0]}?" if near else f"Known here: {', '.join(hints)}."
            raise ValueError(f"The recipe has no {where}{key}. {hint}")
        known[key] = _converted(hints[key], value, where + key)
    return kind(**known)


def _converted(kind: type, value: Any, where: str) -> Any:
    if is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} is a section of the recipe, not a value; got {value!r}.")
        return from_mapping(kind, value, f"{where}.")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{where} is a {kind.__name__}; got {value!r}, a {type(value).__name__}.")
    return value


def _apply(values: dict[str, Any], change: str) -> None:
    key, separator, text = change.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (separator and dot and name):
        raise ValueError(f"--set takes section.key=value, such as loss.l1=20; got {change!r}.")
    try:
        value = tomli.loads(f"value = {text}")["value"]
    except tomli.TOMLDecodeError:
        value = text.strip()  # a bare word
    group = values.setdefault(section, {})
    if not isinstance(group, dict):
        raise ValueError(f"{section} is a value of the recipe, not a section; got {change!r}.")
    group[name] = value


def to_toml(recipe: Recipe) -> str:
    """The whole recipe, defaults included, as TOML."""
    lines: list[str] = []
    for section in fields(recipe):
        part = getattr(recipe, section.name)
        lines += [f"[{section.name}]", *(f"{f.name} = {_in_toml(getattr(part, f.name))}" for f in fields(part)), ""]
    return "\n".join(lines)


def _in_toml(value: Any) -> str:
    """As JSON, but for infinity, for letters that JSON makes two of, and for the one that TOML wants escaped."""
    if value == inf:
        return "inf"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
