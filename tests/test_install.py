"""The set-up script: a hook that only tells, a private environment made once, downloads that cannot half succeed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
OFFLINE = """
import socket, subprocess, sys, runpy
def refuse(*a, **k): raise OSError("the test allows no network")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
sys.argv = [sys.argv[1]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """install.py as a module that believes to lie in an empty pack folder with our requirement files."""
    spec = importlib.util.spec_from_file_location("wss_install", ROOT / "install.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "wss_install", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    pack = tmp_path / "ComfyUI" / "custom_nodes" / "Pack"
    (pack / "models" / "bundled").mkdir(parents=True)
    for name in ("requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / name, pack)
    monkeypatch.setattr(module, "ROOT", pack)
    monkeypatch.setattr(module, "BUNDLED", pack / "models" / "bundled")
    monkeypatch.setattr(module, "VENV", pack / ".venv")
    monkeypatch.setattr(module, "MARKER", pack / ".venv" / "installed.sha256")
    monkeypatch.setattr(module, "torchaudio_error", lambda: "")
    return module


# --- the hook ---------------------------------------------------------------------------------------------------------


def test_hook_is_idempotent_and_offline(tmp_path: Path):
    pack = tmp_path / "custom_nodes" / "Pack"
    shutil.copytree(ROOT / "models" / "bundled", pack / "models" / "bundled")
    for name in ("install.py", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / name, pack)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    command = [sys.executable, "-c", OFFLINE, str(pack / "install.py")]
    runs = [subprocess.run(command, cwd=pack, capture_output=True, text=True, timeout=300) for _ in range(2)]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    assert runs[0].stdout == runs[1].stdout
    assert "bundled weights" in runs[0].stdout
    assert runs[0].stderr == ""
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before, "the hook changed the pack"


def test_hook_starts_no_pip(install, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()  # with the real torchaudio check
    commands: list[list[str]] = []

    def record(command: list[str], **_: Any) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(install.subprocess, "run", record)
    assert install.main([]) == 0
    assert not [command for command in commands if "pip" in " ".join(command)]


def test_hook_names_what_is_missing(install, monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(install.importlib.util, "find_spec", lambda name: None if name == "cv2" else found(name))
    assert install.main([]) == 0
    assert "missing packages: opencv-python" in capsys.readouterr().out


def test_hook_explains_a_broken_torchaudio(install, monkeypatch, capsys):
    monkeypatch.setattr(install, "missing_imports", list)
    monkeypatch.setattr(install, "torchaudio_error", lambda: "undefined symbol")
    assert install.main([]) == 0
    assert "torchaudio does not import (undefined symbol)" in capsys.readouterr().out


def test_hook_finds_damaged_weights(install, capsys):
    good, bad = install.BUNDLED / "good.safetensors", install.BUNDLED / "bad.safetensors"
    good.write_bytes(b"right")
    bad.write_bytes(b"truncat")
    digest = hashlib.sha256(b"right").hexdigest()
    sums = "".join(f"{digest}  {name}.safetensors\n" for name in ("good", "bad", "absent"))
    (install.BUNDLED / "SHA256SUMS").write_text(sums)
    assert install.main([]) == 0
    out = capsys.readouterr().out
    assert "bad.safetensors is damaged" in out
    assert "absent.safetensors is missing" in out
    assert "good" not in out


def test_hook_succeeds_even_when_the_check_breaks(install, capsys):
    (install.ROOT / "requirements.txt").write_text("one two three\n")
    assert install.main([]) == 0
    assert "cannot read the line 'one two three'" in capsys.readouterr().out


def test_hook_works_in_a_python_without_venv(tmp_path: Path):
    """The embeddable Python of ComfyUI's Windows package has neither this module nor ensurepip."""
    code = (
        "import runpy, sys; sys.modules['venv'] = None; del sys.argv[0]; runpy.run_path(sys.argv[0], None, '__main__')"
    )
    command = [sys.executable, "-c", code, str(ROOT / "install.py")]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert "bundled weights are complete" in run.stdout


# --- the private environment ------------------------------------------------------------------------------------------


def test_unmet_compares_versions(install, monkeypatch):
    lines = "torch==2.11.0\nkornia>=0.7.1\nnumpy\nabsent-package\nav>=14.2  # comment\n"
    (install.ROOT / "requirements-dev.txt").write_text(lines)
    have = {"torch": "2.11.0+cpu", "kornia": "0.10.0", "numpy": "1.26", "av": "14.1.0"}

    def version(name: str) -> str:
        if name not in have:
            raise importlib.metadata.PackageNotFoundError(name)
        return have[name]

    monkeypatch.setattr(install.importlib.metadata, "version", version)
    assert install.unmet() == ["absent-package", "av>=14.2 (found 14.1.0)"]
    have["torch"] = "2.15.0"
    assert "torch==2.11.0 (found 2.15.0)" in install.unmet()


def test_a_suitable_python_is_used_as_it_is(install, monkeypatch):
    monkeypatch.setattr(install, "unmet", list)
    assert install.environment() == Path(sys.executable)
    assert not install.VENV.exists()


@pytest.fixture
def builds(install, monkeypatch) -> list[list[str]]:
    """The running Python lacks something; making an environment only writes its interpreter. Gives pip's commands."""
    python = install.VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    commands: list[list[str]] = []

    def create(self: Any, folder: Path) -> None:
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text("")

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=0, stdout=sys.version)

    monkeypatch.setattr(install, "unmet", lambda: ["torch"])
    monkeypatch.setattr("venv.EnvBuilder.create", create)
    monkeypatch.setattr(install.subprocess, "run", run)
    return commands


def installs(commands: list[list[str]]) -> int:
    return sum("pip" in command and "install" in command for command in commands)


def test_environment_is_made_once(install, builds):
    python = install.environment()
    assert install.VENV in python.parents
    assert installs(builds) == 1
    assert install.environment() == python
    assert installs(builds) == 1


def test_environment_follows_the_requirements(install, builds):
    install.environment()
    with (install.ROOT / "requirements-dev.txt").open("a") as file:
        file.write("another\n")
    install.environment()
    assert installs(builds) == 2


def test_a_machine_without_graphics_libraries_gets_headless_opencv(install, builds, monkeypatch):
    def run(command: list[str], **_: Any) -> SimpleNamespace:
        builds.append(command)
        return SimpleNamespace(returncode=int("import cv2" in command), stdout=sys.version)

    monkeypatch.setattr(install.subprocess, "run", run)
    install.environment()
    assert builds[-1][-1] == "opencv-python-headless"
    assert install.MARKER.exists()


def test_failed_installation_is_not_remembered(install, builds, monkeypatch, capsys):
    monkeypatch.setattr(install.subprocess, "run", lambda *a, **k: SimpleNamespace(returncode=1, stdout=""))
    (install.ROOT / "tests").mkdir()
    assert install.main(["test"]) == 1
    assert "pip could not install" in capsys.readouterr().out
    assert not install.MARKER.exists()


def test_a_python_without_venv_is_told_with_a_remedy(install, builds, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "venv", None)
    assert install.main(["demo"]) == 1
    assert "has no module venv" in (said := capsys.readouterr().out)
    assert "python.org" in said
    assert not builds


def test_a_package_without_the_suite_says_so(install, builds, capsys):
    assert install.main(["test"]) == 1
    assert "clone the repository" in capsys.readouterr().out
    assert not builds


def test_the_registrys_package_has_what_the_script_reads():
    """All requirement files lie in what the registry ships: `demo` is the first command of the readme."""
    ignored = (ROOT / ".comfyignore").read_text(encoding="utf-8").split()
    assert not {"requirements.txt", "requirements-dev.txt", "models/", "training/"} & set(ignored)


def test_demo_paths_are_those_of_the_caller(install, monkeypatch, tmp_path):
    seen: list[list[str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(install, "environment", lambda: Path("python"))
    monkeypatch.setattr(
        install.subprocess, "run", lambda command, **_: seen.append(command) or SimpleNamespace(returncode=3)
    )
    assert install.main(["demo", "--video", "clip.mp4"]) == 3
    assert seen == [["python", "-m", "training", "demo", "--video", str(tmp_path / "clip.mp4")]]


# --- downloads --------------------------------------------------------------------------------------------------------


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


DETECTOR = bytes(range(256)) * 40
ARCHIVE = zipped({"pack/det.onnx": DETECTOR, "../../escape.onnx": b"x", "readme.txt": b"no network"})


@pytest.fixture
def server() -> Iterator[SimpleNamespace]:
    """A release page on this machine: serves `content`, resumes ranges, and closes early while `cut` is set."""
    state = SimpleNamespace(content=ARCHIVE, cut=0, ranges=[])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers.get("Range")
            state.ranges.append(given)
            start = int(given.split("=")[1].rstrip("-")) if given else 0
            body = state.content[start:]
            self.send_response(206 if given else 200)
            self.end_headers()
            self.wfile.write(body[: state.cut] if state.cut else body)

        def log_message(self, *_: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{httpd.server_port}/pack.zip"
    yield state
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def pack(install, server, monkeypatch) -> str:
    members = {"det.onnx": hashlib.sha256(DETECTOR).hexdigest()}
    entry = install.Pack(
        server.url, len(ARCHIVE), hashlib.sha256(ARCHIVE).hexdigest(), "NON-COMMERCIAL", "a detector", members
    )
    monkeypatch.setattr(install, "PACKS", {"pack": entry})
    return "pack"


def test_fetch_unpacks_and_shows_the_licence(install, pack, tmp_path, capsys):
    assert install.main(["--fetch", pack, "--dest", str(tmp_path / "dest"), "--yes"]) == 0
    assert "NON-COMMERCIAL" in capsys.readouterr().out
    folder = tmp_path / "dest" / "pack"
    assert {path.name for path in folder.iterdir()} == {"det.onnx", "escape.onnx"}
    assert (folder / "det.onnx").read_bytes() == DETECTOR
    assert [path.name for path in (tmp_path / "dest").iterdir()] == ["pack"], "nothing else is left behind"
    assert not list(tmp_path.glob("escape.onnx"))


def test_fetch_resumes(install, pack, server, tmp_path, capsys):
    server.cut = 1000
    assert install.main(["--fetch", pack, "--dest", str(tmp_path), "--yes"]) == 1
    assert "go on where it stopped" in capsys.readouterr().out
    assert (tmp_path / "pack.zip.part").stat().st_size == 1000
    server.cut = 0
    assert install.main(["--fetch", pack, "--dest", str(tmp_path), "--yes"]) == 0
    assert server.ranges == [None, "bytes=1000-"]
    assert (tmp_path / "pack" / "det.onnx").read_bytes() == DETECTOR


def test_fetch_twice_downloads_once(install, pack, server, tmp_path):
    for _ in range(2):
        assert install.main(["--fetch", pack, "--dest", str(tmp_path), "--yes"]) == 0
    assert len(server.ranges) == 1


def test_fetch_refuses_another_file(install, pack, server, tmp_path, capsys):
    server.content = b"<html>log in first</html>".ljust(len(ARCHIVE))
    assert install.main(["--fetch", pack, "--dest", str(tmp_path), "--yes"]) == 1
    assert "not the published file" in capsys.readouterr().out
    assert list(tmp_path.glob("pack*")) == []


def test_fetch_checks_the_files_inside(install, pack, tmp_path, capsys):
    install.PACKS["pack"].members["det.onnx"] = "0" * 64
    assert install.main(["--fetch", pack, "--dest", str(tmp_path), "--yes"]) == 1
    assert "det.onnx" in capsys.readouterr().out
    assert not (tmp_path / "pack").exists()


def test_fetch_asks_first(install, pack, server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert install.main(["--fetch", pack, "--dest", str(tmp_path)]) == 1
    assert "--yes" in capsys.readouterr().out
    assert server.ranges == []


def test_fetch_offline_tells_the_way_by_hand(install, pack, tmp_path, monkeypatch, capsys):
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(install.urllib.request, "urlopen", refuse)
    assert install.main(["--fetch", pack, "--dest", str(tmp_path), "--yes"]) == 1
    out = capsys.readouterr().out
    assert "no route to host" in out
    assert str(tmp_path / "pack") in out
    assert not (tmp_path / "pack").exists()


def test_fetch_into_a_folder_that_cannot_be_made(install, pack, server, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert install.main(["--fetch", pack, "--dest", str(tmp_path / "file" / "below"), "--yes"]) == 1
    out = capsys.readouterr().out
    assert "below" in out.splitlines()[-1]
    assert "--dest" in out
    assert server.ranges == []


def test_packs_go_where_the_host_looks(install, monkeypatch, tmp_path):
    host = tmp_path / "ComfyUI"
    assert install.packs_folder() == Path.home() / ".insightface" / "models"
    (host / "models").mkdir()
    assert install.packs_folder() == host / "models" / "insightface" / "models"
