"""Erasure: what is due goes, all of it, also when the program is killed midway; and nothing of anybody else's."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.caches import EXTENSION as CACHE
from app.errors import ProblemError
from app.files.storage import EXTENSION as FILES
from app.tenants.erasure import ErasureIncompleteError, count_rows, due_erasures, erase_tenant, erased_tables
from app.tenants.jobs import erase_due_tenants
from app.tenants.models import Erasure
from app.tenants.operations import cancel_deletion, schedule_deletion
from app.tenants.provisioning import create_tenant
from app.tenants.registrar import Hooks, Registrar
from app.tenants.states import InvalidTransitionError
from tenancy.context import tenant_scope
from tenancy.tables import mark_of
from tests.app.conftest import Truth, Visitor, add_person
from tests.app.lives import WHY, KilledError, as_staff, killed_after, ready_tenant, registrar_of, within_a_second

# What a thread adds every few seconds, whatever the test does.
BY_THE_CLOCK = {"usage_records": None}


@pytest.fixture
def registrar(app: Flask) -> Registrar:
    return registrar_of(app)


@pytest.fixture
def doomed(registrar: Registrar, acme: Visitor, client: FlaskClient) -> Visitor:
    """A tenant with something in it, whose deletion is due."""
    company = acme.post("/api/v1/companies", json={"name": "Engines Ltd"}).get_json()["id"]
    add_person(acme, company_id=company)
    add_person(acme, "Grace Hopper")
    assert acme.post("/api/v1/domains", json={"domain": f"crm.{acme.slug}.example"}).status_code == 201
    with as_staff():
        schedule_deletion(registrar, acme.tenant_id, reason="asked by the customer", grace=timedelta(0))
    return acme


def rows_of(truth: Truth, tenant_id: UUID) -> dict[str, int]:
    """Counted by a superuser, in every table that has a tenant_id, whatever the models say."""
    tables = truth.execute(
        "SELECT c.table_name FROM information_schema.columns c JOIN information_schema.tables t USING (table_name)"
        " WHERE c.column_name = 'tenant_id' AND c.table_schema = 'public' AND t.table_type = 'BASE TABLE'"
        " AND t.table_schema = 'public' AND c.table_name <> 'tenants'"
    ).fetchall()
    found = {}
    for (table,) in tables:
        row = truth.execute(f"SELECT count(*) FROM {table} WHERE tenant_id = %s", [tenant_id]).fetchone()
        assert row is not None
        found[table] = row[0]
    return found


def test_due_tenant_is_erased_and_its_neighbour_is_not(
    registrar: Registrar, doomed: Visitor, globex: Visitor, truth: Truth
) -> None:
    add_person(globex)
    before, theirs = rows_of(truth, doomed.tenant_id), rows_of(truth, globex.tenant_id)
    assert {name for name, rows in before.items() if rows} >= {"people", "companies", "members", "domains", "sign_ins"}

    with as_staff():
        erasure = erase_tenant(registrar, doomed.tenant_id, reason=WHY)

    assert sum(rows_of(truth, doomed.tenant_id).values()) == 0
    assert {**rows_of(truth, globex.tenant_id), **BY_THE_CLOCK} == {**theirs, **BY_THE_CLOCK}
    assert erasure.counted["people"] == 2
    assert set(erasure.remaining) == {table.name for table in erased_tables()}
    assert sum(erasure.remaining.values()) == 0


def test_registry_keeps_the_slug_and_no_name(registrar: Registrar, doomed: Visitor, truth: Truth) -> None:
    with as_staff():
        erase_tenant(registrar, doomed.tenant_id, reason=WHY)

        with pytest.raises(ProblemError) as refused:
            create_tenant(registrar, name="Thief", plan="basic", slug=doomed.slug, reason=WHY)

    row = truth.execute(
        "SELECT status, slug, name, erase_after FROM tenants WHERE tenant_id = %s", [doomed.tenant_id]
    ).fetchone()
    assert row == ("deleted", doomed.slug, "(erased)", None)
    assert refused.value.kind == "taken"


def test_erasure_is_in_the_platforms_audit(registrar: Registrar, doomed: Visitor, truth: Truth) -> None:
    with as_staff():
        erase_tenant(registrar, doomed.tenant_id, reason="its deletion is due")

    row = truth.execute(
        "SELECT actor_label, reason, before -> 'slug', after -> 'rows' -> 'people' FROM platform_entries"
        " WHERE action = 'tenant.erased' AND target_id = %s",
        [doomed.tenant_id],
    ).fetchone()
    assert row == ("ana@platform.test", "its deletion is due", doomed.slug, 0)


def test_erased_tenant_looks_as_if_it_had_never_been(registrar: Registrar, doomed: Visitor) -> None:
    with as_staff():
        erase_tenant(registrar, doomed.tenant_id, reason=WHY)

    assert within_a_second(lambda: doomed.get("/api/v1/people").status_code == 404)


def test_deletion_that_is_not_due_erases_nothing(registrar: Registrar, acme: Visitor, truth: Truth) -> None:
    with as_staff():
        schedule_deletion(registrar, acme.tenant_id, reason=WHY, grace=timedelta(hours=1))

        with pytest.raises(InvalidTransitionError, match="not due"):
            erase_tenant(registrar, acme.tenant_id, reason=WHY)
        due = due_erasures(registrar)

    assert acme.tenant_id not in due
    assert rows_of(truth, acme.tenant_id)["members"] == 1


def test_active_tenant_is_never_erased(registrar: Registrar, acme: Visitor, truth: Truth) -> None:
    with as_staff(), pytest.raises(InvalidTransitionError):
        erase_tenant(registrar, acme.tenant_id, reason=WHY)

    assert rows_of(truth, acme.tenant_id)["members"] == 1


def test_erasure_that_has_begun_is_not_undone(registrar: Registrar, doomed: Visitor) -> None:
    def die(_tenant_id: UUID) -> None:
        raise KilledError

    dying = replace(registrar, hooks=Hooks(erasers=(die,)))
    with as_staff():
        with pytest.raises(KilledError):
            erase_tenant(dying, doomed.tenant_id, reason=WHY)

        with pytest.raises(InvalidTransitionError, match="has begun"):
            cancel_deletion(registrar, doomed.tenant_id, reason=WHY)


def test_what_is_outside_goes_before_the_rows(registrar: Registrar, doomed: Visitor, truth: Truth) -> None:
    seen: list[tuple[str, int]] = []

    def eraser(word: str) -> None:
        seen.append((word, rows_of(truth, doomed.tenant_id)["people"]))

    hooks = Hooks(erasers=(lambda _: eraser("keys"), lambda _: eraser("files")))
    with as_staff():
        erase_tenant(replace(registrar, hooks=hooks), doomed.tenant_id, reason=WHY)

    assert seen == [("keys", 2), ("files", 2)]


@pytest.mark.parametrize("commits", [1, 3, 6, 12, 20])
def test_erasure_that_was_killed_goes_on_to_the_same_end(
    registrar: Registrar, doomed: Visitor, truth: Truth, commits: int
) -> None:
    with as_staff(), pytest.raises(KilledError), killed_after(commits):
        erase_tenant(registrar, doomed.tenant_id, reason=WHY)
    with as_staff():
        assert doomed.tenant_id in due_erasures(registrar)

    erase_due_tenants(registrar)

    row = truth.execute(
        "SELECT (counted ->> 'people')::int, finished_at IS NOT NULL FROM erasures WHERE erased_tenant = %s",
        [doomed.tenant_id],
    ).fetchone()
    entries = truth.execute(
        "SELECT count(*) FROM platform_entries WHERE action = 'tenant.erased' AND target_id = %s", [doomed.tenant_id]
    ).fetchone()
    assert sum(rows_of(truth, doomed.tenant_id).values()) == 0
    assert row == (2, True)
    assert entries == (1,)


def test_second_erasure_changes_nothing(registrar: Registrar, doomed: Visitor, truth: Truth) -> None:
    with as_staff():
        first = erase_tenant(registrar, doomed.tenant_id, reason=WHY)
        second = erase_tenant(registrar, doomed.tenant_id, reason=WHY)

    assert (first.id, first.finished_at) == (second.id, second.finished_at)


def test_row_written_meanwhile_is_noticed_and_goes_with_the_next_run(
    registrar: Registrar, doomed: Visitor, truth: Truth
) -> None:
    """People refer to companies, and so are emptied first: a person added when a company goes is left."""

    def write_late(_tenant_id: UUID) -> None:
        truth.execute(
            "CREATE OR REPLACE FUNCTION late() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN"
            " INSERT INTO people (tenant_id, id, name) VALUES (OLD.tenant_id, uuidv7(), 'late'); RETURN OLD; END $$"
        )
        truth.execute("CREATE TRIGGER late AFTER DELETE ON companies FOR EACH ROW EXECUTE FUNCTION late()")

    try:
        with as_staff(), pytest.raises(ErasureIncompleteError, match="people"):
            erase_tenant(replace(registrar, hooks=Hooks(erasers=(write_late,))), doomed.tenant_id, reason=WHY)
    finally:
        truth.execute("DROP TRIGGER late ON companies")
        truth.execute("DROP FUNCTION late()")
    status = truth.execute("SELECT status FROM tenants WHERE tenant_id = %s", [doomed.tenant_id]).fetchone()
    assert status == ("deleting",)

    erase_due_tenants(registrar)

    assert sum(rows_of(truth, doomed.tenant_id).values()) == 0


def test_job_erases_what_is_due_and_one_failure_stops_no_other(
    registrar: Registrar, doomed: Visitor, globex: Visitor, truth: Truth
) -> None:
    with as_staff():
        schedule_deletion(registrar, globex.tenant_id, reason=WHY, grace=timedelta(0))

    def fail_for_acme(tenant_id: UUID) -> None:
        if tenant_id == doomed.tenant_id:
            raise OSError("the store of files is down")

    erase_due_tenants(replace(registrar, hooks=Hooks(erasers=(fail_for_acme,))))

    found = dict(
        truth.execute(
            "SELECT tenant_id, status FROM tenants WHERE tenant_id = ANY(%s)",
            [[doomed.tenant_id, globex.tenant_id]],
        ).fetchall()
    )
    assert found == {doomed.tenant_id: "deleting", globex.tenant_id: "deleted"}


def test_large_tables_go_in_parts(registrar: Registrar, truth: Truth) -> None:
    tenant = ready_tenant(registrar)
    truth.execute(
        "INSERT INTO companies (tenant_id, id, name) SELECT %s, uuidv7(), 'many' FROM generate_series(1, 12001)",
        [tenant.id],
    )
    with as_staff():
        schedule_deletion(registrar, tenant.id, reason=WHY, grace=timedelta(0))

        erasure = erase_tenant(registrar, tenant.id, reason=WHY)

    assert erasure.counted["companies"] == 12_001
    assert rows_of(truth, tenant.id)["companies"] == 0


def test_platform_may_delete_from_every_table_that_an_erasure_empties() -> None:
    closed = [table.name for table in erased_tables() if "DELETE" not in mark_of(table).platform]  # type: ignore[union-attr]

    assert closed == []


def test_count_sees_the_tenant_only(registrar: Registrar, acme: Visitor, globex: Visitor) -> None:
    add_person(globex)

    with as_staff(), registrar.in_tenant(acme.tenant_id, reason=WHY) as session:
        mine, theirs = count_rows(session, acme.tenant_id), count_rows(session, globex.tenant_id)

    assert (mine["members"], sum(theirs.values())) == (1, 0)


def test_tenants_know_nothing_of_the_record_of_erasures(registrar: Registrar, acme: Visitor, truth: Truth) -> None:
    assert truth.execute("SELECT has_table_privilege('tenancy_app', 'erasures', 'SELECT')").fetchone() == (False,)
    with (
        tenant_scope(acme.tenant_id),
        registrar.database.sessions() as session,
        pytest.raises(Exception, match="denied"),
    ):
        session.query(Erasure).all()


def test_keys_files_cache_and_jobs_go_with_the_rows_and_a_neighbours_stay(
    app: Flask, registrar: Registrar, doomed: Visitor, globex: Visitor, truth: Truth
) -> None:
    storage, cache = app.extensions[FILES].storage, app.extensions[CACHE]
    for visitor in (doomed, globex):
        with tenant_scope(visitor.tenant_id):
            storage.put("pictures/one", b"seen", max_bytes=100)
            cache.set("answer", 42)
        truth.execute(
            "INSERT INTO jobs.procrastinate_jobs (queue_name, task_name, args, tenant)"
            " VALUES ('default', 'x', '{}', %s)",
            [visitor.tenant_id],
        )

    with as_staff():
        erase_tenant(registrar, doomed.tenant_id, reason=WHY)

    left = {}
    for visitor in (doomed, globex):
        with tenant_scope(visitor.tenant_id):
            left[visitor.slug] = ([found.name for found in storage.list()], cache.get("answer"))
    queued = truth.execute(
        "SELECT tenant FROM jobs.procrastinate_jobs WHERE tenant = ANY (%s)", [[doomed.tenant_id, globex.tenant_id]]
    ).fetchall()
    assert left == {doomed.slug: ([], None), globex.slug: (["pictures/one"], 42)}
    assert queued == [(globex.tenant_id,)]
