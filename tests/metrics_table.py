"""The table of docs/observability.md, made from the metrics: ``python -m tests.metrics_table`` writes it anew."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from app.core.records import Completion
from app.core.request_notes import BASE, RequestNotes
from app.engine.fake import FakeEngine, write_fake_adapter
from app.services.engine_metrics import EngineCollector
from app.services.expert_names import ExpertNames
from app.services.metrics import Metrics
from app.storage.database import Database

PAGE = Path(__file__).resolve().parent.parent / "docs" / "observability.md"
BEGIN, END = "<!-- metrics: begin -->\n", "<!-- metrics: end -->\n"


def metrics_table() -> str:
    """A row a metric of ours: name, type, labels, meaning."""
    rows = []
    for family in used_metrics().registry.collect():
        if family.name.startswith("selfspec_"):
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            order = [label for label in ("domain", "version", *sorted(labels)) if label in labels]
            name = family.name + ("_total" if family.type == "counter" else "")
            told = ", ".join(dict.fromkeys(order))
            rows.append(f"| `{name}` | {family.type} | {told} | {family.documentation} |")
    return "\n".join(["| metric | type | labels | meaning |", "| --- | --- | --- | --- |", *rows]) + "\n"


def used_metrics() -> Metrics:
    """The metrics of an engine that holds an adapter and has answered, so that every family has a sample."""
    metrics = Metrics()
    metrics.answered(BASE, Completion("a b", "stop", 1, 2, None))
    metrics.request_ended(RequestNotes("id", "GET", "/health", 0.0))
    engine = FakeEngine()
    with TemporaryDirectory() as folder, Database(f"sqlite:///{folder}/selfspec.db") as database:
        database.upgrade()
        write_fake_adapter(Path(folder) / "adapter", base_name="fake-base")
        engine.attach("a1", Path(folder) / "adapter")
        names = ExpertNames(database)
        names.of("a1")
    metrics.registry.register(EngineCollector(engine, metrics=metrics, names=names))
    return metrics


def split_page() -> tuple[str, str, str]:
    """What stands before the table, the table, and what stands after it."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    table, after = rest.split(END)
    return before, table, after


if __name__ == "__main__":
    head, _, tail = split_page()
    PAGE.write_text(head + BEGIN + metrics_table() + END + tail, encoding="utf-8")
