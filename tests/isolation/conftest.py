"""What the generated suite is told of our own application; see docs/howto/testing.md."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Table

from app.files.operations import object_name
from app.plans.terms import Quota
from tenancy.context import tenant_scope
from tenancy.pytest_plugin.clients import TenantClient
from tenancy.testing.world import SeededTenant
from tests.isolation.application import PASSWORD, password_hash

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
Rows = Mapping[str, Sequence[Mapping[str, Any]]]
# One grey pixel.
PICTURE = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==")


def pytest_tenancy_row(table: Table, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
    match table.name:
        case "accounts":
            return {"password_hash": password_hash()}
        case "invitations":
            return {"accepted_at": None, "revoked_at": None}
        case "sign_ins":
            return {"ended_at": None}  # or the impersonations that rest on them would have ended
        case "audit_links":
            return {"number": values["number"] + 1_000_000}  # the lower ones are those of the entries' own links
        case "opportunities":
            return {"currency": "EUR"}
        case "tenants":
            return {"plan_version": 1}
        case "configuration_values":
            return {"value": 900, "secret": None}
        case "configuration_changes":
            return {"key": "session.timeout", "before": 1_800, "after": 900}
        case "cards":
            return {"year": 1990}
        case "domains":
            return {"found": [], "failures": 0, "lost_at": None}
        case "provisioning_steps":
            return {"given": {}, "state": "done"}
        case "bulk_runs" | "erasures":
            return {name: {} for name in ("wanted", "counted", "remaining") if name in table.c}
        case "data_keys":
            return {"destroyed_at": None}
        case "quota_counters":
            # The guess is the same quota for each row, and a tenant has one row of each.
            return {"quota": list(Quota)[values["used"] % len(Quota)], "window_at": _LONG_AGO, "used": 1}
        case "usage_records":
            return {"amounts": {"requests": 1}}
        case "files":
            return {"size_bytes": len(PICTURE), "content_type": "image/png"}
    return None


def pytest_tenancy_sign_in(client: TenantClient, tenant: SeededTenant, rows: Rows) -> bool:
    """By a bearer token, which the pages take as well as the API does."""
    _store_contents(client, tenant, rows)
    given = {"email": _email(rows), "password": PASSWORD, "tenant": tenant.slug}
    answer = client.post("/api/v1/auth/login", json=given)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    client.headers["Authorization"] = f"Bearer {answer.get_json()['access_token']}"
    return True


def _store_contents(client: TenantClient, tenant: SeededTenant, rows: Rows) -> None:
    """Put contents behind the seeded files, which are rows alone."""
    with tenant_scope(tenant.id):
        for file in rows["files"]:
            client.application.extensions["files"].storage.put(object_name(file["id"]), PICTURE, max_bytes=len(PICTURE))


def _email(rows: Rows) -> str:
    """The address of an account that is a member of the tenant."""
    members = {member["account_id"] for member in rows["members"]}
    return str(next(account["email"] for account in rows["accounts"] if account["id"] in members))


def pytest_tenancy_request(endpoint: str, method: str, tenant: SeededTenant, rows: Rows) -> Mapping[str, Any] | None:
    match endpoint, method:
        case "cards.put_image", _:
            return {"content": PICTURE}
        case "configuration.read_setting", _:
            return {"path": {"key": "session.timeout"}}
        case "configuration.change_setting", _:
            return {"path": {"key": "session.timeout"}, "json": {"value": 1_200}}
        case "tenants.claim_domain", _:
            return {"json": {"domain": f"new.{tenant.slug}.example"}}
        case "tenants.slug_availability", _:
            return {"query": {"slug": "somebody-new"}}
        case "members.create_invitation", "POST":
            return {"json": {"email": "new@people.test", "role": "member"}}
        case "auth.switch", _:
            return {"json": {"tenant": tenant.slug}}
        case "auth_pages.sign_in", "POST":
            return {"form": {"email": _email(rows), "password": PASSWORD}}
        case "crm_pages.add_opportunity" | "crm_pages.save_opportunity", "POST":
            company, person = rows["companies"][-1]["id"], rows["people"][-1]["id"]
            whole = {"name": "Engine", "stage": "lead", "amount": "12.50", "currency": "EUR"}
            return {"form": whole | {"company_id": str(company), "person_id": str(person)}}
    return None


def pytest_tenancy_unswept() -> Mapping[str, str]:
    return {
        "member_pages.invitation": "a token names it; tests/app/test_invitation_page.py shows it a foreign one",
        "members.join": "a token names the tenant that is joined; tests/app/test_invitations.py walks it",
        "configuration.clear_setting": "it names a key, which is no row's; tests/app/test_configuration.py clears one",
        "tenants.check_domain": "it asks the public DNS; tests/app/test_domains.py shows it a foreign claim",
        "GET auth_pages.sign_in": "who is signed in is sent on; tests/app/test_sign_in.py reads the page",
        "auth_pages.begin_handover": "a way between two hosts that ends in a redirect; tests/e2e walks it",
        "auth_pages.give_ticket": "part of the same way; the ticket is bound to one tenant and one browser",
        "auth_pages.accept_handover": "part of the same way; without a ticket it only sends to the sign-in page",
    }
