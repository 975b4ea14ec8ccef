"""Add the queue: Procrastinate's schema in a schema of its own, taken from tenant by tenant.

Taking it back loses every job that waits.
"""

from __future__ import annotations

from hashlib import sha256

from alembic import op
from procrastinate.schema import SchemaManager

from tenancy.alembic.execution import current_installation

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Of release 3.10. Another release brings another schema, and needs a revision of its own.
_SCHEMA_SHA256 = "c70ec4b400a60ad9592787653aae5ae77ae41bf801d56b5bd2712751a07f2009"

_TABLES = ("procrastinate_jobs", "procrastinate_workers", "procrastinate_events", "procrastinate_periodic_defers")

# What the worker calls of Procrastinate's own; the rest are triggers, or would take jobs out of turn.
_WORKER_FUNCTIONS = (
    "procrastinate_defer_jobs_v1(procrastinate_job_to_defer_v1[])",
    "procrastinate_defer_periodic_job_v2(varchar, varchar, varchar, varchar, integer, varchar, bigint, jsonb)",
    "procrastinate_finish_job_v1(bigint, procrastinate_job_status, boolean)",
    "procrastinate_cancel_job_v1(bigint, boolean, boolean)",
    "procrastinate_retry_job_v2(bigint, timestamptz, integer, varchar, varchar)",
    "procrastinate_register_worker_v1()",
    "procrastinate_unregister_worker_v1(bigint)",
    "procrastinate_update_heartbeat_v1(bigint)",
    "procrastinate_prune_stalled_workers_v1(double precision)",
)

# A parked job waits for its tenant rather than for a worker. The nil UUID stands for the platform.
_TURNS = """
ALTER TABLE procrastinate_jobs
    ADD COLUMN tenant uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    ADD COLUMN created_at timestamptz NOT NULL DEFAULT now();
CREATE INDEX procrastinate_jobs_waiting_idx ON procrastinate_jobs (tenant, priority DESC, id)
    WHERE status = 'todo' AND queue_name <> 'parked';
CREATE INDEX procrastinate_jobs_running_idx ON procrastinate_jobs (tenant) WHERE status = 'doing';
CREATE INDEX procrastinate_jobs_parked_idx ON procrastinate_jobs (tenant)
    WHERE status = 'todo' AND queue_name = 'parked';
CREATE INDEX procrastinate_jobs_tenant_idx ON procrastinate_jobs (tenant, id);

CREATE TABLE turns (tenant uuid PRIMARY KEY, turn bigint NOT NULL);
CREATE SEQUENCE turns_taken;

CREATE FUNCTION take_job_in_turn(p_worker_id bigint, p_tenant_concurrency integer) RETURNS procrastinate_jobs
LANGUAGE plpgsql AS $$
DECLARE
    candidate uuid;
    taken procrastinate_jobs;
BEGIN
    -- One at a time: what runs is counted and added to without a second worker in between.
    PERFORM pg_advisory_xact_lock(1785684851, 1);
    FOR candidate IN
        WITH RECURSIVE waiting AS (
            (SELECT j.tenant FROM procrastinate_jobs j
             WHERE j.status = 'todo' AND j.queue_name <> 'parked' ORDER BY j.tenant LIMIT 1)
            UNION ALL
            SELECT (SELECT j.tenant FROM procrastinate_jobs j
                    WHERE j.status = 'todo' AND j.queue_name <> 'parked' AND j.tenant > w.tenant
                    ORDER BY j.tenant LIMIT 1)
            FROM waiting w WHERE w.tenant IS NOT NULL
        )
        SELECT w.tenant FROM waiting w LEFT JOIN turns t ON t.tenant = w.tenant
        WHERE w.tenant IS NOT NULL ORDER BY t.turn NULLS FIRST, w.tenant
    LOOP
        CONTINUE WHEN (SELECT count(*) FROM procrastinate_jobs r WHERE r.tenant = candidate AND r.status = 'doing')
            >= p_tenant_concurrency;
        -- What it was asked for by once is given up here: put back later, it would meet the next one.
        UPDATE procrastinate_jobs SET status = 'doing', worker_id = p_worker_id, queueing_lock = NULL
        WHERE id = (SELECT j.id FROM procrastinate_jobs j
                    WHERE j.tenant = candidate AND j.status = 'todo' AND j.queue_name <> 'parked'
                      AND (j.scheduled_at IS NULL OR j.scheduled_at <= now())
                    ORDER BY j.priority DESC, j.id LIMIT 1 FOR UPDATE SKIP LOCKED)
        RETURNING * INTO taken;
        IF FOUND THEN
            INSERT INTO turns VALUES (candidate, nextval('turns_taken'))
            ON CONFLICT (tenant) DO UPDATE SET turn = excluded.turn;
            RETURN taken;
        END IF;
    END LOOP;
    RETURN NULL;
END;
$$;

CREATE FUNCTION tell_of_turn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- The same words each time, so that one transaction tells once.
    IF EXISTS (SELECT FROM procrastinate_jobs j
               WHERE j.tenant = NEW.tenant AND j.status = 'todo' AND j.queue_name <> 'parked') THEN
        PERFORM pg_notify('procrastinate_any_queue_v1', '{"type": "job_inserted", "job_id": 0}');
    END IF;
    RETURN NULL;
END;
$$;
CREATE TRIGGER tell_of_turn AFTER UPDATE OF status, queue_name ON procrastinate_jobs
    FOR EACH ROW WHEN (NEW.status <> 'doing') EXECUTE FUNCTION tell_of_turn();

CREATE FUNCTION enqueue(
    p_task text, p_args jsonb, p_priority integer, p_once text, p_scheduled_at timestamptz
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    bound uuid := tenancy.guarded_tenant();
    added bigint;
BEGIN
    IF bound IS NULL THEN
        RAISE insufficient_privilege USING MESSAGE = 'no tenant is bound to this transaction';
    END IF;
    -- Whoever asks, by whatever way: a job that a worker cannot even read would stop it, for all tenants.
    IF jsonb_typeof(p_args) IS DISTINCT FROM 'object' OR octet_length(p_args::text) > 262144
        OR p_task IS NULL OR length(p_task) > 100 OR length(p_once) > 300
        OR p_scheduled_at NOT BETWEEN now() - interval '10 years' AND now() + interval '10 years'
    THEN
        RAISE invalid_parameter_value USING MESSAGE = 'this is no job that could be run';
    END IF;
    INSERT INTO procrastinate_jobs (queue_name, task_name, priority, queueing_lock, args, scheduled_at, tenant)
    VALUES ('default', p_task, p_priority, bound::text || ':' || p_once, p_args - 'lost', p_scheduled_at, bound)
    ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING
    RETURNING id INTO added;
    RETURN added;
END;
$$;
"""

# Whatever the caller's search path is, and whoever he is.
_PIN_SEARCH_PATHS = """
DO $$
DECLARE
    found regprocedure;
BEGIN
    FOR found IN SELECT oid FROM pg_proc WHERE pronamespace = 'jobs'::regnamespace LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = jobs, pg_catalog, pg_temp', found);
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', found);
    END LOOP;
END;
$$
"""


def upgrade() -> None:
    roles = current_installation().roles
    schema = SchemaManager.get_schema()
    if sha256(schema.encode()).hexdigest() != _SCHEMA_SHA256:
        raise RuntimeError("this revision makes the schema of procrastinate 3.10, and another release is installed")
    _run("CREATE SCHEMA jobs", "SET LOCAL search_path = jobs, pg_catalog", schema, _TURNS, _PIN_SEARCH_PATHS)
    _run(f"GRANT USAGE ON SCHEMA jobs TO {roles.app}, {roles.platform}")
    _run(
        f"GRANT EXECUTE ON FUNCTION enqueue(text, jsonb, integer, text, timestamptz) TO {roles.app}, {roles.platform}",
        f"GRANT EXECUTE ON FUNCTION take_job_in_turn(bigint, integer) TO {roles.platform}",
        *(f"GRANT EXECUTE ON FUNCTION {name} TO {roles.platform}" for name in _WORKER_FUNCTIONS),
        *(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {roles.platform}" for name in (*_TABLES, "turns")),
        *(
            f"GRANT USAGE ON SEQUENCE {name} TO {roles.platform}"
            for name in (
                "procrastinate_jobs_id_seq",
                "procrastinate_events_id_seq",
                "procrastinate_periodic_defers_id_seq",
                "turns_taken",
            )
        ),
        "RESET search_path",
    )


def downgrade() -> None:
    _run("DROP SCHEMA jobs CASCADE")


def _run(*statements: str) -> None:
    """Send the statements as they are: Procrastinate's hold percent signs, and many statements in one text."""
    context = op.get_context()
    for statement in statements:
        if context.as_sql:
            context.impl.static_output(statement + context.impl.command_terminator)
        else:
            op.get_bind().exec_driver_sql(statement, execution_options={"no_parameters": True})
