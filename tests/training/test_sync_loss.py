from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from models.identity import load_recogniser
from models.networks import build
from models.networks.syncnet import SyncNetExpert
from training.__main__ import main
from training.batches import Batches
from training.config import LossConfig, Recipe, ScheduleConfig, load_recipe
from training.export import export
from training.lip_reader import LipReader
from training.sync_loss import SyncLoss, expert_of, held_out_windows, load_expert
from training.syncnet import SyncTrainer
from training.trainer import Trainer

LOSS = LossConfig(sync=1.0, expert="x", sync_gate=100.0, sync_every=2, sync_ramp=4)
RECIPE = Recipe(
    schedule=ScheduleConfig(steps=4, gan_start=2, batch=12, swapped=6, windows=1), loss=LOSS
)  # rows 0-4 and 6-10 are windows
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def expert() -> SyncNetExpert:
    torch.manual_seed(5)
    return SyncNetExpert()


@pytest.fixture
def held_out(clip_set):
    return held_out_windows(clip_set, load_recogniser("builtin"), 96, count=1)


@pytest.fixture
def make(clip_set, bank, expert, held_out):
    """Builds a small trainer with a sync loss, and its batches."""

    def build_trainer(loss: LossConfig = LOSS) -> tuple[Trainer, Batches]:
        torch.manual_seed(0)
        tower = build("wavsyncswap", width="small").audio_encoder
        sync = SyncLoss(loss, expert, held_out, CPU)
        trainer = Trainer(RECIPE, tower, load_recogniser("builtin"), LipReader(), compiled=False, sync=sync)
        return trainer, Batches(clip_set, clip_set.of("train"), bank, 96, 0)

    return build_trainer


def advance(trainer: Trainer, batches: Batches, steps: int) -> list[dict[str, float]]:
    return [trainer.train_step(batches.of(trainer.step, RECIPE.schedule)) for _ in range(steps)]


