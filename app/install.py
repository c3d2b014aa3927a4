"""Makes or mends ``.venv`` beside this repository: torch first, then the locked packages, then selfspec itself.

Runs on any machine that has Python 3.11, before anything is installed: standard library only, imports nothing of ours.
Knows nothing about what the packages are for. A second run finds its stamp and ends at once; a run that was
interrupted is cleared away and made anew; an older install is brought up to the lock. What can go wrong ends in one
line, and the tools' whole output is in ``.venv/selfspec-install.log``.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)
CPU_TORCH = "torch==2.13.0"
CUDA_TORCH = "torch>=2.9,<3"
CPU_BYTES = 3_000_000_000  # 1.6 GB installed; as much again while it is unpacked
CUDA_BYTES = 12_000_000_000

# What the installers print, and the one line it means.
REASONS: tuple[tuple[str, str], ...] = (
    (
        r"No space left on device|Errno 28|Disk quota exceeded",
        "the disk is full: free some gigabytes (TMPDIR may name another disk for temporary files) and run again",
    ),
    (
        r"(gcc|g\+\+|cc|clang)'?( failed)?: (No such file|not found|command not found)|No CMAKE_C\w*_COMPILER"
        r"|No such file or directory: '(gcc|cc|clang|g\+\+)'|[Uu]nknown compiler|Visual C\+\+ .* is required",
        "a package has no ready-made wheel for this machine and no C compiler was found: "
        "install one (Debian: apt install build-essential python3-dev) and run again",
    ),
    (
        r"Temporary failure in name resolution|Name or service not known|new connection|Max retries exceeded"
        r"|NewConnectionError|ConnectTimeout|ReadTimeout|Read timed out|ProxyError|Network is unreachable"
        r"|Connection refused|\(from versions: none\)|SSLError|CERTIFICATE_VERIFY_FAILED|dns error",
        "the package registry cannot be reached: check the network, the proxy and pip's settings "
        "(pip config list), then run again",
    ),
)


class InstallError(Exception):
    """Ends the install; its text is the one line the person reads."""


class Installer:
    """One virtual environment, and the seconds each step of making it took."""

    def __init__(self, root: Path = ROOT, *, lock: Path | None = None) -> None:
        self.root = root
        self.lock = lock or root / "requirements.lock"
        self.venv = root / ".venv"
        self.python = self.venv / "bin" / "python"
        self.stamp = self.venv / "selfspec.stamp"
        self.log = self.venv / "selfspec-install.log"
        self.report = self.venv / "selfspec-install.json"
        self.seconds: dict[str, float] = {}

    def run(self) -> None:
        """Bring ``.venv`` to the lock; raises InstallError with one line."""
        with self._alone():
            if not self.is_ready():
                self._install()
            self.report.write_text(json.dumps({"seconds": self.seconds}), encoding="utf-8")

    def digest(self) -> str:
        """Names the install that is wanted; another lock, project file or place is another install."""
        parts = [self.lock.read_bytes(), (self.root / "pyproject.toml").read_bytes(), str(self.root).encode()]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two installs into one folder would spoil each other: the second waits for the first."""
        with (self.root / "pyproject.toml").open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def is_ready(self) -> bool:
        """Whether the wanted install is here, whole and able to run."""
        return self.stamp.exists() and self.stamp.read_text(encoding="utf-8") == self.digest() and self._works("")

    def can_be_kept(self) -> bool:
        """A finished older install or someone's own environment is kept; one we left half made is not."""
        half_made = self.log.exists() and not self.stamp.exists()
        return not half_made and self._works(f"import pip, sys; assert sys.version_info >= {OLDEST_PYTHON}")

    def _works(self, code: str) -> bool:
        try:
            return subprocess.run([self.python, "-I", "-c", code], capture_output=True).returncode == 0
        except OSError:
            return False

    def _install(self) -> None:
        has_gpu = has_nvidia_gpu()
        keep = self.can_be_kept()
        if not keep:
            check_machine(self.root, CUDA_BYTES if has_gpu else CPU_BYTES)
            self._step("venv", self._make_venv)
        self.stamp.unlink(missing_ok=True)
        self.log.touch()
        self._step("torch", lambda: self._install_torch(CUDA_TORCH if has_gpu else CPU_TORCH))
        self._step("packages", self._install_lock)
        self.stamp.write_text(self.digest(), encoding="utf-8")

    def _step(self, name: str, work: Callable[[], None]) -> None:
        print(f"install: {name} …", flush=True)
        started = time.monotonic()
        work()
        self.seconds[name] = round(time.monotonic() - started, 1)
        print(f"install: {name} done in {self.seconds[name]} s", flush=True)

    def _make_venv(self) -> None:
        if self.venv.is_symlink():
            self.venv.unlink()
        elif self.venv.exists():
            shutil.rmtree(self.venv)
        self.venv.mkdir()
        self.log.touch()  # from here on the environment is known as ours and half made
        self._call([sys.executable, "-m", "venv", self.venv])

    def _install_torch(self, requirement: str) -> None:
        pip = [str(self.python), "-m", "pip", "install", "--no-compile"]
        self._call([*pip, "--constraint", self.lock, requirement])

    def _install_lock(self) -> None:
        """uv unpacks in parallel (3 s against pip's 20); where it cannot be had or fails, pip does the same.

        Neither compiles to bytecode: the first import compiles the few files that are ever used.
        """
        uv = [str(self.python), "-m", "uv", "pip", "install", "--python", str(self.python)]
        pip = [str(self.python), "-m", "pip", "install", "--no-compile"]
        try:
            self._call([*pip, "uv"])
            self._install_with(uv)
        except InstallError:
            print("install: uv did not work here, going on with pip", flush=True)
            self._install_with(pip)

    def _install_with(self, install: Sequence[str | Path]) -> None:
        self._call([*install, "--no-deps", "-r", self.lock])
        self._call([*install, "--no-deps", "--no-build-isolation", "-e", self.root])

    def _call(self, command: Sequence[str | Path]) -> None:
        with self.log.open("a+", encoding="utf-8", errors="replace") as log:
            begin = log.seek(0, os.SEEK_END)
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(), cwd=self.root
            ).returncode
            log.seek(begin)
            if code != 0:
                raise InstallError(f"{explain(log.read())} (all output: {self.log.relative_to(self.root)})")


