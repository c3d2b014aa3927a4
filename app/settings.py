"""Every setting selfspec reads from the environment, with its unit and its consequence; read once, at the edge.

Knows nothing about what the values are used for; imports nothing of ours. Each field ``name`` is the variable
``SELFSPEC_NAME``; ``docs/configuration.md`` lists them and a test keeps the two alike.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

LogLevel = Literal["debug", "info", "warning", "error"]


class Settings(BaseSettings):
    """The environment, checked. Raises pydantic's ValidationError naming the variable that cannot be used."""

    model_config = SettingsConfigDict(env_prefix="SELFSPEC_", frozen=True, env_ignore_empty=True)

    data_dir: Path = Field(
        Path("var"), description="Folder of everything selfspec makes: database, broker, models, artifacts, logs."
    )
    database_url: str | None = Field(
        None, description="SQLAlchemy URL of the database. Unset: SQLite in the data folder, which one machine can use."
    )
    broker_url: str | None = Field(
        None, description="Celery broker URL (redis://, amqp://). Unset: a folder in the data folder, no server needed."
    )
    queue: str = Field(
        "selfspec",
        pattern=r"^[A-Za-z0-9_-]+$",
        description="Name of the queue at the broker. Services that share a broker need one each, or they wake each "
        "other's workers in vain.",
    )
    models_dir: Path | None = Field(
        None, description="Folder of the bases that were fetched. Unset: `models` in the data folder."
    )

    base: str = Field(
        "smollm2-135m-instruct",
        description="The shared language model: a catalogue name, a Hugging Face id or a folder. "
        "Adapters are tied to it; another base refuses them.",
    )
    accept_terms: bool = Field(
        False, description="True says you accept the licence terms of a catalogue model that has some (Gemma)."
    )
    quantization: Literal["auto", "nf4", "none"] = Field(
        "auto",
        description="Weights of the base. auto: NF4 on CUDA, none on CPU. nf4: a quarter of bfloat16's memory, slower "
        "on CPU. Part of the base's fingerprint.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Number format of the base's computation; auto: whichever the device does well. "
        "Not part of the base's fingerprint: adapters serve in any.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where the base lives. auto: CUDA if there is any."
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="Threads torch uses in a process. Unset: one a core. Fewer leaves room for others; more is slower.",
    )
    engine: Literal["real", "fake"] = Field(
        "real", description="fake: no torch, no weights, answers that mean nothing; for tests of all the rest."
    )

    adapter_slots: int = Field(
        8, ge=1, le=1024, description="Experts that can be attached at once. Each slot costs memory at max_lora_rank."
    )
    max_lora_rank: int = Field(
        16, ge=1, le=512, description="Largest adapter rank a slot holds; above it: refused. Every slot's memory grows."
    )
    max_batch: int = Field(
        32, ge=1, le=4096, description="Sequences computed together; others wait. More costs memory for their caches."
    )
    max_waiting: int = Field(
        2048, ge=1, description="Requests that may wait for a place in the batch; one more is refused with 429."
    )
    prefill_tokens: int | None = Field(
        None,
        ge=16,
        description="Tokens of new prompts computed in one step. More: new requests start sooner, running ones "
        "stand still longer. Unset: 512 on a processor, 2048 on a GPU.",
    )
    cache_bytes: int | None = Field(
        None,
        ge=0,
        description="Keys and values of running requests, bytes on the device. Unset: half of what is free once the "
        "base is loaded, an eighth in the process of a job. Requests wait when it is full.",
    )
    prefix_bytes: int | None = Field(
        None,
        ge=0,
        description="Keys and values kept of prompts, bytes on the device, so that the next that begins alike is not "
        "computed anew. Unset: a sixteenth of what is free. 0: none.",
    )
    cuda_graphs: bool = Field(
        True,
        description="Record steps as CUDA graphs and replay them; false: every kernel is launched anew, slower.",
    )
    adapter_bytes: int | None = Field(
        None,
        ge=0,
        description="Adapters kept in host memory, bytes; one in no slot is back in one within a step. Unset: an "
        "eighth of what is free.",
    )
    adapter_device_bytes: int | None = Field(
        None, ge=0, description="Bytes of the device that slots may take; fewer slots than adapter_slots if they must."
    )

    host: str = Field("127.0.0.1", description="Address the API listens on. 0.0.0.0: the network too; it has no login.")
    port: int = Field(8000, ge=1, le=65535, description="TCP port the API listens on.")

    admin_key: SecretStr | None = Field(
        None,
        min_length=8,
        description="Key that loads and unloads adapters by name (`Authorization: Bearer …`). Unset: nobody does.",
    )
    adapter_roots: str | None = Field(
        None,
        description="Folders that adapters may be loaded from by name, separated as in PATH. Unset: none.",
    )

    max_upload_bytes: int = Field(
        32 * 1024 * 1024, ge=1024, description="Largest request body, bytes; larger ones are refused with 413."
    )
    max_corpus_bytes: int = Field(
        4 * 1024**3, ge=1024, description="Largest body of POST /corpora, bytes; larger ones are refused with 413."
    )
    small_corpus_passages: int = Field(
        2000,
        ge=0,
        description="Corpora of at most so many passages are searched in memory, larger ones through an index on disk. "
        "What is found is the same.",
    )
    max_seeds: int = Field(10_000, ge=1, description="Most seeds (and most evaluation items) one upload may hold.")
    max_field_chars: int = Field(20_000, ge=1, description="Longest text in a field of a seed, characters.")

    lease_seconds: float = Field(
        30.0, gt=0, description="Silence after which a running job counts as abandoned and is taken over, seconds."
    )
    heartbeat_seconds: float = Field(
        5.0, gt=0, description="How often a worker renews its lease, seconds; keep it well under lease_seconds."
    )
    worker_slots: int | None = Field(
        None,
        ge=1,
        description="Jobs a worker runs at once, each in a process of its own. Unset: one a GPU that it sees, or one.",
    )
    look_seconds: float = Field(
        3.0,
        gt=0,
        description="How often an idle worker looks for a job although no message came, seconds. More: a job whose "
        "message was lost starts later.",
    )
    max_deaths: int = Field(
        3,
        ge=1,
        description="Processes of a job, or workers with it, that may die (killed, out of memory), one after another "
        "without a new line or checkpoint on disk; then the job fails. Until then it goes on from what it has made.",
    )
    job_memory_bytes: int | None = Field(
        None,
        ge=0,
        description="Memory a job needs, bytes of the GPU or else of the machine; with less free it waits. Unset: the "
        "most that an earlier job on this base took, or an estimate by the base's size. 0: it never waits.",
    )

    retention_days: float | None = Field(
        None,
        gt=0,
        description="Days after which what no job, champion, newest version or rollback needs is deleted: artifacts, "
        "job logs, webhook deliveries. Unset: age deletes nothing.",
    )
    retention_bytes: int | None = Field(
        None,
        ge=0,
        description="Bytes that the artifact store may hold; above that what nobody needs is deleted, of failed jobs "
        "first. What is needed stays even so. Unset: size deletes nothing.",
    )
    min_free_bytes: int = Field(
        200_000_000,
        ge=0,
        description="Free bytes on the disk of the data folder below which /ready and `selfspec doctor` say that it "
        "is full, and no job is begun.",
    )

    webhook_secret: SecretStr | None = Field(
        None,
        min_length=16,
        description="Key that signs webhooks: `whsec_` and base64, or any text. Unset: `webhook_url` is refused and "
        "none is sent.",
    )
    webhook_previous_secret: SecretStr | None = Field(
        None,
        min_length=16,
        description="While the secret is changed: the one before, which signs too until every receiver knows the new.",
    )
    webhook_allow_private: bool = Field(
        False,
        description="True: webhooks may go to this machine and to private networks. Whoever may post a job can then "
        "make the API send requests there.",
    )

    warm_up: bool = Field(
        True,
        description="True: before /ready says ready, the base answers one question and the champions are attached. "
        "False: the first requests wait for that.",
    )
    drain_s: float = Field(
        30.0,
        ge=0,
        description="From SIGTERM until requests in flight are given up, seconds; new ones get 503.",
    )

    log_level: LogLevel = Field("info", description="Least severe message that is logged.")
    log_format: Literal["text", "json"] = Field(
        "text", description="text: for people. json: one object a line, for machines."
    )
    traces: bool = Field(
        False,
        description="True: an OpenTelemetry span a request, sent where OTEL_EXPORTER_OTLP_ENDPOINT says (setting that "
        "alone does the same). Needs the extra `otel`.",
    )

    @model_validator(mode="after")
    def _has_a_new_secret(self) -> Self:
        if self.webhook_previous_secret is not None and self.webhook_secret is None:
            raise ValueError("SELFSPEC_WEBHOOK_PREVIOUS_SECRET signs beside SELFSPEC_WEBHOOK_SECRET: set that, too")
        return self

    @field_validator("webhook_secret", "webhook_previous_secret")
    @classmethod
    def _has_a_key(cls, secret: SecretStr | None) -> SecretStr | None:
        """Base64 is what follows ``whsec_``, or the receivers could not check what is signed."""
        given = secret.get_secret_value() if secret is not None else ""
        if given.startswith("whsec_"):
            try:
                base64.b64decode(given.removeprefix("whsec_"), validate=True)
            except ValueError as error:
                raise ValueError("whsec_ must be followed by base64") from error
        return secret

    @property
    def resolved_database_url(self) -> str:
        """``database_url``, or SQLite in the data folder."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'selfspec.db').absolute()}"

    @property
    def resolved_broker_url(self) -> str:
        """``broker_url``, or kombu's filesystem transport (its folders are under ``broker_dir``)."""
        return self.broker_url or "filesystem://"

    @property
    def resolved_adapter_roots(self) -> tuple[Path, ...]:
        """``adapter_roots``, one path each."""
        return tuple(Path(root) for root in (self.adapter_roots or "").split(os.pathsep) if root)

    @property
    def resolved_models_dir(self) -> Path:
        """Bases that were fetched, one folder each."""
        return self.models_dir or self.data_dir / "models"

    @property
    def downloads_dir(self) -> Path:
        """Downloads under way; safe to delete when nothing runs."""
        return self.data_dir / "downloads"

    @property
    def artifacts_dir(self) -> Path:
        """The artifact store."""
        return self.data_dir / "artifacts"

    @property
    def broker_dir(self) -> Path:
        """The embedded broker's messages."""
        return self.data_dir / "broker"

    @property
    def logs_dir(self) -> Path:
        """Logs of the processes ``selfspec serve`` starts."""
        return self.data_dir / "logs"
