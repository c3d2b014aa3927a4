"""The whole loop: figures of several lines, promotions, corpora, labelled sets, and which jobs a seed was sent to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add what is new; figures there are become those against the base through the template, without shots, and what is
    served becomes the first promotion."""
    with op.batch_alter_table("metrics") as metrics:
        metrics.alter_column("base", new_column_name="score", existing_type=sa.Double(), existing_nullable=False)
        metrics.add_column(sa.Column("against", sa.String(), nullable=False, server_default="base_template"))
        metrics.add_column(sa.Column("shots", sa.Integer(), nullable=False, server_default="0"))
    with op.batch_alter_table("metrics") as metrics:
        metrics.alter_column("against", existing_type=sa.String(), existing_nullable=False, server_default=None)
        metrics.alter_column("shots", existing_type=sa.Integer(), existing_nullable=False, server_default=None)
    with op.batch_alter_table("adapters") as adapters:
        adapters.add_column(sa.Column("decision", sa.String()))
        adapters.add_column(sa.Column("reason", sa.Text()))
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("labelled_set_id", sa.String()))
        jobs.create_foreign_key("fk_jobs_labelled_set_id_seed_sets", "seed_sets", ["labelled_set_id"], ["id"])
    _seed_uses()
    _promotions()
    _corpora()


def downgrade() -> None:
    """Drop what was added; of the figures only those of the first kind stay."""
    for table in ("corpora", "promotions", "seed_uses"):
        op.drop_table(table)
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_constraint("fk_jobs_labelled_set_id_seed_sets", type_="foreignkey")
        jobs.drop_column("labelled_set_id")
    with op.batch_alter_table("adapters") as adapters:
        adapters.drop_column("reason")
        adapters.drop_column("decision")
    op.execute("DELETE FROM metrics WHERE against <> 'base_template' OR shots <> 0")
    with op.batch_alter_table("metrics") as metrics:
        metrics.drop_column("shots")
        metrics.drop_column("against")
        metrics.alter_column("score", new_column_name="base", existing_type=sa.Double(), existing_nullable=False)


def _seed_uses() -> None:
    op.create_table(
        "seed_uses",
        sa.Column("seed_id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("seed_id", "job_id", name="pk_seed_uses"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_seed_uses_job_id_jobs"),
    )
    op.create_index("ix_seed_uses_job_id", "seed_uses", ["job_id"])


def _promotions() -> None:
    op.create_table(
        "promotions",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("domain", sa.String(), nullable=False),
        sa.Column("adapter_id", sa.String()),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("job_id", sa.String()),
        sa.PrimaryKeyConstraint("id", name="pk_promotions"),
        sa.ForeignKeyConstraint(["domain"], ["domains.name"], name="fk_promotions_domain_domains"),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name="fk_promotions_adapter_id_adapters"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_promotions_job_id_jobs"),
    )
    op.create_index("ix_promotions_domain_id", "promotions", ["domain", "id"])
    op.execute(
        "INSERT INTO promotions (domain, adapter_id, created_at, reason, job_id) "
        "SELECT domains.name, adapters.id, adapters.created_at, 'served before promotions were written down', "
        "adapters.job_id FROM domains JOIN adapters ON adapters.id = domains.champion_id"
    )


def _corpora() -> None:
    op.create_table(
        "corpora",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("artifact_digest", sa.String(), nullable=False),
        sa.Column("num_passages", sa.Integer(), nullable=False),
        sa.Column("num_duplicates", sa.Integer(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_corpora"),
    )
