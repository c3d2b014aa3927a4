"""Jobs that survive: pauses, reviews, deaths, webhooks, throughputs, and files and orders of OpenAI's API."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
NEW_TABLES = ("workers", "fine_tunings", "files", "throughputs", "webhook_deliveries", "row_edits")


def upgrade() -> None:
    """Add what is new. Jobs that are there have neither paused nor died."""
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("waits_for", sa.String(32)))
        jobs.add_column(sa.Column("pause_requested", sa.Boolean(), nullable=False, server_default=sa.false()))
        jobs.add_column(sa.Column("deaths", sa.Integer(), nullable=False, server_default="0"))
        jobs.add_column(sa.Column("webhook_url", sa.Text()))
    with op.batch_alter_table("jobs") as jobs:
        jobs.alter_column("pause_requested", existing_type=sa.Boolean(), existing_nullable=False, server_default=None)
        jobs.alter_column("deaths", existing_type=sa.Integer(), existing_nullable=False, server_default=None)
    with op.batch_alter_table("stage_runs") as stage_runs:
        stage_runs.add_column(sa.Column("worked_seconds", sa.Double(), nullable=False, server_default="0"))
        stage_runs.add_column(sa.Column("worked_at", INSTANT))
        stage_runs.add_column(sa.Column("planned", sa.JSON()))
        stage_runs.add_column(sa.Column("work", sa.JSON(), nullable=False, server_default="{}"))
    with op.batch_alter_table("stage_runs") as stage_runs:
        stage_runs.alter_column(
            "worked_seconds", existing_type=sa.Double(), existing_nullable=False, server_default=None
        )
        stage_runs.alter_column("work", existing_type=sa.JSON(), existing_nullable=False, server_default=None)
    _row_edits()
    _webhook_deliveries()
    _throughputs()
    _files()
    _fine_tunings()
    _workers()
    with op.batch_alter_table("artifacts") as artifacts:
        artifacts.add_column(sa.Column("removed_at", INSTANT))


def downgrade() -> None:
    """Drop what was added. A job that waits for a person is then simply the next."""
    for table in NEW_TABLES:
        op.drop_table(table)
    with op.batch_alter_table("artifacts") as artifacts:
        artifacts.drop_column("removed_at")
    with op.batch_alter_table("stage_runs") as stage_runs:
        for column in ("work", "planned", "worked_at", "worked_seconds"):
            stage_runs.drop_column(column)
    with op.batch_alter_table("jobs") as jobs:
        for column in ("webhook_url", "deaths", "pause_requested", "waits_for"):
            jobs.drop_column(column)


def _row_edits() -> None:
    op.create_table(
        "row_edits",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("row", sa.JSON()),
        sa.PrimaryKeyConstraint("job_id", "stage", "index", name="pk_row_edits"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_row_edits_job_id_jobs"),
    )


def _webhook_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("due_at", INSTANT),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("delivered_at", INSTANT),
        sa.Column("last_error", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_webhook_deliveries_job_id_jobs"),
    )
    op.create_index("ix_webhook_deliveries_due_at", "webhook_deliveries", ["due_at"])
    op.create_index("ix_webhook_deliveries_job_id", "webhook_deliveries", ["job_id"])


def _throughputs() -> None:
    op.create_table(
        "throughputs",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("machine", sa.String(), nullable=False),
        sa.Column("base", sa.String(), nullable=False),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("amount", sa.Double(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("peak_bytes", sa.BigInteger()),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "stage", name="pk_throughputs"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_throughputs_job_id_jobs"),
    )
    op.create_index("ix_throughputs_machine_base_kind", "throughputs", ["machine", "base", "kind"])


def _files() -> None:
    op.create_table(
        "files",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("artifact_digest", sa.String(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
    )
    op.create_index("ix_files_created_at_id", "files", ["created_at", "id"])


def _fine_tunings() -> None:
    op.create_table(
        "fine_tunings",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("training_file", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("validation_file", sa.String()),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_fine_tunings"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_fine_tunings_job_id_jobs"),
    )


def _workers() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("seen_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )
