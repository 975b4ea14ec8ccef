"""The hooks by which an application's tests help the generated suite; write them in a `conftest.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sqlalchemy import Table

    from tenancy.pytest_plugin.clients import TenantClient
    from tenancy.testing.world import SeededTenant

    Rows = Mapping[str, Sequence[Mapping[str, Any]]]


@pytest.hookspec(firstresult=True)
def pytest_tenancy_row(table: Table, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Give values for a seeded row, where those guessed from the column types break one of your constraints.

    values: the guess. Returns: values that replace or add to it; None when the guess is fine.
    """


@pytest.hookspec(firstresult=True)
def pytest_tenancy_sign_in(client: TenantClient, tenant: SeededTenant, rows: Rows) -> bool | None:
    """Sign a client in as a member of the tenant; it is addressed at the tenant already.

    Called for every fresh client: what a sign-in wrote is gone when the rows are restored. A header for every
    request goes into `client.headers`. rows: the tenant's seeded rows, by table. Returns: True once signed in.
    """


@pytest.hookspec(firstresult=True)
def pytest_tenancy_request(endpoint: str, method: str, tenant: SeededTenant, rows: Rows) -> Mapping[str, Any] | None:
    """Say what a route wants to be sent by this tenant; asked for both tenants.

    rows: the tenant's seeded rows, by table. Returns: any of `json`, `form`, `content` (bytes), `query`, and
    `path` (values of parts of the address that name no row); None leaves it to be guessed from the tables.
    """


def pytest_tenancy_unswept() -> Mapping[str, str]:  # type: ignore[empty-body]  # a specification
    """Name routes that cannot be called automatically, each with the reason, which the evidence shows.

    Returns: reasons by endpoint, or by "METHOD endpoint".
    """
