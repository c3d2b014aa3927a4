"""Programs that are started together are ended together, whatever they do and however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from app.core.errors import SelfspecError
from app.processes import Processes, Program, ended_by_signals, last_lines

# Each says that it runs by writing its process id (and its child's) into a pipe, so that no test has to wait and hope.
WAITS = "import os, signal; open({pipe!r}, 'w').write(str(os.getpid())); signal.pause()"
IS_DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + WAITS
DIES = "print('one'); print('two'); raise SystemExit(3)"
HAS_CHILD = textwrap.dedent("""
    import os, signal, subprocess, sys
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
    open({pipe!r}, "w").write(str(child.pid))
    signal.pause()
""")


def program(folder: Path, code: str, *, name: str = "program") -> Program:
    """Python code as a program with its own log and, where it writes into one, its own pipe."""
    pipe = folder / f"{name}.pipe"
    os.mkfifo(pipe)
    source = code.format(pipe=str(pipe)) if "{pipe" in code else code
    return Program(name, (sys.executable, "-c", source), folder / f"{name}.log")


def running(folder: Path, *, name: str = "program") -> psutil.Process:
    """Wait until the program has said a process id; that process."""
    return psutil.Process(int((folder / f"{name}.pipe").read_text()))


def test_all_programs_end_with_the_block(tmp_path: Path) -> None:
    programs = [program(tmp_path, WAITS, name=name) for name in ("first", "second")]
    with Processes(programs, environment=os.environ):
        processes = [running(tmp_path, name=name) for name in ("first", "second")]
        assert all(process.is_running() for process in processes)
    assert not any(process.is_running() for process in processes)


def test_a_program_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    with Processes([program(tmp_path, IS_DEAF)], environment=os.environ, grace_seconds=0.1):
        process = running(tmp_path)
    assert not process.is_running()


def test_what_a_program_started_ends_too(tmp_path: Path) -> None:
    """A worker that is killed leaves its job's process behind, in a session of its own."""
    with Processes([program(tmp_path, HAS_CHILD)], environment=os.environ, grace_seconds=0.1):
        grandchild = running(tmp_path)
        assert grandchild.is_running()
    psutil.wait_procs([grandchild], timeout=10)
    assert not grandchild.is_running()


def test_a_death_is_told_with_the_end_of_its_log_and_ends_the_others(tmp_path: Path) -> None:
    programs = [program(tmp_path, WAITS, name="other"), program(tmp_path, DIES, name="worker")]
    with (
        pytest.raises(SelfspecError, match=r"the worker ended with exit code 3") as caught,
        Processes(programs, environment=os.environ) as processes,
    ):
        other = running(tmp_path, name="other")
        processes.watch()
    assert caught.value.message.endswith("  one\n  two")
    assert not other.is_running()


def test_a_kill_is_told_by_its_signal(tmp_path: Path) -> None:
    with (
        pytest.raises(SelfspecError, match="the program was killed by SIGKILL"),
        Processes([program(tmp_path, WAITS)], environment=os.environ) as processes,
    ):
        running(tmp_path).kill()
        processes.watch()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
@pytest.mark.service
def test_programs_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    """kill -9 of ``selfspec serve`` must not leave an API behind that holds the port."""
    waiting = program(tmp_path, WAITS)
    code = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from app.processes import Program, Processes
        program = Program({waiting.name!r}, {waiting.command!r}, Path({str(waiting.log)!r}))
        with Processes([program], environment=os.environ):
            signal.pause()
    """)
    parent = subprocess.Popen([sys.executable, "-c", code])
    process = running(tmp_path)
    parent.kill()
    parent.wait()
    psutil.wait_procs([process], timeout=10)
    assert not process.is_running()


def test_sigterm_ends_the_block_as_ctrl_c_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), ended_by_signals():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_log_of_the_run_before_is_kept_once(tmp_path: Path) -> None:
    dies = program(tmp_path, DIES)
    for _ in range(2):
        with Processes([dies], environment=os.environ):
            pass
    assert dies.log.exists()
    assert dies.log.with_suffix(".log.1").exists()


def test_last_lines_of_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(f"line {number}" for number in range(10_000)), encoding="utf-8")
    assert last_lines(log, num_lines=2) == ["line 9998", "line 9999"]
    assert last_lines(tmp_path / "missing") == []
