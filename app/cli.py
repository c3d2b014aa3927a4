"""The ``selfspec`` command: thin commands over the rooms below, and the one place where an error becomes a line.

Knows no room's inside; whatever is heavy is imported inside the command that needs it.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from contextlib import closing
from dataclasses import asdict
from typing import Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console

from app.core.errors import SelfspecError
from app.settings import Settings

app = typer.Typer(
    help="From a handful of labelled examples to an expert, served beside others on one base.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models = typer.Typer(help="The bases that can be fetched, and those that are here.", no_args_is_help=True)
app.add_typer(models, name="models")


@app.command()
def demo() -> None:
    """Make and check a finance expert from the bundled examples, every step shown."""
    from app.demo import run_demo

    run_demo(Settings(), Console(highlight=False))


@app.command()
def serve() -> None:
    """Run API and worker on this machine until Ctrl-C."""
    from app.serve import serve as run

    run(Settings(), Console(highlight=False))


@app.command()
def migrate() -> None:
    """Bring the database's tables to the newest version."""
    from app import bootstrap

    bootstrap.migrate(Settings())


@app.command()
def api() -> None:
    """Become the API process (for containers; `serve` runs API and worker)."""
    from app.serve import api_command

    become(api_command(Settings()))


@app.command()
def worker(
    check: bool = typer.Option(False, "--check", help="Only say whether one lives here; exit code 1 if none does."),
) -> None:
    """Become the worker process (for containers; `serve` runs API and worker)."""
    if check:
        from app import bootstrap

        bootstrap.check_worker(Settings())
        return
    from app.serve import worker_command

    become(worker_command(Settings()))


@app.command()
def clean(
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would go."),
    days: float | None = typer.Option(None, min=0, help="In place of SELFSPEC_RETENTION_DAYS."),
    num_bytes: int | None = typer.Option(None, "--bytes", min=0, help="In place of SELFSPEC_RETENTION_BYTES."),
    unknown: bool = typer.Option(False, "--unknown", help="Artifacts that the database does not know go too."),
) -> None:
    """Delete what nobody needs any more; the last line is JSON."""
    from app import bootstrap

    with closing(bootstrap.build_stores(Settings())) as stores:
        retention = bootstrap.build_retention(stores, days=days, num_bytes=num_bytes, with_unknown=unknown)
        report = retention.look() if dry_run else retention.clean()
    for line in report.lines():
        print(line)
    print(json.dumps({"clean": report.to_dict()}))


@app.command()
def doctor(
    every: bool = typer.Option(False, "--all", help="Read every artifact, not only those that are served."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Say what stands in the service's way and how to mend it; exit code 1 if something fails."""
    from app import bootstrap

    with closing(bootstrap.build_stores(Settings())) as stores:
        findings = []
        for finding in bootstrap.build_diagnosis(stores).run(all_artifacts=every):
            findings.append(asdict(finding))
            if not as_json:
                print(finding, flush=True)
    if as_json:
        print(json.dumps({"doctor": findings}, indent=1))
    if any(finding["grade"] == "fail" for finding in findings):
        sys.exit(1)


@models.command("list")
def list_models() -> None:
    """Show the catalogue and which of it is here."""
    from app import bootstrap

    for line in bootstrap.describe_models(Settings()):
        print(line)


@models.command("pull")
def pull_model() -> None:
    """Fetch the base that SELFSPEC_BASE names, verify it, and print its folder."""
    from app import bootstrap

    print(bootstrap.pull_base(Settings(), tell=lambda line: print(line, file=sys.stderr)))


@models.command("path")
def model_path() -> None:
    """Print the folder of the base that SELFSPEC_BASE names, without fetching it."""
    from app import bootstrap

    print(bootstrap.base_folder(Settings()))


def become(command: tuple[str, ...]) -> NoReturn:
    """Replace this process by another program, which then gets its signals itself."""
    from app.serve import child_environment

    os.execve(command[0], command, child_environment(Settings()))


def explain(error: Exception) -> str | None:
    """The one line that tells a person what stands in the way; None for what only a developer can mend."""
    match error:
        case SelfspecError():
            return error.message
        case ValidationError() if error.title == Settings.__name__:
            return "; ".join(f"{_variable(fault)}: {fault['msg']}" for fault in error.errors())
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return f"the disk is full: {error.filename or 'free some space'} could not be written"
        case OSError(errno=errno.EADDRINUSE):
            return "the port is in use: stop what listens there, or choose another: SELFSPEC_PORT=8001"
        case OSError() if error.filename is not None:
            return f"{error.filename}: {error.strerror}"
        case _:
            return None


def _variable(fault: Any) -> str:
    return "SELFSPEC_" + "_".join(str(part) for part in fault["loc"]).upper()


def main() -> None:
    """Run the command; a known error becomes one line on standard error and exit code 1."""
    try:
        app()
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        print(f"selfspec: {line}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
