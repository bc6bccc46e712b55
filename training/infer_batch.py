"""`python -m training infer --batch JOBS`: many jobs by several processes, on one machine or many that share a disk.

JOBS has a JSON object a line: the options of `infer` by name, without dashes, `video` and `out` at least. What the
command line says is the default of every job; paths are taken from JOBS' folder.

Beside JOBS a folder `JOBS.state` holds a file for each job: `.claim` while a process works on it, then `.done` or
`.failed`. A claim is a file that is made only where there is none, kept fresh while its process lives, so any number of
processes may be started at any time, and a job is done once. Run again: what is done is left alone, what failed or was
cut off is tried anew. A job is what its line says: a changed line is another job.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch

from .data.work import write_json

log = logging.getLogger(__name__)

FILES = ("video", "face", "audio", "out")
ALLOWED = (
    *FILES, "select", "index", "length", "smoothing", "feather", "colour_match", "speech_gate", "audio_offset",
)  # fmt: skip
FRESH = 10.0  # seconds from one sign of life to the next
STALE = 90.0  # seconds without one after which a claim's process is dead
DONE, FAILED, CLAIM = ".done", ".failed", ".claim"

Work = Callable[[argparse.Namespace], str]


@dataclass(frozen=True)
class Job:
    """One line of JOBS: its number from 1, its options, and its name in the state folder."""

    line: int
    options: dict[str, Any]
    name: str


def read_jobs(path: Path) -> list[Job]:
    """Jobs of a file.

    Raises:
        ValueError: a line is no job, or two lines write the same file; the message names the line.
    """
    jobs, outputs = [], dict[str, int]()
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not text.strip():
            continue
        where = f"{path.name}, line {number}"
        try:
            options = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where} is not JSON ({error}). Write one object a line.") from error
        if not isinstance(options, dict) or not {"video", "out"} <= options.keys():
            raise ValueError(f'{where}: expected {{"video": ..., "out": ...}}, got {text.strip()[:80]}.')
        if unknown := sorted(options.keys() - set(ALLOWED)):
            raise ValueError(f"{where}: unknown {', '.join(unknown)}; a job may say {', '.join(ALLOWED)}.")
        out = str(path.parent / options["out"])
        if out in outputs:
            raise ValueError(f"{where} writes {options['out']}, and so does line {outputs[out]}. Give it another name.")
        outputs[out] = number
        exact = json.dumps(options, sort_keys=True)
        jobs.append(Job(number, options, f"{number:06d}-{hashlib.sha256(exact.encode()).hexdigest()[:12]}"))
    if not jobs:
        raise ValueError(f"{path} holds no job. Write one JSON object a line.")
    return jobs


class State:
    """The state folder: who works on what, what is done, what failed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, job: Job, kind: str) -> Path:
        """File of a job."""
        return self.folder / (job.name + kind)

    def is_done(self, job: Job) -> bool:
        """Whether nothing is left to do."""
        return self.path(job, DONE).is_file()

    def failed_since(self, job: Job, moment: float) -> bool:
        """Whether it failed in this run: it is not tried again, by nobody."""
        with contextlib.suppress(FileNotFoundError):
            return self.path(job, FAILED).stat().st_mtime >= moment
        return False

    @contextlib.contextmanager
    def claimed(self, job: Job) -> Iterator[bool]:
        """Whether the job is this process's for the time being; a dead process's claim is taken over."""
        claim = self.path(job, CLAIM)
        with contextlib.suppress(FileNotFoundError):
            if time.time() - claim.stat().st_mtime > STALE:
                # Renaming succeeds for one of those who try; deleting could hit the claim of a faster one.
                grave = claim.with_name(f"{claim.name}.{os.getpid()}")
                os.rename(claim, grave)
                grave.unlink()
        try:
            with claim.open("x", encoding="utf-8") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            yield False
            return
        over = threading.Event()
        pulse = threading.Thread(target=self._keep_fresh, args=(claim, over), daemon=True)
        pulse.start()
        try:
            yield not self.is_done(job)  # it may have become so while the claim was made
        finally:
            over.set()
            pulse.join()
            claim.unlink(missing_ok=True)

    @staticmethod
    def _keep_fresh(claim: Path, over: threading.Event) -> None:
        while not over.wait(FRESH):
            with contextlib.suppress(OSError):
                os.utime(claim)

    def of_process(self, process: int | None) -> list[Path]:
        """Claims that a process of this machine left behind."""
        return [c for c in self.folder.glob("*" + CLAIM) if c.read_text(encoding="utf-8") == str(process)]

    def finish(self, job: Job, kind: str, result: dict[str, Any]) -> None:
        """Leave a result, in place of one of an earlier run."""
        write_json(self.path(job, kind), {"line": job.line, **result}, indent=None)
        if kind == DONE:
            self.path(job, FAILED).unlink(missing_ok=True)


