"""Peak memory of the whole job must depend on the chunk, not on the clip."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from models.video_writer import VideoWriter
from tests.models.swapping import clip, speech

ROOT = Path(__file__).resolve().parents[2]
FPS = Fraction(4)
# 200 frames more of this size, kept by mistake, would be 180 MB: far above the tolerance.
WIDTH, HEIGHT = 640, 480

CHILD = """
import resource, sys
from pathlib import Path
from models.pipeline import SwapOptions, talking_swap
from models.video import VideoFile
from tests.models.swapping import DiscDetector, embedding, generator

source = VideoFile(sys.argv[1])
report = talking_swap(
    source, source.sound(), embedding(), Path(sys.argv[2]), generator=generator(), detector=DiscDetector(),
    options=SwapOptions(length=sys.argv[3], speech_gate=1.0),
)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(report.frames, peak)
"""


def peak(tmp_path: Path, seconds: int) -> int:
    """Bytes at most resident while a clip of that length was made."""
    source = tmp_path / f"{seconds}.mp4"
    with VideoWriter(source, WIDTH, HEIGHT, FPS, speech(seconds, 44100, 2)) as writer:
        for _ in range(seconds):
            writer.write(clip(int(FPS), WIDTH, HEIGHT))
    command = [sys.executable, "-c", CHILD, str(source), str(tmp_path / "out.mp4"), "pad"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    frames, used = map(int, done.stdout.split())
    assert frames == seconds * FPS
    return used


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs the resource module")
def test_a_minute_takes_no_more_memory_than_ten_seconds(tmp_path):
    short, long = peak(tmp_path, 10), peak(tmp_path, 60)
    print(f"10 s: {short / 2**20:.0f} MiB, 60 s: {long / 2**20:.0f} MiB")
    assert long < 1.15 * short
