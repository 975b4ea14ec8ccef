"""Why a request is answered as it is: asked on the command line, or told in a header while developing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from flask import Flask, Response, request
from sqlalchemy.exc import DBAPIError
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from tenancy.directory import TenantRecord
from tenancy.errors import (
    ConflictingReferencesError,
    NoTenantError,
    SuspendedTenantError,
    TenancyError,
    UnsafeConnectionError,
)
from tenancy.flask.problems import NOT_FOUND, SUSPENDED, UNSAFE, Problem, problem_of
from tenancy.flask.startup import StartupCheck
from tenancy.resolvers import Chain, Evidence, Look, Step, Trace, look, printable

ASKED = "tenancy.explain"  # the environ key of a request that wants its explanation instead of an answer
TRACE = "tenancy.trace"  # the environ key under which a trace waits for the development header
TRACE_HEADER = "X-Tenancy-Trace"


class Answer(NamedTuple):
    """What one kind of caller would get. `status` is None where the route decides, `body` where it or Flask does."""

    caller: str
    status: int | None
    vary: str | None
    body: str | None


@dataclass(frozen=True)
class Explanation:
    """What became of one request, up to the route; the route itself is not run.

    looks: one for each resolver. steps: what the directory answered, by evidence. exempt: why the route needs no
    tenant. error: what staff may know of a refusal; `answers` hold what callers are told.
    """

    request: str
    route: str
    exempt: str | None
    looks: tuple[Look, ...]
    steps: tuple[Step, ...]
    tenant: TenantRecord | None
    decision: str
    error: TenancyError | None
    answers: tuple[Answer, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, for JSON; it holds no token and no secret."""
        tenant = self.tenant
        return {
            "request": self.request,
            "route": self.route,
            "exempt": self.exempt,
            "resolvers": [row for each in self.looks for row in self._rows(each)],
            "tenant": tenant and {"id": str(tenant.id), "slug": tenant.slug, "status": tenant.status},
            "decision": self.decision,
            "error": self.error
            and {"kind": type(self.error).__name__, "message": self.error.message, "hint": self.error.hint},
            "answers": [answer._asdict() for answer in self.answers],
        }

    def _rows(self, each: Look) -> list[dict[str, Any]]:
        """One row for each piece of evidence; one as well for a resolver without any."""
        common = {"resolver": each.resolver, "looked_at": each.looked_at, "outcome": each.outcome}
        if not each.evidence:
            refusal = each.refusal and each.refusal.message
            return [common | {"refusal": refusal, "unverified_claims": _plain(each.unverified)}]
        return [common | self._row(found) for found in each.evidence]

    def _row(self, found: Evidence) -> dict[str, Any]:
        step = next((step for step in self.steps if step.evidence == found), None)
        return {
            "source": found.source,
            "reference": f"{found.reference.kind} {found.reference.value}",
            "memory": step and step.memory,
            "tenant": str(step.tenant_id) if step and step.tenant_id else None,
            "claims": _plain(found.claims),
        }


class Explained(BaseException):
    """Ends a request that was only asked about. No Exception: no handler of the application may answer it."""

    def __init__(self, explanation: Explanation) -> None:
        self.explanation = explanation


def explain(app: Flask, environ: dict[str, Any]) -> Explanation:
    """Send a request through the application as far as the decision, and return how that came about.

    No view and no other hook runs but those of teardown; no security event is logged.
    """
    try:
        app.wsgi_app(environ | {ASKED: True}, lambda *_: lambda _: None)
    except Explained as found:
        return found.explanation
    raise AssertionError("a layer in front of the application answered the request")


