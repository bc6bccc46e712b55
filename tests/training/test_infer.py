"""`python -m training infer` with other systems than the built-in one."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from models.video import VideoFile
from models.video_writer import VideoWriter
from tests.models.public_files import random_network, save_public
from tests.models.swapping import speech
from training.__main__ import main

pytest.importorskip("av")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, astronaut):
    """A clip, a face, and public weights with narrow random networks."""
    folder = tmp_path_factory.mktemp("infer")
    with VideoWriter(folder / "clip.mp4", 320, 320, Fraction(25), speech(0.2)) as writer:
        writer.write(np.repeat(astronaut[None, :320, 60:380], 5, 0))
    with VideoWriter(folder / "face.mp4", 512, 512, Fraction(25), None) as writer:
        writer.write(astronaut[None])
    save_public(folder / "wav2lip.pth", random_network("wav2lip", width=1 / 8).state_dict(), "with optimizer")
    save_public(folder / "simswap.pth", random_network("simswap_224", width=1 / 8, id_dim=32).state_dict(), "flat")
    arcface = random_network("simswap_arcface", width=1 / 16, dim=32).state_dict()
    save_public(folder / "arcface_checkpoint.tar", arcface, "flat")
    return folder


def command(folder, weights: list[str], face: bool = True, recogniser: str | None = None) -> list[str]:
    files = ["--video", folder / "clip.mp4", "--out", folder / "out.mp4"] + ["--face", folder / "face.mp4"] * face
    chosen = ["--recogniser", folder / recogniser] if recogniser else []
    return ["infer", *map(str, [*files, "--weights", *(folder / name for name in weights), *chosen])]


@pytest.mark.parametrize(
    "weights, recogniser",
    [
        (["wav2lip.pth"], None),
        (["simswap.pth"], "arcface_checkpoint.tar"),
        (["wav2lip.pth", "simswap.pth"], "arcface_checkpoint.tar"),
    ],
)
def test_systems_write_a_video(folder, weights, recogniser):
    (folder / "out.mp4").unlink(missing_ok=True)
    assert main(command(folder, weights, face=recogniser is not None, recogniser=recogniser)) == 0
    with VideoFile(folder / "clip.mp4") as source, VideoFile(folder / "out.mp4") as result:
        assert (result.info.frames, result.info.width) == (5, 320)
        before, after = source.read(0, 5).astype(int), result.read(0, 5)
    assert np.abs(after - before).mean((1, 2, 3)).min() > 3  # a random face
    assert np.abs(after - before)[:, :15, :15].mean() < 4  # and only the face


def test_wrong_combinations_end_in_one_line(folder, capsys):
    for arguments, message in [
        (command(folder, ["wav2lip.pth"]), "Wav2Lip moves the lips and keeps the target's own face"),
        (command(folder, ["simswap.pth"], face=False), "SimSwap puts in another identity and there is none"),
        (command(folder, ["simswap.pth"]), "Choose arcface_checkpoint.tar"),
        (command(folder, ["simswap.pth", "simswap.pth"]), "one is Wav2Lip and the other SimSwap"),
        (command(folder, ["arcface_checkpoint.tar"]), "holds SimSwap's recogniser, not a generator"),
    ]:
        assert main(arguments) == 1
        assert message in capsys.readouterr().err
