"""`python -m training infer --batch JOBS`: many jobs by several processes, on one machine or many that share a disk.

JOBS has a JSON object a line: the options of `infer` by name, without dashes, `video` and `out` at least. What the
command line says is the default of every job; paths are taken from JOBS' folder.

Beside JOBS a folder `JOBS.state` holds a file for each job: `.claim` while a process works on it, then `.done` or
`.failed`. Any number of processes may be started at any time, and a job is done once. Run again: what is done is left
alone, what failed or was cut off is tried anew. A job is done when its `out` is there and was made with the options and
weights that it has now; where it stands in JOBS does not matter.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch

from .batch_jobs import Job, read_jobs
from .batch_state import CLAIM, DONE, FAILED, State

log = logging.getLogger(__name__)

Work = Callable[[argparse.Namespace], str]


def work_through(jobs: list[Job], state: State, begun_at: float, work: Work) -> None:
    """Do what nobody else does, job after job; a failure is written down and the next job begun.

    `begun_at` is when this run began, by the clock of the disk that the results are on.
    """
    for job in jobs:
        if state.is_done(job) or state.failure(job, begun_at):
            continue
        with state.claimed(job) as mine:
            if not mine or state.failure(job, begun_at):
                continue
            begun = time.perf_counter()
            try:
                report = work(job.args)
            except Exception as error:  # any failure is this job's alone
                log.error("line %d failed: %s", job.line, error)
                state.finish(job, FAILED, {"error": f"{type(error).__name__}: {error}"})
            else:
                seconds = round(time.perf_counter() - begun, 3)
                log.info("line %d done in %.1f s", job.line, seconds)
                state.finish(job, DONE, {"seconds": seconds, "report": report})


def worker(args: argparse.Namespace, jobs: list[Job], begun_at: float, index: int) -> None:
    """One process: loads the models once, then works through the jobs from a place of its own."""
    from .infer import Engines, swap

    processes = args.processes
    if processes > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
        if args.device == "cuda":
            args.device = f"cuda:{index % max(1, torch.cuda.device_count())}"
    engines = Engines(args)
    first = index * len(jobs) // processes
    order = jobs[first:] + jobs[:first]
    work_through(order, State(state_folder(args.batch)), begun_at, lambda job: str(swap(job, engines)))


def state_folder(batch: Path) -> Path:
    """Where the state of a file of jobs is kept."""
    return batch.with_name(batch.name + ".state")


def run(args: argparse.Namespace) -> int:
    """Do all jobs and tell how they went; 1 if one failed.

    Raises:
        ValueError: no number of processes, or a fault in the file of jobs.
    """
    if args.processes < 1:
        raise ValueError(f"--processes is {args.processes}; give 1 or more.")
    jobs, state, begun = read_jobs(args.batch, args), State(state_folder(args.batch)), time.perf_counter()
    mark = state.folder / "begun"
    mark.touch()
    begun_at = mark.stat().st_mtime
    troubles: list[str] = []
    if args.processes == 1:
        worker(args, jobs, begun_at, 0)
    else:
        troubles = _in_processes(args, jobs, state, begun_at)
    left = [job for job in jobs if not state.is_done(job)]
    reasons = {job.line: _why(job, state, begun_at) for job in left}
    for line, reason in reasons.items():
        if reason:
            print(f"line {line}: {reason}")
    if idle := sum(not reason for reason in reasons.values()):
        print("; ".join([f"{idle} not begun", *dict.fromkeys(troubles)]))
    print(f"{len(jobs) - len(left)} of {len(jobs)} jobs done, {time.perf_counter() - begun:.1f} s")
    return 1 if left else 0


def _why(job: Job, state: State, begun_at: float) -> str:
    """Why a job is not done; "" = nobody began it."""
    if error := state.failure(job, begun_at):
        return error
    holder = state.holder(job)
    return f"another process has it ({holder})" if holder else ""


def _in_processes(args: argparse.Namespace, jobs: list[Job], state: State, begun_at: float) -> list[str]:
    """Workers until each has found nothing more to do; one that dies costs the job that it died of, and is replaced.

    Returns:
        Why workers ended outside of a job.
    """
    context = get_context("spawn")  # a forked process would inherit the locks of torch's threads
    named, errors, troubles = {job.name: job for job in jobs}, context.SimpleQueue(), list[str]()

    def started(index: int) -> Any:
        process = context.Process(target=_process, args=(args, jobs, begun_at, index, errors))
        process.start()
        return process

    running = [started(index) for index in range(args.processes)]
    try:
        for index in range(args.processes):
            while True:
                running[index].join()
                left = state.of_process(running[index].pid) if running[index].exitcode else []
                for claim in left:
                    job = named.get(claim.name.removesuffix(CLAIM))
                    if job is not None:
                        state.finish(job, FAILED, {"error": f"the process ended with {running[index].exitcode}"})
                    claim.unlink(missing_ok=True)
                if not left:
                    break
                running[index] = started(index)
            if running[index].exitcode:
                told = f"a process ended with {running[index].exitcode}" if errors.empty() else errors.get()
                troubles.append(told)
    finally:
        for process in running:
            if process.is_alive():
                process.terminate()
                process.join()
    return troubles


def _process(args: argparse.Namespace, jobs: list[Job], begun_at: float, index: int, errors: Any) -> None:
    """A worker in a process of its own, which says what it dies of."""
    logging.basicConfig(level=logging.INFO, format=f"[{index}] %(message)s")
    _end_with_parent()
    try:
        worker(args, jobs, begun_at, index)
    except Exception as error:
        errors.put(f"{type(error).__name__}: {error}"[:2000])
        sys.exit(1)


def _end_with_parent() -> None:
    """End this process when the one that started it has."""
    parent = parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
