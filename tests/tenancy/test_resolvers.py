from collections.abc import Iterable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder
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
    ORIGINAL_PATH,
    Chain,
    Evidence,
    PathPrefix,
    for_single_tenant,
    from_custom_domain,
    from_header,
    from_path,
    from_query,
    from_subdomain,
    host_of,
    normalize_domain,
    normalize_slug,
    parse_tenant_id,
    resolve,
    valid_slug,
)
from tests.tenancy.directories import ACME, DORMANT, GLOBEX, ListedDirectory, SilentDirectory


@pytest.fixture
def directory() -> ListedDirectory:
    return ListedDirectory(ACME, GLOBEX, DORMANT, domains={"planning.acme.test": ACME})


def request(
    path: str = "/",
    *,
    host: str = "example.com",
    method: str = "GET",
    headers: Iterable[tuple[str, str]] = (),
    **environ: Any,
) -> Request:
    built = EnvironBuilder(path=path, method=method, headers=list(headers)).get_environ()
    return Request(built | {"HTTP_HOST": host} | environ)


# Hosts


@pytest.mark.parametrize(
    "host",
    ["acme.example.com", "ACME.Example.COM:443", "acme.example.com.", "acme.example.com.:8000", "Acme.example.com"],
)
def test_subdomain_is_found_in_every_spelling_of_the_host(host: str) -> None:
    found = from_subdomain("Example.com.")(request(host=host))

    assert found == Evidence("subdomain", Reference("slug", "acme"))


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "acme.evil.com",
        "acme.notexample.com",
        "acme-example.com",
        "example.com.evil.com",
        "www.example.com",
        "API.example.com",
        "127.0.0.1:8000",
        "[::1]:8000",
        "localhost",
    ],
)
def test_host_outside_the_base_domain_or_reserved_names_no_subdomain(host: str) -> None:
    assert from_subdomain("example.com")(request(host=host)) is None


@pytest.mark.parametrize(
    "host",
    [
        "a.acme.example.com",
        "123.example.com",
        "a--b.example.com",
        "xn--80ak6aa92e.example.com",
        "",
        "@",
        "acme.example.com@evil.com",
        "ac me.example.com",
        "ac_me.example.com",
        "acme\x00.example.com",
        "acme.example.com\n",
        "аcme.example.com",
        "acme..example.com",
        ".example.com",
        "-acme.example.com",
        "acme.example.com:",
        "acme.example.com:port",
        "acme.example.com:123456",
        "a" * 64 + ".example.com",
        "a." * 130 + "example.com",
        "acme.example.com,evil.com",
        "acme.example.com/",
    ],
)
def test_malformed_host_is_refused(host: str) -> None:
    with pytest.raises(MalformedReferenceError):
        from_subdomain("example.com")(request(host=host))


def test_host_name_has_at_most_253_characters() -> None:
    longest = ".".join(["a" * 62] * 4) + ".b"

    assert host_of(request(host=longest), 0) == longest
    with pytest.raises(MalformedReferenceError):
        host_of(request(host=longest + "b"), 0)


def test_request_without_a_host_is_refused() -> None:
    bare = request()
    del bare.environ["HTTP_HOST"]

    with pytest.raises(MalformedReferenceError):
        from_subdomain("example.com")(bare)


def test_development_base_domain_of_one_label_has_subdomains() -> None:
    found = from_subdomain("localhost")(request(host="acme.localhost:8000"))

    assert found == Evidence("subdomain", Reference("slug", "acme"))


def test_reserved_labels_can_be_chosen() -> None:
    assert from_subdomain("example.com", reserved=["acme"])(request(host="acme.example.com")) is None
    assert from_subdomain("example.com", reserved=[])(request(host="www.example.com")) is not None


@pytest.mark.parametrize("base", ["", "exa mple.com", "https://example.com", "example.com:80", "*.example.com"])
def test_base_domain_that_is_no_host_name_is_a_configuration_error(base: str) -> None:
    with pytest.raises(ConfigurationError):
        from_subdomain(base)


