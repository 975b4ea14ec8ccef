"""A small application on the library: what the tests of the Flask extension talk to."""

from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, abort, stream_with_context, url_for
from sqlalchemy import select, text

from tenancy.context import current_tenant
from tenancy.directory import Directory
from tenancy.flask import Tenancy
from tenancy.resolvers import from_custom_domain, from_header, from_path, from_query, from_subdomain
from tests.models import Person


def resolvers() -> list[Any]:
    return [from_subdomain("example.com"), from_custom_domain(), from_path("/t/<slug>"), from_header(), from_query()]


def make_app(sessions: Any, directory: Directory, **options: Any) -> tuple[Flask, Tenancy]:
    """Make the app with the five resolvers that need no key, unless others are given.

    It does not look at its database before the first request: most of these tests have none.
    """
    app = Flask(__name__)
    app.testing = True
    tenancy = Tenancy(
        **({"sessions": sessions, "directory": directory, "resolvers": resolvers(), "startup_check": False} | options)
    )
    tenancy.init_app(app)

    @app.get("/")
    def home() -> dict[str, Any]:
        return {"tenant": tenancy.tenant.slug, "scope": str(current_tenant())}

    @app.post("/")
    def change() -> dict[str, Any]:
        return {"tenant": tenancy.tenant.slug}

    @app.get("/people")
    def people() -> list[str]:
        return list(tenancy.session.scalars(select(Person.name).order_by(Person.name)))

    @app.get("/links")
    def links() -> dict[str, str]:
        return {"people": url_for("people"), "static": url_for("static", filename="a.css")}

    @app.get("/folder/")
    def folder() -> str:
        return "folder"

    @app.get("/stream")
    def stream() -> Response:
        session = tenancy.session

        def lines() -> Iterator[str]:
            yield f"{current_tenant()}\n"
            for name in session.scalars(select(Person.name).order_by(Person.name)):
                yield f"{name} {current_tenant()}\n"

        return Response(lines())

    @app.get("/stream-with-context")
    def stream_in_context() -> Response:
        def lines() -> Iterator[str]:
            for name in tenancy.session.scalars(select(Person.name).order_by(Person.name)):
                yield f"{name} {current_tenant()} {tenancy.tenant.slug}\n"

        return Response(stream_with_context(lines()))

    @app.get("/broken")
    def broken() -> str:
        tenancy.session.scalars(select(Person)).all()
        raise ZeroDivisionError

    @app.get("/sql")
    def sql() -> str:
        tenancy.session.execute(text("SELECT 1 FROM no_such_table WHERE name = 'secret-value'"))
        return ""

    @app.get("/missing")
    def missing() -> str:
        abort(404)

    @app.get("/health")
    @tenancy.exempt("asked by the load balancer, which knows no tenant")
    def health() -> dict[str, Any]:
        return {"scope": current_tenant()}

    @app.get("/health/tenant")
    @tenancy.exempt("shows that an exempt route has no tenant")
    def health_tenant() -> str:
        return tenancy.tenant.slug

    return app, tenancy
