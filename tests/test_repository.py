"""The repository as a whole: what is in it, what must never be, and that the checkers are content."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOP_LEVEL = {
    *("__init__.py", "nodes", "models", "training", "install.py", "tests", "example_workflows", "README.md"),
    *("pyproject.toml", "requirements.txt", "requirements-dev.txt", "LICENSE", ".ci", "web", "locales"),
    *(".gitignore", ".comfyignore"),
}
TEXT = {".py", ".md", ".toml", ".txt", ".json", ".js", ".csv", ".sh", ""}
# Paths of one machine. Spelled in pieces, so that this file does not match itself.
MACHINE = re.compile(
    "|".join([r"(^|[^a-z.])/(wor" + "k|far" + "m)/", "/ro" + "ot/", "/hom" + r"e/[a-z]", r"[A-Z]:\\Users"])
)


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Files under version control that are in the working tree."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict:
    tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    return tomllib.loads(read("pyproject.toml"))


def requirement_lines(name: str) -> list[str]:
    lines = (line.strip() for line in read(name).splitlines())
    return [line for line in lines if line and not line.startswith(("#", "-r"))]


# --- content ----------------------------------------------------------------------------------------------------------


def test_top_level_is_the_agreed_one(tracked):
    assert {path.relative_to(ROOT).parts[0] for path in tracked} == TOP_LEVEL


def test_no_large_file(tracked):
    large = {path.name: path.stat().st_size for path in tracked if path.stat().st_size > 30_000_000}
    assert not large


def test_no_machine_path(tracked):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in tracked
        if path.suffix in TEXT
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MACHINE.search(line)
    ]
    assert not found


def test_no_given_material(tracked, shared_data):
    """No clip or picture of the test material may be in the repository, under whatever name."""
    theirs = set()
    for manifest in shared_data.rglob("manifest.csv"):
        with manifest.open(encoding="utf-8", newline="") as file:
            theirs |= {value for row in csv.DictReader(file) for key, value in row.items() if key and "sha256" in key}
    assert theirs, "no manifest lists a digest"
    assert not [path for path in tracked if hashlib.sha256(path.read_bytes()).hexdigest() in theirs]


def test_no_leftovers(tracked):
    pattern = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X{3})\b|NotImplemented" + "Error")
    found = [path.name for path in tracked if path.suffix == ".py" and pattern.search(path.read_text(encoding="utf-8"))]
    assert not found


def test_scripts_are_plain_ascii():
    """The installer's and the demo's lines must print on a Windows console of any code page."""
    for name in ("install.py", "training/demo.py"):
        assert read(name).isascii(), name


def test_bundled_weights_are_listed_and_whole():
    spec = importlib.util.spec_from_file_location("wss_install_here", ROOT / "install.py")
    install = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = install
    spec.loader.exec_module(install)
    assert install.damaged_weights() == []
    listed = {line.split()[1] for line in read("models/bundled/SHA256SUMS").splitlines()}
    assert listed == {path.name for path in (ROOT / "models" / "bundled").glob("*.safetensors")}


def test_every_bundled_network_has_a_model_card():
    cards = [path.with_suffix(".md") for path in (ROOT / "models" / "bundled").glob("*.safetensors")]
    for card in cards:
        assert card.is_file(), f"models/bundled/{card.name}: what was it trained on, how good is it, under which terms?"
        assert "non-commercial" in card.read_text(encoding="utf-8").lower(), card.name


# --- packaging --------------------------------------------------------------------------------------------------------


def test_requirements_have_no_upper_bounds():
    for line in requirement_lines("requirements.txt"):
        assert re.fullmatch(r"[\w-]+(>=[\d.]+)?", line), f"{line}: only a name or NAME>=VERSION"
        assert not (line.startswith("torch") and ">" in line), f"{line}: the host's torch stands"


def test_pyproject_repeats_the_requirements():
    assert project()["project"]["dependencies"] == requirement_lines("requirements.txt")


def test_pins_are_only_in_the_development_file():
    lines = requirement_lines("requirements-dev.txt")
    assert {"torch==2.11.0", "torchaudio==2.11.0", "torchvision==0.26.0"} <= set(lines)
    assert "torch==2" not in read("pyproject.toml") + read("install.py")


def test_registry_metadata():
    settings = project()
    assert re.fullmatch(r"[a-z][a-z0-9-]{1,99}", settings["project"]["name"])
    assert "comfyui" not in settings["project"]["name"]
    assert settings["project"]["urls"]["Repository"]
    assert settings["tool"]["comfy"]["PublisherId"]
    assert settings["tool"]["comfy"]["requires-comfyui"] == ">=0.3.75"


def test_readme_shows_both_commands_on_its_first_screen():
    first_screen = "\n".join(read("README.md").splitlines()[:40])
    assert "python install.py demo" in first_screen
    assert "python install.py test" in first_screen


def test_readme_names_every_node():
    readme = read("README.md")
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "nodes").glob("*.py")]
    names = [name for source in sources for name in re.findall(r'node_id="\w+",\s+display_name="([^"]+)"', source)]
    assert len(names) >= 9
    assert not [name for name in names if name not in readme]


def test_readme_links_exist():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", read("README.md"))
    assert not [link for link in links if not (ROOT / link).exists()]


def test_ci_runs_the_readme_command():
    assert "install.py test" in read(".ci/run")
    if os.name != "nt":
        assert os.access(ROOT / ".ci" / "run", os.X_OK)


# --- checkers ---------------------------------------------------------------------------------------------------------


def run_checker(*command: str, cwd: Path = ROOT, **environment: str) -> None:
    pytest.importorskip(command[0])
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert result.returncode == 0, f"{result.stdout[-6000:]}\n{result.stderr[-2000:]}"


def test_ruff_is_clean():
    run_checker("ruff", "check", "--no-cache", ".")


def test_ruff_format_is_clean():
    run_checker("ruff", "format", "--no-cache", "--check", ".")


@pytest.mark.slow
def test_mypy_is_clean():
    run_checker("mypy", "--cache-dir", str(ROOT / ".cache" / "mypy"))


@pytest.mark.slow
def test_mypy_is_clean_on_the_nodes(tmp_path):
    """The nodes import the engine relatively, so they are checked as what the host sees: part of one package."""
    package = tmp_path / "wavsyncswap"
    for folder in ("models", "nodes"):
        shutil.copytree(ROOT / folder, package / folder, ignore=shutil.ignore_patterns("bundled", "__pycache__"))
    shutil.copy(ROOT / "__init__.py", package)
    settings = str(ROOT / "pyproject.toml")
    run_checker(
        "mypy",
        "--config-file",
        settings,
        "--cache-dir",
        str(ROOT / ".cache" / "mypy-nodes"),
        "-p",
        "wavsyncswap.nodes",
        cwd=tmp_path,
        MYPYPATH=str(tmp_path),
    )
