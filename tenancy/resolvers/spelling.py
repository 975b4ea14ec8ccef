"""How a slug, a tenant id and a domain are spelled: each in one way, everything else refused."""

from __future__ import annotations

import re
from collections.abc import Iterable
from uuid import UUID

from tenancy.directory import Reference
from tenancy.errors import MalformedReferenceError

RESERVED_SLUGS = frozenset({"admin", "api", "app", "mail", "static", "status", "www"})

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_SLUG = re.compile(r"(?=.{1,63}\Z)(?=.*[a-z])[a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)
_TENANT_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def valid_slug(text: str) -> bool:
    """Tell whether the text is a slug in canonical form: a lower-case DNS label that is no number."""
    return _SLUG.fullmatch(text) is not None


def normalize_slug(text: str, *, reserved: Iterable[str] = RESERVED_SLUGS) -> str:
    """Return the slug a new tenant may have: trimmed and lower-cased.

    Raises: MalformedReferenceError - it is no DNS label of ASCII letters, digits and single inner
    hyphens, is longer than 63, a number, or reserved.
    """
    slug = text.strip(" ")
    if not slug.isascii() or not valid_slug(slug := slug.lower()):
        raise MalformedReferenceError(
            "this is not a slug", hint="use 1 to 63 of a-z, 0-9 and single hyphens inside, with at least one letter"
        )
    if slug in set(reserved):
        raise MalformedReferenceError("this slug is reserved", hint="choose another")
    return slug


def parse_tenant_id(text: str) -> UUID:
    """Return the UUID written as 8-4-4-4-12 hexadecimal digits, in either case, and in no other way."""
    if _TENANT_ID.fullmatch(text) is None:
        raise MalformedReferenceError(
            "this is not a tenant id", hint="write it as a UUID: 8-4-4-4-12 hexadecimal digits, without braces"
        )
    return UUID(text)


def is_host_name(text: str) -> bool:
    """Tell whether the text is a host name in lower-case ASCII, of one label or more."""
    return len(text) <= 253 and _HOST.fullmatch(text) is not None


def normalize_domain(text: str) -> str:
    """Return a domain as a Host header spells it: lower case, ASCII (`xn--`), without a final dot.

    Raises: MalformedReferenceError - it is no DNS name of two labels or more; or it has a letter, such
    as ß, that the two IDNA standards spell differently, so that two owners might be confused.
    """
    domain = text.strip(" ").lower().removesuffix(".")
    try:
        ascii_form = domain if domain.isascii() else domain.encode("idna").decode("ascii")
        is_one_to_one = domain.isascii() or ascii_form.encode("ascii").decode("idna") == domain
    except UnicodeError:
        ascii_form, is_one_to_one = "", False
    if not is_one_to_one or "." not in ascii_form or not is_host_name(ascii_form):
        raise MalformedReferenceError(
            "this is not a domain name", hint="give a name such as planning.example.com, in its xn-- form if need be"
        )
    return ascii_form


def slug_reference(text: str, source: str) -> Reference:
    """Return a reference by the slug found in `source`, or refuse what is found there."""
    if not valid_slug(text):
        raise MalformedReferenceError(
            f"the {source} holds no slug", hint="a slug is 1 to 63 of a-z, 0-9 and single hyphens inside"
        )
    return Reference("slug", text)


def tenant_id_reference(text: str, source: str) -> Reference:
    """Return a reference by the tenant id found in `source`, or refuse what is found there."""
    try:
        return Reference("id", str(parse_tenant_id(text)))
    except MalformedReferenceError as error:
        raise MalformedReferenceError(f"the {source} holds no tenant id", hint=error.hint) from None
