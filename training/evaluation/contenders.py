"""The systems of a comparison: what the command line names, the files behind a name, and where these come from."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch

from models.checkpoints import bundled_path, identify, load_weights, peek, sha256_file, tensors_sha256
from models.generator import BUILTIN, FaceGenerator, load_generator
from models.layouts import network_of, recognise
from models.systems import Cascade, SimSwapSystem
from models.torch_files import read_contents

from ..export import export
from .stand_ins import STAND_INS, face_handed_on, stand_in

log = logging.getLogger(__name__)

TRUTH = "ground_truth"
RANDOM = "random:"
OPTIONS = ("upstream", "keep")
SYNTAX = "NAME=FILE[+FILE][@upstream][@keep][@SIDE]"


@dataclass(frozen=True)
class Contender:
    """One system, as named on the command line; reading its files is put off.

    Attributes:
        name: in tables, and of its folders.
        files: builtin, random:KIND, or paths; two are a cascade; none is the ground truth.
        upstream: whole frames as the original programs do it, in float32, in place of this pack's geometry.
        keep: no source identity is given: the target keeps its face.
        side: px of SimSwap's square; None = as its file says.
    """

    name: str
    files: tuple[str, ...] = ()
    upstream: bool = False
    keep: bool = False
    side: int | None = None

    @classmethod
    def parse(cls, text: str) -> Contender:
        """Read `SYNTAX`, or `ground_truth`.

        Raises:
            ValueError: another form.
        """
        if text == TRUTH:
            return cls(TRUTH)
        match = re.fullmatch(r"([\w.-]+)=(.+?)((?:@(?:upstream|keep|\d+))*)", text)
        if match is None or match[1] == TRUTH or not match[1].strip("."):
            raise ValueError(f"A system is {TRUTH} or {SYNTAX}, its name of letters, digits, . - and _; got {text!r}.")
        options = [option for option in match[3].split("@") if option]
        sides = [int(option) for option in options if option.isdigit()]
        return cls(
            match[1],
            tuple(match[2].split("+")),
            "upstream" in options,
            "keep" in options,
            sides[0] if sides else None,
        )

    @property
    def is_truth(self) -> bool:
        """Whether it is the target video itself."""
        return not self.files


@dataclass(frozen=True)
class Origin:
    """One weights file.

    Attributes:
        given: as on the command line.
        path: file that is loaded.
        sha256: of the file that was given; of its tensors for stand-ins.
        what: where it comes from, for people.
        network: it holds.
        stand_in: whether its weights are random.
    """

    given: str
    path: Path
    sha256: str
    what: str
    network: str
    stand_in: bool = False


@dataclass(frozen=True)
class Entry:
    """A contender with its files at hand.

    Attributes:
        contender: what was asked for.
        origins: one a file.
    """

    contender: Contender
    origins: tuple[Origin, ...] = field(default=())

    @property
    def name(self) -> str:
        """See `Contender`."""
        return self.contender.name

    @cached_property
    def kind(self) -> str:
        """ground_truth, wav2lip, simswap, cascade or wavsyncswap."""
        if self.contender.is_truth:
            return TRUTH
        networks = {origin.network.partition("_")[0] for origin in self.origins}
        return "cascade" if len(networks) > 1 else networks.pop()

    @property
    def of_paper(self) -> str:
        """Kind of the paper's system that it stands beside; "" = none, such as one that is to keep the face."""
        return "" if self.contender.keep else self.kind

    @property
    def stand_in(self) -> bool:
        """Whether any of its weights are random, so that only its speed means something."""
        return any(origin.stand_in for origin in self.origins)

    def described(self) -> str:
        """In a line: what it is, in whose geometry, where its weights come from."""
        if self.contender.is_truth:
            return "the target videos themselves"
        parts = [self.kind, "the original programs' geometry" if self.contender.upstream else "this pack's geometry"]
        parts += [f"SimSwap at {self.contender.side} px"] if self.contender.side else []
        parts += ["own face kept"] if self.contender.keep else []
        return ", ".join([*parts, " + ".join(origin.what for origin in self.origins)])

    def settings(self) -> dict[str, object]:
        """What its pictures depend on, as JSON."""
        one = self.contender
        return {
            "files": [o.sha256 for o in self.origins],
            "upstream": one.upstream,
            "keep": one.keep,
            "side": one.side,
        }

    def load(self, device: str, precision: str) -> FaceGenerator:
        """The system itself.

        Raises:
            ValueError: as `load_generator`, or a side for a system without SimSwap.
        """
        precision = "fp32" if self.contender.upstream else precision
        system = load_generator([origin.path for origin in self.origins], device, precision)
        system = face_handed_on(system) if self.stand_in else system
        return system if self.contender.side is None else _sized(system, self.contender.side)


