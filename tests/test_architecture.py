"""The import rules of the design, executably."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "compass_ray"
PACKAGE = "compass_ray"

STAGES = ("ingest", "embed", "cluster", "sample", "adapt", "registry", "evaluate", "gate", "monitor", "update")
SHARED = (
    "records",
    "shards",
    "errors",
    "seeding",
    "storage",
    "paths",
    "remote",
    "artifacts",
    "configbase",
    "languages",
    "text",
    "values",
    "yamlwords",
    "letters",
    "words",
    "models",
    "vectors",
    "usage_shares",
    "divergence",
    "holdout",
    "centering",
    "interrupts",
    "runtime",
)
LEAVES = (
    *("records", "shards", "seeding", "errors", "languages", "text", "letters", "values", "vectors", "usage_shares"),
    "divergence",
    "configbase",
    "sample.traits",
)
FOR_CLI = ("cli", "pipelines", "config", "errors", "interrupts", "languages")
EXCEPTIONS = {
    ("gate.config", "ingest.config"),  # texts that an adapter must not unlearn, too
    ("monitor.config", "ingest.config"),  # new usage is described as sources are
    # What is measured of an adapter is what it was trained for: the same tokens, targets and loading of the base.
    *(
        (f"evaluate.{room}", f"adapt.{kernel}")
        for room, kernel in (
            ("losses", "packing"),
            ("probes", "examples"),
            ("probes", "packing"),
            ("probes", "usage"),
            ("stage", "config"),
            ("stage", "tokenizer"),
            ("stage", "training.model"),
            ("stage", "usage"),
        )
    ),
    # What is replayed is tokenized as it was when it was trained on.
    *(("update.buffer", f"adapt.{kernel}") for kernel in ("examples", "packing", "tokenizer")),
    # And it is measured as it was registered.
    ("evaluate.losses", "registry.export.models"),
    ("evaluate.stage", "registry.contents"),
    ("evaluate.stage", "registry.lineage"),
    ("evaluate.stage", "registry.version"),
}
WITH_RAY = (
    "runtime",
    "pipelines",
    "ingest.stage",
    "ingest.datasource",
    "embed.stage",
    "embed.training.trainer",
    "cluster.stage",
    "cluster.actors",
    "cluster.sampling",
    "sample.eligibility",
    "sample.stage",
    "adapt.training",
    "evaluate.stage",
)
STORE_CLIENTS = {"boto3", "botocore", "smart_open", "google", "azure", "requests"}
WITH_TORCH = (
    "embed.base",
    "embed.sentence_transformer",
    "embed.usem3",
    "embed.training",
    "adapt.training",
    "adapt.tokenizer",
    "adapt.layers",
    "adapt.preflight",
    "adapt.shapes",
    "registry.export",
    "evaluate.losses",
    "pipelines.pretrain",
    "runtime",
)


def module_name(path: Path) -> str:
    """``compass_ray/embed/config.py`` -> ``embed.config``; the package itself is ``""``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imported(source: str, module: str = "", *, is_package: bool = False) -> Iterator[str]:
    """Every name imported anywhere in the source, lazily or for types too, as an absolute dotted name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = [PACKAGE, *filter(None, module.split("."))]
                here = here[: len(here) - node.level + is_package]
                base = ".".join([*here, *filter(None, [base])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def own_imports(module: str) -> set[str]:
    """The modules of this package that a module imports; ``""`` for the package itself."""
    path = MODULES[module]
    found = set()
    for name in imported(path.read_text(encoding="utf-8"), module, is_package=path.name == "__init__.py"):
        if name != PACKAGE and not name.startswith(PACKAGE + "."):
            continue
        inner = name.removeprefix(PACKAGE).lstrip(".")
        while inner and inner not in MODULES:
            inner = inner.rpartition(".")[0]
        found.add(inner)
    return found


def foreign_imports(module: str) -> set[str]:
    """The top-level packages that a module imports."""
    source = MODULES[module].read_text(encoding="utf-8")
    return {name.partition(".")[0] for name in imported(source, module)}


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def test_the_scanner_sees_lazy_typed_and_relative_imports() -> None:
    source = """
import ray.data
from compass_ray import records
if TYPE_CHECKING:
    from compass_ray.sample.stage import select
def later():
    from ..cluster import kernels
    from . import batching
