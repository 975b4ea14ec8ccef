"""`tenancy explain` on the real application: its own resolvers, its own error answers, its own proxies."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from flask import Flask
from werkzeug.test import EnvironBuilder

from tests.app.conftest import Truth, Visitor


def explained(app: Flask, url: str, path: str = "/api/v1/people", **headers: str) -> dict[str, Any]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    environ = EnvironBuilder(path, base_url=url, headers=given).get_environ()
    found: dict[str, Any] = app.extensions["tenancy"].explain(app, environ).as_dict()
    return found


def test_request_with_a_token_is_explained_without_it(app: Flask, acme: Visitor) -> None:
    found = explained(app, f"http://{acme.slug}.localhost", Authorization=f"Bearer {acme.access_token}")

    seen = {row["resolver"]: row["outcome"] for row in found["resolvers"]}
    assert seen == {
        "token": "saw",
        "subdomain": "saw",
        "custom domain": "absent",
        "path": "absent",
        "header": "absent",
        "query": "absent",
    }
    assert (found["decision"], found["tenant"]["slug"]) == ("served", acme.slug)
    assert acme.access_token not in json.dumps(found)


def test_refusal_has_the_body_that_the_application_draws(app: Flask, acme: Visitor) -> None:
    found = explained(app, "http://nobody.localhost")
    answer = app.test_client().get("/api/v1/people", base_url="http://nobody.localhost")

    assert (found["decision"], answer.status_code) == ("unknown_tenant", 404)
    assert json.loads(found["answers"][0]["body"]) == answer.get_json()


def test_member_of_a_suspended_tenant_is_known_by_her_token(
    app: Flask, register: Callable[..., Visitor], truth: Truth
) -> None:
    visitor = register("Acme")
    truth.execute("UPDATE tenants SET status = 'suspended' WHERE tenant_id = %s", [visitor.tenant_id])
    app.extensions["auth"].directory._memory.forget_all()

    stranger = explained(app, f"http://{visitor.slug}.localhost")
    member = explained(app, f"http://{visitor.slug}.localhost", Authorization=f"Bearer {visitor.access_token}")

    assert [answer["caller"] for answer in stranger["answers"]] == ["a stranger, as this one is", "a member"]
    assert [answer["caller"] for answer in member["answers"]] == ["a stranger", "a member, as this one is"]
    assert [answer["status"] for answer in member["answers"]] == [404, 403]


def test_host_is_the_one_that_a_trusted_proxy_names(make_app: Callable[..., Flask], acme: Visitor) -> None:
    app = make_app(trusted_proxies=1)

    found = explained(app, "http://proxy.internal", X_Forwarded_Host=f"{acme.slug}.localhost")

    assert (found["decision"], found["tenant"]["slug"]) == ("served", acme.slug)
