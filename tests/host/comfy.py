"""A real ComfyUI for tests: started in a fresh base directory, driven over HTTP."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.host.obtain import comfy_folder

ROOT = Path(__file__).resolve().parents[2]


def checkout_files() -> set[str]:
    """Every file of the checkout that is no cache."""
    caches = {
        ".git",
        ".cache",
        ".venv",
        "__pycache__",
        ".pytest_cache",
        ".mypy_cache",
        ".ruff_cache",
        "outputs",
        "runs",
    }
    files: set[str] = set()
    for folder, names, here in os.walk(ROOT):
        names[:] = [name for name in names if name not in caches]
        files.update(os.path.join(folder, name) for name in here)
    return files


class Host:
    """A running server."""

    def __init__(self, base: Path, port: int, process: subprocess.Popen[bytes]) -> None:
        self.base, self.url, self.process = base, f"http://127.0.0.1:{port}", process
        self.log = base / "host.log"
        self.checkout_before = checkout_files()

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=60) as reply:
            return json.load(reply)

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, json.loads(reply.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def submit(self, graph: dict[str, Any]) -> str:
        """Queue a graph that must be valid in every node; its prompt id."""
        status, body = self.post("/prompt", {"prompt": graph})
        assert status == 200, body
        assert not body["node_errors"], body  # 200 may still carry errors of some nodes
        return body["prompt_id"]

    def wait(self, prompt: str, timeout: float = 300) -> dict[str, Any]:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            history = self.get("/history/" + prompt)
            if prompt in history:
                return history[prompt]
            assert self.process.poll() is None, "the host died:\n" + self.tail()
            time.sleep(0.2)
        raise TimeoutError(self.tail())

    def run(self, graph: dict[str, Any], timeout: float = 300) -> dict[str, Any]:
        """Outputs by node id of a graph that must succeed."""
        entry = self.wait(self.submit(graph), timeout)
        assert entry["status"]["status_str"] == "success", error_of(entry) or entry["status"]
        return entry["outputs"]

    def fail(self, graph: dict[str, Any], timeout: float = 120) -> str:
        """The message of the one error with which a graph must end."""
        entry = self.wait(self.submit(graph), timeout)
        assert entry["status"]["status_str"] == "error", "this graph should have failed"
        error = error_of(entry)
        assert error is not None
        assert error["exception_type"] in ("ValueError", "RuntimeError"), error
        return error["exception_message"].strip()

    def forget(self) -> None:
        """Press the host's button that drops cached results and unloads models.

        The host acts on it at once or, when it was just tidying up, after the next prompt: so there is one.
        """
        assert self.post("/free", {"free_memory": True})[0] == 200
        self.run({"1": {"class_type": "TestState", "inputs": {}}})

    def saved(self, entry: dict[str, Any]) -> Path:
        """File behind one entry of an output node's result."""
        return self.base / entry["type"] / entry["subfolder"] / entry["filename"]

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


def error_of(entry: dict[str, Any]) -> dict[str, Any] | None:
    """execution_error of a history entry, without the tensors that the host prints into it."""
    found = (data for event, data in entry["status"]["messages"] if event == "execution_error")
    kept = ("node_type", "exception_type", "exception_message")
    return next(({key: data[key] for key in kept} for data in found), None)


def flagged(log: str) -> list[str]:
    """Lines of the host's log that complain about this pack."""
    signs = ("wavsyncswap", "import failed", "comfy_entrypoint")
    calm = ("import times", "seconds:", "adding extra")
    lines = [line for line in log.splitlines() if any(sign in line.lower() for sign in signs)]
    return [line for line in lines if "FAILED" in line or not any(word in line.lower() for word in calm)]


def import_seconds(log: str) -> float:
    """What the host says that loading the pack took."""
    line = next(line for line in log.splitlines() if "seconds" in line and "WavSyncSwap" in line)
    return float(line.split("seconds")[0].split()[-1])


@contextmanager
def running(base: Path, extra_environment: dict[str, str] | None = None) -> Iterator[Host]:
    """A server with this pack (and the probe of the tests), in a fresh base directory; ends with the block."""
    comfy = comfy_folder()
    for name in ("custom_nodes", "models", "input", "output", "temp", "user/default"):
        (base / name).mkdir(parents=True)
    (base / "custom_nodes" / "ComfyUI-WavSyncSwap").symlink_to(ROOT, target_is_directory=True)
    probe = base / "custom_nodes" / "wss_probe"
    probe.mkdir()
    shutil.copyfile(Path(__file__).with_name("probe.py"), probe / "__init__.py")
    settings = {"Comfy.TutorialCompleted": True, "Comfy.Locale": "en"}
    (base / "user/default/comfy.settings.json").write_text(json.dumps(settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(comfy / "main.py"), "--cpu", "--listen", "127.0.0.1", "--port", str(port)]
    command += ["--base-directory", str(base), "--database-url", "sqlite:///:memory:", "--disable-api-nodes"]
    command += ["--disable-auto-launch", "--log-stdout"]
    # HOME: the user's own insightface packs must not change what the tests see.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(base)}
    environment.update(extra_environment or {})
    with (base / "host.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=base, env=environment)
        host = Host(base, port, process)
        try:
            _await(host)
            yield host
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _await(host: Host) -> None:
    end = time.monotonic() + 240
    while time.monotonic() < end:
        assert host.process.poll() is None, "the host died:\n" + host.tail()
        try:
            host.get("/system_stats")
        except OSError:
            time.sleep(0.3)
        else:
            return
    raise TimeoutError("the host did not answer:\n" + host.tail())
