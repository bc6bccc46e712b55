from __future__ import annotations

import pytest
import torch
from torch import nn

from models.networks import build
from models.networks.blocks import ConvBlock, IdentityBlock, audio_tower
from models.networks.wavsyncswap import WavSyncSwap
from training.__main__ import main
from training.warm_start import warm_start


def noise(network: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """State of a network under a prefix; its statistics are made unlike those of a fresh one."""
    torch.manual_seed(2)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value += 0.02 * torch.rand_like(value)
    return {prefix + name: value.clone() for name, value in network.state_dict().items()}


def wav2lip_file(folder):
    """Keys and shapes of the public Wav2Lip file (spec 3.1) as trained: audio encoder and some of the rest.

    The encoder is the 14-block tower without its block 11.
    """
    tower = nn.Sequential(*(block for i, block in enumerate(audio_tower()) if i != 11))
    state = noise(tower, "audio_encoder.") | noise(ConvBlock(512, 512, 1), "face_decoder_blocks.0.0.")
    state |= noise(ConvBlock(6, 16, 7, 1, 3), "face_encoder_blocks.0.0.")
    state = {f"module.{name}": value for name, value in state.items()}
    torch.save({"state_dict": state, "optimizer": {}, "global_step": 3, "global_epoch": 1}, folder / "wav2lip.pth")
    return folder / "wav2lip.pth", tower.eval()


def simswap_file(folder, downs: int = 3):
    """Keys and shapes of SimSwap's generator (spec 3.4); with four halvings those of its 512-px one."""
    widths = [512 >> (downs - i) for i in range(downs + 1)]
    state = noise(nn.Conv2d(3, widths[0], 7), "first_layer.1.") | noise(nn.BatchNorm2d(widths[0]), "first_layer.2.")
    for i, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False)):
        name = f"down{i + 4 - downs}."
        state |= noise(nn.Conv2d(inputs, outputs, 3, 2, 1), f"{name}0.") | noise(nn.BatchNorm2d(outputs), f"{name}1.")
    for i in range(9):
        state |= noise(IdentityBlock(512, 512), f"BottleNeck.{i}.")
    state |= noise(nn.Conv2d(64, 3, 7), "last_layer.1.")
    torch.save(state, folder / "simswap.pth")
    return folder / "simswap.pth", state


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(0)
    return WavSyncSwap("base")


def test_wav2lips_audio_encoder_hears_the_same_in_the_network(base, tmp_path):
    """13 blocks in 14: the one that is added passes everything on, so the output is Wav2Lip's own."""
    path, tower = wav2lip_file(tmp_path)
    table = warm_start(base, path)
    mel = torch.rand(3, 1, 80, 16) * 8 - 4
    with torch.no_grad():
        assert torch.allclose(base.audio_encoder.eval()(mel), tower(mel), atol=1e-6)
    assert "Wav2Lip generator" in table
    assert "audio encoder  loaded: " in table
    assert "face decoder   skipped: made for skip connections" in table


def test_a_sync_expert_gives_its_audio_tower(base, tmp_path):
    torch.manual_seed(4)
    expert = build("syncnet_expert")
    torch.save({"state_dict": expert.state_dict()}, tmp_path / "lipsync_expert.pth")
    assert "sync expert" in warm_start(base, tmp_path / "lipsync_expert.pth")
    state = base.audio_encoder.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in expert.audio_encoder.state_dict().items())


def test_simswap_gives_encoder_and_identity_blocks_but_no_style_of_its_recogniser(base, tmp_path):
    path, state = simswap_file(tmp_path)
    before = {k: v.clone() for k, v in base.state_dict().items()}
    table = warm_start(base, path)
    own = base.state_dict()
    assert torch.equal(own["identity_blocks.8.conv2.1.weight"], state["BottleNeck.8.conv2.1.weight"])
    assert torch.equal(own["identity_blocks.3.style1.linear.bias"], state["BottleNeck.3.style1.linear.bias"])
    style = "identity_blocks.3.style1.linear.weight"
    assert torch.equal(own[style], before[style])
    assert "style weights     skipped: they read the vectors of SimSwap's recogniser" in table

    class Encoder(nn.Module):  # SimSwap's, from its own keys
        def forward(self, x):
            downs = [(f"down{i}.0", f"down{i}.1", 2, 1) for i in (1, 2, 3)]
            x = nn.functional.pad(x, (3, 3, 3, 3), mode="reflect")
            for conv, norm, stride, padding in [("first_layer.1", "first_layer.2", 1, 0), *downs]:
                x = nn.functional.conv2d(x, state[f"{conv}.weight"], state[f"{conv}.bias"], stride, padding)
                running = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
                x = nn.functional.batch_norm(x, *running, state[f"{norm}.weight"], state[f"{norm}.bias"]).relu()
            return x

    face, masked = torch.rand(1, 3, 96, 96), torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        x = torch.cat([masked, face], 1)
        for layer in base.face_encoder.eval():
            x = layer(x)
        assert torch.allclose(x, Encoder()(face), rtol=1e-4, atol=1e-4)


def test_a_narrower_network_takes_nothing_and_says_why(tmp_path):
    small = WavSyncSwap("small")
    with pytest.raises(
        ValueError, match=r"Nothing in wav2lip.pth fits(.|\n)*is \[32, 1, 3, 3\], the network's is \[16"
    ):
        warm_start(small, wav2lip_file(tmp_path)[0])
    with pytest.raises(ValueError, match=r"Nothing in simswap.pth fits(.|\n)*identity block 8 +skipped"):
        warm_start(small, simswap_file(tmp_path)[0])


def test_an_encoder_of_another_depth_is_left_out(base, tmp_path):
    assert "encoder           skipped: it halves the picture 4 times, the network 3 times" in warm_start(
        base, simswap_file(tmp_path, downs=4)[0]
    )


def test_a_part_that_is_not_whole_is_left_out(base, tmp_path):
    path, _ = wav2lip_file(tmp_path)
    content = torch.load(path, weights_only=True)
    del content["state_dict"]["module.audio_encoder.4.conv_block.0.weight"]
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"lacks 1 of its tensors, such as audio_encoder\.4"):
        warm_start(base, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>sign in</html>", "a web page"),
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
    ],
)
def test_what_is_no_checkpoint_is_told_before_any_work(tmp_path, capsys, content, message):
    path = tmp_path / "wav2lip.pth"
    path.write_bytes(content)
    assert main(["generator", "--data", str(tmp_path), "--output", str(tmp_path / "run"), "--init", str(path)]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_truncated_and_foreign_files_are_told(base, tmp_path):
    path, _ = wav2lip_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="truncated or damaged"):
        warm_start(base, path)
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"holds conv1.weight, ...: nothing a generator can start from"):
        warm_start(base, tmp_path / "other.pth")
