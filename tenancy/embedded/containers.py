"""PostgreSQL in a Docker container, for machines whose tests use Docker anyway."""

import importlib.util
import secrets
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from tenancy.embedded.cold_start import SETTINGS
from tenancy.embedded.server import ADMIN, Server
from tenancy.errors import ServerError

IMAGE = "postgres:18"
ENGINE_TIMEOUT_S = 2
LOCAL_ENGINE = "unix:///var/run/docker.sock"


def engine_answers() -> bool:
    """Tell whether testcontainers is installed and a Docker engine answers within two seconds."""
    if importlib.util.find_spec("testcontainers") is None:
        return False
    from docker.errors import DockerException
    from testcontainers.core.docker_client import DockerClient, get_docker_host

    if not _accepts(get_docker_host() or LOCAL_ENGINE):
        return False
    try:
        client = DockerClient(timeout=ENGINE_TIMEOUT_S).client
        try:
            return bool(client.ping())
        finally:
            client.close()
    except (DockerException, OSError):
        return False


def start_container(settings: Mapping[str, str] | None) -> Server:
    """Start a server whose data is gone with its container; closing removes both."""
    try:
        from testcontainers.community.postgres import PostgresContainer
    except ImportError as error:
        raise ServerError("testcontainers is missing or older than 4.15", hint="pip install testcontainers") from error
    password = secrets.token_urlsafe(24)
    options = [part for name, value in {**SETTINGS, **(settings or {})}.items() for part in ("-c", f"{name}={value}")]
    try:
        container = PostgresContainer(IMAGE, username=ADMIN, password=password, dbname="postgres", driver="psycopg")
        container.with_command(["postgres", *options]).start()
        url = container.get_connection_url()
    except Exception as error:  # docker, requests and testcontainers share no base class
        raise ServerError(
            f"Docker could not start {IMAGE}: {error}", hint="start Docker, or choose another source"
        ) from error
    return Server(url, release=container.stop)


def _accepts(engine: str) -> bool:
    # The docker package leaks a socket for each engine that is away, so it is asked only where one listens.
    address = urlsplit(engine)
    try:
        if address.scheme in ("unix", "http+unix"):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(ENGINE_TIMEOUT_S)
                probe.connect(address.path)
        elif address.scheme in ("tcp", "http", "https"):
            socket.create_connection((address.hostname, address.port or 2375), ENGINE_TIMEOUT_S).close()
    except (OSError, ValueError):
        return False
    return True
