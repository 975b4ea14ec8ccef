"""T110: a custom domain is claimed, proven by a TXT record, checked again, and never leads to the wrong tenant."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from flask import Flask

from app.errors import InvalidInputError, ProblemError
from app.members.permissions import Role
from app.tenants.dns import DnsSilentError, SystemTexts
from app.tenants.domains import check_domain, claim_domain, due_domains, normalize_claim
from app.tenants.jobs import check_due_domains
from app.tenants.models import Domain
from app.tenants.operations import suspend
from app.tenants.registrar import EXTENSION, Registrar
from tests.app.conftest import Truth, Visitor, codes, fields
from tests.app.lives import WHY, OwnTexts, as_staff, new_slug, registrar_of, within_a_second


@pytest.fixture
def texts() -> OwnTexts:
    return OwnTexts()


@pytest.fixture
def registrar(app: Flask, texts: OwnTexts) -> Iterator[Registrar]:
    """The application's, which asks the test's own DNS for as long as the test runs."""
    own = registrar_of(app)
    app.extensions[EXTENSION] = replace(own, texts=texts, domain_failures=3)
    yield app.extensions[EXTENSION]
    app.extensions[EXTENSION] = own


@pytest.fixture
def domain() -> str:
    return f"{new_slug('crm')}.example"


def claim(visitor: Visitor, domain: str) -> dict[str, object]:
    response = visitor.post("/api/v1/domains", json={"domain": domain})
    assert response.status_code == 201, response.get_data(as_text=True)
    found: dict[str, object] = response.get_json()
    return found


def check(visitor: Visitor, claimed: dict[str, object]) -> dict[str, object]:
    response = visitor.post(f"/api/v1/domains/{claimed['id']}/check")
    assert response.status_code == 200, response.get_data(as_text=True)
    found: dict[str, object] = response.get_json()
    return found


def prove(texts: OwnTexts, claimed: dict[str, object]) -> None:
    expected = claimed["expected"]
    assert isinstance(expected, dict)
    texts.records[expected["name"]] = ["v=spf1 -all", expected["value"]]


def tenant_at(visitor: Visitor, domain: str) -> int:
    return visitor.get("/api/v1/people", base_url=f"http://{domain}").status_code


def test_claim_waits_and_says_which_record_it_waits_for(registrar: Registrar, acme: Visitor, domain: str) -> None:
    claimed = claim(acme, f" {domain.upper()}. ")

    checked = check(acme, claimed)
    assert (checked["domain"], checked["state"], checked["found"]) == (domain, "waiting", [])
    assert checked["expected"] == {
        "name": f"_tenancy-challenge.{domain}",
        "value": claimed["expected"]["value"],  # type: ignore[index]
    }
    assert tenant_at(acme, domain) in (403, 404)


def test_wrong_value_is_shown_beside_the_expected_one(
    registrar: Registrar, acme: Visitor, texts: OwnTexts, domain: str
) -> None:
    claimed = claim(acme, domain)
    texts.records[f"_tenancy-challenge.{domain}"] = ["tenancy-verification=" + "0" * 32]

    checked = check(acme, claimed)

    assert checked["state"] == "wrong_value"
    assert checked["found"] == ["tenancy-verification=" + "0" * 32]
    assert checked["expected"] == claimed["expected"]
    assert checked["verified_at"] is None


def test_proven_domain_leads_to_its_tenant_and_to_no_other(
    registrar: Registrar, acme: Visitor, globex: Visitor, texts: OwnTexts, domain: str, truth: Truth
) -> None:
    claimed = claim(acme, domain)
    prove(texts, claimed)

    checked = check(acme, claimed)

    assert checked["state"] == "verified"
    assert within_a_second(lambda: tenant_at(acme, domain) == 200)
    assert tenant_at(globex, domain) == 403  # names two tenants
    actions = truth.execute(
        "SELECT action, actor_label FROM audit_entries WHERE tenant_id = %s AND action LIKE 'domain.%%' ORDER BY at",
        [acme.tenant_id],
    ).fetchall()
    assert actions == [("domain.claimed", acme.email), ("domain.verified", acme.email)]


def test_challenge_of_one_tenant_proves_nothing_for_another(
    registrar: Registrar, acme: Visitor, globex: Visitor, texts: OwnTexts, domain: str
) -> None:
    prove(texts, claim(acme, domain))

    theirs = check(globex, claim(globex, domain))

    assert theirs["state"] == "wrong_value"


def test_domain_verified_by_one_tenant_cannot_be_had_and_whose_it_is_is_not_said(
    registrar: Registrar, acme: Visitor, globex: Visitor, texts: OwnTexts, domain: str
) -> None:
    early = claim(globex, domain)
    mine = claim(acme, domain)
    prove(texts, mine)
    check(acme, mine)
    prove(texts, early)

    checked = globex.post(f"/api/v1/domains/{early['id']}/check")
    globex.call("DELETE", f"/api/v1/domains/{early['id']}")
    claimed = globex.post("/api/v1/domains", json={"domain": domain})

    assert codes(checked) == (409, "taken")
    assert codes(claimed) == (409, "taken")
    assert str(acme.tenant_id) not in claimed.get_data(as_text=True)
    assert acme.slug not in claimed.get_data(as_text=True)


def test_same_claim_twice_is_one(registrar: Registrar, acme: Visitor, domain: str) -> None:
    assert claim(acme, domain) == claim(acme, domain)


def test_foreign_claim_is_not_found(
    registrar: Registrar, acme: Visitor, globex: Visitor, texts: OwnTexts, domain: str
) -> None:
    mine = claim(acme, domain)
    assert acme.get(f"/api/v1/domains/{mine['id']}").status_code == 200

    answers = [
        globex.call(method, f"/api/v1/domains/{mine['id']}{tail}")
        for method, tail in [("GET", ""), ("POST", "/check"), ("DELETE", "")]
    ]

    assert [codes(answer) for answer in answers] == [(404, "not_found")] * 3
    assert globex.get("/api/v1/domains").get_json() == {"items": []}
    assert texts.asked == []


def test_domain_given_up_leads_nowhere_and_may_be_had_by_who_proves_it(
    registrar: Registrar, acme: Visitor, globex: Visitor, texts: OwnTexts, domain: str
) -> None:
    mine = claim(acme, domain)
    prove(texts, mine)
    check(acme, mine)
    assert within_a_second(lambda: tenant_at(acme, domain) == 200)

    assert acme.call("DELETE", f"/api/v1/domains/{mine['id']}").status_code == 204
    assert within_a_second(lambda: tenant_at(acme, domain) != 200)
    theirs = claim(globex, domain)
    prove(texts, theirs)

    assert check(globex, theirs)["state"] == "verified"
    assert within_a_second(lambda: tenant_at(globex, domain) == 200)


def test_member_without_the_permission_claims_nothing(
    registrar: Registrar, acme: Visitor, truth: Truth, domain: str
) -> None:
    truth.execute("UPDATE members SET role = %s WHERE tenant_id = %s", [Role.MEMBER, acme.tenant_id])

    assert codes(acme.post("/api/v1/domains", json={"domain": domain})) == (403, "forbidden")


# What no claim can be made to -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "domain",
    [
        "localhost",
        "crm.localhost",
        "acme.internal",
        "printer.local",
        "127.0.0.1",
        "10.1",
        "1.0x7f",
        "[::1]",
        "co.uk",
        "com",
        "github.io",
        "a b.example",
        "straße.example",
        "-acme.example",
        "acme..example",
        "https://acme.example",
        "acme.example:80",
        "*.acme.example",
        "4.3.2.1.in-addr.arpa",
        ("x" * 60 + ".") * 4 + "example",
        "acme.example\n",
    ],
)
def test_what_is_no_domain_of_anybodys_is_refused(acme: Visitor, domain: str) -> None:
    response = acme.post("/api/v1/domains", json={"domain": domain})

    assert codes(response) == (400, "invalid_input")
    assert fields(response) == ["domain"]


@pytest.mark.parametrize("domain", ["app.test", "acme.app.test", "a.b.app.test"])
def test_own_domain_of_the_service_is_nobodys(domain: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot be used") as refused:
        normalize_claim(domain, base_domain="app.test:5000")

    assert "belongs to this service" in refused.value.errors[0].message


def test_domain_in_another_script_is_stored_as_the_dns_spells_it() -> None:
    assert normalize_claim("Bücher.example", base_domain="app.test") == "xn--bcher-kva.example"
    assert normalize_claim("myapp.test", base_domain="app.test") == "myapp.test"


def test_number_of_claims_is_bounded(registrar: Registrar, acme: Visitor) -> None:
    for number in range(20):
        claim(acme, f"{number}.{acme.slug}.example")

    response = acme.post("/api/v1/domains", json={"domain": f"one-more.{acme.slug}.example"})

    assert codes(response) == (400, "invalid_input")


# Checking again ---------------------------------------------------------------------------------------


@pytest.fixture
def verified(registrar: Registrar, acme: Visitor, texts: OwnTexts, domain: str) -> UUID:
    mine = claim(acme, domain)
    prove(texts, mine)
    check(acme, mine)
    return UUID(str(mine["id"]))


def check_again(registrar: Registrar, acme: Visitor, verified: UUID) -> Domain:
    with as_staff():
        return check_domain(registrar, acme.tenant_id, verified)


def test_domain_whose_record_has_gone_is_served_until_it_failed_too_often(
    registrar: Registrar, acme: Visitor, texts: OwnTexts, domain: str, verified: UUID
) -> None:
    texts.records.clear()

    first = check_again(registrar, acme, verified)
    second = check_again(registrar, acme, verified)
    assert (first.state, second.state, second.failures) == ("failing", "failing", 2)
    assert within_a_second(lambda: tenant_at(acme, domain) == 200)
    third = check_again(registrar, acme, verified)

    assert third.state == "lost"
    assert within_a_second(lambda: tenant_at(acme, domain) != 200)


def test_record_that_comes_back_in_time_forgives_the_failures(
    registrar: Registrar, acme: Visitor, texts: OwnTexts, verified: UUID
) -> None:
    kept = dict(texts.records)
    texts.records.clear()
    check_again(registrar, acme, verified)
    texts.records.update(kept)

    found = check_again(registrar, acme, verified)

    assert (found.state, found.failures) == ("verified", 0)


def test_silent_dns_says_nothing_and_changes_nothing(
    registrar: Registrar, acme: Visitor, texts: OwnTexts, domain: str, verified: UUID, truth: Truth
) -> None:
    texts.is_silent = True

    answers = [acme.post(f"/api/v1/domains/{verified}/check") for _ in range(4)]

    assert [codes(answer) for answer in answers] == [(503, "dns_unanswered")] * 4
    row = truth.execute("SELECT failures, verified_at IS NOT NULL FROM domains WHERE id = %s", [verified]).fetchone()
    assert row == (0, True)


def test_lost_domain_may_be_proven_by_another_tenant(
    registrar: Registrar, acme: Visitor, globex: Visitor, texts: OwnTexts, domain: str, verified: UUID
) -> None:
    texts.records.clear()
    for _ in range(3):
        check_again(registrar, acme, verified)

    theirs = claim(globex, domain)
    prove(texts, theirs)

    assert check(globex, theirs)["state"] == "verified"


def test_job_checks_what_is_due_by_the_servers_clock_and_nothing_else(
    registrar: Registrar, acme: Visitor, texts: OwnTexts, domain: str, verified: UUID, truth: Truth
) -> None:
    with as_staff():
        before = (acme.tenant_id, verified) in due_domains(registrar)
    truth.execute("UPDATE domains SET checked_at = now() - interval '25 hours' WHERE id = %s", [verified])
    texts.asked.clear()

    check_due_domains(registrar)

    with as_staff():
        after = (acme.tenant_id, verified) in due_domains(registrar)
    assert (before, after) == (False, False)
    assert f"_tenancy-challenge.{domain}" in texts.asked


def test_settings_say_how_often_and_how_many_failures(make_app: Callable[..., Flask]) -> None:
    registrar = registrar_of(make_app(domain_recheck_h=6, domain_failures=2))

    assert registrar.domain_recheck == timedelta(hours=6)
    assert registrar.domain_failures == 2


def test_domain_of_a_suspended_tenant_leads_strangers_nowhere(
    registrar: Registrar, acme: Visitor, domain: str, verified: UUID
) -> None:
    assert within_a_second(lambda: tenant_at(acme, domain) == 200)

    with as_staff():
        suspend(registrar, acme.tenant_id, reason=WHY)

    assert within_a_second(lambda: acme.client.get("/api/v1/people", base_url=f"http://{domain}").status_code == 404)


def test_claim_of_a_tenant_by_staff_is_bound_by_the_same_rules(registrar: Registrar, acme: Visitor) -> None:
    with as_staff(), pytest.raises(ProblemError):
        claim_domain(registrar, acme.tenant_id, "co.uk")


# A real DNS -------------------------------------------------------------------------------------------


class UdpDns:
    """A name server on this machine that knows a few TXT records, and can be told to fail."""

    def __init__(self, records: dict[str, list[str]], *, code: dns.rcode.Rcode = dns.rcode.NOERROR) -> None:
        self._records = records
        self._code = code
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> UdpDns:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(timeout=5)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, sender = self._socket.recvfrom(4096)
            if not data:
                return
            asked = dns.message.from_wire(data)
            answer = dns.message.make_response(asked)
            answer.flags |= dns.flags.RA
            name = asked.question[0].name
            texts = self._records.get(name.to_text(omit_final_dot=True), [])
            if texts:
                answer.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", *texts))
            answer.set_rcode(self._code if texts or self._code else dns.rcode.NXDOMAIN)
            self._socket.sendto(answer.to_wire(), sender)


def test_records_are_read_whole_and_a_name_that_is_not_there_has_none() -> None:
    with UdpDns({"_x.acme.example": ['"in two" " parts"', '"another"']}) as server:
        texts = SystemTexts(["127.0.0.1"], port=server.port)

        found, none = texts.of("_x.acme.example"), texts.of("_x.globex.example")

    assert sorted(found) == ["another", "in two parts"]
    assert list(none) == []


def test_server_that_fails_is_silence_and_no_answer() -> None:
    with UdpDns({}, code=dns.rcode.SERVFAIL) as server:
        texts = SystemTexts(["127.0.0.1"], port=server.port, lifetime_s=0.5)

        with pytest.raises(DnsSilentError):
            texts.of("_x.acme.example")


def test_server_that_is_not_there_is_silence() -> None:
    with pytest.raises(DnsSilentError):
        SystemTexts(["127.0.0.1"], port=1, lifetime_s=0.3).of("_x.acme.example")