def explain(output: str) -> str:
    """The one line that an installer's output comes down to."""
    for pattern, reason in REASONS:
        if re.search(pattern, output):
            return reason
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(error|fatal)\b", line, re.IGNORECASE)]
    return (errors or lines or ["an installer ended without a word"])[-1]


def check_machine(root: Path, num_bytes: int) -> None:
    """Refuse in one line what could only fail later in many."""
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            version = ".".join(str(part) for part in sys.version_info[:2])
            raise InstallError(f"this Python has no {module} module (Debian: apt install python{version}-venv)")
    free = shutil.disk_usage(root).free
    if free < num_bytes:
        raise InstallError(f"the disk is nearly full: {num_bytes / 1e9:.0f} GB needed, {free / 1e9:.1f} GB free")


def has_nvidia_gpu() -> bool:
    """True where the driver's own tool lists a device."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and b"GPU" in listed.stdout


def clean_environment() -> dict[str, str]:
    """The person's environment (proxy, certificates, pip settings) less what would lead the installers elsewhere."""
    dropped = {"PYTHONHOME", "PYTHONPATH", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "VIRTUAL_ENV", "CONDA_PREFIX"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}


def main() -> int:
    """Install; one line on standard error and exit code 1 where that cannot be done."""
    try:
        if sys.version_info[:2] < OLDEST_PYTHON:
            raise InstallError(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
        Installer().run()
    except InstallError as error:
        reason = str(error)
    except KeyboardInterrupt:
        reason = "interrupted; the next run starts over"
    except OSError as error:
        reason = explain(str(error)) if error.errno == errno.ENOSPC else f"{error.strerror}: {error.filename}"
    else:
        return 0
    print(f"install: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