def end_with_explanation(
    chain: Chain,
    exempt: str | None,
    is_member: Callable[[TenantRecord, Trace], bool] | None,
    render: Callable[[Problem], Response],
    check: StartupCheck,
) -> None:
    """Explain the request that is being served, and end it."""
    looks = tuple(look(resolver, request) for resolver in chain.resolvers)
    trace = Trace((), (), None, None) if exempt is not None else chain.explain(request)
    routing = request.routing_exception
    status = None if routing is None else routing.code
    vary = None if exempt is not None else ", ".join(chain.vary) or None
    error, answers = trace.error, []
    unsafe = _startup_refusal(check) if exempt is None and error is None else None
    if unsafe is not None:
        decision, error = unsafe[0].code, unsafe[1]
        answers = [_rendered("anybody", render(unsafe[0]))]
    elif exempt is not None or error is None:
        decision = "exempt" if exempt is not None else "served"
        answers = [Answer("anybody", status, vary, None)]
    elif routing is not None and isinstance(error, NoTenantError):
        decision, answers = "no_such_route", [Answer("anybody", status, None, None)]
    else:
        decision = decision_on(trace)
        callers = {"anybody": refusal_of(trace, is_member=False)}
        if isinstance(error, SuspendedTenantError) and trace.tenant is not None and is_member is not None:
            sender = "a member" if is_member(trace.tenant, trace) else "a stranger"
            callers = {"a stranger": callers["anybody"], "a member": refusal_of(trace, is_member=True)}
            callers = {f"{name}, as this one is" if name == sender else name: told for name, told in callers.items()}
        answers = [_rendered(caller, render(problem)) for caller, problem in callers.items()]
    raise Explained(
        Explanation(
            f"{request.method} {printable(request.environ.get('SCRIPT_NAME', '') + request.path)}",
            _route(routing),
            exempt,
            looks,
            trace.steps,
            trace.tenant,
            decision,
            error,
            tuple(answers),
        )
    )


def _startup_refusal(check: StartupCheck) -> tuple[Problem, TenancyError | None] | None:
    """Look at the database as the first request for a tenant does; return how that one would be refused."""
    try:
        if not check.has_passed:
            check.run()
    except UnsafeConnectionError as error:
        return UNSAFE, error
    except DBAPIError as error:
        return problem_of(error), None
    return None


def refusal_of(trace: Trace, *, is_member: bool) -> Problem:
    """Return what a caller is told of a trace that ends in an error."""
    match trace.error:
        case None:
            raise AssertionError("a trace has a tenant or an error")
        case NoTenantError():
            return NOT_FOUND
        case SuspendedTenantError() if is_member:
            return SUSPENDED
        case error:
            return problem_of(error)


def decision_on(trace: Trace) -> str:
    """Return the decision in one word: "served", or what kind of error it is."""
    if trace.error is None:
        return "served"
    name = type(trace.error).__name__.removesuffix("Error")
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def trace_line(trace: Trace) -> str:
    """Return the trace in one line of ASCII, for a header. Where evidence disagrees, it gives no reference."""
    is_conflict = isinstance(trace.error, ConflictingReferencesError)
    parts = []
    for index, found in enumerate(trace.evidence):  # the steps are in its order; an error may have cut them short
        memory = f":{trace.steps[index].memory}" if index < len(trace.steps) else ""
        parts.append(f"{found.source}={'?' if is_conflict else found.reference.value}{memory}")
    line = "; ".join([*parts, f"decision={decision_on(trace)}"])
    return re.sub(r"[^ -~]", "?", line)


def _rendered(caller: str, response: Response) -> Answer:
    return Answer(caller, response.status_code, response.headers.get("Vary"), response.get_data(as_text=True).strip())


def _route(routing: HTTPException | None) -> str:
    if routing is None:
        return f"{request.endpoint}: {request.url_rule}"
    if isinstance(routing, MethodNotAllowed):
        return f"405: only {', '.join(sorted(routing.valid_methods or ()))} is allowed here"
    new_url = getattr(routing, "new_url", None)
    return f"{routing.code}: redirects to {printable(new_url)}" if new_url else f"{routing.code}: no such page"


def _plain(claims: Any) -> Any:
    """Return claims as JSON would have them."""
    return claims and {str(name): value if _is_plain(value) else str(value) for name, value in claims.items()}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool | list | dict)
