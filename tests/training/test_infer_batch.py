"""`python -m training infer --batch`: claims, resuming, failures that stay with their job."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from fractions import Fraction

import numpy as np
import pytest

from models.video import VideoFile
from models.video_writer import VideoWriter
from tests.models.swapping import speech
from training import batch_state, infer, infer_batch
from training.__main__ import main
from training.batch_jobs import read_jobs
from training.batch_state import CLAIM, DONE, FAILED, State
from training.infer_batch import work_through


@pytest.fixture
def jobs(tmp_path):
    """Three jobs, the second without a video."""
    return written(tmp_path, [{"video": f"{name}.mp4", "out": f"{name}_out.mp4"} for name in ("a", "missing", "b")])


def written(folder, lines):
    path = folder / "jobs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


def options(path, *more):
    parser = argparse.ArgumentParser()
    infer.add_arguments(parser)
    return parser.parse_args(["--batch", str(path), *more])


def made(args):
    """The work of a job, for those who only count: an output."""
    args.out.write_text(args.video.name)
    return "fine"


def run(path, work, begun=0.0, *more):
    found = read_jobs(path, options(path, *more))
    state = State(infer_batch.state_folder(path))
    work_through(found, state, begun, work)
    return found, state


def counted(path, *more):
    """Names of the videos of jobs that a run finds to do."""
    seen = []
    run(path, lambda args: seen.append(args.video.name) or made(args), 0.0, *more)
    return seen


def test_lines_that_are_no_jobs_are_told(tmp_path):
    path = tmp_path / "jobs.jsonl"
    for text, message in [
        ("", "holds no job"),
        ("{", "line 1: this is not JSON"),
        ('{"video": "a"}', "line 1: expected"),
        ('{"video": "a", "out": "b", "speed": 2}', "line 1: unknown speed"),
        ('{"video": "a", "out": "b"}\n\n{"video": "c", "out": "b"}', "line 3 writes b, and so does line 1"),
        ('{"video": "a", "out": "b"}\n{"video": "c", "out": "x/../b"}', "line 2 writes b, and so does line 1"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_jobs(path, options(path))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"out": 5}, "out is 5; give a file's name"),
        ({"out": None}, "out is null; give a file's name"),
        ({"video": 5}, "video is 5; give a file's name"),
        ({"video": ["a"]}, r'video is \["a"\]; give a file'),
        ({"face": ["a", 1]}, "face is 1; give a file's name"),
        ({"index": "0"}, 'index is "0"; give a whole number'),
        ({"index": True}, "index is true; give a whole number"),
        ({"index": -1}, "face index is -1"),
        ({"smoothing": None}, "smoothing is null; give a number"),
        ({"smoothing": 3}, "smoothing is 3; choose a number from 0 to 1"),
        ({"audio_offset": "0.1"}, 'audio_offset is "0.1"; give a number'),
        ({"audio_offset": float("nan")}, "audio_offset is nan"),
        ({"smoothing": 10**400}, "smoothing is a number of 401 digits"),
        ({"length": "stretch"}, "length is .stretch.; give one of pad, cut"),
    ],
)
def test_values_of_another_type_or_range_are_told_by_line(tmp_path, option, message):
    path = written(tmp_path, [{"video": "a", "out": "b"}, {"video": "a", "out": "c", **option}])
    with pytest.raises(ValueError, match=f"jobs.jsonl, line 2: .*{message}"):
        read_jobs(path, options(path))


def test_a_byte_order_mark_and_rare_line_ends_within_strings_are_read(tmp_path):
    path = tmp_path / "jobs.jsonl"
    path.write_bytes('\ufeff{"video": "a", "face": null, "out": "b\u2028c"}\r\n{"video": "a", "out": "d"}'.encode())
    first, second = read_jobs(path, options(path, "--face", "f.png", "--smoothing", "0.25"))
    assert (first.args.out.name, first.args.face, first.args.smoothing) == ("b\u2028c", None, 0.25)
    assert [face.name for face in second.args.face] == ["f.png"]
    path.write_bytes('{"video": "a", "out": "b"}'.encode("utf-16"))
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        read_jobs(path, options(path))


@pytest.mark.parametrize("name", ["v.mp4", "sub/../v.mp4", "jobs.jsonl"])
def test_no_job_writes_over_what_any_job_reads(tmp_path, name, capsys):
    (tmp_path / "v.mp4").write_bytes(b"precious")
    (tmp_path / "sub").mkdir()
    path = written(tmp_path, [{"video": "u.mp4", "out": name}, {"video": "v.mp4", "out": "o.mp4"}])
    before = path.read_bytes()
    assert main(["infer", "--batch", str(path)]) == 1
    assert "jobs.jsonl, line 1, out: " in (told := capsys.readouterr().err)
    assert "is read (" in told
    assert (tmp_path / "v.mp4").read_bytes() == b"precious" and path.read_bytes() == before


def test_a_failure_stays_with_its_job_and_what_is_done_is_left_alone(jobs):
    seen = []

    def work(args):
        seen.append(args.video.name)
        if args.video.name == "missing.mp4":
            raise FileNotFoundError("There is no file missing.mp4.")
        return made(args)

    found, state = run(jobs, work)
    assert seen == ["a.mp4", "missing.mp4", "b.mp4"]
    assert [state.is_done(job) for job in found] == [True, False, True]
    assert "missing.mp4" in json.loads(state.path(found[1], FAILED).read_text())["error"]
    assert json.loads(state.path(found[0], DONE).read_text())["report"] == "fine"
    seen.clear()
    run(jobs, lambda args: seen.append(args.video.name) or made(args))
    assert seen == []  # failed in this run already
    run(jobs, lambda args: seen.append(args.video.name) or made(args), begun=time.time() + 60)
    assert seen == ["missing.mp4"]
    assert state.is_done(found[1])
    assert not state.path(found[1], FAILED).exists()
    assert not list(state.folder.glob("*.claim*"))


def test_done_means_that_the_output_is_there_and_was_made_so(jobs, tmp_path):
    everything = ["a.mp4", "missing.mp4", "b.mp4"]
    assert counted(jobs) == everything
    assert counted(jobs) == []
    (tmp_path / "b_out.mp4").unlink()
    assert counted(jobs) == ["b.mp4"]
    assert counted(jobs, "--smoothing", "0.3") == everything
    assert counted(jobs, "--smoothing", "0.3") == []
    assert counted(jobs) == everything  # what lies there now was made otherwise
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"1")
    assert counted(jobs, "--weights", str(weights)) == everything
    assert counted(jobs, "--weights", str(weights), "--processes", "2", "--device", "cuda") == []
    weights.write_bytes(b"2")
    assert counted(jobs, "--weights", str(weights)) == everything


def test_a_job_is_the_same_wherever_it_stands(jobs, tmp_path):
    counted(jobs)
    lines = [{"video": "new.mp4", "out": "new_out.mp4"}, *map(json.loads, jobs.read_text().splitlines())]
    lines[1]["smoothing"] = 0.5  # the default, said
    assert counted(written(tmp_path, lines)) == ["new.mp4"]
    lines[2]["smoothing"] = 0.4
    assert counted(written(tmp_path, lines)) == ["missing.mp4"]


def test_what_other_versions_left_in_the_folder_does_no_harm(jobs):
    folder = infer_batch.state_folder(jobs)
    folder.mkdir()
    (folder / "000001-0123456789ab.done").write_text('{"line": 1, "report": "fine"}')
    (folder / "000002-0123456789ab.claim").write_text("1")
    (folder / "000003-0123456789ab.failed").write_text("{")
    assert counted(jobs) == ["a.mp4", "missing.mp4", "b.mp4"]
    assert State(folder).of_process(1) == []


def test_many_workers_do_every_job_once(tmp_path):
    path = written(tmp_path, [{"video": str(i), "out": f"o{i}"} for i in range(40)])
    seen, lock = [], threading.Lock()

    def work(args):
        with lock:
            seen.append(args.video.name)
        time.sleep(0.002)
        return made(args)

    threads = [threading.Thread(target=run, args=(path, work)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen, key=int) == [str(i) for i in range(40)]


def test_a_living_claim_is_respected_and_a_dead_one_taken_over(jobs):
    found, state = read_jobs(jobs, options(jobs)), State(infer_batch.state_folder(jobs))
    claim = state.path(found[0], CLAIM)
    claim.write_text("1")
    assert counted(jobs) == ["missing.mp4", "b.mp4"]
    os.utime(claim, (0, 0))
    assert counted(jobs) == ["a.mp4"]


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="only there a killed process is told at once")
def test_a_claim_of_a_killed_run_of_this_machine_is_taken_over_at_once(jobs):
    found, state = read_jobs(jobs, options(jobs)), State(infer_batch.state_folder(jobs))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        birth = batch_state._birth(other.pid)
        dead = {**state.own, "run": other.pid, "pid": other.pid, "birth": birth, "token": "x"}
        reused, elsewhere = {**dead, "run": os.getpid(), "pid": os.getpid()}, {**dead, "machine": "another host"}
        for job, claim in zip(found, (dead, reused, elsewhere), strict=True):
            state.path(job, CLAIM).write_text(json.dumps(claim))
        assert counted(jobs) == ["missing.mp4"]  # its number is that of another process by now
        other.kill()
    assert counted(jobs) == ["a.mp4"]
    assert state.holder(found[2]) == f"process {other.pid} on another"
    assert state.of_process(other.pid) == []  # a process of that number here is not meant


def test_a_claim_that_was_taken_over_is_neither_kept_alive_nor_removed_by_its_first_owner(jobs, monkeypatch):
    monkeypatch.setattr(batch_state, "FRESH", 0.001)
    found, state = read_jobs(jobs, options(jobs)), State(infer_batch.state_folder(jobs))
    claim = state.path(found[0], CLAIM)
    with state.claimed(found[0]) as mine:
        assert mine
        claim.write_text(json.dumps({**state.own, "token": "another"}))
        os.utime(claim, (1, 1))
        time.sleep(0.05)
        assert claim.stat().st_mtime == 1
    assert json.loads(claim.read_text())["token"] == "another"


def test_a_result_that_cannot_be_written_is_its_jobs_failure_before_its_work(jobs, tmp_path):
    found = read_jobs(jobs, options(jobs))
    found[1].args.out.mkdir()
    with pytest.raises(ValueError, match="missing_out.mp4 is a folder"):
        infer.swap(found[1].args, None)


@pytest.mark.parametrize("processes", ["0", "-2"])
def test_no_processes_are_refused(jobs, capsys, processes):
    assert main(["infer", "--batch", str(jobs), "--processes", processes]) == 1
    assert f"--processes is {processes}; give 1 or more" in capsys.readouterr().err


def test_processes_that_die_at_the_start_say_why(jobs, tmp_path, capsys):
    (tmp_path / "w.pth").write_text("no weights")
    assert main(["infer", "--batch", str(jobs), "--processes", "2", "--weights", str(tmp_path / "w.pth")]) == 1
    told = capsys.readouterr().out
    assert "3 not begun; ValueError: w.pth is not" in told
    assert "0 of 3 jobs done" in told


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
