"""The rules of the house that no linter knows."""

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from schemas.specs import SPECS

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGES = ("schemas", "workers", "jobs", "cluster")
HEAVY = {"torch", "torchvision", "timm", "ray", "cv2", "deltalake", "duckdb", "openvino", "pandas"}
NOT_OURS = {".git", ".venv", "__pycache__", "build", "dist", "lake", "out", "shared"}

# Spelt apart, or this file would be the first to break its own rule.
REGISTRIES = re.compile(
    "|".join(
        (
            "py" + r"pi\.(org|python)",
            "python" + r"hosted\.org",
            "registry" + r"\.npmjs",
            r"(deb|security|snapshot)" + r"\.debian\.org",
            r"(extra-)?index" + r"-url[ =]+\S*://",
            r"://[^/\s]+/" + r"simple\b",
        )
    ),
    re.IGNORECASE,
)


def committed_files() -> Iterator[Path]:
    """Every file a commit would hold, found without git, which a bare machine lacks."""
    folders = [CHECKOUT]
    while folders:
        for path in sorted(folders.pop().iterdir()):
            if path.name in NOT_OURS or path.name.endswith("_cache") or path.is_symlink():
                continue
            if path.is_dir():
                folders.append(path)
            else:
                yield path


def source_files() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((CHECKOUT / package).rglob("*.py"))]


def modules_loaded_by(statement: str) -> set[str]:
    """Top-level names in ``sys.modules`` after ``statement`` ran in a new process."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_imports_point_down() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [lint, "--no-cache"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]


def test_contracts_import_neither_frameworks_nor_engines() -> None:
    modules = [
        ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)
        for path in sorted((CHECKOUT / "schemas").rglob("*.py"))
        if path.name != "__init__.py"
    ]
    loaded = modules_loaded_by("import schemas, " + ", ".join(modules))
    assert loaded & HEAVY == set()


def test_planning_imports_no_framework() -> None:
    modules = [f"jobs.{path.stem}" for path in sorted((CHECKOUT / "jobs").glob("[a-z]*.py"))]
    loaded = modules_loaded_by("import " + ", ".join(modules))
    assert loaded & {"torch", "torchvision", "timm", "ray", "cv2", "openvino", "PIL"} == set()


def test_the_command_starts_light() -> None:
    assert modules_loaded_by("import cluster.cli") & (HEAVY | {"numpy", "pyarrow"}) == set()


def test_no_committed_file_names_a_registry() -> None:
    named = []
    for path in committed_files():
        text = path.read_bytes().decode("utf-8", "ignore")
        named += [f"{path.relative_to(CHECKOUT)}: {hit[0]}" for hit in REGISTRIES.finditer(text)]
    assert named == []


@pytest.mark.parametrize(
    "line",
    [
        "--index" + "-url https://mirror.example",
        "https://files.python" + "hosted.org/packages/x.whl",
        "https://mirror.example/" + "simple/torch",
        "URIs: http://deb" + ".debian.org/debian",
    ],
)
def test_the_pattern_of_registries_finds(line: str) -> None:
    assert REGISTRIES.search(line)


def test_every_requirement_of_the_lock_has_a_hash() -> None:
    text = (CHECKOUT / "requirements.lock").read_text()
    requirements = re.split(r"\n(?=[A-Za-z0-9])", text)
    without = [one.split(" ")[0] for one in requirements if "--hash=sha256:" not in one]
    assert len(requirements) > 50
    assert without == []


def test_the_lock_holds_every_direct_dependency() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    names = {re.split(r"[^A-Za-z0-9_.-]", one)[0].lower() for one in wanted}
    locked = set(
        re.findall(r"^([a-z0-9_.-]+)==", (CHECKOUT / "requirements.lock").read_text(), re.MULTILINE)
    )
    assert names - locked == set()


def test_what_is_imported_is_a_direct_dependency() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    stated = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {re.split(r"[^A-Za-z0-9_.-]", one)[0].lower() for some in stated for one in some}
    providers = metadata.packages_distributions()
    imported = {name for path in source_files() for name in _imported_by(path)}
    parts = {"botocore": "boto3", "pydantic_core": "pydantic"}  # pinned by the other to the digit
    undeclared = [
        name
        for name in sorted(imported - set(PACKAGES) - sys.stdlib_module_names)
        if not {one.lower() for one in providers.get(parts.get(name, name), ())} & declared
    ]
    assert undeclared == []


def _imported_by(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {one.name.partition(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_versions_agree() -> None:
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    assert metadata.version("rayward") == version
    changelog = (CHECKOUT / "CHANGELOG.md").read_text()
    newest = re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)[0]
    assert newest in {"Unreleased", version}


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_says_what_it_holds(package: str) -> None:
    said = importlib.import_module(package).__doc__
    assert said
    assert said.strip().endswith((".", ")"))


def test_what_a_module_exports_exists() -> None:
    missing = []
    for path in source_files():
        tree = ast.parse(path.read_text())
        names = {name for node in tree.body for name in _bound_by(node)}
        for node in tree.body:
            if isinstance(node, ast.Assign) and "__all__" in _bound_by(node):
                exported = ast.literal_eval(node.value)
                missing += [f"{path.name}: {name}" for name in exported if name not in names]
    assert missing == []


def _bound_by(node: ast.stmt) -> list[str]:
    match node:
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [one.asname or one.name.partition(".")[0] for one in names]
        case ast.Assign(targets=targets):
            return [one.id for one in targets if isinstance(one, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AsyncFunctionDef(name=name):
            return [name]
    return []


def test_no_kind_is_without_a_module() -> None:
    modules = {path.stem for path in (CHECKOUT / "jobs").iterdir() if path.suffix in ("", ".py")}
    strung = {"study"}  # jobs strung together: cluster/studies
    assert set(SPECS) - modules == strung