@pytest.mark.parametrize("host", ["planning.acme.test", "PLANNING.acme.test.:443"])
def test_custom_domain_is_the_host_itself(host: str) -> None:
    found = from_custom_domain()(request(host=host))

    assert found == Evidence("custom domain", Reference("domain", "planning.acme.test"))


@pytest.mark.parametrize("host", ["10.0.0.1", "10.1", "[::1]", "localhost"])
def test_address_or_single_label_is_no_custom_domain(host: str) -> None:
    assert from_custom_domain()(request(host=host)) is None


@pytest.mark.parametrize("host", ["example.com", "www.example.com", "acme.example.com"])
def test_custom_domain_leaves_the_base_domain_alone(host: str, directory: ListedDirectory) -> None:
    chain = Chain([from_custom_domain(), from_subdomain("example.com")], directory)

    trace = chain.explain(request(host=host))

    assert "custom domain" not in [found.source for found in trace.evidence]


@pytest.mark.parametrize("name", ["HTTP_X_FORWARDED_HOST", "HTTP_FORWARDED", "HTTP_X_HOST", "HTTP_X_ORIGINAL_HOST"])
def test_forwarded_host_is_ignored_without_a_trusted_proxy(name: str, directory: ListedDirectory) -> None:
    chain = Chain([from_subdomain("example.com")], directory)

    found = chain.resolve(request(host="acme.example.com", **{name: "globex.example.com"}))

    assert found.tenant == ACME


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        (1, "globex.example.com, acme.example.com", "acme.example.com"),
        (1, "acme.example.com", "acme.example.com"),
        (2, "evil.example.com, acme.example.com, inner", "acme.example.com"),
        (2, "globex.example.com", "proxy.internal"),
        (1, "", "proxy.internal"),
    ],
)
def test_forwarded_host_of_the_outermost_trusted_proxy_counts(proxies: int, forwarded: str, expected: str) -> None:
    behind = request(host="proxy.internal", HTTP_X_FORWARDED_HOST=forwarded)

    assert host_of(behind, proxies) == expected


def test_chain_hands_its_trusted_proxies_to_the_host_resolvers(directory: ListedDirectory) -> None:
    chain = Chain([from_subdomain("example.com"), from_custom_domain()], directory, trusted_proxies=1)

    found = chain.resolve(request(host="proxy.internal", HTTP_X_FORWARDED_HOST="acme.example.com"))

    assert found.tenant == ACME
    assert chain.vary == ("Host", "X-Forwarded-Host")


# Paths, headers, queries


@pytest.mark.parametrize("path", ["/t/acme", "/t/acme/", "/t/acme/people/7", "/t/acme//t/globex"])
def test_slug_is_read_from_the_path(path: str) -> None:
    found = from_path("/t/<slug>")(request(path))

    assert found == Evidence("path", Reference("slug", "acme"))


@pytest.mark.parametrize("path", ["/", "/t", "/t/", "/t//acme", "/tt/acme", "/people/t/acme"])
def test_path_without_the_pattern_names_no_tenant(path: str) -> None:
    assert from_path("/t/<slug>")(request(path)) is None


@pytest.mark.parametrize("slug", ["ACME", "a b", "..", "a_b", "%00", "acme%0a", "é", "acme,globex"])
def test_malformed_slug_in_the_path_is_refused(slug: str) -> None:
    with pytest.raises(MalformedReferenceError):
        from_path("/t/<slug>")(request(f"/t/{slug}/people"))


def test_moved_path_prefix_is_still_read() -> None:
    moved = request("/people", **{ORIGINAL_PATH: "/t/acme/people"})

    assert from_path("/t/<slug>")(moved) == Evidence("path", Reference("slug", "acme"))


@pytest.mark.parametrize(
    ("path", "prefix"),
    [("/t/acme/people", "/t/acme"), ("/t/acme", "/t/acme"), ("/people", ""), ("/t/", ""), ("/t/ACME/people", "")],
)
def test_prefix_up_to_a_well_formed_slug_belongs_before_the_application(path: str, prefix: str) -> None:
    resolver = from_path("/t/<slug>")
    assert isinstance(resolver, PathPrefix)

    assert resolver.prefix_of(path) == prefix


