from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models import adaptation
from models.adaptation import adapt
from models.adaptation_look import Look
from models.adaptation_rows import RowSource, babble
from models.adapters import merge
from models.footage import LEAST_FRAMES, MARGIN, Footage, content_digest, gather
from models.frames import FrameArray
from models.generator import load_generator
from models.identity import FaceEmbedding
from tests.models.swapping import speech

COUNTS = {"kept": 3, "own": 2, "swapped": 2, "other": 2}


def material(astronaut: np.ndarray, count: int = 60, speaks: bool = True) -> Footage:
    """A face whose lower half grows lighter and darker with its sound."""
    side = 96 + 2 * MARGIN
    face = astronaut[60 : 60 + side, 170 : 170 + side]
    loud = 0.5 + 0.5 * np.sin(np.arange(count) / 3)
    stored = np.repeat(face[None], count, 0).copy()
    stored[:, 60:90, 35:70] = (stored[:, 60:90, 35:70] * (0.6 + 0.4 * loud[:, None, None, None])).astype(np.uint8)
    windows = torch.from_numpy(np.broadcast_to((4 * loud - 4)[:, None, None, None], (count, 1, 80, 16)).copy()).float()
    vector = np.zeros(512, np.float32)
    vector[7] = 1
    person = FaceEmbedding(vector, "wavsyncswap-iresnet18q-v2")
    frames = np.arange(count)
    return Footage(stored, windows, frames, np.zeros(count, np.int64), Fraction(25), speaks, person)


@pytest.fixture(scope="module")
def base():
    return load_generator("builtin", precision="fp32")


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    """Four rows a step: enough for every kind."""
    monkeypatch.setattr(adaptation, "ROWS", {"kept": 1, "own": 1, "swapped": 1, "other": 1})
    monkeypatch.setattr("models.adaptation_look.EXAMINED", 4)


def test_adapting_draws_the_held_out_frames_better_and_leaves_the_generator_alone(base, astronaut):
    clip, seen = material(astronaut), []
    before = {name: value.clone() for name, value in base.network.state_dict().items()}
    result = adapt(base, clip, steps=8, progress=lambda done, total, picture: seen.append((done, total, picture)))
    assert result.state
    assert result.after.psnr > result.before.psnr + 0.05
    assert result.metadata["base"] == base.digest
    assert result.metadata["clip"] == clip.digest
    assert "held out after" in result.report
    assert all(torch.equal(value, before[name]) for name, value in base.network.state_dict().items())
    assert [done for done, _, _ in seen] == list(range(1, len(seen) + 1))
    pictures = [picture for _, _, picture in seen if picture is not None]
    assert pictures[-1].shape == (3 * 96, 3 * 96, 3)
    assert pictures[-1].dtype == np.uint8
    merged = load_generator("builtin", precision="fp32")
    merge(merged.network, result.state, "it")
    run = adaptation._Run(base, merged.network, clip, 0, 4)
    with run.adapter.off():
        assert run.examiner(run.network).psnr == pytest.approx(result.after.psnr, abs=0.05)


def test_the_same_run_twice_is_the_same_to_the_bit(base, astronaut):
    def terms(seed: int) -> list[torch.Tensor]:
        run = adaptation._Run(base, adaptation._copy_of(base, material(astronaut)), material(astronaut), seed, 4)
        for step in range(2):
            run._step(step, 2)
        return run.average

    first, second, other = terms(0), terms(0), terms(1)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_it_works_where_the_host_has_switched_gradients_off(astronaut):
    with torch.inference_mode():
        generator = load_generator("builtin", precision="fp32")
        assert adapt(generator, material(astronaut), steps=2).metadata["steps"] == 2


def test_cancelling_is_raised_at_once(base, astronaut):
    def cancel(done, total, picture):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(base, material(astronaut), steps=50, progress=cancel)


def test_the_clock_decides_where_no_steps_are_given(base, astronaut, looks, monkeypatch):
    looks(*[look(30)] * 30)
    monkeypatch.setattr(adaptation, "FEWEST", 7)
    monkeypatch.setattr(adaptation, "PATIENCE", 100)
    assert adapt(base, material(astronaut), minutes=1e-6).metadata["steps"] == 7


def look(psnr: float, response: float = 1.0, lips: float = 1.0, sync: float = 0.5) -> Look:
    return Look(psnr, psnr, psnr - 1, response, lips, sync)


@pytest.fixture
def looks(monkeypatch):
    """Makes the held-out frames show what a test wants, look after look; nothing is trained."""

    def show(*values: Look):
        left = list(values)
        monkeypatch.setattr("models.adaptation_look.Examiner.__call__", lambda self, network: left.pop(0))
        monkeypatch.setattr("models.adaptation._Run._step", lambda self, step, total: None)
        return left

    return show


def test_the_best_step_is_kept_and_the_run_ends_when_nothing_gets_better(base, astronaut, looks):
    left = looks(look(30), look(31), look(33), *[look(32)] * 20)
    result = adapt(base, material(astronaut), steps=100)
    assert result.after.psnr == 33
    assert result.metadata["best_step"] == 20
    assert result.metadata["steps"] == 10 * (2 + adaptation.PATIENCE)
    assert len(left) == 20 - adaptation.PATIENCE


def test_nothing_is_kept_that_is_not_better(base, astronaut, looks):
    looks(look(30), *[look(29)] * 20)
    result = adapt(base, material(astronaut), steps=100)
    assert result.state == {}
    assert result.after == result.before
    assert "the adapter is empty" in result.report