def work_through(jobs: list[Job], state: State, defaults: argparse.Namespace, folder: Path, work: Work) -> None:
    """Do what nobody else does, job after job; a failure is written down and the next job begun."""
    begun_at = defaults.begun
    for job in jobs:
        if state.is_done(job) or state.failed_since(job, begun_at):
            continue
        with state.claimed(job) as mine:
            if not mine or state.failed_since(job, begun_at):
                continue
            begun = time.perf_counter()
            try:
                report = work(job_arguments(job, defaults, folder))
            except Exception as error:  # any failure is this job's alone
                log.error("line %d failed: %s", job.line, error)
                state.finish(job, FAILED, {"error": f"{type(error).__name__}: {error}"})
            else:
                seconds = round(time.perf_counter() - begun, 3)
                log.info("line %d done in %.1f s", job.line, seconds)
                state.finish(job, DONE, {"seconds": seconds, "report": report})


def job_arguments(job: Job, defaults: argparse.Namespace, folder: Path) -> argparse.Namespace:
    """A job's options over the command line's."""
    args = copy(defaults)
    for name, value in job.options.items():
        if name in FILES and value is not None:
            several = value if isinstance(value, list) else [value]
            paths = [folder / one for one in several]
            value = paths if name == "face" else paths[0]
        setattr(args, name, value)
    return args


def worker(args: argparse.Namespace, index: int, processes: int) -> None:
    """One process: loads the models once, then works through the jobs from a place of its own."""
    from .infer import Engines, swap

    logging.basicConfig(level=logging.INFO, format=f"[{index}] %(message)s")
    if processes > 1:
        _end_with_parent()
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
        if args.device == "cuda":
            args.device = f"cuda:{index % max(1, torch.cuda.device_count())}"
    jobs, engines = read_jobs(args.batch), Engines(args)
    first = index * len(jobs) // processes
    order = jobs[first:] + jobs[:first]
    work_through(order, State(state_folder(args.batch)), args, args.batch.parent, lambda job: str(swap(job, engines)))


def state_folder(batch: Path) -> Path:
    """Where the state of a file of jobs is kept."""
    return batch.with_name(batch.name + ".state")


def run(args: argparse.Namespace) -> int:
    """Do all jobs and tell how they went; 1 if one failed."""
    jobs, state, begun = read_jobs(args.batch), State(state_folder(args.batch)), time.perf_counter()
    mark = state.folder / "begun"
    mark.touch()
    args.begun = mark.stat().st_mtime  # by the clock of the disk that the results are on
    if args.processes == 1:
        worker(args, 0, 1)
    else:
        _in_processes(args, state)
    left = [job for job in jobs if not state.is_done(job)]
    for job in left:
        told = state.path(job, FAILED)
        error = json.loads(told.read_text(encoding="utf-8"))["error"] if told.is_file() else "another process has it"
        print(f"line {job.line}: {error}")
    print(f"{len(jobs) - len(left)} of {len(jobs)} jobs done, {time.perf_counter() - begun:.1f} s")
    return 1 if left else 0


def _in_processes(args: argparse.Namespace, state: State) -> None:
    """Workers until each has found nothing more to do; one that dies costs the job that it died of, and is replaced."""
    context = get_context("spawn")  # a forked process would inherit the locks of torch's threads
    jobs = {job.name: job for job in read_jobs(args.batch)}

    def started(index: int) -> Any:
        process = context.Process(target=worker, args=(args, index, args.processes))
        process.start()
        return process

    running = [started(index) for index in range(args.processes)]
    try:
        for index in range(args.processes):
            while True:
                running[index].join()
                left = state.of_process(running[index].pid) if running[index].exitcode else []
                for claim in left:
                    job = jobs.get(claim.name.removesuffix(CLAIM))
                    if job is not None:
                        state.finish(job, FAILED, {"error": f"the process ended with {running[index].exitcode}"})
                    claim.unlink(missing_ok=True)
                if not left:
                    break
                running[index] = started(index)
    finally:
        for process in running:
            if process.is_alive():
                process.terminate()
                process.join()


def _end_with_parent() -> None:
    """End this process when the one that started it has."""
    parent = parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
