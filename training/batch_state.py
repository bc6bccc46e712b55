"""The state folder of `infer --batch`: who works on what, what is done, what failed; shared by any number of machines.

A claim is a file that is made only where there is none. It holds who made it and a number of its own, so that nobody
keeps alive or removes a claim of somebody else's. What a run that has ended had claimed is taken over: at once on the
same machine, elsewhere when it has shown no sign of life for a while. A living run sees to its own dead processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

from .batch_jobs import Job
from .data.work import write_json

FRESH = 10.0  # seconds from one sign of life to the next
STALE = 90.0  # seconds without one after which a claim's process is dead
DONE, FAILED, CLAIM = ".done", ".failed", ".claim"


class State:
    """The folder.

    Args:
        folder: made if it is not there; files of another version's runs in it are left alone.
    """

    def __init__(self, folder: Path) -> None:
        run = parent_process()  # that of a worker
        pid = run.pid if run and run.pid else os.getpid()
        self.folder, self.own = folder, {"machine": machine(), "run": pid, "birth": _birth(pid), "pid": os.getpid()}
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, job: Job, kind: str) -> Path:
        """File of a job."""
        return self.folder / (job.name + kind)

    def is_done(self, job: Job) -> bool:
        """Whether the job's file is there, and was last made with the same options by the same networks."""
        return _read(self.path(job, DONE)).get("key") == job.key and job.args.out.is_file()

    def failure(self, job: Job, moment: float) -> str | None:
        """Why it failed in this run: it is not tried again, by nobody; None = it did not."""
        path = self.path(job, FAILED)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime >= moment:
                return str(_read(path).get("error"))
        return None

    def finish(self, job: Job, kind: str, result: dict[str, Any]) -> None:
        """Leave a result, in place of one of an earlier run."""
        write_json(self.path(job, kind), {"line": job.line, "key": job.key, **result}, indent=None)
        if kind == DONE:
            self.path(job, FAILED).unlink(missing_ok=True)

    @contextlib.contextmanager
    def claimed(self, job: Job) -> Iterator[bool]:
        """Whether the job is this process's for the time being; a dead run's claim is taken over."""
        claim = self.path(job, CLAIM)
        with contextlib.suppress(OSError):
            self._bury(claim)
        own = {**self.own, "token": secrets.token_hex(8)}
        try:
            with claim.open("x", encoding="utf-8") as file:
                file.write(json.dumps(own))
        except FileExistsError:
            yield False
            return
        over = threading.Event()
        pulse = threading.Thread(target=self._keep_fresh, args=(claim, own, over), daemon=True)
        pulse.start()
        try:
            yield not self.is_done(job)  # it may have become so while the claim was made
        finally:
            over.set()
            pulse.join()
            if _read(claim) == own:
                claim.unlink(missing_ok=True)

    def holder(self, job: Job) -> str:
        """Who works on a job, for people; "" = nobody."""
        claim = self.path(job, CLAIM)
        if not claim.is_file():
            return ""
        found = _read(claim)
        return f"process {found.get('pid', '?')} on {str(found.get('machine', '?')).partition(' ')[0]}"

    def of_process(self, process: int | None) -> list[Path]:
        """Claims that a process of this machine, which has ended, left behind."""
        found = ((claim, _read(claim)) for claim in self.folder.glob("*" + CLAIM))
        return [claim for claim, who in found if (who.get("machine"), who.get("pid")) == (self.own["machine"], process)]

    def _bury(self, claim: Path) -> None:
        """Remove a claim whose run is dead, or whose process is for all one can see."""
        age, found = time.time() - claim.stat().st_mtime, _read(claim)
        if age <= STALE and not self._ended(found):
            return
        # Renaming succeeds for one of those who try; deleting could hit the claim of a faster one.
        grave = claim.with_name(f"{claim.name}.{secrets.token_hex(4)}")
        os.rename(claim, grave)
        if _read(grave) != found and not claim.exists():
            os.rename(grave, claim)  # a faster one's after all
        else:
            grave.unlink()

    def _ended(self, found: dict[str, Any]) -> bool:
        """Whether a claim's run was on this machine and is over, even if another process has got its number."""
        if found.get("machine") != self.own["machine"] or not isinstance(found.get("run"), int):
            return False
        return _birth(found["run"]) not in (found.get("birth"), "unknown")

    @staticmethod
    def _keep_fresh(claim: Path, own: dict[str, Any], over: threading.Event) -> None:
        while not over.wait(FRESH):
            with contextlib.suppress(OSError):
                if _read(claim) != own:  # taken over: this process was held up for too long
                    return
                os.utime(claim)


def machine() -> str:
    """Where a process number means the same process: the host's name, its boot, and a container's own numbers."""
    parts = [platform.node() or "unknown"]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _birth(process: int) -> str:
    """When a process of this machine began, in the system's terms; "" = it has ended, "unknown" = that is not told."""
    if os.name != "posix":  # where asking by signal would end it
        return "unknown"
    try:
        os.kill(process, 0)
        told = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except ProcessLookupError:
        return ""
    except (OSError, OverflowError):  # another user's, or a system without /proc
        return "unknown"
    return "" if told[0] in "ZX" else told[19]


def _read(path: Path) -> dict[str, Any]:
    """What a file says; nothing where it is gone, half written or of an earlier version."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
