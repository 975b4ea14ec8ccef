"""Requests as a server hands them on, and the resolvers that read them."""

from collections.abc import Iterable
from typing import Any

from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from tenancy.resolvers import (
    from_custom_domain,
    from_header,
    from_path,
    from_query,
    from_subdomain,
)


def request(
    path: str = "/",
    *,
    host: str = "example.com",
    method: str = "GET",
    headers: Iterable[tuple[str, str]] = (),
    **environ: Any,
) -> Request:
    built = EnvironBuilder(path=path, method=method, headers=list(headers)).get_environ()
    return Request(built | {"HTTP_HOST": host} | environ)


def six() -> list[Any]:
    return [
        from_subdomain("example.com"),
        from_custom_domain(),
        from_path("/t/<slug>"),
        from_header(),
        from_query(),
    ]