def _sized(system: FaceGenerator, side: int) -> FaceGenerator:
    if isinstance(system, Cascade):
        return replace(system, swap=replace(system.swap, side=side))
    if isinstance(system, SimSwapSystem):
        return replace(system, side=side)
    raise ValueError(f"@{side} is the side of SimSwap's square, and there is no SimSwap here. Leave it out.")


def enter(contenders: Sequence[Contender], folder: Path) -> list[Entry]:
    """Find or make the files of contenders.

    Args:
        contenders: what was asked for.
        folder: for stand-ins, and for weights taken out of training checkpoints.

    Raises:
        ValueError: a name comes twice, or a file is missing or no generator.
    """
    names = [contender.name for contender in contenders]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Two systems are called {twice[0]!r}. Names keep results apart: change one.")
    return [Entry(one, tuple(origin_of(given, folder) for given in one.files)) for one in contenders]


def origin_of(given: str, folder: Path) -> Origin:
    """Where a named file is and comes from; makes stand-ins and exports training checkpoints.

    Raises:
        ValueError: missing, damaged, or an unknown kind of stand-in.
    """
    if given.startswith(RANDOM):
        kind = given.removeprefix(RANDOM)
        path = stand_in(kind, folder)
        digest = tensors_sha256(load_weights(path)[0])  # a file's header may be in any order
        return Origin(given, path, digest, "random weights", STAND_INS[kind].network, stand_in=True)
    path = bundled_path(BUILTIN) if given == "builtin" else Path(given)
    network, metadata = described(path)
    digest = sha256_file(path)
    if known := identify(path):
        return Origin(given, path, digest, f"public file {known.name}", network)
    if "recipe" not in metadata:
        return Origin(given, path, digest, f"weights of {path.name}", network)
    steps = metadata.get("steps", metadata.get("step"))
    what = f"trained with this project, {steps:,} steps" if isinstance(steps, int) else "trained with this project"
    if not network:  # a run's own checkpoint: its weights have to be taken out
        path = _exported(path, digest, folder)
        network = network_of(path)
    return Origin(given, path, digest, what, network)


def described(path: Path) -> tuple[str, dict[str, object]]:
    """Network in a file ("" for a run's own checkpoint), and what it says of itself beside weights.

    Raises:
        ValueError: missing, damaged, or weights that are known to no loader.
    """
    plain = _around(path)
    if "average" in plain and "recipe" in plain:
        return "", plain
    shapes, metadata = peek(path)
    layout = recognise(shapes)
    network = str(metadata.get("network") or (layout.network if layout else ""))
    if not network:
        raise ValueError(
            f"{path.name} holds weights of no known network. Name a generator of this project, Wav2Lip's or SimSwap's."
        )
    return network, {**plain, **metadata}


def _around(path: Path) -> dict[str, object]:
    """Entries of a PyTorch file's dictionary; none for any other file, about which `peek` says more."""
    try:
        tree = read_contents(path).tree
    except (ValueError, OSError):
        return {}
    return {str(key): value for key, value in tree.items()} if isinstance(tree, dict) else {}


def _exported(checkpoint: Path, digest: str, folder: Path) -> Path:
    """The averaged weights of a run's checkpoint, in full precision."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{checkpoint.stem}-{digest[:12]}.safetensors"
    return path if path.is_file() else export(checkpoint, path, torch.float32)
