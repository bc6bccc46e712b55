"""`--init FILE`: weights to start the generator from, its own or what fits of public ones, told apart by their keys.

Only what has the same shape and the same meaning is taken (spec 2, 3). Weights that are initialised from a public file
inherit its licence: see `models.known_files`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoints import identify, load_into, load_pickle_state
from models.layouts import recognise, shapes_of
from models.networks.wavsyncswap import WavSyncSwap

State = Mapping[str, Tensor]
Reader = Callable[[State, State, WavSyncSwap], "Taken"]  # the file's tensors, the network's, the network
CONV_BLOCK = {"0": "conv_block.0", "1": "conv_block.1"}  # SimSwap's convolution and norm -> ours


@dataclass
class Taken:
    """What one file gave.

    Attributes:
        kind: what the file was recognised as.
        rows: (part, what happened to it and why), in the file's order.
        state: entries for the generator's state dict.
    """

    kind: str
    rows: list[tuple[str, str]] = field(default_factory=list)
    state: dict[str, Tensor] = field(default_factory=dict)

    def take(
        self, part: str, entries: State, own: State, whole: str, but: tuple[str, ...] = (), note: str = ""
    ) -> None:
        """Take a part, or nothing of it if its shapes are not those of the network or some of it is missing.

        Args:
            part: how to call it.
            entries: its tensors under the network's names.
            own: the network's state.
            whole: beginning of the names that make up the part.
            but: endings of names that it may lack; counters of batches, which old files do not have, always.
            note: what else is to be said.
        """
        for name, value in entries.items():
            wanted = list(own[name].shape) if name in own else None
            if wanted != list(value.shape):
                reason = "the network has no such layer" if wanted is None else f"the network's is {wanted}"
                return self.skip(part, f"{name} is {list(value.shape)}, {reason}")
        needed = [n for n in own if n.startswith(whole) and not n.endswith(("num_batches_tracked", *but))]
        if missing := [name for name in needed if name not in entries]:
            return self.skip(part, f"the file lacks {len(missing)} of its tensors, such as {missing[0]}")
        self.state |= entries
        self.rows.append((part, f"loaded: {len(entries)} tensors{note}"))

    def skip(self, part: str, reason: str) -> None:
        """Leave a part out."""
        self.rows.append((part, f"skipped: {reason}"))

    def __str__(self) -> str:
        width = max(len(part) for part, _ in self.rows)
        return "\n".join([self.kind, *(f"  {part:<{width}}  {what}" for part, what in self.rows)])


def below(state: State, prefix: str, to: str) -> dict[str, Tensor]:
    """Entries whose names begin with `prefix`, which becomes `to`."""
    return {to + name[len(prefix) :]: value.float() for name, value in state.items() if name.startswith(prefix)}


def from_wav2lip(state: State, own: State, net: WavSyncSwap) -> Taken:
    """Wav2Lip's audio encoder: 13 blocks, the network's 14 less the second residual one at 256 channels (spec 3.1).

    The block that is missing starts as the identity: its input is not negative, so with a norm that gives zero it
    passes it on.
    """
    taken = Taken("Wav2Lip generator")
    tower: dict[str, Tensor] = {}
    for block in range(13):
        target = block + (block > 10)
        tower |= below(state, f"audio_encoder.{block}.", f"audio_encoder.{target}.")
    missing = "audio_encoder.11.conv_block."
    tower |= {name: value.clone() for name, value in own.items() if name.startswith(missing)}
    for name in ("weight", "bias"):
        tower[f"{missing}1.{name}"] = torch.zeros_like(tower[f"{missing}1.{name}"])
    note = "; block 11, which Wav2Lip lacks, starts as the identity"
    taken.take("audio encoder", tower, own, "audio_encoder.", note=note)
    taken.skip("face encoder", "other widths at every scale, and it sees BGR")
    taken.skip("face decoder", "made for skip connections, which the network does not have in this form")
    return taken


def from_expert(state: State, own: State, net: WavSyncSwap) -> Taken:
    """A sync expert's audio tower, the same 14 blocks."""
    taken = Taken("sync expert")
    taken.take("audio encoder", below(state, "audio_encoder.", "audio_encoder."), own, "audio_encoder.")
    taken.skip("face encoder", "it judges five frames at once; the generator draws one")
    return taken


def from_simswap(state: State, own: State, net: WavSyncSwap) -> Taken:
    """SimSwap's encoder and identity blocks (spec 3.4).

    Its identity vectors are another recogniser's (spec 3.8), so of the styles only the biases, which hold whatever the
    vector is, have a meaning here.
    """
    taken = Taken("SimSwap generator")
    _simswap_encoder(taken, state, own, net)
    blocks = sorted({int(name.split(".")[1]) for name in state if name.startswith("BottleNeck.")})
    for block in blocks:
        entries: dict[str, Tensor] = {}
        for layer in ("conv1.1.", "conv2.1."):
            entries |= below(state, f"BottleNeck.{block}.{layer}", f"identity_blocks.{block}.{layer}")
        for style in ("style1", "style2"):
            name = f"{style}.linear.bias"
            entries |= below(state, f"BottleNeck.{block}.{name}", f"identity_blocks.{block}.{name}")
        taken.take(f"identity block {block}", entries, own, f"identity_blocks.{block}.", but=("linear.weight",))
    taken.skip("style weights", "they read the vectors of SimSwap's recogniser, the network those of another")
    taken.skip("decoder", "it enlarges and convolves; the network has transposed convolutions and hears sound")
    return taken


