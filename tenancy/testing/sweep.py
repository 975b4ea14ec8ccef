"""The sweep: each route is called by one tenant with the other's ids, and must answer as if they did not exist."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tenancy.testing.answers import Answer, marks_in, same_answers
from tenancy.testing.inputs import guessed_bodies, missing_like, own_row, renewed, unique_texts
from tenancy.testing.routes import (
    Body,
    Outcome,
    Route,
    RouteVerdict,
    Target,
    find_targets,
    foreign_keys,
    table_of_route,
)
from tenancy.testing.world import SeededTenant, Snapshot, World


@dataclass(frozen=True)
class Ask:
    """One request: a route, the values of its variable parts, and what it brings along."""

    route: Route
    values: Mapping[str, Any]
    body: Body


Visitor = Callable[[Ask], Answer]  # a client at one tenant's address, signed in there
Visitors = Callable[[], tuple[Visitor, Visitor]]
Bodies = Callable[[Route, SeededTenant], Body | None]


class Sweep:
    """Sweeps routes over a seeded world.

    visitors: makes fresh clients of the two tenants; a sign-in does not outlive `world.restore()`.
    bodies: what the application's tests say a route needs; None leaves it to be guessed from the tables.
    unswept: reasons why routes cannot be called, by endpoint or "METHOD endpoint".
    """

    def __init__(self, world: World, visitors: Visitors, bodies: Bodies, unswept: Mapping[str, str]) -> None:
        self._world = world
        self._visitors = visitors
        self._bodies = bodies
        self._unswept = unswept
        self._keys = foreign_keys(world.metadata)

    def run(self, route: Route) -> RouteVerdict:
        """Call one route as a stranger, then as the owner; the rows are as before afterwards."""
        reason = self._unswept.get(f"{route.method} {route.endpoint}") or self._unswept.get(route.endpoint)
        if reason:
            return RouteVerdict(route, "declared", reason)
        try:
            return self._run_exempt(route) if route.exempt else self._run_for_tenant(route)
        finally:
            self._world.restore()

    def _run_exempt(self, route: Route) -> RouteVerdict:
        if route.method != "GET" or route.parameters:
            return RouteVerdict(route, "exempt", route.exempt)
        call = _Call(self, route, Body(), Body(), {})
        call.as_stranger({})
        return call.verdict or RouteVerdict(route, "exempt", route.exempt, calls=tuple(call.log))

    def _run_for_tenant(self, route: Route) -> RouteVerdict:
        targets = find_targets(route, self._world.metadata)
        weakest: RouteVerdict | None = None
        for ours, theirs in self._pairs(route):
            given = {*ours.path, *theirs.path}
            unknown = [name for name in route.parameters if name not in targets and name not in given]
            if unknown:
                return _not_called(route, f"nothing tells which rows {' and '.join(map(repr, unknown))} stands for")
            self._world.restore()
            call = _Call(self, route, ours, theirs, targets)
            verdict = call.make()
            if verdict.passed and call.has_changed:
                return verdict
            if not verdict.passed and verdict.outcome != "not called":
                return verdict
            # An answer that changed nothing may be a form shown again: another body may do better.
            if weakest is None or (verdict.passed and not weakest.passed):
                weakest = verdict
            if verdict.passed and route.method == "GET":
                return verdict
        return weakest or _not_called(route, "there was nothing to send")

    def _pairs(self, route: Route) -> Iterator[tuple[Body, Body]]:
        """Give what the owner and the stranger send: what the tests say, or one guess after another."""
        owner, stranger = self._world.tenants
        ours, theirs = self._bodies(route, owner), self._bodies(route, stranger)
        if ours is not None and theirs is not None:
            yield ours, theirs
            return
        table = table_of_route(route, self._world.metadata)
        yield from zip(
            guessed_bodies(self._world, route, table, owner),
            guessed_bodies(self._world, route, table, stranger),
            strict=True,
        )


class _Call:
    """The calls of one route with one pair of bodies, and what they showed."""

    def __init__(self, sweep: Sweep, route: Route, ours: Body, theirs: Body, targets: Mapping[str, Target]) -> None:
        self.log: list[str] = []
        self.verdict: RouteVerdict | None = None
        self.has_changed = False
        self._route = route
        self._world = sweep._world
        self._keys = sweep._keys
        self._ours, self._theirs = ours, theirs
        self._owner, self._stranger = self._world.tenants
        self._own = self._values(self._owner, ours, targets)
        self._foreign = self._values(self._stranger, theirs, targets)
        # A value that is the same for both, such as a format, is no id.
        self._ids = [name for name in route.parameters if self._own[name] != self._foreign[name]]
        self._visitors = sweep._visitors
        self._unique = unique_texts(table_of_route(route, self._world.metadata))
        self._begin()

    def _begin(self) -> None:
        self._send_ours, self._send_theirs = self._visitors()
        self._before = self._world.snapshot()

    def _undo(self) -> None:
        """Put the stranger's own rows back: its next call must find what this one did."""
        if self._is_changed(self._stranger):
            self._world.restore()
            self._begin()

    def _values(self, tenant: SeededTenant, body: Body, targets: Mapping[str, Target]) -> dict[str, Any]:
        values: dict[str, Any] = dict(body.path)
        rows: dict[str, Mapping[str, Any]] = {}
        for name in reversed(self._route.parameters):  # the last part is the row itself, those before lead to it
            if name not in values:
                target = targets[name]
                rows[name] = own_row(self._world, target.table, tenant, leading_to=rows.values())
                values[name] = rows[name][target.column]
        return values

    def make(self) -> RouteVerdict:
        for names in self._variants():
            self._compare(names)
        for where, field, theirs in self._references():
            self._compare_body(where, field, theirs)
        if not self._ids:
            self.as_stranger(self._foreign)
        return self.verdict or self._control()

    def _variants(self) -> list[tuple[str, ...]]:
        """Every id foreign at once; and, where there are several, each alone among the stranger's own."""
        if not self._ids:
            return []
        return [tuple(self._ids), *([(name,) for name in self._ids] if len(self._ids) > 1 else [])]

    def _compare(self, names: Sequence[str]) -> None:
        foreign = {**self._foreign, **{name: self._own[name] for name in names}}
        found = self.as_stranger(foreign)
        first, second = (
            self._send(self._send_theirs, self._missing(self._foreign, names), self._theirs) for _ in range(2)
        )
        self._note(self._stranger, self._words(foreign, missing=names), first)
        self._judge(found, first, second, self._words(foreign))

    def _missing(self, values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        return {**values, **{name: missing_like(self._own[name]) for name in names}}

    def _judge(self, found: Answer, first: Answer, second: Answer, words: str) -> None:
        if difference := same_answers(found, first, second):
            self._fail("told apart", f"{words}: a foreign id is answered otherwise than a missing one: {difference}")

    def _note(self, who: SeededTenant, words: str, answer: Answer) -> None:
        self.log.append(f"{who.slug}: {self._route.method} {words} -> {answer.status}")

    def _references(self) -> Iterator[tuple[str, str, Any]]:
        """Give each field that names a row or a tenant, with the owner's value for it."""
        tenants = {self._stranger.slug: self._owner.slug, str(self._stranger.id): str(self._owner.id)}
        for where in ("json", "form", "query"):
            given = getattr(self._theirs, where)
            for field, value in given.items() if isinstance(given, Mapping) else ():
                if (table := self._keys.get(field)) is not None and "id" in table.c:
                    yield where, field, own_row(self._world, table, self._owner)["id"]
                elif str(value) in tenants:
                    yield where, field, tenants[str(value)]

    def _compare_body(self, where: str, field: str, theirs: Any) -> None:
        def body(value: Any) -> Body:
            changed: dict[str, Any] = {where: {**getattr(self._theirs, where), field: str(value)}}
            return replace(self._theirs, **changed)

        words = self._words(self._foreign)
        found = self.as_stranger(self._foreign, f"{words} with {field} of {self._owner.slug}", body(theirs))
        self._undo()
        first, second = (self._send_and_undo(body(missing_like(theirs))) for _ in range(2))
        self._note(self._stranger, f"{words} with a missing {field}", first)
        self._judge(found, first, second, f"{words} with {field} of {self._owner.slug}")

    def _send_and_undo(self, body: Body) -> Answer:
        answer = self._send(self._send_theirs, self._foreign, body)
        self._undo()
        return answer

    def as_stranger(self, values: Mapping[str, Any], words: str = "", body: Body | None = None) -> Answer:
        """Call as the other tenant; whatever comes back, it may hold nothing of the owner's and change nothing."""
        words = words or self._words(values)
        found = self._send(self._send_theirs, values, body or self._theirs)
        self._note(self._stranger, words, found)
        sent = {str(value) for value in values.values()} | _texts(body or self._theirs)
        if mark := marks_in(found, self._world, self._owner, besides=sent):
            self._fail("leaks", f"{words}: the answer to {self._stranger.slug} holds {mark} of {self._owner.slug}")
        if self._is_changed(self._owner):
            self._fail("changes", f"{words}: {self._stranger.slug} changed rows of {self._owner.slug}")
        return found

    def _control(self) -> RouteVerdict:
        """The owner's own call must succeed, or the stranger's refusal proves nothing."""
        if not self._ids:
            # There is no id to be foreign: the stranger's own call is the control.
            status, sender = self._last_status, self._stranger
            is_done, self.has_changed = 200 <= status < 300, self._is_changed(sender)
        else:
            gone = [self._send(self._send_ours, self._missing(self._own, self._ids), self._ours) for _ in range(2)]
            found = self._send(self._send_ours, self._own, self._ours)
            status, sender = found.status, self._owner
            self._note(self._owner, self._words(self._own), found)
            self.has_changed = self._is_changed(sender)
            is_done = 200 <= status < 300 and bool(same_answers(found, *gone))
        if is_done or (200 <= status < 400 and self.has_changed):
            return RouteVerdict(self._route, "refused" if self._ids else "apart", calls=tuple(self.log))
        return _not_called(self._route, self._why_not(status, sender), self.log)

    def _why_not(self, status: int, sender: SeededTenant) -> str:
        if 300 <= status < 400:
            return f"{sender.slug} itself was sent elsewhere ({status}), and nothing changed"
        if 200 <= status < 300:
            return f"{sender.slug} itself is answered as for a missing row"
        return f"{sender.slug} itself is answered {status}"

    def _send(self, send: Visitor, values: Mapping[str, Any], body: Body) -> Answer:
        answer = send(Ask(self._route, values, renewed(body, self._unique)))
        self._last_status = answer.status
        return answer

    def _is_changed(self, tenant: SeededTenant) -> bool:
        return _rows_of(self._before, tenant) != _rows_of(self._world.snapshot(), tenant)

    def _fail(self, outcome: Outcome, detail: str) -> None:
        if self.verdict is None:  # the first is the one to mend first
            self.verdict = RouteVerdict(self._route, outcome, detail=detail, calls=())
        self.verdict = replace(self.verdict, calls=tuple(self.log))

    def _words(self, values: Mapping[str, Any], missing: Sequence[str] = ()) -> str:
        """Return the address in words: whose each id is, or that nobody has it."""
        words = {name: str(value) for name, value in values.items()}
        for name in self._ids:
            words[name] = f"{name} of {self._owner.slug if values[name] == self._own[name] else self._stranger.slug}"
        words |= {name: f"{name} of nobody" for name in missing}
        return re.sub(r"<(?:[^<>]*:)?([^<>:]+)>", lambda part: f"<{words.get(part[1], part[1])}>", self._route.rule)


def _not_called(route: Route, why: str, log: Sequence[str] = ()) -> RouteVerdict:
    hint = "give it what it needs in pytest_tenancy_request, sign in in pytest_tenancy_sign_in, "
    hint += "or declare it with a reason in pytest_tenancy_unswept"
    return RouteVerdict(route, "not called", detail=f"it could not be called: {why}; {hint}", calls=tuple(log))


def _texts(body: Body) -> set[str]:
    """Return the values a body holds, as an answer may repeat them."""
    holders = (body.json, body.form, body.query)
    return {str(value) for holder in holders if isinstance(holder, Mapping) for value in holder.values()}


def _rows_of(snapshot: Snapshot, tenant: SeededTenant) -> dict[str, list[bytes]]:
    """Return the part of a snapshot that bears the tenant's id."""
    mark = str(tenant.id).encode()
    return {table: found for table, lines in snapshot.items() if (found := [x for x in lines if mark in x])}
