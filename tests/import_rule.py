"""The import rule: which room may import which, and who may touch which library. Read from the source by ``ast``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# room: what it may import besides itself. Downwards only.
ROOMS: dict[str, set[str]] = {
    "cli": {"demo", "serve", "bootstrap", "settings", "core"},
    "demo": {"serve", "processes", "settings", "core"},
    "serve": {"processes", "bootstrap", "settings", "core"},
    "processes": {"core"},
    "install": set(),
    "server": {"main", "logs", "services", "settings", "core"},
    "main": {"api", "web", "bootstrap", "services", "watch", "settings", "core"},
    "watch": {"api", "bootstrap", "services", "logs", "tracing", "settings", "core"},
    "worker": {"bootstrap", "services", "logs", "settings", "core"},
    "bootstrap": {"services", "storage", "engine", "settings", "core"},
    "api": {"services", "core"},
    "web": {"services", "core"},
    "services": {"pipeline", "storage", "models", "core"},
    "migrations": {"storage", "models", "settings"},
    "storage": {"models", "core"},
    "pipeline": {"core"},
    "engine": {"core"},
    "models": {"core"},
    "logs": {"core"},
    "tracing": {"core"},
    "core": set(),
    "settings": set(),
}

MODEL_LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors", "gguf")

# library: the modules (or rooms) that may import it.
LIBRARIES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors", "gguf"), ("engine",)
    ),
    **dict.fromkeys(("fastapi", "starlette"), ("api", "web", "main", "watch")),
    **dict.fromkeys(("celery", "kombu"), ("worker", "storage.job_queue", "storage.folder_broker")),
    **dict.fromkeys(("sqlalchemy", "alembic"), ("models", "storage", "migrations")),
    "prometheus_client": ("services", "api.routes.engine"),
    "opentelemetry": ("tracing",),
    "uvicorn": ("server",),
}

# A stage never imports another stage; only stages.py knows their order.
STAGES = ("task_check", "instructions", "responses", "dataset", "adapter", "choice", "metrics", "gate")


def violations(root: Path = ROOT) -> list[str]:
    """Every forbidden import under ``root``, one line each: file, line, what and why."""
    found = []
    for path in source_files(root):
        module = module_name(path.relative_to(root))
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        for line, imported in imports(tree):
            reason = objection(module, imported)
            if reason:
                found.append(f"{path.relative_to(root)}:{line}: {reason}")
    return found


def source_files(root: Path) -> list[Path]:
    """Our modules, tests left out: they may import whatever they test."""
    return sorted(path for room in ("app", "worker", "migrations") for path in (root / room).rglob("*.py"))


def module_name(path: Path) -> str:
    """``app/storage/jobs.py`` → ``storage.jobs``; ``worker/app.py`` → ``worker.app``."""
    parts = [*path.parent.parts, *([] if path.stem == "__init__" else [path.stem])]
    return ".".join(parts[1:] if parts[0] == "app" else parts)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported anywhere in a module, ``from a import b`` as ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def objection(module: str, imported: str) -> str | None:
    """Why ``module`` may not import that; None if it may."""
    library, _, rest = imported.partition(".")
    allowed = LIBRARIES.get(library)
    if allowed is not None and not any(module == room or module.startswith(f"{room}.") for room in allowed):
        return f"{library} belongs to {', '.join(allowed)}"
    target = rest if library == "app" else imported
    room, other = module.partition(".")[0], target.partition(".")[0]
    if not room or other not in ROOMS or (library != "app" and other not in ("worker", "migrations")):
        return None
    if other != room and other not in ROOMS.get(room, set()):
        return f"{room} may not import {other}"
    if _stage(module) and _stage(target) not in (None, _stage(module)):
        return f"stage {_stage(module)} may not import stage {_stage(target)}"
    return None


def _stage(module: str) -> str | None:
    room, _, rest = module.partition(".")
    name = rest.partition(".")[0]
    return name if room == "pipeline" and name in STAGES else None
