"""Where a request names its tenant: host, path, header, query."""

from typing import Any

import pytest

from tenancy.directory import Reference
from tenancy.errors import (
    ConfigurationError,
    MalformedReferenceError,
)
from tenancy.resolvers import (
    ORIGINAL_PATH,
    Chain,
    Evidence,
    PathPrefix,
    from_custom_domain,
    from_header,
    from_path,
    from_query,
    from_subdomain,
    host_of,
)
from tests.tenancy.directories import ACME, DORMANT, GLOBEX, ListedDirectory
from tests.tenancy.requests import request


@pytest.fixture
def directory() -> ListedDirectory:
    return ListedDirectory(ACME, GLOBEX, DORMANT, domains={"planning.acme.test": ACME})


# Hosts


@pytest.mark.parametrize(
    "host",
    ["acme.example.com", "ACME.Example.COM:443", "acme.example.com.", "acme.example.com.:8000", "Acme.example.com"],
)
def test_subdomain_is_found_in_every_spelling_of_the_host(host: str) -> None:
    """T093"""
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
    """T093"""
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
    """T093, T094"""
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


@pytest.mark.parametrize("host", ["10.0.0.1", "10.1", "[::1]", "[::1.a]", "localhost"])
def test_address_or_single_label_is_no_custom_domain(host: str) -> None:
    assert from_custom_domain()(request(host=host)) is None


@pytest.mark.parametrize("host", ["example.com", "www.example.com", "acme.example.com"])
def test_custom_domain_leaves_the_base_domain_alone(host: str, directory: ListedDirectory) -> None:
    chain = Chain([from_custom_domain(), from_subdomain("example.com")], directory)

    trace = chain.explain(request(host=host))

    assert "custom domain" not in [found.source for found in trace.evidence]


@pytest.mark.parametrize("name", ["HTTP_X_FORWARDED_HOST", "HTTP_FORWARDED", "HTTP_X_HOST", "HTTP_X_ORIGINAL_HOST"])
def test_forwarded_host_is_ignored_without_a_trusted_proxy(name: str, directory: ListedDirectory) -> None:
    """T095"""
    chain = Chain([from_subdomain("example.com")], directory)

    found = chain.resolve(request(host="acme.example.com", **{name: "globex.example.com"}))

    assert found.tenant == ACME


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        (1, "globex.example.com, acme.example.com", "acme.example.com"),
        (1, "acme.example.com", "acme.example.com"),
        (2, "evil.example.com, acme.example.com, inner", "acme.example.com"),
        (1, "acme.example.com, Xavier.example.com ", "xavier.example.com"),
        (2, "globex.example.com", "proxy.internal"),
        (1, "", "proxy.internal"),
    ],
)
def test_forwarded_host_of_the_outermost_trusted_proxy_counts(proxies: int, forwarded: str, expected: str) -> None:
    """T095"""
    behind = request(host="proxy.internal", HTTP_X_FORWARDED_HOST=forwarded)

    assert host_of(behind, proxies) == expected


def test_host_itself_counts_where_the_trusted_proxy_forwards_none() -> None:
    assert host_of(request(host="acme.example.com"), 1) == "acme.example.com"


def test_forwarded_host_with_a_tab_is_refused() -> None:
    with pytest.raises(MalformedReferenceError):
        host_of(request(HTTP_X_FORWARDED_HOST="acme.example.com\t"), 1)


def test_chain_without_a_trusted_proxy_does_not_vary_by_it(directory: ListedDirectory) -> None:
    assert Chain([from_subdomain("example.com"), from_custom_domain()], directory).vary == ("Host",)


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


def test_path_pattern_may_end_in_a_slash() -> None:
    assert from_path("/t/<slug>/") == from_path("/t/<slug>")


@pytest.mark.parametrize(
    "pattern",
    ["", "/", "/t", "t/<slug>", "/<slug>", "/t/<slug>/x", "/t/<slug>X", "/t/x<slug>", "/t/<name>", "/t/<slug>/<slug>"],
)
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
    """T097"""
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
    """T097"""
    with pytest.raises(MalformedReferenceError, match="cannot choose the tenant"):
        from_query()(request("/?tenant=acme", method=method))

    assert from_query()(request("/?page=2", method=method)) is None


@pytest.mark.parametrize("query", ["tenant=", "tenant=acme&tenant=acme", "tenant=acme,globex", "tenant=ACME"])
def test_malformed_or_repeated_query_is_refused(query: str) -> None:
    """T097"""
    with pytest.raises(MalformedReferenceError):
        from_query()(request(f"/?{query}"))


@pytest.mark.parametrize(
    ("resolver", "sent", "found"),
    [
        (from_subdomain("example.com"), {"host": "a--b.example.com"}, "the host name holds no slug"),
        (from_path("/t/<slug>"), {"path": "/t/ACME"}, "the path holds no slug"),
        (from_header(), {"headers": [("X-Tenant-ID", "acme")]}, "the header X-Tenant-ID holds no tenant id"),
        (from_header(), {"headers": [("X-Tenant-Slug", "ACME")]}, "the header X-Tenant-Slug holds no slug"),
        (from_header(), {"headers": [("X-Tenant-Slug", "a,b")]}, "the header X-Tenant-Slug is given more than once"),
        (from_query(), {"path": "/?tenant=ACME"}, "the query parameter 'tenant' holds no slug"),
        (from_query(), {"path": "/?tenant=a&tenant=b"}, "the query parameter 'tenant' is given more than once"),
    ],
)
def test_refusal_names_what_it_was_found_in(resolver: Any, sent: dict[str, Any], found: str) -> None:
    with pytest.raises(MalformedReferenceError) as refused:
        resolver(request(**sent))

    assert refused.value.message == found