@pytest.mark.parametrize("pattern", ["", "/", "/t", "t/<slug>", "/<slug>", "/t/<slug>/x", "/t/x<slug>", "/t/<name>"])
def test_path_pattern_that_cannot_be_peeled_is_a_configuration_error(pattern: str) -> None:
    with pytest.raises(ConfigurationError):
        from_path(pattern)


def test_both_headers_are_evidence() -> None:
    sent = request(headers=[("X-Tenant-ID", str(ACME.id).upper()), ("X-Tenant-Slug", "acme")])

    assert from_header()(sent) == [
        Evidence("header X-Tenant-ID", Reference("id", "0197c1a2-0000-7000-8000-00000000000a")),
        Evidence("header X-Tenant-Slug", Reference("slug", "acme")),
    ]


@pytest.mark.parametrize(
    "headers",
    [
        [("X-Tenant-ID", str(ACME.id)), ("X-Tenant-ID", str(ACME.id))],
        [("X-Tenant-ID", f"{ACME.id}, {GLOBEX.id}")],
        [("X-Tenant-ID", f"{ACME.id},{GLOBEX.id}")],
        [("X-Tenant-ID", "")],
        [("X-Tenant-ID", "acme")],
        [("X-Tenant-Slug", "acme"), ("X-Tenant-Slug", "globex")],
        [("X-Tenant-Slug", "acme,globex")],
        [("X-Tenant-Slug", "")],
        [("X-Tenant-Slug", str(ACME.id) + "x" * 60)],
        [("X-Tenant-Slug", "Acme")],
        [("X-Tenant-Slug", "acme' OR 1=1")],
    ],
)
def test_malformed_or_repeated_header_is_refused(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(MalformedReferenceError):
        from_header()(request(headers=headers))


def test_header_names_can_be_chosen() -> None:
    resolver = from_header(slug_header="X-Customer")

    assert resolver(request(headers=[("X-Tenant-Slug", "acme")])) == []
    assert resolver(request(headers=[("X-Customer", "acme")])) == [
        Evidence("header X-Customer", Reference("slug", "acme"))
    ]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_query_names_the_tenant_of_a_read(method: str) -> None:
    found = from_query()(request("/?tenant=acme&page=2", method=method))

    assert found == Evidence("query", Reference("slug", "acme"))


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "QUERY"])
def test_query_never_names_the_tenant_of_a_write(method: str) -> None:
    with pytest.raises(MalformedReferenceError, match="cannot choose the tenant"):
        from_query()(request("/?tenant=acme", method=method))

    assert from_query()(request("/?page=2", method=method)) is None


@pytest.mark.parametrize("query", ["tenant=", "tenant=acme&tenant=acme", "tenant=acme,globex", "tenant=ACME"])
def test_malformed_or_repeated_query_is_refused(query: str) -> None:
    with pytest.raises(MalformedReferenceError):
        from_query()(request(f"/?{query}"))


# Spelling


@pytest.mark.parametrize("text", ["a", "acme", "acme-2", "2acme", "a-b-c", "a" * 63])
def test_slug_of_letters_digits_and_inner_hyphens_is_valid(text: str) -> None:
    assert valid_slug(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "-", "-a", "a-", "a--b", "xn--a", "123", "1-2", "Acme", "a.b", "a_b", "a b", "acme\n", "acme\x00",
        "а" + "cme", "ａｃｍｅ", "é", "a" * 64, "a/b", "'", "ſ", "١a",
    ],
)  # fmt: skip
def test_anything_else_is_no_slug(text: str) -> None:
    assert not valid_slug(text)


def test_new_slug_is_trimmed_and_lowered() -> None:
    assert normalize_slug("  Acme-2 ") == "acme-2"


