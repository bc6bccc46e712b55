"""A loaded generator: weights, what they were trained with, and batched generation in inference form.

Every system sits behind one interface, `FaceGenerator`: the pack's own network here, the public ones in `systems`.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import geometry
from .acceleration import Compiled
from .adapters import apply_adapter
from .checkpoints import bundled_path, load_any, load_into, tensors_sha256
from .identity import FaceEmbedding, check_embedding
from .inference_form import inference_form
from .layouts import recognise, shapes_of
from .memory import batch_size, keep_freed, moved, out_of_memory, release, wait_for
from .networks import build
from .networks.wavsyncswap import WavSyncSwap, mask_lower_half
from .precision import NAMES, SAMPLE, named_dtype, set_precision, settle

Name = str | Path

log = logging.getLogger(__name__)

BUILTIN = "generator_small_96.safetensors"
LONGEST = 0.5  # seconds of a batch where the device is waited for


@dataclass
class FaceGenerator(ABC):
    """A system ready to run on crops: any of speech, identity or both in, new faces out.

    Attributes:
        network: in inference form; the owner may move it between devices.
        recogniser: id of the recogniser whose embeddings it understands, "" where it takes none.
        mel_lag: frames by which mel windows are moved (spec A13).
        metadata: everything its file says about itself.
        undecided: the number type is still to be measured, with the first crops.
        most: crops a forward pass that memory allowed last, 0 = not known yet.
        pace: crops that a CPU draws between two looks at whether the user has had enough, 0 = not known yet.
        digest: SHA-256 of the tensors of its file, which adapters name; "" where there can be no adapter.
    """

    network: nn.Module
    recogniser: str
    mel_lag: int
    metadata: dict[str, Any]
    undecided: bool = field(default=False, kw_only=True)
    most: int = field(default=0, kw_only=True)
    pace: int = field(default=0, kw_only=True)
    digest: str = field(default="", kw_only=True)

    @property
    @abstractmethod
    def px(self) -> int:
        """Side of the generated crop in pixels."""

    @property
    @abstractmethod
    def keeps_identity(self) -> bool:
        """Whether it can keep the target's own face, given no identity."""

    @property
    def takes_identity(self) -> bool:
        """Whether it can put in another identity."""
        return bool(self.recogniser)

    @property
    def hears(self) -> bool:
        """Whether sound moves the lips."""
        return True

    @property
    def device(self) -> torch.device:
        """Where the network is now."""
        return next(self.network.parameters()).device

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    @property
    def alone(self) -> bool:
        """Whether one thread has to do all drawing, now: on a card, or while the number type is to be measured."""
        return self.undecided or self.device.type != "cpu"

    @property
    def takes_all_cores(self) -> bool:
        """Whether one drawing leaves no cores for another beside it."""
        return False

    def check_identity(self, embedding: FaceEmbedding | None) -> None:
        """Refuse what the weights were not trained for, before any work.

        Raises:
            ValueError: an embedding of another recogniser or where none is taken, or none for weights that cannot do
                without.
        """
        if embedding is not None:
            check_embedding(embedding, self.recogniser)
        elif not self.keeps_identity:
            raise ValueError(
                "There is no source identity, and this model cannot keep the target's own face. Give a "
                "picture of the source face or an embedding, or choose the built-in model."
            )

    def compile(self) -> None:
        """Use torch.compile from now on, where the system can: minutes of compiling for a job that is then faster."""
        log.info("%s is not compiled: only the pack's own network is.", self.metadata.get("network", "This system"))

    @abstractmethod
    def prepare(self, embedding: FaceEmbedding | None) -> Any:
        """What an identity amounts to, computed once and not per frame; handed on to `draw`."""

    @abstractmethod
    def draw(self, target: Tensor, reference: Tensor, windows: Tensor, prepared: Any) -> Tensor:
        """One batch, everything on the network's device.

        Args:
            target: float32 [n, 3, px, px] RGB in [0, 1].
            reference: the same face, same shape.
            windows: float32 [n, 1, 80, 16] mel windows.
            prepared: what `prepare` returned.

        Returns:
            [n, 3, px, px] RGB in [0, 1].
        """

    def tuned(self) -> AbstractContextManager:
        """Settings of the computing libraries while this system draws."""
        return nullcontext()

    @torch.inference_mode()
    def generate(
        self,
        crops: Tensor,
        windows: Tensor,
        embedding: FaceEmbedding | None,
        references: Tensor | None = None,
        batch: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        to: torch.device | None = None,
    ) -> Tensor:
        """Generate new crops; N in = N out.

        Args:
            crops: [N, 3, S, S] RGB, float in [0, 1] or uint8, any S; brought to `px` by area averaging or bicubic
                interpolation.
            windows: float32 [N, 1, 80, 16] mel windows, one a crop.
            embedding: source identity; None = the target keeps its own face and only the lips are new.
            references: [N or 1, 3, S', S'] pictures of the same face, like `crops`; None = each crop itself (spec A10).
            batch: crops a forward pass; None = by free memory. Out of memory halves it, and work goes on where it was.
            progress: called with (done, N) after every batch; may raise to interrupt.
            to: where the result is wanted, the CPU or the network's device; None = on the CPU.

        Returns:
            float32 [N, 3, px, px] RGB in [0, 1].

        Raises:
            ValueError: counts differ, the weights do not fit the identity, see `check_identity`, or what is drawn is no
                picture.
        """
        if len(windows) != len(crops) or (references is not None and len(references) not in (1, len(crops))):
            found = f"{len(crops)} crops, {len(windows)} mel windows"
            raise ValueError(f"Each crop needs its own mel window and reference; got {found}. Cut them from one clip.")
        self.check_identity(embedding)
        device, prepared, count = self.device, self.prepare(embedding), len(crops)
        if device.type == "cpu":
            keep_freed()
        to = to or torch.device("cpu")
        pinned = device.type == "cuda" and to.type == "cpu"
        result = torch.empty(count, 3, self.px, self.px, device=to, pin_memory=pinned)

        def drawn(part: slice) -> Tensor:
            target = self.fit(moved(crops[part], device))
            reference = target
            if references is not None:
                chosen = references if len(references) == 1 else references[part]
                reference = self.fit(moved(chosen, device)).expand_as(target)
            sound = moved(windows[part], device)
            if self.undecided:
                self._settle(target, reference, sound, prepared)
            with self.tuned():
                return self.draw(target, reference, sound, prepared).float()

        done, limit = 0, batch or self._batch(device)
        while done < count:
            size = limit if batch or device.type != "cpu" else min(limit, self.pace or SAMPLE)
            stop, begun, new = min(done + size, count), time.perf_counter(), self.undecided
            try:
                result[done:stop].copy_(drawn(slice(done, stop)), non_blocking=True)
            except (RuntimeError, MemoryError) as error:
                if size == 1 or not out_of_memory(error):
                    raise
                limit = self.most = max(1, min(size, count) // 2)
                log.warning("Out of memory: going on with %d crops at a time.", limit)
            else:
                if not new:
                    fit = int(LONGEST * (stop - done) / (time.perf_counter() - begun))
                    self.pace = max(1, min(fit, 2 * size))
                done = stop
                if progress:
                    progress(done, count)
                continue
            release(device)  # not while the failure holds on to its tensors
        if to.type == "cpu":
            wait_for(device)
        if not result.sum().isfinite():  # no NaN or infinity cancels out
            raise ValueError(self._no_picture(crops, references))
        return result

    def _no_picture(self, *given: Tensor | None) -> str:
        found = "What the model drew is no picture but holds NaN or infinite numbers"
        if not all(pictures is None or pictures.float().sum().isfinite() for pictures in given):
            return f"{found}, and so do the face crops that it got. Check the node or program that they come from."
        return (
            f"{found}. Its precision is {NAMES[self._dtype]}: choose fp32 if that is another one; if not, the weights "
            "are damaged or their training went astray: choose others."
        )

    def _batch(self, device: torch.device) -> int:
        free = batch_size(device, self.px, self._dtype.itemsize)
        return min(free, self.most) if self.most else free

    def _settle(self, target: Tensor, reference: Tensor, windows: Tensor, prepared: Any) -> None:
        """Choose the number type by measurement on the first crops, see `precision`."""
        some = (target[:SAMPLE], reference[:SAMPLE], windows[:SAMPLE])
        trials = settle(self.network, lambda: self.draw(*some, prepared), target.device)
        self.undecided = False
        if trials:
            log.info("Number type %s of: %s", self._dtype, "; ".join(map(str, trials)))

    def fit(self, crops: Tensor) -> Tensor:
        """Crops [N, 3, S, S], uint8 too, brought to `px`, float32; area averaging or bicubic interpolation."""
        return resized(crops.float() / 255 if crops.dtype == torch.uint8 else crops, self.px)


@dataclass
class Generator(FaceGenerator):
    """The pack's own network: speech and identity in one pass.

    Attributes:
        compiled: the forward pass through torch.compile, see `compile`; None = plain.
    """

    network: WavSyncSwap
    compiled: Compiled | None = field(default=None, kw_only=True, repr=False)

    def compile(self) -> None:
        """See `FaceGenerator.compile`."""
        self.compiled = Compiled(self.network.modulated, self.device)

    def tuned(self) -> AbstractContextManager:
        """See `FaceGenerator.tuned`: batches of one size are worth measuring every convolution's algorithms."""
        cudnn = torch.backends.cudnn
        if self.compiled is None or not cudnn.is_available():
            return nullcontext()
        return cudnn.flags(True, True, deterministic=cudnn.deterministic, allow_tf32=cudnn.allow_tf32)

    @property
    def takes_all_cores(self) -> bool:
        """See `FaceGenerator`: torch.compile makes code for a number of threads."""
        return self.compiled is not None and self.device.type == "cpu"

    @property
    def px(self) -> int:
        """See `FaceGenerator`."""
        return self.network.px

    @property
    def keeps_identity(self) -> bool:
        """See `FaceGenerator`."""
        return self.network.keep

    def prepare(self, embedding: FaceEmbedding | None) -> list[Tensor]:
        """Styles of the identity, or those that keep the target's own."""
        if embedding is None:
            vector = torch.zeros(self.network.config["id_dim"])
        else:
            vector = torch.as_tensor(embedding.vector, dtype=torch.float32)
        return self.network.styles(vector[None].to(self.device))

    def draw(self, target: Tensor, reference: Tensor, windows: Tensor, prepared: list[Tensor]) -> Tensor:
        """See `FaceGenerator.draw`."""
        pair = torch.cat([mask_lower_half(target), reference], 1).contiguous(memory_format=torch.channels_last)
        dtype = next(self.network.face_encoder.parameters()).dtype
        run = self.network.modulated if self.compiled is None or self.undecided else self.compiled
        return run(pair, windows.to(dtype), prepared)


def resized(crops: Tensor, side: int) -> Tensor:
    """Crops [N, 3, S, S] brought to `side`, float32; area averaging or bicubic interpolation."""
    if crops.shape[-1] == side and crops.shape[-2] == side:
        return crops.float()
    mode = "bilinear" if crops.shape[-1] > side else "bicubic"
    return nn.functional.interpolate(crops.float(), (side, side), mode=mode, antialias=True).clamp(0, 1)


def load_generator(
    name: Name | Sequence[Name] = "builtin",
    device: str | torch.device = "cpu",
    precision: str = "auto",
    adapter: Path | None = None,
    strength: float = 1.0,
) -> FaceGenerator:
    """Load a generator.

    Args:
        name: "builtin" (small, 96 px, shipped with the pack), or the path of a weights file: one of this project, or a
            Wav2Lip or SimSwap generator as it is published or imported. Two of these, a Wav2Lip and a SimSwap file,
            are the cascade of both.
        device: where to put it.
        precision: "fp32", "bf16", "fp16", or "auto": chosen with the first crops, see `precision`.
        adapter: file to merge into the weights, see `adapters`.
        strength: of the adapter, 0 = without .. 1 = as trained.

    Raises:
        ValueError: the file is missing, damaged, no generator, or was trained with another crop geometry; or two files
            are no pair; or the adapter belongs to other weights.
    """
    from .systems import SYSTEMS, Cascade

    device = torch.device(device)
    if not isinstance(name, str | Path):
        parts = [load_generator(part, device, precision) for part in name]
        whole = parts[0] if len(parts) == 1 else Cascade.of(parts)
        whole.undecided = precision == "auto"
        if adapter is not None:
            apply_adapter(whole, adapter, strength)
        return whole
    path = bundled_path(BUILTIN) if name == "builtin" else Path(name)
    state, metadata = load_any(path)
    layout = recognise(shapes_of(state))
    if layout and layout.network in SYSTEMS:
        metadata = layout.metadata | metadata
    make = {"wavsyncswap": _own, **SYSTEMS}.get(metadata.get("network", ""))
    if make is None:
        other = layout.what if layout and layout.network != "wavsyncswap" else "weights without metadata"
        raise ValueError(
            f"{path.name} holds {metadata.get('network', other)}, not a generator. Choose a file made by `python -m "
            "training`, wav2lip.pth or a SimSwap generator."
        )
    generator = make(path.name, {key: value.float() for key, value in state.items()}, metadata)
    generator.undecided = precision == "auto"
    dtype = torch.float32 if generator.undecided else named_dtype(precision)
    generator.network = inference_form(generator.network, torch.float32)
    if generator.metadata["network"] == "wavsyncswap":
        generator.digest = tensors_sha256(state)
    if adapter is not None:
        apply_adapter(generator, adapter, strength)
    set_precision(generator.network, dtype)
    generator.network.to(device)
    return generator


def _own(name: str, state: dict[str, Tensor], metadata: dict[str, Any]) -> Generator:
    if missing := [key for key in ("config", "recogniser", "geometry", "mel_lag") if key not in metadata]:
        raise ValueError(
            f"{name} does not say its {', '.join(missing)}, without which it cannot be used. Copy it again, or make it "
            "anew with `python -m training export`."
        )
    if metadata["geometry"] != geometry.GEOMETRY_ID:
        raise ValueError(
            f"{name} was trained on crops of geometry {metadata['geometry']!r}; this version cuts "
            f"{geometry.GEOMETRY_ID!r}. Update the pack or the weights."
        )
    network = build("wavsyncswap", **metadata["config"])
    assert isinstance(network, WavSyncSwap)
    load_into(network, state, name)
    return Generator(network, metadata["recogniser"], int(metadata["mel_lag"]), metadata)
