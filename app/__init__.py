"""The application: a small CRM that serves many tenants from one database."""

from __future__ import annotations

from uuid import UUID

from flask import Flask
from sqlalchemy.orm import Session
from werkzeug.middleware.proxy_fix import ProxyFix

from app import caches, http, mail, openapi, pages
from app.admin import routes as admin_routes
from app.admin import stats
from app.audit import jobs as audit_jobs
from app.audit import requests, security
from app.audit import routes as audit_routes
from app.auth import access, cookies, guard
from app.auth import routes as auth_routes
from app.auth.desk import EXTENSION, Desk, open_desk
from app.cards import routes as cards_routes
from app.cli.commands import COMMANDS
from app.config import ResolverName, Settings, read_settings
from app.configuration import routes as configuration_routes
from app.crm import routes as crm_routes
from app.db import Database, open_database
from app.erasers import erasers_of
from app.files import storage
from app.impersonation import limits as impersonation_limits
from app.impersonation import routes as impersonation_routes
from app.jobs import TASKS
from app.keys import masters
from app.limits import calls, rates, sign_ins
from app.members import invitations, owners
from app.members import routes as member_routes
from app.observability import health, logs, metrics, statements, traces
from app.observability import routes as observability_routes
from app.plans import changes, features, standing
from app.plans import routes as plan_routes
from app.queue import asking
from app.seed import fill_with_examples
from app.tenants import routes as tenants_routes
from app.tenants.models import Domain, Tenant
from app.tenants.registrar import EXTENSION as REGISTRAR
from app.tenants.registrar import Hooks, open_registrar
from app.tenants.states import Status
from app.usage import holdings, meters
from app.usage import jobs as usage_jobs
from app.usage import routes as usage_routes
from tenancy.directory import SQLDirectory, TenantRecord
from tenancy.flask import Tenancy
from tenancy.resolvers import (
    Resolver,
    Trace,
    from_custom_domain,
    from_header,
    from_path,
    from_query,
    from_subdomain,
)

__all__ = ["create_app"]


def create_app(settings: Settings | None = None) -> Flask:
    """Put the application together; nothing connects to the database before the first request.

    settings: None reads them from the environment.
    Raises: SettingsError - the environment is incomplete; it names every variable at fault.
    """
    settings = settings or read_settings()
    app = Flask(__name__)
    logs.init_app(app, settings)
    requests.init_app(app)
    mail.init_app(app, settings)
    invitations.init_app(app, settings)
    impersonation_limits.init_app(app, settings)
    database = open_database(settings)
    statements.init_app(settings, database)
    security.init_app(app, database)
    audit_jobs.init_app(app, settings)
    masters.init_app(app, settings, database)
    directory = SQLDirectory(Tenant, domains=Domain, listen_url=_listen_url(settings))
    directory.bind(database.engine)
    asking.init_app(app, settings, database, directory, TASKS)
    registrar = open_registrar(settings, database, directory, hooks=_hooks(app, settings, database))
    app.extensions[REGISTRAR] = registrar
    standings = standing.init_app(app, directory)
    desk = open_desk(settings, database, directory, registrar, standings)
    app.extensions[EXTENSION] = desk
    features.init_app(app)
    changes.init_app(app)
    holdings.init_app(app)
    meters.init_app(app, settings, database)
    usage_jobs.init_app(app, settings)

    caches.init_app(app, settings)
    storage.init_app(app, settings)
    health.init_app(app, settings, database, directory)
    metrics.init_app(app, settings, database, directory, keyring=masters.keyring(app), standings=standings)

    tenancy = _tenancy(settings, database, directory, desk)
    traces.init_app(app, settings, tenancy, database)
    tenancy.init_app(app)
    http.init_app(app, settings)
    logins = cookies.init_app(app, settings)
    guard.init_app(app, logins)
    sign_ins.init_app(app, settings)
    calls.init_app(app, rates.init_app(app, settings, database))
    stats.init_app(app, settings)
    for command in COMMANDS:
        app.cli.add_command(command)
    for blueprint in (
        auth_routes.blueprint,
        member_routes.blueprint,
        audit_routes.blueprint,
        impersonation_routes.blueprint,
        admin_routes.blueprint,
        plan_routes.blueprint,
        usage_routes.blueprint,
        configuration_routes.blueprint,
        crm_routes.blueprint,
        cards_routes.blueprint,
        tenants_routes.blueprint,
        openapi.blueprint,
        observability_routes.blueprint,
    ):
        app.register_blueprint(blueprint)
    pages.init_app(app, settings, logins)
    _apply_exemptions(app, tenancy)
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        # Flask's own way to wrap an application, which its types call assigning to a method.
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    return app


def close_app(app: Flask) -> None:
    """Stop the directory's listener and close the connections; for tests and for the end of a program."""
    security.close_app(app)
    health.close_app(app)
    traces.close_app(app)
    desk: Desk = app.extensions[EXTENSION]
    calls.close_app(app, desk.database)
    meters.close_app(app)
    if isinstance(desk.directory, SQLDirectory):
        desk.directory.close()
    desk.database.close()


def _hooks(app: Flask, settings: Settings, database: Database) -> Hooks:
    """Say what the packages do at the turns of a tenant's life."""
    queue: asking.Queue = app.extensions[asking.EXTENSION]

    def resume_jobs(session: Session, tenant_id: UUID, to: str) -> None:
        if to == Status.ACTIVE:
            asking.resume_parked(session, tenant_id, carrier=queue.carrier)

    return Hooks(
        seeds=(fill_with_examples,),
        listeners=(resume_jobs,),
        invite_owner=owners.owner_inviter(settings),
        erasers=erasers_of(app, database),
    )


def _listen_url(settings: Settings) -> str | None:
    return settings.listen_database_url.get_secret_value() if settings.listen_database_url else None


def _tenancy(settings: Settings, database: Database, directory: SQLDirectory, desk: Desk) -> Tenancy:
    known: dict[ResolverName, Resolver] = {
        "jwt": desk.access_tokens.resolver,
        "subdomain": from_subdomain(settings.base_domain),
        "custom_domain": from_custom_domain(),
        "path": from_path("/t/<slug>"),
        "header": from_header(),
        "query": from_query(),
    }
    return Tenancy(
        sessions=database.sessions,
        directory=directory,
        resolvers=[known[name] for name in settings.resolvers],
        single_tenant=settings.single_tenant,
        trusted_proxies=settings.trusted_proxies,
        is_member=_may_know_of,
        render=http.render_tenancy_problem,
    )


def _may_know_of(tenant: TenantRecord, trace: Trace) -> bool:
    """Tell whether a request to a suspended tenant comes from one of its members, by her token or her cookie."""
    return trace.claims is not None or cookies.names_tenant(tenant.id)


def _apply_exemptions(app: Flask, tenancy: Tenancy) -> None:
    """Exempt from the extension what is marked as needing no tenant; refuse a route that bears no mark."""
    access.without_tenant(reason="files that are the same for everyone")(app.view_functions["static"])
    for endpoint, wanted in access.check_routes(app).items():
        if not wanted.needs_tenant:
            tenancy.exempt(wanted.reason)(app.view_functions[endpoint])
