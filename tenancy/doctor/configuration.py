"""Configuration: what a put-together Flask application would leak or let fail in silence. It is looked at, not run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import Engine

from tenancy.directory import SQLDirectory
from tenancy.doctor.findings import NOT_CHECKED, Finding, Rule, Subject
from tenancy.resolvers import Resolver, from_custom_domain, from_header, from_query

NO_EXTENSION = Rule(
    "TEN501",
    "app-without-tenancy",
    "error",
    "No route of the application asks for a tenant, so each has to remember to.",
)
WEAK_SECRET = Rule(
    "TEN502",
    "weak-secret-key",
    "error",
    "Who guesses the key signs session cookies of anybody, in any tenant.",
)
SHARED_COOKIE = Rule(
    "TEN503",
    "cookie-for-all-hosts",
    "error",
    "A cookie with a domain goes to the hosts of all tenants below it: one tenant's page can read or set another's.",
)
OPEN_COOKIE = Rule(
    "TEN504",
    "cookie-unprotected",
    "warning",
    "The session cookie can be read by scripts, seen on the network, or sent by another site's form.",
)
NAMED_BY_SENDER = Rule(
    "TEN505",
    "tenant-named-by-sender",
    "note",
    "Header and query name a tenant that the sender chose freely; only a membership check stands behind them.",
)
LOOKUP_MISSING = Rule(
    "TEN506",
    "directory-lookup-missing",
    "error",
    "A request that comes by a custom domain fails, and no start-up says so.",
)
LATE_SUSPENSION = Rule(
    "TEN507",
    "late-suspension",
    "warning",
    "While changes are not heard, a suspended tenant goes on being served for that long.",
)
VALUES_LOGGED = Rule(
    "TEN508",
    "values-in-log",
    "warning",
    "Values of tenants' rows go to the log, which more people read than the database, and which no policy guards.",
)
WRONG_LOGIN = Rule(
    "TEN509",
    "wrong-login",
    "error",
    "The sessions of requests connect by a role that may see more than one tenant, or change the policies.",
)
PLAIN_NETWORK = Rule(
    "TEN510",
    "connection-not-encrypted",
    "warning",
    "Rows and the role's password can cross the network in the clear: without sslmode a client takes what is offered.",
)
DEBUG_ON = Rule(
    "TEN511",
    "debug-on",
    "error",
    "An error page in debug mode shows rows, settings and a console to whoever provokes it.",
)
NO_SECRET = Rule(
    "TEN512",
    "secret-key-missing",
    "note",
    "Flask keeps no session without a key, and the first who needs one will be tempted to write it into the code.",
)
RULES = (
    NO_EXTENSION,
    WEAK_SECRET,
    SHARED_COOKIE,
    OPEN_COOKIE,
    NAMED_BY_SENDER,
    LOOKUP_MISSING,
    LATE_SUSPENSION,
    VALUES_LOGGED,
    WRONG_LOGIN,
    PLAIN_NETWORK,
    DEBUG_ON,
    NO_SECRET,
)

_MIN_SECRET_BYTES = 16
_DEFAULTS = ("dev", "secret", "change", "example", "password", "default", "insecure", "test", "your-", "xxx")
_LATEST_S = 5.0
_LOCAL = ("", "localhost", "127.0.0.1", "::1")
_ENCRYPTED = ("require", "verify-ca", "verify-full")
_APP = "app"


def examine_configuration(subject: Subject) -> Iterator[Finding]:
    """Look at the application's settings, extension and engine; opens no connection and shows no value."""
    app: Any = subject.app
    if app is None:
        yield NOT_CHECKED.finding(
            "kind configuration", "no application was given", remedy="pass --app with its factory: shop:create_app"
        )
        if subject.app_engine is not None:
            yield from _engine(subject.app_engine, subject)
        return
    yield from _settings(app.config, is_debug=bool(app.debug), is_testing=bool(app.testing))
    tenancy = app.extensions.get("tenancy")
    if tenancy is None:
        yield NO_EXTENSION.finding(
            _APP, "the application has no Tenancy", remedy="Tenancy(sessions=..., ...).init_app(app) in its factory"
        )
    else:
        yield from _resolvers(tenancy.chain.resolvers, tenancy.chain.directory)
    engine = tenancy.engine_of(app) if tenancy is not None else subject.app_engine
    if engine is not None:
        yield from _engine(engine, subject)