"""
    assert set(imported(source, "embed.stage")) == {
        "ray.data",
        "compass_ray.records",
        "compass_ray.sample.stage.select",
        "compass_ray.cluster.kernels",
        "compass_ray.embed.batching",
    }
    assert set(imported("from .x import y", "embed", is_package=True)) == {"compass_ray.embed.x.y"}


def test_no_module_imports_what_imports_it_lazily_or_for_types_either() -> None:
    order = TopologicalSorter({module: own_imports(module) - {module} for module in MODULES})
    assert len(list(order.static_order())) == len(MODULES)  # raises where there is a cycle, and names it


@pytest.mark.parametrize("folder", ["benchmarks", "jobs", "docs"])
def test_what_scripts_import_of_the_package_is_there(folder: str) -> None:
    for path in sorted((ROOT.parent / folder).rglob("*.py")):
        for name in imported(path.read_text(encoding="utf-8")):
            if name.startswith(f"{PACKAGE}.") and name.removeprefix(f"{PACKAGE}.") not in MODULES:
                module, _, found = name.rpartition(".")
                assert hasattr(importlib.import_module(module), found), f"{path.name}: {name}"


def test_the_scanner_reads_the_whole_package() -> None:
    assert {"", "cli", "config", "cluster.fit", "sample.strategies.kl", "pipelines.curate"} <= set(MODULES)
    assert own_imports("pipelines.clustered") >= {
        "cluster.stage",
        "embed.stage",
        "ingest.stage",
        "sample.stage",
        "storage",
    }


@pytest.mark.parametrize("module", [name for name in MODULES if within(name, STAGES)])
def test_stages_meet_through_records_and_artifacts_alone(module: str) -> None:
    stage = module.partition(".")[0]
    allowed = (*SHARED, stage)
    forbidden = {name for name in own_imports(module) if not within(name, allowed) and (module, name) not in EXCEPTIONS}
    assert not forbidden, f"{module} may import {', '.join(allowed)}"


@pytest.mark.parametrize(("importer", "imports"), sorted(EXCEPTIONS))
def test_exceptions_are_still_needed(importer: str, imports: str) -> None:
    assert imports in own_imports(importer)


def test_only_pipelines_and_the_config_know_several_stages() -> None:
    several = {
        module
        for module in MODULES
        if sum(any(within(name, (stage,)) for name in own_imports(module)) for stage in STAGES) > 1
        and not within(module, STAGES)
    }
    assert several
    assert {module for module in several if not within(module, ("pipelines", "config"))} == set()


@pytest.mark.parametrize("module", [name for name in MODULES if within(name, ("runtime", *SHARED[:-1]))])
def test_shared_modules_know_neither_stages_nor_what_is_above_them(module: str) -> None:
    above = (*STAGES, "pipelines", "cli", "config", "demo")
    assert {name for name in own_imports(module) if within(name, above)} == set()


@pytest.mark.parametrize("module", LEAVES)
def test_the_lowest_modules_import_nothing_of_ours(module: str) -> None:
    assert own_imports(module) == set()


@pytest.mark.parametrize("module", [name for name in MODULES if within(name, ("cli",))])
def test_commands_see_pipelines_config_errors_interrupts_and_languages_only(module: str) -> None:
    assert {name for name in own_imports(module) if name and not within(name, FOR_CLI)} == set()


@pytest.mark.parametrize("module", [name for name in MODULES if not within(name, ("cli", "")) and name])
def test_nothing_below_the_command_line_imports_it(module: str) -> None:
    if module != "__main__":
        assert {name for name in own_imports(module) if within(name, ("cli",))} == set()


@pytest.mark.parametrize("module", [name for name in MODULES if not within(name, WITH_RAY)])
def test_kernels_do_not_know_ray(module: str) -> None:
    assert "ray" not in foreign_imports(module)


@pytest.mark.parametrize("module", [name for name in MODULES if not within(name, WITH_TORCH)])
def test_only_the_torch_encoder_knows_torch(module: str) -> None:
    assert not {"torch", "sentence_transformers", "transformers"} & foreign_imports(module)


@pytest.mark.parametrize("module", [name for name in MODULES if not within(name, ("remote",))])
def test_only_the_protocols_know_clients_of_object_stores(module: str) -> None:
    assert not STORE_CLIENTS & foreign_imports(module)


def loaded_after(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after a statement."""
    code = f"import sys; {statement}; print(' '.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_importing_the_package_loads_neither_ray_nor_torch() -> None:
    loaded = loaded_after("import compass_ray; compass_ray.__version__")
    assert "compass_ray" in loaded
    assert not {"ray", "torch", "sentence_transformers", "pyarrow", "numpy", "pydantic"} & loaded


def test_loading_a_config_loads_neither_ray_nor_torch() -> None:
    loaded = loaded_after("from compass_ray import load_config, RunConfig, CompassError")
    assert "pydantic" in loaded
    assert not {"ray", "torch", "sentence_transformers"} & loaded


def test_the_command_line_loads_neither_ray_nor_torch_before_it_needs_them() -> None:
    loaded = loaded_after("import compass_ray.cli")
    assert "typer" in loaded
    assert not {"ray", "torch", "sentence_transformers"} & loaded


def test_storage_loads_no_client_of_an_object_store_before_it_needs_it() -> None:
    loaded = loaded_after("import compass_ray.storage")
    assert "compass_ray" in loaded
    assert not STORE_CLIENTS & loaded


def test_kernels_load_without_ray_or_torch() -> None:
    loaded = loaded_after("import compass_ray.cluster.fit, compass_ray.sample.sampler, compass_ray.embed.hashing")
    assert not {"ray", "torch"} & loaded


def test_public_names_are_found_and_unknown_ones_refused() -> None:
    import compass_ray

    for name in compass_ray.__all__:
        assert getattr(compass_ray, name) is not None
    with pytest.raises(AttributeError, match="module 'compass_ray' has no attribute 'nothing'"):
        _ = compass_ray.nothing
