"""Networks by name, and the size table of the proposed generator (specification 4.4)."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from models.networks import build, names

SIZES = (96, 128, 192, 256, 384, 512)
# million parameters, GMACs a frame
TABLE = {
    "small": [(8.49, 1.02), (9.18, 1.79), (8.49, 1.29), (9.18, 2.28), (8.50, 2.54), (9.18, 4.49)],
    "base": [(70.31, 8.85), (72.15, 15.65), (70.30, 9.37), (72.14, 16.57), (70.32, 12.67), (72.15, 22.43)],
    "large": [(142.4, 19.59), (145.2, 34.75), (142.4, 20.63), (145.1, 36.59), (142.4, 27.23), (145.2, 48.32)],
}


@pytest.mark.parametrize(
    ("width", "px", "million", "gmacs"), [(w, px, *row) for w in TABLE for px, row in zip(SIZES, TABLE[w], strict=True)]
)
def test_generator_sizes(width, px, million, gmacs, count_macs):
    with torch.device("meta"):
        network = build("wavsyncswap", width=width, px=px).eval()
        macs = count_macs(network, torch.zeros(1, 6, px, px), torch.zeros(1, 1, 80, 16), torch.zeros(1, 512))
    digits = 0.051 if width == "large" else 0.0051
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(million, abs=digits)
    assert macs / 1e9 == pytest.approx(gmacs, abs=0.0051)


@pytest.mark.parametrize(("px", "million", "gmacs"), [(192, 72.68, 35.09), (256, 74.51, 62.29)])
def test_generator_sizes_with_stride_8(px, million, gmacs, count_macs):
    with torch.device("meta"):
        network = build("wavsyncswap", width="base", px=px, stride8=True).eval()
        macs = count_macs(network, torch.zeros(1, 6, px, px), torch.zeros(1, 1, 80, 16), torch.zeros(1, 512))
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(million, abs=0.0051)
    assert macs / 1e9 == pytest.approx(gmacs, abs=0.0051)


def test_unknown_network_lists_the_known():
    with pytest.raises(ValueError, match="Unknown network 'wav3lip'. Known: wavsyncswap, patchgan, iresnet18"):
        build("wav3lip")
    assert len(names()) == len(set(names()))


def test_unknown_option_lists_the_known():
    with pytest.raises(ValueError, match="'iresnet18' has no option 'depth'. Known options: width, dim"):
        build("iresnet18", depth=3)
    with pytest.raises(ValueError, match="Known options: none"):
        build("wav2lip_disc_qual", width=2)


def test_networks_are_imported_when_asked_for(root):
    code = "import sys, models.networks; sys.exit('models.networks.wavsyncswap' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False, timeout=120).returncode == 0
