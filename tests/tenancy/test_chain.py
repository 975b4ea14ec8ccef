"""The chain: all evidence is collected and must agree."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.wrappers import Request

from tenancy.directory import Reference, TenantRecord
from tenancy.errors import (
    ClosedTenantError,
    ConfigurationError,
    ConflictingReferencesError,
    DirectoryError,
    MalformedReferenceError,
    NoTenantError,
    SuspendedTenantError,
    UnknownTenantError,
)
from tenancy.resolvers import (
    Chain,
    Evidence,
    for_single_tenant,
    resolve,
)
from tests.tenancy.directories import ACME, DORMANT, GLOBEX, ListedDirectory, SilentDirectory
from tests.tenancy.requests import request, six


@pytest.fixture
def directory() -> ListedDirectory:
    return ListedDirectory(ACME, GLOBEX, DORMANT, domains={"planning.acme.test": ACME})


LATIN_1 = st.characters(max_codepoint=255)  # as much as a WSGI server hands on


@pytest.mark.parametrize(
    "sent",
    [
        request(host="acme.example.com"),
        request(host="planning.acme.test"),
        request("/t/acme/people"),
        request(headers=[("X-Tenant-ID", str(ACME.id))]),
        request(headers=[("X-Tenant-Slug", "acme")]),
        request("/?tenant=acme"),
        request("/t/acme/?tenant=acme", host="acme.example.com", headers=[("X-Tenant-ID", str(ACME.id))]),
    ],
)
def test_evidence_that_agrees_names_one_tenant(sent: Request, directory: ListedDirectory) -> None:
    assert Chain(six(), directory).resolve(sent).tenant == ACME


@pytest.mark.parametrize("other", ["globex", "dormant", "nobody"])
@pytest.mark.parametrize(
    "sent",
    [
        {"host": "acme.example.com", "path": "/t/{}/people"},
        {"host": "acme.example.com", "path": "/?tenant={}"},
        {"host": "acme.example.com", "headers": [("X-Tenant-Slug", "{}")]},
        {"host": "{}.example.com", "headers": [("X-Tenant-ID", str(ACME.id))]},
        {"host": "planning.acme.test", "path": "/t/{}/"},
        {"path": "/t/acme/?tenant={}"},
        {"path": "/t/{}/", "headers": [("X-Tenant-Slug", "acme")]},
        {"headers": [("X-Tenant-ID", str(ACME.id)), ("X-Tenant-Slug", "{}")]},
        {"path": "/?tenant={}", "headers": [("X-Tenant-ID", str(ACME.id))]},
    ],
)
def test_evidence_for_another_name_is_a_conflict_whether_or_not_the_name_exists(
    sent: dict[str, Any], other: str, directory: ListedDirectory
) -> None:
    """T096"""
    filled = {
        key: value.format(other) if isinstance(value, str) else [(name, text.format(other)) for name, text in value]
        for key, value in sent.items()
    }

    with pytest.raises(ConflictingReferencesError):
        Chain(six(), directory).resolve(request(**filled))


def test_one_request_is_resolved_behind_trusted_proxies(directory: ListedDirectory) -> None:
    behind = request(host="globex.example.com", HTTP_X_FORWARDED_HOST="acme.example.com")

    assert resolve(behind, six(), directory, trusted_proxies=1).tenant == ACME
    assert resolve(behind, six(), directory).tenant == GLOBEX


@pytest.mark.parametrize("host", ["globex.example.com", "planning.acme.test", "anything.test", "127.0.0.1"])
def test_single_tenant_is_served_at_every_host(host: str, directory: ListedDirectory) -> None:
    found = Chain(for_single_tenant("acme", six()), directory).resolve(request(host=host))

    assert found.tenant == ACME
    assert found.trace.evidence == (Evidence("single-tenant setting", Reference("slug", "acme")),)


def test_path_that_names_another_than_the_single_tenant_is_a_conflict(directory: ListedDirectory) -> None:
    with pytest.raises(ConflictingReferencesError):
        resolve(request("/t/globex/"), for_single_tenant("acme", six()), directory)


def test_single_tenant_that_is_no_slug_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError):
        for_single_tenant("Acme", six())


def test_request_that_names_no_tenant_has_none(directory: ListedDirectory) -> None:
    with pytest.raises(NoTenantError):
        resolve(request(), six(), directory)

    assert directory.lookups == 0


def test_unknown_name_is_an_unknown_tenant(directory: ListedDirectory) -> None:
    with pytest.raises(UnknownTenantError):
        resolve(request(host="nobody.example.com"), six(), directory)


def test_suspended_tenant_is_refused_and_named_in_the_trace(directory: ListedDirectory) -> None:
    trace = Chain(six(), directory).explain(request(host="dormant.example.com"))

    assert isinstance(trace.error, SuspendedTenantError)
    assert trace.tenant == DORMANT


@pytest.mark.parametrize("status", ["pending", "archived", "deleting", "deleted", "", "Active", "new"])
def test_tenant_in_any_other_status_is_closed(status: str) -> None:
    tenant = TenantRecord(ACME.id, "acme", "Acme", status)

    with pytest.raises(ClosedTenantError):
        resolve(request(host="acme.example.com"), six(), ListedDirectory(tenant))


def test_malformed_evidence_costs_no_lookup(directory: ListedDirectory) -> None:
    with pytest.raises(MalformedReferenceError):
        resolve(request(host="acme.example.com", headers=[("X-Tenant-ID", "acme")]), six(), directory)

    assert directory.lookups == 0


def test_malformed_evidence_hides_no_other_from_the_trace(directory: ListedDirectory) -> None:
    sent = request("/?tenant=acme", host="acme.example.com", headers=[("X-Tenant-ID", "acme")])

    trace = Chain(six(), directory).explain(sent)

    assert [found.source for found in trace.evidence] == ["subdomain", "query"]
    assert trace.steps == ()


def test_directory_that_cannot_answer_is_no_unknown_tenant() -> None:
    with pytest.raises(DirectoryError):
        resolve(request(host="acme.example.com"), six(), SilentDirectory())


def test_directory_that_cannot_answer_leaves_the_evidence_in_the_trace() -> None:
    trace = Chain(six(), SilentDirectory()).explain(request("/t/acme/", host="acme.example.com"))

    assert [found.source for found in trace.evidence] == ["subdomain", "path"]
    assert trace.steps == ()


def test_trace_tells_what_was_seen_and_what_was_remembered(directory: ListedDirectory) -> None:
    chain = Chain(six(), directory)
    chain.resolve(request(host="acme.example.com"))

    trace = chain.explain(request("/t/globex/", host="acme.example.com"))

    assert [(step.evidence.source, step.memory, step.tenant_id) for step in trace.steps] == [
        ("subdomain", "remembered", ACME.id),
        ("path", "looked up", GLOBEX.id),
    ]
    assert trace.evidence == tuple(step.evidence for step in trace.steps)
    assert isinstance(trace.error, ConflictingReferencesError)
    assert trace.tenant is None


def test_trace_of_a_resolved_request_tells_how(directory: ListedDirectory) -> None:
    trace = Chain(six(), directory).resolve(request(host="acme.example.com")).trace

    assert [(step.memory, step.tenant_id) for step in trace.steps] == [("looked up", ACME.id)]
    assert trace.error is None


def test_chain_with_a_warm_directory_looks_nothing_up(directory: ListedDirectory) -> None:
    chain = Chain(six(), directory)
    chain.resolve(request(host="acme.example.com"))

    chain.resolve(request(host="acme.example.com"))

    assert directory.lookups == 1


def test_function_of_the_application_is_a_resolver(directory: ListedDirectory) -> None:
    """T096"""

    def from_signed_in_session(_request: Any) -> Evidence:
        return Evidence("session", Reference("id", str(GLOBEX.id)))

    with pytest.raises(ConflictingReferencesError, match="subdomain, session"):
        resolve(request(host="acme.example.com"), [*six(), from_signed_in_session], directory)


@given(st.text(LATIN_1, max_size=80), st.text(LATIN_1, max_size=80))
def test_no_host_or_header_ever_fails_in_an_unnamed_way(host: str, header: str) -> None:
    trace = Chain(six(), ListedDirectory(ACME)).explain(
        Request(request().environ | {"HTTP_HOST": host, "HTTP_X_TENANT_SLUG": header, "PATH_INFO": "/t/" + header})
    )

    assert trace.error is not None or trace.tenant == ACME
