from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from models.video_writer import VideoWriter
from tests.training.small_run import write_still
from training import doctor
from training.__main__ import main


@pytest.fixture
def folder(tmp_path):
    """A data folder with one clip of 25 frames and its sound, and a still of somebody else."""
    talking = tmp_path / "talking"
    talking.mkdir()
    (tmp_path / "landmarks.npz").touch()
    (talking / "manifest.csv").write_text("file,wav,identity,split\na.mp4,a.wav,ann,train\n")
    write_still(tmp_path)
    with VideoWriter(talking / "a.mp4", 64, 48, 25, None) as writer:
        writer.write(np.zeros((25, 48, 64, 3), np.uint8))
    wavfile.write(talking / "a.wav", 16000, np.zeros(16000, np.int16))
    return tmp_path


def test_a_sound_machine_passes(folder, capsys):
    assert main(["doctor", "--data", str(folder), "--output", str(folder / "run")]) == 0
    out = capsys.readouterr().out
    assert "a.mp4: 25 frames of 64x48 at 25 fps, 1.00 s of sound" in out
    assert "recogniser wavsyncswap-iresnet18q" in out
    assert "All is well." in out
    assert not (folder / "run").exists()


def test_an_absent_device_fails_with_a_remedy(capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    assert main(["doctor", "--device", "cuda"]) == 1
    captured = capsys.readouterr()
    assert "FAIL  device" in captured.out
    assert "Choose another --device" in captured.out
    assert "1 of 9 checks failed: device." in captured.err


def test_every_check_has_its_line(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    names = ("versions", "device", "back ends", "engine", "compiler", "disk", "mel", "weights", "sample")
    assert [line[6:15].rstrip() for line in out.splitlines()[:-1]] == list(names)
    assert "processes by gloo" in out
    assert "25 frames with sound decode" in out
    assert "data was not looked at" in out


def test_absent_and_old_packages_are_named_with_what_to_install(monkeypatch):
    assert not doctor.check_versions().remedy
    monkeypatch.setattr(doctor, "_version", {"torch": "2.11.0+cpu", "av": "17.0", "numpy": "1.25.3"}.get)
    assert doctor.check_versions().remedy == 'pip install "numpy>=1.26" "opencv-python>=4.8" "lightning-fabric>=2.6.6"'


def test_a_broken_extra_is_told_and_worked_round(monkeypatch):
    def broken(name):
        raise OSError("undefined symbol")

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    finding = doctor.check_back_ends("cpu")
    assert "torchaudio broken (undefined symbol), done without" in finding.found
    assert not finding.remedy


def test_a_step_that_is_no_number_and_codecs_that_fail_are_noticed(monkeypatch):
    monkeypatch.setattr(doctor.torch, "isfinite", lambda value: torch.tensor(False))
    assert "optim.precision=fp32" in doctor.check_engine("cpu").remedy
    monkeypatch.undo()
    monkeypatch.setattr(doctor, "decode", lambda data: np.zeros((96, 96, 3), np.uint8))
    assert "grey levels off" in doctor.check_video().found
    monkeypatch.setattr(doctor, "encode", lambda picture: (_ for _ in ()).throw(RuntimeError("no JPEG encoder")))
    assert "no JPEG encoder" in doctor.check_video().found


def test_a_wrong_mel_is_noticed(monkeypatch):
    right = doctor.audio.mel_spectrogram
    monkeypatch.setattr(doctor.audio, "mel_spectrogram", lambda x, rate: right(x, rate) + 1e-3)
    assert doctor.check_mel().remedy
    monkeypatch.undo()
    assert not doctor.check_mel().remedy


def test_data_that_training_would_trip_over(folder):
    assert not doctor.check_data(folder).remedy
    wavfile.write(folder / "talking" / "a.wav", 16000, np.zeros(20000, np.int16))
    assert "differ in length" in doctor.check_data(folder).remedy
    (folder / "talking" / "a.mp4").write_bytes(b"not a video")
    assert "Replace the file" in doctor.check_data(folder).remedy
    (folder / "talking" / "manifest.csv").write_text("file,wav\n")
    assert "lists no clip" in doctor.check_data(folder).found
    assert "lacks talking/manifest.csv, landmarks.npz" in doctor.check_data(folder / "elsewhere").found


def test_data_without_clips_or_people_to_train_on_fails(folder):
    def look(rows: str) -> doctor.Finding:
        (folder / "talking" / "manifest.csv").write_text("file,wav,identity,split\n" + rows)
        return doctor.check_data(folder)

    assert "nobody is held out" in look("a.mp4,a.wav,ann,train\n").found
    assert not look("a.mp4,a.wav,ann,train\na.mp4,a.wav,ben,val\n").remedy
    assert "nobody is held out" not in look("a.mp4,a.wav,ann,train\na.mp4,a.wav,ben,val\n").found
    assert "none has the split train" in look("a.mp4,a.wav,ann,val\n").found
    assert "split" in look("a.mp4,a.wav,ann,val\n").remedy
    assert "'Train'" in look("a.mp4,a.wav,ann,Train\n").found
    assert "1 files are missing" in look("a.mp4,a.wav,ann,train\na.mp4,b.wav,ben,train\n").found
    shutil.rmtree(folder / "faces")
    assert "Swapping needs two" in look("a.mp4,a.wav,ann,train\n").remedy
    assert not look("a.mp4,a.wav,ann,train\na.mp4,a.wav,ben,train\n").remedy


def test_a_full_disk_is_noticed(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 3 * doctor.GIB})())
    assert "Free 7 GiB more" in doctor.check_disk(tmp_path / "a" / "b").remedy


def test_damaged_weights_are_noticed(monkeypatch):
    assert not doctor.check_weights().remedy
    monkeypatch.setattr(doctor, "sha256_file", lambda path: "0" * 64)
    assert "clone again" in doctor.check_weights().remedy
