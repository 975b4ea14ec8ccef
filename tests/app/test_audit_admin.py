"""Staff take a tenant's audit home as a file, and the tenant sees that they did."""

from __future__ import annotations

import csv
import io
from uuid import uuid4

import pytest
from flask import Flask

from app.audit.exports import verify_export
from app.staff.permissions import StaffPermission, StaffRole
from tenancy.context import current_scope
from tests.app.conftest import Truth, Visitor, codes, fields
from tests.app.staffing import Staffer, key_client, staff_client
from tests.app.test_invitations import join

EXPORT = "/tenants/{}/audit/export"


@pytest.fixture
def staffer(app: Flask) -> Staffer:
    return staff_client(app, StaffRole.READ_ONLY)


def test_export_holds_the_tenants_whole_chain(staffer: Staffer, acme: Visitor) -> None:
    here = acme.get("/api/v1/audit/verify").get_json()

    answer = staffer.get(EXPORT.format(acme.tenant_id))

    verdict = verify_export(answer.get_data(as_text=True).splitlines(keepends=True))
    assert answer.mimetype == "application/x-ndjson"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="audit-{acme.slug}.ndjson"'
    assert verdict.is_intact
    assert verdict.number == here["number"] + 1  # the export is an entry itself
    (entry,) = acme.get("/api/v1/audit", query_string={"action": "audit.exported"}).get_json()["items"]
    assert (entry["actor_kind"], entry["actor_label"]) == ("staff", staffer.email)


def test_export_as_csv_takes_the_filters(staffer: Staffer, acme: Visitor, globex: Visitor) -> None:
    joined = join(acme)
    join(globex)

    answer = staffer.get(EXPORT.format(acme.tenant_id), query_string={"format": "csv", "action": "member.joined"})

    rows = list(csv.DictReader(io.StringIO(answer.get_data(as_text=True))))
    assert [row["actor_label"] for row in rows] == [joined.email]


def test_export_that_nobody_takes_to_its_end_leaves_no_scope(staffer: Staffer, acme: Visitor) -> None:
    answer = staffer.get(EXPORT.format(acme.tenant_id), buffered=False)
    next(iter(answer.response))

    answer.close()

    assert current_scope() is None
    assert staffer.get(EXPORT.format(acme.tenant_id)).status_code == 200


def test_part_of_a_chain_is_refused_and_not_recorded(staffer: Staffer, acme: Visitor, truth: Truth) -> None:
    answer = staffer.get(EXPORT.format(acme.tenant_id), query_string={"action": "member.joined"})

    assert fields(answer) == ["query.format"]
    count = "SELECT count(*) FROM audit_entries WHERE tenant_id = %s AND action = 'audit.exported'"
    assert truth.execute(count, [acme.tenant_id]).fetchone() == (0,)


def test_export_takes_the_right_and_a_tenant(app: Flask, staffer: Staffer, acme: Visitor) -> None:
    program = key_client(app, StaffPermission.TENANTS_READ)

    assert codes(program.get(EXPORT.format(acme.tenant_id))) == (403, "forbidden")
    assert codes(staffer.get(EXPORT.format(uuid4()))) == (404, "not_found")


def test_erased_tenant_gets_no_entry(staffer: Staffer, acme: Visitor, truth: Truth) -> None:
    """Nothing is left of it, and that is certified."""
    count = "SELECT count(*) FROM audit_entries WHERE tenant_id = %s"
    before = truth.execute(count, [acme.tenant_id]).fetchone()
    truth.execute("UPDATE tenants SET status = 'deleted' WHERE tenant_id = %s", [acme.tenant_id])

    answer = staffer.get(EXPORT.format(acme.tenant_id))

    assert answer.status_code == 409
    assert truth.execute(count, [acme.tenant_id]).fetchone() == before
