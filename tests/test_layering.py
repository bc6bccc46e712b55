"""The three layers, and what no layer may do: read from the source, so nothing has to be imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("models", "nodes", "training")
HOST = {
    "comfy",
    "comfy_api",
    "comfy_api_nodes",
    "comfy_execution",
    "comfy_extras",
    "execution",
    "folder_paths",
    "server",
}
NETWORK = {"ftplib", "http", "requests", "socket", "urllib", "urllib3", "httpx", "aiohttp", "huggingface_hub"}
NEVER = {"librosa", "decord", "mmcv", "mmpose", "dlib", "torchcodec", "moviepy"}
HEAVY = (
    "torchaudio",
    "torchvision",
    "insightface",
    "onnx",
    "onnxruntime",
    "cv2",
    "kornia",
    "scipy",
    "skimage",
    "matplotlib",
)


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: object) -> str:
    return path.relative_to(ROOT).as_posix() if isinstance(path, Path) else str(path)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[int, int, str]]:
    """(line, level, dotted module) of every import statement; for `from .. import x` the module is x."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, 0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from ((node.lineno, node.level, name) for name in names)


def target(path: Path, level: int, module: str) -> str:
    """The top folder or package that an import reaches; "" for one that climbs out of the repo."""
    if level == 0:
        return module.split(".")[0]
    above = path.relative_to(ROOT).parts[:-level]
    return ".".join([*above, module]).split(".")[0] if len(path.relative_to(ROOT).parts) >= level else ""


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or attribute, else ""."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (value := dotted(node.value)):
        return f"{value}.{node.attr}"
    return ""


@pytest.mark.parametrize("path", sources(*LAYERS), ids=name_of)
def test_imports_point_one_way(path: Path):
    layer = path.relative_to(ROOT).parts[0]
    forbidden = {
        "models": {*HOST, *NETWORK, "nodes", "training", "subprocess"},
        "nodes": {"training", "subprocess", *NETWORK},
        "training": {*HOST, "nodes"},
    }[layer] | {*NEVER, "tests"}
    for line, level, module in imports(path):
        reached = target(path, level, module)
        where = f"{name_of(path)}:{line} imports {'.' * level}{module}"
        assert reached not in forbidden, f"{where}, which {layer} must not"
        assert reached, f"{where}, outside the repo"
        if reached == "models":
            assert (level == 0) == (layer == "training"), f"{where}: relative in models and nodes, absolute in training"
        if reached == "nodes":
            assert level > 0, f"{where}: `nodes` is the host's own module inside the host"


@pytest.mark.parametrize("path", sources(*LAYERS), ids=name_of)
def test_forbidden_calls(path: Path):
    layer = path.relative_to(ROOT).parts[0]
    for node in ast.walk(tree_of(path)):
        where = f"{name_of(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{where}: bare except swallows the host's interrupt"
        if isinstance(node, ast.Global):
            pytest.fail(f"{where}: module-level state")
        if isinstance(node, ast.Attribute) and layer != "training":
            assert dotted(node) not in ("os.environ", "os.getenv", "os.putenv", "sys.path"), f"{where}: {dotted(node)}"
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        keywords = {word.arg: word.value for word in node.keywords}
        texts = [a.value for a in [*node.args, *keywords.values()] if isinstance(a, ast.Constant)]
        assert not (isinstance(node.func, ast.Attribute) and node.func.attr == "cuda"), f"{where}: .cuda()"
        assert "cuda" not in texts or "startswith" in called, f'{where}: "cuda" as a fixed device'
        assert called not in (
            "eval",
            "exec",
            "pickle.load",
            "pickle.loads",
            "torchaudio.load",
            "torchaudio.save",
            "torchaudio.info",
        ), f"{where}: {called}"
        if called == "torch.load":
            safe = keywords.get("weights_only")
            assert isinstance(safe, ast.Constant), f"{where}: torch.load without weights_only=True"
            assert safe.value is True, f"{where}: torch.load without weights_only=True"


def calls_at_import(body: list[ast.stmt]) -> Iterator[ast.Call]:
    """Calls that run when the module is imported: not those inside functions, their decorators or lambdas."""
    pending: list[ast.AST] = list(body)
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "__main__" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Call):
            yield node
        pending.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("path", sources(*LAYERS), ids=name_of)
def test_no_work_at_import(path: Path):
    for call in calls_at_import(tree_of(path).body):
        called = dotted(call.func)
        heavy = called.split(".")[0] in ("torch", "nn", "F") or called in (
            "open",
            "np.load",
            "numpy.load",
            "np.fromfile",
        )
        assert not heavy, f"{name_of(path)}:{call.lineno} calls {called} at import"


def test_engine_imports_without_optional_packages():
    """Every engine and training module imports though none of the optional packages can be imported."""
    script = f"""
import importlib, importlib.abc, pathlib, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ImportError(f"{{name}} is blocked by the test")
sys.meta_path.insert(0, Absent())
for path in sorted(pathlib.Path("models").rglob("*.py")):
    parts = path.with_suffix("").parts
    importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
print("all imported")
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.stdout.strip() == "all imported", result.stderr[-2000:]


@pytest.mark.parametrize("path", sources(*LAYERS, "tests"), ids=name_of)
def test_modules_stay_readable(path: Path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 450, f"{name_of(path)} has {lines} lines: split it"
