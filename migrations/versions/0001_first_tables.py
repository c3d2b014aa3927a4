"""First tables: domains, seed sets, jobs with their stages and events, artifacts, adapters, metrics.

Two pairs of tables point at each other (domain and champion, job and adapter), so those two keys come last.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
STATE = sa.String(32)
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite numbers rows by INTEGER only


def upgrade() -> None:
    """Make all tables."""
    _domains()
    _jobs()
    _stage_runs_and_events()
    _artifacts_and_adapters()
    _metrics()
    with op.batch_alter_table("domains") as domains:
        domains.create_foreign_key("fk_domains_champion_id_adapters", "adapters", ["champion_id"], ["id"])
    with op.batch_alter_table("jobs") as jobs:
        jobs.create_foreign_key("fk_jobs_adapter_id_adapters", "adapters", ["adapter_id"], ["id"])


def downgrade() -> None:
    """Drop all tables and what is in them."""
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_constraint("fk_jobs_adapter_id_adapters", type_="foreignkey")
    with op.batch_alter_table("domains") as domains:
        domains.drop_constraint("fk_domains_champion_id_adapters", type_="foreignkey")
    for table in ("metrics", "adapters", "artifacts", "events", "stage_runs", "jobs", "seed_sets", "domains"):
        op.drop_table(table)


def _domains() -> None:
    op.create_table(
        "domains",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("description", sa.Text()),
        sa.Column("champion_id", sa.String()),
        sa.PrimaryKeyConstraint("name", name="pk_domains"),
    )
    op.create_table(
        "seed_sets",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("domain", sa.String(), nullable=False),
        sa.Column("role", STATE, nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("num_rows", sa.Integer(), nullable=False),
        sa.Column("artifact_digest", sa.String(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_seed_sets"),
        sa.ForeignKeyConstraint(["domain"], ["domains.name"], name="fk_seed_sets_domain_domains"),
    )
    op.create_index("ix_seed_sets_domain", "seed_sets", ["domain"])


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("domain", sa.String(), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("base", sa.String(), nullable=False),
        sa.Column("seed_set_id", sa.String(), nullable=False),
        sa.Column("request_digest", sa.String(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("evaluation_set_id", sa.String()),
        sa.Column("idempotency_key", sa.String()),
        sa.Column("status", STATE, nullable=False),
        sa.Column("stage", sa.String()),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("owner", sa.String()),
        sa.Column("heartbeat_at", INSTANT),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("error_code", sa.String()),
        sa.Column("error_message", sa.Text()),
        sa.Column("error_param", sa.String()),
        sa.Column("error_fault", STATE),
        sa.Column("adapter_id", sa.String()),
        sa.Column("started_at", INSTANT),
        sa.Column("finished_at", INSTANT),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("idempotency_key", name="uq_jobs_idempotency_key"),
        sa.ForeignKeyConstraint(["domain"], ["domains.name"], name="fk_jobs_domain_domains"),
        sa.ForeignKeyConstraint(["seed_set_id"], ["seed_sets.id"], name="fk_jobs_seed_set_id_seed_sets"),
        sa.ForeignKeyConstraint(["evaluation_set_id"], ["seed_sets.id"], name="fk_jobs_evaluation_set_id_seed_sets"),
    )
    op.create_index("ix_jobs_domain", "jobs", ["domain"])
    op.create_index("ix_jobs_created_at_id", "jobs", ["created_at", "id"])
    op.create_index("ix_jobs_status_created_at", "jobs", ["status", "created_at"])


def _stage_runs_and_events() -> None:
    op.create_table(
        "stage_runs",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("status", STATE, nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger()),
        sa.Column("started_at", INSTANT),
        sa.Column("finished_at", INSTANT),
        sa.Column("artifact_digest", sa.String()),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "stage", name="pk_stage_runs"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_stage_runs_job_id_jobs"),
    )
    op.create_table(
        "events",
        sa.Column("id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("level", STATE, nullable=False),
        sa.Column("stage", sa.String()),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_events_job_id_jobs"),
    )
    op.create_index("ix_events_job_id_id", "events", ["job_id", "id"])


def _artifacts_and_adapters() -> None:
    op.create_table(
        "artifacts",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("parents", sa.JSON(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("job_id", sa.String()),
        sa.Column("stage", sa.String()),
        sa.PrimaryKeyConstraint("digest", name="pk_artifacts"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_artifacts_job_id_jobs"),
    )
    op.create_index("ix_artifacts_job_id", "artifacts", ["job_id"])
    op.create_table(
        "adapters",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("domain", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("artifact_digest", sa.String(), nullable=False),
        sa.Column("base", sa.String(), nullable=False),
        sa.Column("base_fingerprint", sa.String(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("alpha", sa.Integer(), nullable=False),
        sa.Column("num_parameters", sa.BigInteger(), nullable=False),
        sa.Column("num_modules", sa.Integer(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("probe_distance", sa.Double(), nullable=False),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_adapters"),
        sa.UniqueConstraint("domain", "version", name="uq_adapters_domain_version"),
        sa.UniqueConstraint("domain", "artifact_digest", name="uq_adapters_domain_artifact_digest"),
        sa.ForeignKeyConstraint(["domain"], ["domains.name"], name="fk_adapters_domain_domains"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_adapters_job_id_jobs"),
    )
    op.create_index("ix_adapters_job_id", "adapters", ["job_id"])


def _metrics() -> None:
    op.create_table(
        "metrics",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("adapter_id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("base", sa.Double(), nullable=False),
        sa.Column("expert", sa.Double(), nullable=False),
        sa.Column("difference", sa.Double(), nullable=False),
        sa.Column("low", sa.Double(), nullable=False),
        sa.Column("high", sa.Double(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_metrics"),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name="fk_metrics_adapter_id_adapters"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_metrics_job_id_jobs"),
    )
    op.create_index("ix_metrics_adapter_id", "metrics", ["adapter_id"])
    op.create_index("ix_metrics_job_id", "metrics", ["job_id"])
