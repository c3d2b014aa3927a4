"""The installer: when it has nothing to do, when it starts over, and what it says when it cannot go on."""

from __future__ import annotations

import json
import shutil
import venv
from pathlib import Path

import pytest

from app.install import Installer, InstallError, check_machine, explain

# What pip, uv and compilers print; the texts were seen, machine names taken out.
UNREACHABLE = """WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError(\
'<pip._vendor.urllib3.connection.HTTPConnection object at 0x7f>: Failed to establish a new connection: \
[Errno 111] Connection refused')': /simple/torch/
ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: none)
ERROR: No matching distribution found for torch==2.13.0"""
FULL = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
NO_COMPILER = """  building 'psutil._psutil_linux' extension
  error: command 'gcc' failed: No such file or directory
  [end of output]
ERROR: Failed building wheel for psutil"""
NO_COMPILER_FOR_MAKE = """      cc -O2 -fPIC -c lapi.c
      make: gcc: No such file or directory
      make: *** [Makefile:12: lapi.o] Error 127
error: subprocess-exited-with-error"""
OTHER = "Collecting six\nERROR: six-9.9 is not a supported wheel on this platform.\nnote: ask someone\n"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (UNREACHABLE, "the package registry cannot be reached"),
        (FULL, "the disk is full"),
        (NO_COMPILER, "no C compiler was found"),
        (NO_COMPILER_FOR_MAKE, "no C compiler was found"),
        (OTHER, "ERROR: six-9.9 is not a supported wheel on this platform."),
        ("", "an installer ended without a word"),
    ],
)
def test_output_comes_down_to_one_line(output: str, words: str) -> None:
    line = explain(output)
    assert line.startswith(words) or words in line
    assert "\n" not in line


@pytest.fixture
def installer(tmp_path: Path) -> Installer:
    """An installer for an empty project in a folder with a space in its name."""
    root = tmp_path / "a project"
    root.mkdir()
    (root / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    (root / "requirements.lock").write_text("six==1.17.0\n", encoding="utf-8")
    return Installer(root)


def make_venv(installer: Installer) -> None:
    """An environment that works and finds pip, without installing anything."""
    venv.create(installer.venv, with_pip=False, system_site_packages=True)


def test_a_finished_install_is_left_alone(installer: Installer) -> None:
    make_venv(installer)
    installer.stamp.write_text(installer.digest(), encoding="utf-8")
    installer.run()
    assert json.loads(installer.report.read_text(encoding="utf-8")) == {"seconds": {}}
    assert not installer.log.exists()


def test_another_lock_is_another_install(installer: Installer) -> None:
    before = installer.digest()
    installer.lock.write_text("six==1.16.0\n", encoding="utf-8")
    assert installer.digest() != before


def test_another_place_is_another_install(installer: Installer, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(installer.root, moved)
    assert Installer(moved).digest() != installer.digest()


def test_a_stamp_without_a_working_python_is_not_believed(installer: Installer) -> None:
    make_venv(installer)
    installer.stamp.write_text(installer.digest(), encoding="utf-8")
    installer.python.unlink()
    installer.python.symlink_to("/nowhere/python3")
    assert not installer.is_ready()
    assert not installer.can_be_kept()


def test_an_interrupted_install_starts_over(installer: Installer) -> None:
    """A package that was half unpacked counts as installed for pip, so nothing of such an environment is kept."""
    make_venv(installer)
    installer.log.touch()
    assert not installer.can_be_kept()


def test_an_environment_of_someone_else_is_kept(installer: Installer) -> None:
    make_venv(installer)
    assert installer.can_be_kept()


def test_a_full_disk_is_seen_before_anything_is_written(tmp_path: Path) -> None:
    check_machine(tmp_path, num_bytes=1)
    with pytest.raises(InstallError, match="the disk is nearly full"):
        check_machine(tmp_path, num_bytes=10**18)