def _settings(config: Mapping[str, Any], *, is_debug: bool, is_testing: bool) -> Iterator[Finding]:
    def set_to(name: str, value: str) -> str:
        return f'app.config["{name}"] = {value}'

    if is_debug:
        yield DEBUG_ON.finding(_APP, "debug mode is on", remedy="start it without --debug, FLASK_DEBUG and debug=True")
    secret = config.get("SECRET_KEY")
    remedy = 'read it from the environment; make one: python -c "import secrets; print(secrets.token_urlsafe(48))"'
    if not secret:
        yield NO_SECRET.finding("setting SECRET_KEY", "there is no secret key", remedy=remedy)
        return  # then there is no session cookie either
    weakness = _weakness(secret)
    if weakness:
        yield WEAK_SECRET.finding("setting SECRET_KEY", weakness, remedy=remedy)
    if config.get("SESSION_COOKIE_DOMAIN"):
        what = "the session cookie is sent to every host below one domain"
        yield SHARED_COOKIE.finding(
            "setting SESSION_COOKIE_DOMAIN", what, remedy=set_to("SESSION_COOKIE_DOMAIN", "None")
        )
    expected: dict[str, tuple[Callable[[Any], bool], str, str]] = {
        "SESSION_COOKIE_SECURE": (bool, "the session cookie is sent without encryption too", "True"),
        "SESSION_COOKIE_HTTPONLY": (bool, "scripts may read the session cookie", "True"),
        "SESSION_COOKIE_SAMESITE": (_is_same_site, "other sites' requests carry the session cookie", '"Lax"'),
    }
    for name, (is_right, what, value) in expected.items():
        if not is_right(config.get(name)) and not (is_testing and name == "SESSION_COOKIE_SECURE"):
            yield OPEN_COOKIE.finding(f"setting {name}", what, remedy=set_to(name, value))


def _is_same_site(value: object) -> bool:
    return str(value).lower() in ("lax", "strict")


def _weakness(secret: object) -> str | None:
    raw = secret if isinstance(secret, bytes) else str(secret).encode()
    if len(raw) < _MIN_SECRET_BYTES:
        return f"the secret key is shorter than {_MIN_SECRET_BYTES} bytes"
    spelled = raw.decode(errors="replace").lower()
    if len(set(raw)) < 8 or spelled.startswith(_DEFAULTS):
        return "the secret key looks like an example"
    return None


def _resolvers(resolvers: tuple[Resolver, ...], directory: object) -> Iterator[Finding]:
    kinds = {type(resolver) for resolver in resolvers}
    for name, one in (("from_header", from_header()), ("from_query", from_query())):
        if type(one) in kinds:
            remedy = f"leave {name}() out in production, or accept it only with a token that names the same tenant"
            yield NAMED_BY_SENDER.finding(f"resolver {name}", "is switched on", remedy=remedy)
    if not isinstance(directory, SQLDirectory):
        return
    if type(from_custom_domain()) in kinds and "tenant_by_domain" not in directory._lookups:
        remedy = "pass the model of domains: SQLDirectory(Tenant, domains=Domain)"
        yield LOOKUP_MISSING.finding(
            "directory", "from_custom_domain is switched on, and no lookup finds a tenant by domain", remedy=remedy
        )
    floor_s = directory._memory.floor_ttl_s
    if floor_s > _LATEST_S:
        remedy = f"leave floor_ttl_s at its default, or at most {_LATEST_S:g}"
        yield LATE_SUSPENSION.finding("directory", f"answers live {floor_s:g} s while nothing is heard", remedy=remedy)


def _engine(engine: Engine, subject: Subject) -> Iterator[Finding]:
    roles = subject.roles
    if engine.echo:
        what = "the engine logs each statement with its values"
        yield VALUES_LOGGED.finding("engine", what, remedy="leave echo out of create_tenant_engine")
    if not engine.hide_parameters:
        what = "errors carry the values of their statement"
        yield VALUES_LOGGED.finding("engine", what, remedy="create_tenant_engine(url, hide_parameters=True)")
    login = engine.url.username or os.environ.get("PGUSER", "")
    if login in (roles.platform, roles.migrator, roles.owner, roles.lookup, roles.backup, "postgres"):
        what = f"the sessions' engine logs in as {login}"
        yield WRONG_LOGIN.finding("engine", what, remedy=f"give it a URL that names {roles.app}")
    host = engine.url.host or str(engine.url.query.get("host", "")) or os.environ.get("PGHOST", "")
    mode = str(engine.url.query.get("sslmode", "") or os.environ.get("PGSSLMODE", ""))
    if host not in _LOCAL and not host.startswith("/") and mode not in _ENCRYPTED:
        what = f"the connection to {host} may be unencrypted"
        yield PLAIN_NETWORK.finding("engine", what, remedy="append ?sslmode=verify-full to the URL")