def _simswap_encoder(taken: Taken, state: State, own: State, net: WavSyncSwap) -> None:
    """The stem and the halvings, if there are as many: a stem alone, or halvings behind another one, mean nothing.

    The stem of one picture becomes that of two: it looks at the reference, which shows a whole face as SimSwap's input
    does, and at first not at the target.
    """
    downs = sorted({name.split(".")[0] for name in state if name.startswith("down")})  # down0 or down1 is the first
    if len(downs) != len(net.face_encoder) - 1:
        taken.skip(
            "encoder", f"it halves the picture {len(downs)} times, the network {len(net.face_encoder) - 1} times"
        )
        return
    entries = below(state, "first_layer.1.", "face_encoder.0.1.conv_block.0.")
    entries |= below(state, "first_layer.2.", "face_encoder.0.1.conv_block.1.")
    stem = "face_encoder.0.1.conv_block.0.weight"
    if stem in entries:
        entries[stem] = torch.cat([torch.zeros_like(entries[stem]), entries[stem]], 1)
    for level, down in enumerate(downs, 1):
        for layer, name in CONV_BLOCK.items():
            entries |= below(state, f"{down}.{layer}.", f"face_encoder.{level}.{name}.")
    taken.take("encoder", entries, own, "face_encoder.", note="; its stem looks at the reference")


def from_own(state: State, own: State, net: WavSyncSwap) -> Taken:
    """All of a generator's own weights.

    Weights of a network without `blend` fit one that has it: it then starts by drawing nearly everything. Nor need they
    have a `keep` passage: it starts closed.

    Raises:
        ValueError: the file belongs to another layout.
    """
    whole = {name: value.float() for name, value in state.items()}
    weight, bias = (f"output_block.2.{name}" for name in ("weight", "bias"))
    notes = []
    if net.blend and len(whole.get(weight, ())) == 3:
        whole[weight] = torch.cat([whole[weight], torch.zeros_like(whole[weight][:1])])
        whole[bias] = torch.cat([whole[bias], torch.tensor([2.0])])  # sigmoid(2) = 0.88
        notes.append("a blend mask that draws nearly everything")
    closed = {name: torch.zeros_like(value) for name, value in own.items() if ".passage." in name and name not in whole}
    if closed:
        notes.append("a closed passage for kept faces")
    taken = Taken("generator of this project", [], whole | closed)
    load_into(net, taken.state, "This generator")  # complains of everything at once
    taken.rows.append(("all", f"loaded: {len(state)} tensors" + "".join(f"; added {note}" for note in notes)))
    return taken


READERS: dict[str, Reader] = {
    "wavsyncswap": from_own,
    "simswap_224": from_simswap,
    "simswap_512": from_simswap,
    "wav2lip": from_wav2lip,
    "syncnet_expert": from_expert,
}


def open_start(path: Path) -> tuple[dict[str, Tensor], Reader]:
    """The tensors of a weights file, and how to read them.

    Raises:
        ValueError: the file is missing, damaged, no weights, or of an unknown kind; says which.
    """
    state = load_pickle_state(path)
    layout = recognise(shapes_of(state))
    if layout and layout.network in READERS:
        return state, READERS[layout.network]
    known = layout or identify(path)
    what = f"the {known.what}" if known else f"{', '.join(list(state)[:3])}, ..."
    raise ValueError(
        f"{path.name} holds {what}: nothing a generator can start from. Give a generator made by "
        "`python -m training export`, wav2lip.pth, a SimSwap generator or a sync expert."
    )


def warm_start(net: WavSyncSwap, path: Path) -> str:
    """Take from a weights file what fits the network.

    Args:
        net: gets the values, on the device where it is.
        path: a generator of ours (safetensors), or a public Wav2Lip, SimSwap or sync expert file; read without running
            any code it may carry.

    Returns:
        A table of what was loaded, what was skipped, and why.

    Raises:
        ValueError: as `open_start`, or nothing in the file fits.
    """
    state, reader = open_start(path)
    own = {name: value.detach().cpu() for name, value in net.state_dict().items()}
    taken = reader(state, own, net)
    if not taken.state:
        raise ValueError(f"Nothing in {path.name} fits the network of this recipe.\n{taken}")
    net.load_state_dict(own | taken.state)
    return f"{path.name}: {taken}"
