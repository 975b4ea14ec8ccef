"""A tenant's own audit over HTTP."""

from __future__ import annotations

from flask import Blueprint, Response, stream_with_context

from app.audit.chain import verify
from app.audit.entries import record
from app.audit.reading import export_lines, page_of_tenant, refuse_part
from app.audit.schemas import EntryList, EntryQuery, ExportQuery, VerdictAnswer
from app.auth.access import permits
from app.db import session, tenancy
from app.members.permissions import Permission
from app.openapi import answers

blueprint = Blueprint("audit", __name__, url_prefix="/api/v1/audit")


@blueprint.get("")
@permits(Permission.AUDIT_READ)
@answers(200, EntryList, tag="audit")
def list_entries(query: EntryQuery) -> EntryList:
    """List who did what in this tenant, the latest first."""
    return page_of_tenant(session(), query)


@blueprint.get("/verify")
@permits(Permission.AUDIT_READ)
@answers(200, VerdictAnswer, tag="audit")
def verify_chain() -> VerdictAnswer:
    """Check that no entry was changed, removed, inserted or reordered; names the first that was."""
    return VerdictAnswer.of(verify(session()))


@blueprint.get("/export")
@permits(Permission.AUDIT_READ)
@answers(200, None, tag="audit")
def export_entries(query: ExportQuery) -> Response:
    """Send the audit as a file, as it is read.

    `ndjson` is the whole chain with its hashes and head, for checking it elsewhere; `csv` is for people, and takes
    the filters.
    """
    refuse_part(query)
    here = session()
    record(here, "audit.exported", after={"format": query.format})
    here.commit()
    return as_file(export_lines(here, query), name=f"audit-{tenancy().tenant.slug}", kind=query.format)


def as_file(lines: object, *, name: str, kind: str) -> Response:
    """Answer with a file that is sent while it is read; the request's scope stays open until its end."""
    mimetype = "application/x-ndjson" if kind == "ndjson" else "text/csv"
    answer = Response(stream_with_context(lines), mimetype=mimetype)  # type: ignore[call-overload]  # an iterator
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}.{kind}"'
    answer.headers["Cache-Control"] = "no-store"
    return answer
