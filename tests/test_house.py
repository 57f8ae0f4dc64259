"""The house rules of ARCHITECTURE.md, kept by a machine: walls, sizes, and nothing that only works on one computer."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
MAX_JOB_LINES = 80  # of which most are the docstring and the arguments
MAX_CHECKPOINT_BYTES = 32 * 1024 * 1024
MAX_ARCHITECTURE_LINES = 80
README_FIRST_COMMAND_BY_LINE = 25

MODEL_MAY_IMPORT = {"model", "torch", "numpy", "PIL", "safetensors", "tokenizers"}
OWN_PACKAGES = {"model", "pipeline", "jobs", "catalogs", "tests"}
# What lies above `tasks` in the model: a task draws, poses and judges; it never answers.
ENGINE_MODULES = {
    "model.engine", "model.scheduler", "model.cache", "model.reference", "model.language_model",
    "model.vision_language_model", "model.vision", "model.weights", "model.sampling", "model.grammar",
    "model.training", "model.runner", "model.dense", "model.packed", "model.packed_vision", "model.kernels",
}  # fmt: skip

# Assembled from halves, so that this file does not name what it forbids.
MACHINE_PATHS = re.compile(r"(?<![\w.~-])/(?:ro" r"ot|ho" r"me/\w+|Us" r"ers/\w+|work/\w+|tm" r"p/\w+|op" r"t/\w+)\b")
REGISTRY_HOSTS = re.compile(
    r"(?i)pypi\." r"org|pythonhosted\." r"org|download\.pytorch\." r"org|index-" r"url|find-" r"links|file:/" r"/"
)
MACHINE_PATHS_ALLOWED = {
    "/opt/dlami",  # documented by AWS
}
BINARY = {".npz", ".parquet", ".safetensors", ".png", ".jpg", ".webp", ".gif", ".arrow", ".ttf"}


@cache
def tracked() -> tuple[Path, ...]:
    """The project's files: in git, or new and not ignored."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return tuple(sorted(ROOT / name for name in set(listing.split("\0")) if name and (ROOT / name).is_file()))


def python_files(*folders: str) -> list[Path]:
    files = [path for path in tracked() if path.suffix == ".py"]
    return [path for path in files if not folders or path.relative_to(ROOT).parts[0] in folders]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imported(path: Path) -> set[str]:
    """Dotted names of everything a file imports, inside functions too; relative imports are made absolute."""
    package = list(path.relative_to(ROOT).parts[:-1])
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def under(module: str, roots: set[str]) -> bool:
    return any(module == root or module.startswith(root + ".") for root in roots)


# ---- walls


def test_model_imports_only_its_few_libraries() -> None:
    allowed = MODEL_MAY_IMPORT | set(sys.stdlib_module_names)
    # Only the packed runner imports the kernels, and only where numba is: the model runs without it.
    compiled = {p: {"numba", "llvmlite"} for p in python_files("model") if p.parent.name == "kernels"}
    offenders = [
        (name(p), m)
        for p in python_files("model")
        for m in imported(p)
        if not under(m, allowed | compiled.get(p, set()))
    ]
    assert offenders == []


def test_only_the_pipeline_and_tests_import_ray() -> None:
    files = [path for path in python_files() if path.relative_to(ROOT).parts[0] not in ("pipeline", "tests")]
    assert [name(path) for path in files if any(under(m, {"ray"}) for m in imported(path))] == []


def test_tasks_that_read_fetch_or_write_start_without_torch() -> None:
    """Each of Ray's workers imports what its tasks need, on the cores that the engine computes with."""
    tasks = "import sys, pipeline.reading, pipeline.images, pipeline.sink; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", tasks], cwd=ROOT, check=False).returncode == 0


def test_a_checkpoint_is_loaded_without_torchs_compiler() -> None:
    """It takes a second to import, several from a cold disk, and 35 MB."""
    load = "import sys, model; model.load('model/checkpoints/default'); sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", load], cwd=ROOT, check=False).returncode == 0


def test_the_pipeline_never_imports_a_job() -> None:
    above = OWN_PACKAGES - {"model", "pipeline"}
    offenders = [(name(path), m) for path in python_files("pipeline") for m in imported(path) if under(m, above)]
    assert offenders == []


