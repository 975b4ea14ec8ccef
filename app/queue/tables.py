"""The tables of schema `jobs`, as far as the application reads them. Procrastinate's migration makes them."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, Column, DateTime, Integer, MetaData, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import ENUM, JSONB

SCHEMA = "jobs"
PLATFORM = UUID(int=0)
DEFAULT_QUEUE = "default"
PARKED_QUEUE = "parked"


class JobStatus(StrEnum):
    """Where a job is. One that is parked is `todo` as well, in a queue that no worker takes from."""

    TODO = "todo"
    DOING = "doing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ABORTED = "aborted"


_STATUS = ENUM(*JobStatus, "aborting", name="procrastinate_job_status", schema=SCHEMA, create_type=False)
# Apart from the models' metadata: their migrations, and the proofs over every table, are not for these.
QUEUE_METADATA = MetaData(schema=SCHEMA)

jobs = Table(
    "procrastinate_jobs",
    QUEUE_METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("tenant", Uuid),
    Column("queue_name", Text),
    Column("task_name", Text),
    Column("priority", Integer),
    Column("queueing_lock", Text),
    Column("args", JSONB),
    Column("status", _STATUS),
    Column("scheduled_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True)),
    Column("attempts", Integer),
    Column("worker_id", BigInteger),
)
workers = Table(
    "procrastinate_workers",
    QUEUE_METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("last_heartbeat", DateTime(timezone=True)),
)
turns = Table("turns", QUEUE_METADATA, Column("tenant", Uuid, primary_key=True), Column("turn", BigInteger))
