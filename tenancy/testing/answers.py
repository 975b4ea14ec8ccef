"""Answers to a sweep: compared without what differs in any two of them, and searched for what is the other tenant's."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tenancy.testing.world import SeededTenant, World

_UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.IGNORECASE)
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?"
    r"|[A-Z][a-z]{2}, \d\d[ -][A-Z][a-z]{2}[ -]\d{4} \d\d:\d\d:\d\d GMT"
)
_COOKIE = re.compile(r"\A([^=;]+)=[^;]*")
_TOKEN = re.compile(r"(?=[\w.-]*\d)[\w-]{20,}(?:\.[\w-]+)*", re.ASCII)  # of a form or a session: new each time
_PIECES = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9]")
# What changes with every answer or every second, and what the body's length gives away of an id's.
_IGNORED = frozenset(
    {
        "date",
        "content-length",
        "etag",
        "ratelimit-remaining",
        "ratelimit-reset",
        "server-timing",
        "x-request-id",
        "x-runtime",
    }
)


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP. sent: the ids that were in the request, which the answer may repeat."""

    status: int
    headers: tuple[tuple[str, str], ...]
    text: str
    sent: frozenset[str] = frozenset()

    def plain_headers(self) -> dict[str, str]:
        """Return the headers by lower-case name, with ids, times and tokens replaced by what they are."""
        found: dict[str, str] = {}
        for name, value in self.headers:
            key = name.lower()
            if key not in _IGNORED:
                told = _COOKIE.sub(r"\1=*", value) if key == "set-cookie" else value
                found[key] = f"{found[key]}, {self._plain(told)}" if key in found else self._plain(told)
        return found

    def plain_text(self) -> str:
        """Return the body, with the same replaced."""
        return self._plain(self.text)

    def _plain(self, text: str) -> str:
        for value in sorted(self.sent, key=len, reverse=True):
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(value)}(?![A-Za-z0-9])", "<id>", text)
        return _TOKEN.sub("<token>", _TIME.sub("<time>", _UUID.sub("<id>", text)))


def same_answers(found: Answer, first: Answer, second: Answer) -> str:
    """Return how an answer differs from two to missing rows; "" when it does not.

    What differs between those two, such as a nonce, differs always and tells nothing.
    """
    if found.status != first.status:
        return f"{found.status} instead of {first.status}"
    ours, one, other = (answer.plain_headers() for answer in (found, first, second))
    for name in sorted({*ours, *one, *other}):
        if one.get(name) == other.get(name) != ours.get(name):
            return f"header {name}: {ours.get(name, '')!r} instead of {one.get(name, '')!r}"
    return _difference(*(_PIECES.findall(answer.plain_text()) for answer in (found, first, second)))


def _difference(ours: list[str], one: list[str], other: list[str]) -> str:
    if ours in (one, other):
        return ""
    if not len(ours) == len(one) == len(other):
        place = next((i for i, (a, b) in enumerate(zip(ours, one, strict=False)) if a != b), min(len(ours), len(one)))
        return f"{_around(ours, place)!r} instead of {_around(one, place)!r}, and of another length"
    for place, (here, there, again) in enumerate(zip(ours, one, other, strict=True)):
        if here != there and there == again:
            return f"{_around(ours, place)!r} instead of {_around(one, place)!r}"
    return ""


def _around(pieces: list[str], place: int) -> str:
    return "".join(pieces[max(0, place - 6) : place + 7])


def marks_in(answer: Answer, world: World, owner: SeededTenant, *, besides: Collection[str] = ()) -> str:
    """Name something of the owner's that an answer holds; "" when there is nothing.

    That is its slug, which all its texts carry, its id, and the ids of the rows that only it has.
    besides: values that were sent, and may come back.
    """
    whole = "\n".join([*(f"{name}: {value}" for name, value in answer.headers), answer.text]).lower()
    if owner.slug.lower() in whole and not any(owner.slug.lower() in value.lower() for value in besides):
        return "text"
    wanted = {str(owner.id): "the id", **dict.fromkeys(_own_ids(world, owner), "a row's id")}
    return next((what for value, what in wanted.items() if value not in besides and value in whole), "")


def _own_ids(world: World, owner: SeededTenant) -> Iterable[str]:
    (stranger,) = (tenant for tenant in world.tenants if tenant.id != owner.id)
    for by_tenant in world.rows.values():
        shared = {str(row.get("id")) for row in by_tenant.get(stranger.id, ())}
        for row in by_tenant.get(owner.id, ()):
            value = str(row.get("id"))
            if _UUID.fullmatch(value) and value not in shared:
                yield value
