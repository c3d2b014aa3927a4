"""What is written beside the code is true: settings, commands, links, lock file."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from app.install import CPU_TORCH, CUDA_TORCH
from app.settings import Settings
from benchmarks.serving.engines import llamacpp, vllm
from tests import servers
from tests.docs_table import settings_table, split_page
from tests.import_rule import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
VARIABLES = {f"SELFSPEC_{name.upper()}" for name in Settings.model_fields}
BENCH_VARIABLES = {llamacpp.VARIABLE, vllm.VARIABLE}  # where peers are, for benchmarks only
TEST_VARIABLES = {servers.REQUIRE, *(server.variable for server in servers.ALL)}


def text_of(name: str) -> str:
    """A file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads(text_of("pyproject.toml"))


def locked() -> dict[str, list[Requirement]]:
    """The lock by package name; a package may have a version for each range of Python."""
    found: dict[str, list[Requirement]] = {}
    for line in text_of("requirements.lock").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            found.setdefault(plain_name(requirement.name), []).append(requirement)
    return found


def plain_name(name: str) -> str:
    """As package indexes compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_settings_page_is_the_settings() -> None:
    """If this fails: python -m tests.docs_table"""
    _, table, _ = split_page()
    assert table == settings_table()


def test_every_setting_says_what_it_does() -> None:
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_and_variables_named_in_the_docs_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^|&& )make ([a-z-]+)", text, re.MULTILINE)) <= targets
    assert set(re.findall(r"SELFSPEC_[A-Z_]*[A-Z]", text)) <= VARIABLES | BENCH_VARIABLES | TEST_VARIABLES


def test_every_target_has_its_line_of_help() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = set(re.findall(r"^  make ([a-z-]+) +\S", shown, re.MULTILINE))
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text_of("Makefile"), re.MULTILINE)
    assert listed == set(phony.split())


def test_the_lock_has_every_dependency_but_torch() -> None:
    """If this fails: make lock"""
    metadata = project()["project"]
    extras = metadata["optional-dependencies"].values()
    wanted = [Requirement(text) for text in [*metadata["dependencies"], *(text for extra in extras for text in extra)]]
    pins = locked()
    for requirement in wanted:
        name = plain_name(requirement.name)
        if name == "torch":
            assert requirement == Requirement(CUDA_TORCH)
            assert requirement.specifier.contains(CPU_TORCH.partition("==")[2])
            continue
        for pin in pins[name]:
            (version,) = [clause.version for clause in pin.specifier]
            assert requirement.specifier.contains(version), pin


def test_the_lock_pins_and_names_no_index() -> None:
    for requirements in locked().values():
        for requirement in requirements:
            assert [clause.operator for clause in requirement.specifier] == ["=="]
            assert requirement.url is None
    assert not {name for name in locked() if name.startswith(("torch", "nvidia", "triton", "cuda"))}
    assert "://" not in text_of("requirements.lock")
