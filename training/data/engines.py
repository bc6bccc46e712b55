"""Many items at once: in this process, in several of this machine, or on a Ray cluster. The results are the same."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any

import torch

from .items import Item, Settings
from .stages import prepare_item

log = logging.getLogger(__name__)
ENGINES = ("local", "ray")


def run_all(items: list[Item], folder: Path, settings: Settings, engine: str, processes: int) -> None:
    """Prepare all items, telling of each as it is done.

    Args:
        items: what.
        folder: of all working folders; for a Ray cluster of several machines one that all of them see.
        settings: how.
        engine: one of `ENGINES`.
        processes: how many at once; each uses one thread.

    Raises:
        ValueError: Ray is asked for and not installed.
    """
    run = {"local": _local, "ray": _ray}[engine]
    for done, line in enumerate(run(items, folder, settings, processes), 1):
        log.info("%d of %d, %s", done, len(items), line)


def _local(items: list[Item], folder: Path, settings: Settings, processes: int) -> Iterator[str]:
    if processes == 1:
        for item in items:
            yield _one_thread(item, folder, settings)
        return
    context = get_context("spawn")  # a forked process would inherit locks that threads of torch and OpenCV hold
    with ProcessPoolExecutor(processes, context, initializer=_end_with_parent) as pool:
        for future in as_completed([pool.submit(_one_thread, item, folder, settings) for item in items]):
            yield future.result()


def _ray(items: list[Item], folder: Path, settings: Settings, processes: int) -> Iterator[str]:
    try:
        import ray
    except ImportError as error:
        raise ValueError(f"--engine ray needs Ray ({error}): pip install ray, or use --engine local.") from error
    here = Path(__file__).resolve().parents[2]
    # Workers start elsewhere; they find the code in the same folder, as they find the videos.
    environment: dict[str, Any] = {"env_vars": {"PYTHONPATH": str(here)}}
    address = os.environ.get("RAY_ADDRESS")  # of a cluster; without one a little one is started here
    size: dict[str, Any] = {} if address else {"num_cpus": processes, "include_dashboard": False}
    with ray.init(address=address, runtime_env=environment, log_to_driver=False, **size):
        remote = ray.remote(num_cpus=1, max_retries=2)(_one_thread)
        waiting = [remote.remote(item, folder, settings) for item in items]
        while waiting:
            ready, waiting = ray.wait(waiting)
            yield ray.get(ready[0])


def _one_thread(item: Item, folder: Path, settings: Settings) -> str:
    with one_thread():
        return prepare_item(item, folder, settings)


@contextmanager
def one_thread() -> Iterator[None]:
    """Have sums formed in the same order wherever they are formed."""
    import cv2

    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work forever, and hold its memory."""
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_wait_and_leave, args=(parent.sentinel,), daemon=True).start()


def _wait_and_leave(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