def test_a_gain_in_one_way_pays_for_no_loss_in_the_other(base, astronaut, looks):
    looks(look(30), *[replace(look(29.9), own=40)] * 20)
    assert adapt(base, material(astronaut), steps=100).state == {}


@pytest.mark.parametrize("deaf", [{"response": 0.5}, {"lips": 1.5}, {"sync": 0.4}])
def test_lips_that_no_longer_follow_the_sound_are_refused(base, astronaut, looks, deaf):
    """Better pixels by copying do not count."""
    looks(look(30), *[look(35, **deaf)] * 20)
    assert adapt(base, material(astronaut), steps=100).state == {}


def test_a_network_that_copies_is_seen_through(base, astronaut):
    """One that ignores its sound answers nothing to another one."""
    from models.adaptation_look import Examiner

    run = adaptation._Run(base, adaptation._copy_of(base, material(astronaut)), material(astronaut), 0, 4)
    examiner: Examiner = run.examiner
    listening = examiner(run.network)
    copying = examiner(lambda crops, mel, identity: crops[:, 3:])
    assert listening.response > 0.01
    assert copying.response == 0
    assert not copying.obeys(listening)


def test_a_silent_clip_teaches_looks_and_leaves_the_mouth(base, astronaut):
    clip = material(astronaut, speaks=False)
    assert "No speech" in adapt(base, clip, steps=1).report
    run = adaptation._Run(base, adaptation._copy_of(base, clip), clip, 0, 4)
    losses = run._losses(run.rows(0))
    assert set(losses) == {"l1", "edges", "memory", "obedience", "mouth"}
    assert run.weights[0, 0, 70, 48] == 0
    assert run.weights[0, 0, 90, 48] > 0


def test_other_systems_and_half_precision_are_refused(base, astronaut):
    clip = material(astronaut)
    with pytest.raises(ValueError, match="fp32; this one is in torch.bfloat16"):
        adapt(load_generator("builtin", precision="bf16"), clip, steps=1)
    with pytest.raises(ValueError, match="wav2lip was given. Load the built-in model"):
        adapt(SimpleNamespace(metadata={"network": "wav2lip"}), clip, steps=1)


@pytest.mark.parametrize("name, value", [("steps", 0), ("steps", -5), ("rank", 0), ("minutes", float("nan"))])
def test_nothing_to_learn_with_is_refused(base, astronaut, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; give a number above 0"):
        adapt(base, material(astronaut), **{"steps": 1, name: value})


def test_rows_are_what_they_are_called(astronaut):
    clip = material(astronaut)
    rows = RowSource(clip, True, 512, 0, COUNTS)(5)
    same = RowSource(clip, True, 512, 0, COUNTS)(5)
    assert all(torch.equal(getattr(rows, name), getattr(same, name)) for name in ("crops", "mel", "identity"))
    assert not rows.identity[:3].any()
    assert torch.equal(rows.identity[3:5], torch.from_numpy(clip.person.vector).expand(2, -1))
    assert (rows.identity[rows.swapped].norm(dim=1) - 1).abs().max() < 1e-5
    assert not rows.crops[:, :3, 48:].any()
    assert torch.equal(rows.crops[:, :3, :48], rows.truth[:, :, :48])
    heard = [int((clip.windows - mel).abs().amax((1, 2, 3)).argmin()) for mel in rows.mel[rows.shown]]
    assert all(torch.equal(clip.windows[i], mel) for i, mel in zip(heard, rows.mel, strict=False))


def test_rows_without_a_person_or_without_keeping(astronaut):
    clip = material(astronaut)
    assert not RowSource(replace(clip, person=None), True, 512, 0, COUNTS)(0).identity[:5].any()
    assert RowSource(clip, False, 512, 0, COUNTS)(0).identity[:5].any(1).all()


def test_babble_sounds_like_many_things():
    made = babble(8, np.random.default_rng(0))
    assert made.shape == (8, 1, 80, 16)
    assert made.min() >= -4
    assert made.max() <= 4
    assert made.mean((1, 2, 3)).std() > 0.3


# --- the clip ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tools():
    from models.faces import load_detector
    from models.identity import load_recogniser

    return load_detector("builtin"), load_recogniser("builtin")


def clip_of(astronaut: np.ndarray, count: int) -> FrameArray:
    return FrameArray(np.repeat(astronaut[None, :256, 100:356], count, 0), 25)


def test_a_clip_is_gathered_with_its_sound_and_its_person(base, astronaut, tools):
    source, sound = clip_of(astronaut, LEAST_FRAMES), speech(LEAST_FRAMES / 25)
    clip = gather(source, sound, base, *tools)
    assert clip.stored.shape == (LEAST_FRAMES, 96 + 2 * MARGIN, 96 + 2 * MARGIN, 3)
    assert clip.windows.shape == (LEAST_FRAMES, 1, 80, 16)
    assert clip.speaks
    assert clip.person.recogniser == base.recogniser
    assert not gather(source, None, base, *tools).speaks
    assert clip.digest != gather(source, None, base, *tools).digest
    assert content_digest(source, sound) != content_digest(source, None)
    assert content_digest(source, sound) == content_digest(clip_of(astronaut, LEAST_FRAMES), sound)


def test_a_short_clip_is_one_error(base, astronaut, tools):
    with pytest.raises(ValueError, match=f"in 5 frames; at least {LEAST_FRAMES} are needed"):
        gather(clip_of(astronaut, 5), None, base, *tools)