@pytest.mark.parametrize(
    "text", ["www", "Admin", "api", "acme\n", "\u212aelvin", "xn--acme", "a--b", "42", "a" * 64, "", "acme corp"]
)
def test_new_slug_that_is_reserved_or_no_slug_is_refused(text: str) -> None:
    with pytest.raises(MalformedReferenceError):
        normalize_slug(text)


@given(st.text())
def test_normalized_slug_is_valid_and_stays_as_it_is(text: str) -> None:
    try:
        slug = normalize_slug(text, reserved=())
    except MalformedReferenceError:
        return

    assert valid_slug(slug)
    assert normalize_slug(slug, reserved=()) == slug


@pytest.mark.parametrize("text", ["0197C1A2-0000-7000-8000-00000000000A", "0197c1a2-0000-7000-8000-00000000000a"])
def test_tenant_id_is_read_in_either_case(text: str) -> None:
    assert parse_tenant_id(text) == UUID("0197c1a2-0000-7000-8000-00000000000a")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{0197c1a2-0000-7000-8000-00000000000a}",
        "urn:uuid:0197c1a2-0000-7000-8000-00000000000a",
        "0197c1a2000070008000000000000000",
        "0197c1a2-0000-7000-8000-00000000000a\n",
        " 0197c1a2-0000-7000-8000-00000000000a",
        "0197c1a2-0000-7000-8000-00000000000a\x00",
        "0197c1a2-0000-7000-8000-00000000000g",
        "0197c1a2-0000-7000-8000-00000000000a'--",
        "0197c1a2-0000-7000-8000-00000000000a,0197c1a2-0000-7000-8000-00000000000b",
        "0197c1a-20000-7000-8000-00000000000a",
        "٠197c1a2-0000-7000-8000-00000000000a",
        "[]",
    ],
)
def test_any_other_spelling_of_a_tenant_id_is_refused(text: str) -> None:
    with pytest.raises(MalformedReferenceError):
        parse_tenant_id(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Planning.Acme.com.", "planning.acme.com"),
        (" Xavier.example ", "xavier.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_domain_is_spelled_as_a_host_header_spells_it(text: str, expected: str) -> None:
    assert normalize_domain(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "straße.example", "a..b", "-a.example", "a_b.example", "a b.example", "http://a.example",
     "a.example:80", "*.example.com", "a" * 64 + ".example", "ü" * 70 + ".example", "acme.example\n"],
)  # fmt: skip
def test_text_that_is_no_unambiguous_domain_is_refused(text: str) -> None:
    with pytest.raises(MalformedReferenceError):
        normalize_domain(text)


# The chain

LATIN_1 = st.characters(max_codepoint=255)  # as much as a WSGI server hands on


def six() -> list[Any]:
    return [
        from_subdomain("example.com"),
        from_custom_domain(),
        from_path("/t/<slug>"),
        from_header(),
        from_query(),
    ]


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


def test_directory_that_cannot_answer_is_no_unknown_tenant() -> None:
    with pytest.raises(DirectoryError):
        resolve(request(host="acme.example.com"), six(), SilentDirectory())


def test_trace_tells_what_was_seen_and_what_was_remembered(directory: ListedDirectory) -> None:
    chain = Chain(six(), directory)
    chain.resolve(request(host="acme.example.com"))

    trace = chain.explain(request("/t/globex/", host="acme.example.com"))

    assert [(step.evidence.source, step.memory, step.tenant_id) for step in trace.steps] == [
        ("subdomain", "remembered", ACME.id),
        ("path", "looked up", GLOBEX.id),
    ]
    assert isinstance(trace.error, ConflictingReferencesError)
    assert trace.tenant is None


def test_chain_with_a_warm_directory_looks_nothing_up(directory: ListedDirectory) -> None:
    chain = Chain(six(), directory)
    chain.resolve(request(host="acme.example.com"))

    chain.resolve(request(host="acme.example.com"))

    assert directory.lookups == 1


def test_function_of_the_application_is_a_resolver(directory: ListedDirectory) -> None:
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
