"""The API's description: OpenAPI 3.1 from the routes, and a viewer that needs no network."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, render_template_string, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel
from spectree import Response as Responses
from spectree import SecurityScheme, SpecTree
from spectree.models import SecureType, SecuritySchemeData

from app.auth.access import without_tenant
from app.errors import Problem
from app.http import gives_a_file, refuse_invalid, takes_a_file

STAFF = "staff"  # the security scheme of the admin API
VIEWER = "swagger-ui-dist@5.35.0"
_ADMIN = "/api/v1/admin/"
_PICTURE: dict[str, Any] = {"image/*": {}}  # OpenAPI 3.1: bytes have no schema
_PROBLEM_REF = "#/components/schemas/Problem"
_REFUSALS = {
    "400": "A field cannot be used.",
    "401": "Nobody is signed in.",
    "403": "The role does not reach this far, or the request names two tenants.",
    "404": "No such row, or no such tenant.",
    "409": "A value that must be unique is in use.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "429": "The tenant has as much work under way as it may; Retry-After says when to come again.",
}
_REPEATED = {"422": "The Idempotency-Key was used for another request."}
_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Any text of your own. A repetition within 24 hours is answered as the first time, not done again.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200},
}


blueprint = Blueprint("openapi", __name__, url_prefix="/api")


def _name(model: type[BaseModel]) -> str:
    return model.__name__


api = SpecTree(
    "flask",
    title="CRM",
    version="1.0.0",
    description="Every request acts for one tenant, named by its address, a header or the token.",
    openapi_version="3.1.0",
    mode="strict",
    annotations=True,
    before=refuse_invalid,
    validation_error_status=400,
    validation_error_model=Problem,
    naming_strategy=_name,
    nested_naming_strategy=lambda _parent, child: child,
    security_schemes=[
        SecurityScheme(
            name="bearer", data=SecuritySchemeData(type=SecureType.HTTP, scheme="bearer", bearer_format="JWT")
        ),
        SecurityScheme(
            name=STAFF,
            data=SecuritySchemeData(
                type=SecureType.HTTP,
                scheme="bearer",
                description="A token of platform staff, or an API key of theirs; good on `/api/v1/admin` only.",
            ),
        ),
    ],
)


def answers(
    status: int, model: type[BaseModel] | None, *, tag: str, needs_token: bool = True
) -> Callable[[Callable[..., object]], Callable[..., ResponseReturnValue]]:
    """Check a request against the annotations of its route, and describe it with the answer of its success.

    model: None for an answer without a body. The refusals are the same for all and added to the document.
    """
    responses = Responses(**{f"HTTP_{status}": model}) if model else Responses(f"HTTP_{status}")
    return api.validate(resp=responses, tags=[tag], security=None if needs_token else {})


def document() -> dict[str, Any]:
    """Return the OpenAPI document of the current application."""
    found: dict[str, Any] = deepcopy(api.spec)
    found["servers"] = [{"url": request.script_root or "/"}]  # below /t/<slug> the routes are, too
    for path, methods in found["paths"].items():
        is_admin = path.startswith(_ADMIN)
        for method, operation in methods.items():
            operation.setdefault("security", [{STAFF if is_admin else "bearer": []}])
            is_repeatable = is_admin and method == "post" and operation["security"] != []
            if is_repeatable:
                operation["parameters"].append(_IDEMPOTENCY)
            for status, description in (_REFUSALS | (_REPEATED if is_repeatable else {})).items():
                operation["responses"][status] = {
                    "description": description,
                    "content": {"application/problem+json": {"schema": {"$ref": _PROBLEM_REF}}},
                }
    _describe_files(found["paths"])
    return found


def _describe_files(paths: dict[str, Any]) -> None:
    """Say which routes take or give a picture: no model describes bytes."""
    for rule in current_app.url_map.iter_rules():
        view = current_app.view_functions[rule.endpoint]
        operations = paths.get(re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), {})
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            if takes_a_file(view):
                operations[method.lower()]["requestBody"] = {"required": True, "content": deepcopy(_PICTURE)}
            if gives_a_file(view):
                answers_of = operations[method.lower()]["responses"]
                answers_of["200"]["content"] = deepcopy(_PICTURE)
                answers_of["304"] = {"description": "The caller's copy, named by If-None-Match, is still good."}


_VIEWER_PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>API</title>
  <link rel="icon" href="{{ url_for('static', filename='favicon.svg') }}">
  <link rel="stylesheet" href="{{ url_for('static', filename=vendor ~ '/swagger-ui.css') }}">
</head>
<body>
  <div id="viewer" data-url="{{ url_for('openapi.describe') }}"></div>
  <script src="{{ url_for('static', filename=vendor ~ '/swagger-ui-bundle.js') }}"></script>
  <script src="{{ url_for('static', filename='api-docs.js') }}"></script>
</body>
</html>
"""


@blueprint.get("/openapi.json")
@without_tenant(reason="the description is the same for everyone")
def describe() -> Response:
    """Answer the OpenAPI document."""
    return jsonify(document())


@blueprint.get("/docs")
@without_tenant(reason="the description is the same for everyone")
def view() -> str:
    """Show the document in a viewer that is served from here."""
    return render_template_string(_VIEWER_PAGE, vendor=f"vendor/{VIEWER}")