def test_the_loss_is_that_of_the_expert_on_lower_halves_and_their_sound(clip_set, bank, expert):
    """Spec 5.1 and 3.3 by hand: BGR, frame after frame, rows 48 to 95, the mel that begins with the first frame."""
    numbered = clip_set.windows.copy()
    numbered[:, 0, 0] = torch.arange(36) / 100
    data = type(clip_set)(clip_set.clips, clip_set.crops, numbered, clip_set.lips)
    batch = Batches(data, data.clips, bank, 96, 0).of(3, RECIPE.schedule)
    first = [round(batch.mel[row, 0, 0, 0].item() * 100) for row in (0, 6)]
    faces = torch.stack([torch.cat([frame[[2, 1, 0], 48:] for frame in batch.truth[row : row + 5]]) for row in (0, 6)])
    mel = torch.stack([torch.from_numpy(numbered[row + 1])[None] for row in first])
    audio, face = expert.eval()(mel, faces)
    expected = -(audio * face).sum(1).log().mean()
    loss = SyncLoss(LOSS, expert, batch, CPU)
    assert loss.distance(batch.truth, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradient_reaches_the_lower_half_of_windows_of_all_kinds_and_nothing_else(clip_set, bank, expert, held_out):
    batch = Batches(clip_set, clip_set.clips, bank, 96, 0).of(0, RECIPE.schedule)
    loss = SyncLoss(LOSS, expert, held_out, CPU)
    loss.opened = 0
    generated = batch.truth.clone().requires_grad_()
    loss(batch, generated, 10, nullcontext())["sync"].backward()
    pulled = generated.grad.abs().sum((1, 3)) > 0
    windows = torch.zeros(12, dtype=torch.bool)
    windows[[0, 1, 2, 3, 4, 6, 7, 8, 9, 10]] = True
    assert torch.equal(pulled[:, 48:].any(1), windows)  # swapped rows too: their sound is the truth there
    assert not pulled[:, :48].any()
    assert all(p.grad is None for p in expert.parameters())


def test_frozen_networks_stay_frozen_through_training(make, expert):
    trainer, batches = make()
    frozen = {
        "expert": trainer.sync.expert,
        "recogniser": trainer.losses.recogniser.network,
        "reader": trainer.losses.reader,
        "tower": trainer.net.audio_encoder,
    }
    before = {name: {k: v.clone() for k, v in net.state_dict().items()} for name, net in frozen.items()}
    losses = advance(trainer, batches, 1)
    assert "sync" in losses[0]
    for name, net in frozen.items():
        assert not any(module.training for module in net.modules()), name
        assert all(p.grad is None and not p.requires_grad for p in net.parameters()), name
        assert all(torch.equal(v, net.state_dict()[k]) for k, v in before[name].items()), name


def test_the_gate_opens_when_it_is_time_and_the_windows_are_good_enough(make):
    trainer, _ = make()
    sync, net = trainer.sync, trainer.net
    windows = sync.held_out
    generated = net.eval()(windows.crops, windows.mel, windows.given)
    made, true = (sync.distance(pictures, windows).item() for pictures in (generated, windows.truth))

    def opens(step: int, **changes: float) -> bool:
        gate = SyncLoss(replace(LOSS, **changes), sync.expert, sync.held_out, CPU)
        gate.look(net, step, nullcontext())
        asked = []
        SyncLoss(replace(LOSS, **changes), sync.expert, sync.held_out, CPU).look(net, step, nullcontext(), asked.append)
        assert asked in ([gate.opened == step], [])  # what the other processes are asked is what is decided here
        assert (gate.opened == step) == bool(gate.weight(step))
        return gate.opened == step

    assert opens(4, sync_gate=1.01 * made, sync_ratio=0.0)
    assert not opens(4, sync_gate=0.99 * made, sync_ratio=0.0)
    assert opens(4, sync_gate=0.0, sync_ratio=1.01 * made / true)
    assert not opens(4, sync_gate=0.0, sync_ratio=0.99 * made / true)
    assert not opens(5)  # looked at every second step
    assert not opens(4, sync_start=6)
    assert opens(6, sync_start=6)


def test_the_weight_rises_after_the_opening(make):
    sync = make()[0].sync
    assert sync.weight(100) == 0
    sync.opened = 10
    assert [sync.weight(step) for step in (10, 11, 13, 50)] == [0.25, 0.5, 1.0, 1.0]


def test_a_shut_gate_trains_as_if_there_were_no_expert(make):
    shut, batches = make(replace(LOSS, sync_gate=0.0, sync_ratio=0.0))
    without, _ = make()
    without.sync = None
    assert advance(shut, batches, 1) == advance(without, batches, 1)
    assert all(torch.equal(v, without.net.state_dict()[k]) for k, v in shut.net.state_dict().items())


def test_parts_of_a_batch_give_the_loss_of_the_whole(clip_set, bank, expert, held_out):
    batch = Batches(clip_set, clip_set.clips, bank, 96, 0)(1, 24, 12, windows=2)
    loss = SyncLoss(LOSS, expert, held_out, CPU)
    parts = [loss.distance(part.truth, part) for part in (batch.part(0, 2), batch.part(1, 2))]
    assert torch.stack(parts).mean().item() == pytest.approx(loss.distance(batch.truth, batch).item(), rel=1e-5)


def test_a_resumed_run_knows_when_its_gate_opened(make, tmp_path):
    whole, batches = make()
    losses = advance(whole, batches, 2)
    first, _ = make()
    advance(first, batches, 1)
    first.save(tmp_path / "last.pt")
    second, _ = make()
    second.restore(tmp_path / "last.pt")
    assert second.sync.opened == 0
    assert advance(second, batches, 1) == losses[1:]
    assert all(torch.equal(v, second.net.state_dict()[k]) for k, v in whole.net.state_dict().items())


def test_held_out_windows_show_val_people_with_their_own_identity(clip_set, held_out):
    assert held_out.window_rows.shape == (1, 5)
    assert held_out.swapped == held_out.kept == 0
    sound = torch.from_numpy(clip_set.windows[24:])[:, None]  # the third person is for validation
    assert all((sound == mel).all((1, 2, 3)).any() for mel in held_out.mel)


@pytest.mark.parametrize("width", [1.0, 0.5])
def test_every_kind_of_expert_file_loads(width, tmp_path):
    run = SyncTrainer(load_recipe("debug", [f"syncnet.width={width}"]), compiled=False)
    expert = run.expert
    run.save(tmp_path / "syncnet.pt")
    export(tmp_path / "syncnet.pt", tmp_path / "expert.safetensors", torch.float32)
    public = {f"module.{name}": value for name, value in expert.state_dict().items()}
    torch.save({"state_dict": public, "optimizer": {}, "global_step": 1}, tmp_path / "lipsync_expert.pth")
    for name in ("syncnet.pt", "expert.safetensors", "lipsync_expert.pth"):
        state = load_expert(tmp_path / name).state_dict()
        assert all(torch.equal(v, state[k]) for k, v in expert.state_dict().items()), name


def test_a_recipe_without_sync_loss_needs_no_expert():
    assert expert_of(Recipe()) is None


def test_a_missing_or_wrong_expert_is_told_before_any_work(tmp_path, capsys):
    (tmp_path / "page.pth").write_text("<html>sign in</html>")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    change = ["--set", "loss.sync=1", "--set", "schedule.windows=1"]
    for name, message in (("none.pth", "does not exist"), ("page.pth", "web page"), ("other.pth", "does not fit")):
        command = ["generator", "--data", str(tmp_path), "--output", str(tmp_path / "run"), *change]
        assert main([*command, "--set", f"loss.expert={tmp_path / name}"]) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