def test_tasks_never_import_the_engine() -> None:
    tasks = [path for path in python_files("model") if path.relative_to(ROOT).parts[1] == "tasks"]
    assert tasks
    offenders = [(name(path), m) for path in tasks for m in imported(path) if under(m, ENGINE_MODULES)]
    assert offenders == []


def test_imports_are_read_in_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / "model" / "tasks" / "probe.py"
    file.parent.mkdir(parents=True)
    file.write_text("import ray.data as rd\ndef f():\n    from ..engine import step\n    from . import scenes\n")
    assert imported(file) == {"ray.data", "model.engine", "model.engine.step", "model.tasks", "model.tasks.scenes"}


# ---- sizes


def test_no_python_file_is_longer_than_a_reader_can_hold() -> None:
    lengths = {name(path): len(path.read_text().splitlines()) for path in python_files()}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    offenders = {}
    for path in python_files():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    offenders[f"{name(path)}:{node.lineno} {node.name}"] = lines
    assert offenders == {}


def test_jobs_are_thin() -> None:
    lengths = {name(path): len(path.read_text().splitlines()) for path in python_files("jobs")}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_JOB_LINES} == {}


def test_the_checkpoints_fit_in_a_clone() -> None:
    weights = [path for path in tracked() if path.suffix == ".safetensors"]
    assert sum(path.stat().st_size for path in weights) <= MAX_CHECKPOINT_BYTES


def test_the_architecture_page_stays_a_page() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= MAX_ARCHITECTURE_LINES


def test_every_file_the_architecture_page_names_exists() -> None:
    named = set(re.findall(r"`((?:\w+/)*\w+\.py)`", (ROOT / "ARCHITECTURE.md").read_text()))
    paths = [f"/{name(path)}" for path in python_files()]
    assert {file for file in named if not any(path.endswith(f"/{file}") for path in paths)} == set()


# ---- the front door


def test_the_readme_shows_its_first_command_early() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()[:README_FIRST_COMMAND_BY_LINE]
    assert any(re.match(r"\s*(\$ )?(make \w+|python jobs/\w+\.py)", line) for line in lines), "\n".join(lines)


def test_every_make_target_and_job_the_readme_names_exists() -> None:
    text = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z][a-z-]*)", "\n".join(code_of(text)))) - targets == set()
    assert {job for job in re.findall(r"jobs/\w+\.py", text) if not (ROOT / job).exists()} == set()


def code_of(markdown: str) -> list[str]:
    """The fenced blocks and the `inline code` of a page."""
    fenced = re.findall(r"^```.*?^```", markdown, re.MULTILINE | re.DOTALL)
    return fenced + re.findall(r"`[^`\n]+`", markdown)


def test_the_licence_is_there() -> None:
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")


def test_ci_runs_the_same_as_a_developer() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, "not executable"
    assert "make test" in script.read_text()


# ---- nothing that only works here


def test_every_dependency_is_pinned_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pins = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}
    assert len(pins) == len(lines), "a package is pinned twice"
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), "a pin is not an exact public version"
    for requirement in map(Requirement, wanted):
        version = pins.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(version), f"{requirement} excludes the pinned {version}"


def test_no_file_names_a_machine_or_a_registry() -> None:
    offenders = []
    for path in tracked():
        if path.suffix in BINARY:
            continue
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            found = {m.group() for m in MACHINE_PATHS.finditer(line)} - MACHINE_PATHS_ALLOWED
            found |= {m.group() for m in REGISTRY_HOSTS.finditer(line)}
            offenders += [f"{name(path)}:{number}: {what}" for what in found]
    assert offenders == []


@pytest.mark.parametrize(
    "line", ["cd /ro" "ot/deixis", '"/ho' 'me/ray/x"', "open('/tm" "p/answers')", "-v /wo" "rk/main:."]
)
def test_a_machine_path_is_recognised(line: str) -> None:
    assert MACHINE_PATHS.search(line)


@pytest.mark.parametrize("line", ["s3://bucket/home/x", "a/root", "~/deixis", "https://example.com/tmp/x", "1/work"])
def test_an_innocent_path_is_not_taken_for_a_machine_path(line: str) -> None:
    assert not MACHINE_PATHS.search(line)
