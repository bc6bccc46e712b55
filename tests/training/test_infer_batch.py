"""`python -m training infer --batch`: claims, resuming, failures that stay with their job."""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from fractions import Fraction

import numpy as np
import pytest

from models.video import VideoFile
from models.video_writer import VideoWriter
from tests.models.swapping import speech
from training import infer_batch
from training.__main__ import main
from training.infer_batch import DONE, FAILED, State, read_jobs, work_through


@pytest.fixture
def jobs(tmp_path):
    """Three jobs, the second without a video."""
    lines = [{"video": f"{name}.mp4", "out": f"{name}_out.mp4"} for name in ("a", "missing", "b")]
    path = tmp_path / "jobs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


def run(path, work, begun=0.0):
    found = read_jobs(path)
    state = State(infer_batch.state_folder(path))
    work_through(found, state, argparse.Namespace(begun=begun), path.parent, work)
    return found, state


def test_lines_that_are_no_jobs_are_told(tmp_path):
    path = tmp_path / "jobs.jsonl"
    for text, message in [
        ("", "holds no job"),
        ("{", "line 1 is not JSON"),
        ('{"video": "a"}', "line 1: expected"),
        ('{"video": "a", "out": "b", "speed": 2}', "line 1: unknown speed"),
        ('{"video": "a", "out": "b"}\n\n{"video": "c", "out": "b"}', "line 3 writes b, and so does line 1"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_jobs(path)


def test_a_failure_stays_with_its_job_and_what_is_done_is_left_alone(jobs):
    seen = []

    def work(args):
        seen.append(args.video.name)
        if args.video.name == "missing.mp4":
            raise FileNotFoundError("There is no file missing.mp4.")
        return "fine"

    found, state = run(jobs, work)
    assert seen == ["a.mp4", "missing.mp4", "b.mp4"]
    assert [state.is_done(job) for job in found] == [True, False, True]
    assert "missing.mp4" in json.loads(state.path(found[1], FAILED).read_text())["error"]
    assert json.loads(state.path(found[0], DONE).read_text())["report"] == "fine"
    seen.clear()
    run(jobs, lambda args: seen.append(args.video.name) or "mended")
    assert seen == []  # failed in this run already
    run(jobs, lambda args: seen.append(args.video.name) or "mended", begun=time.time() + 60)
    assert seen == ["missing.mp4"]
    assert state.is_done(found[1])
    assert not state.path(found[1], FAILED).exists()
    assert not list(state.folder.glob("*.claim*"))


def test_many_workers_do_every_job_once(tmp_path):
    path = tmp_path / "jobs.jsonl"
    path.write_text("\n".join(json.dumps({"video": str(i), "out": f"o{i}"}) for i in range(40)))
    seen, lock = [], threading.Lock()

    def work(args):
        with lock:
            seen.append(args.video.name)
        time.sleep(0.002)
        return ""

    threads = [threading.Thread(target=run, args=(path, work)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen, key=int) == [str(i) for i in range(40)]


def test_a_living_claim_is_respected_and_a_dead_one_taken_over(jobs):
    found, state = read_jobs(jobs), State(infer_batch.state_folder(jobs))
    claim = state.path(found[0], infer_batch.CLAIM)
    claim.write_text("1")
    seen = []
    run(jobs, lambda args: seen.append(args.video.name) or "")
    assert seen == ["missing.mp4", "b.mp4"]
    os.utime(claim, (0, 0))
    run(jobs, lambda args: seen.append(args.video.name) or "")
    assert seen == ["missing.mp4", "b.mp4", "a.mp4"]


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_clips_are_made_and_failures_reported(tmp_path, astronaut, capsys, processes):
    pytest.importorskip("av")
    with VideoWriter(tmp_path / "clip.mp4", 320, 320, Fraction(25), speech(0.2)) as writer:
        writer.write(np.repeat(astronaut[None, :320, 60:380], 5, 0))
    with VideoWriter(tmp_path / "grey.mp4", 64, 64, Fraction(25), None) as writer:
        writer.write(np.full((3, 64, 64, 3), 127, np.uint8))
    lines = [{"video": "clip.mp4", "out": f"out/{i}.mp4"} for i in range(3)] + [
        {"video": "grey.mp4", "out": "out/g.mp4"}
    ]
    path = tmp_path / "jobs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert main(["infer", "--batch", str(path), "--processes", processes]) == 1
    told = capsys.readouterr().out
    assert "line 4: ValueError: No face in any of 3 frames" in told
    assert "3 of 4 jobs done" in told
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0.mp4", "1.mp4", "2.mp4"]
    with VideoFile(tmp_path / "out" / "0.mp4") as made:
        assert made.info.frames == 5


def test_neither_a_job_nor_jobs_is_one_line(capsys):
    assert main(["infer"]) == 1
    assert "Give --video and --out, or --batch" in capsys.readouterr().err
