"""`python -m training export` given what is no checkpoint; what it makes of one is tested with the trainers."""

from __future__ import annotations

import pytest
import torch

from models.checkpoints import save_weights
from models.networks.lip_reader import LipReader
from training.__main__ import main


@pytest.fixture
def files(tmp_path):
    """A text, weights that are finished, a run's audio tower, a reader cut short, a step without a recipe."""
    (tmp_path / "notes.pt").write_text("e = mc2\n" * 50)
    save_weights(tmp_path / "g.safetensors", {"a": torch.zeros(2)}, {})
    torch.save({"0.weight": torch.zeros(2)}, tmp_path / "audio_tower.pt")
    torch.save(LipReader().state_dict(), tmp_path / "lip_reader.pt")
    whole = (tmp_path / "lip_reader.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    torch.save({"step": 3, "model": {"a": torch.zeros(2)}}, tmp_path / "other.pt")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("notes.pt", "notes.pt is not a PyTorch checkpoint but an unknown format"),
        ("g.safetensors", "g.safetensors is no checkpoint that can be exported: name a run's last.pt"),
        ("audio_tower.pt", "audio_tower.pt is no checkpoint that can be exported: name a run's last.pt"),
        ("other.pt", "other.pt is no checkpoint that can be exported"),
        ("half.pt", "half.pt is truncated or damaged"),
        ("nowhere.pt", "nowhere.pt does not exist"),
    ],
)
def test_other_files_are_one_clear_error(files, capsys, name, message):
    assert main(["export", str(files / name), str(files / "made" / "o.safetensors")]) == 1
    assert message in (told := capsys.readouterr().err)
    assert "Traceback" not in told
    assert not (files / "made").exists()


def test_the_checkpoint_is_never_written_over(files, capsys):
    before = (files / "lip_reader.pt").read_bytes()
    assert main(["export", str(files / "lip_reader.pt"), str(files / "lip_reader.pt")]) == 1
    assert "lip_reader.pt is read (checkpoint)" in capsys.readouterr().err
    assert (files / "lip_reader.pt").read_bytes() == before
    assert main(["export", str(files / "lip_reader.pt"), str(files / "made" / "o.safetensors")]) == 0
