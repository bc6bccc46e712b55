"""The numbers of the paper's three tables (specification section 7), by kind of system."""

from __future__ import annotations

from .contenders import TRUTH

NAMES = {TRUTH: "ground truth", "wav2lip": "Wav2Lip", "cascade": "Wav2Lip -> SimSwap", "wavsyncswap": "proposed"}
SCORES: dict[str, dict[str, float]] = {
    TRUTH: {"lse_d": 7.19, "lse_c": 7.74, "cpbd_96": 0.427},
    "wav2lip": {"lse_d": 6.02, "lse_c": 8.65, "lmd": 2.648, "lmd_m": 2.721, "fid_96": 53.9, "cpbd_96": 0.353},
    "cascade": {
        "lse_d": 8.14,
        "lse_c": 6.02,
        "lmd": 3.361,
        "lmd_m": 3.114,
        "fid_96": 74.8,
        "cpbd_96": 0.340,
        "id_videos": 100.0,
    },
    "wavsyncswap": {
        "lse_d": 5.88,
        "lse_c": 9.09,
        "lmd": 3.161,
        "lmd_m": 2.984,
        "fid_96": 49.9,
        "cpbd_96": 0.470,
        "id_videos": 85.7,
    },
}
FACTORS = {"cascade": (0.2005, 0.0239), "wavsyncswap": (0.1024, 0.0168)}  # real-time factor: mean, deviation
RATIO = 1.96  # cascade over proposed
PROTOCOL = (
    "The paper measured 96 px networks with their public or its own weights, on HDTF, and speed on one V100. Its "
    "numbers stand here for orientation: another test set, detector, sync model or recogniser gives other numbers."
)
