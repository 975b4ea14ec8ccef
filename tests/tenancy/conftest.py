"""People in two tenants, for the tests of the driver."""

from collections.abc import Callable
from uuid import UUID

import pytest

from tests.conftest import ROLES, Database, SomeTenant


@pytest.fixture
def people_url(database: Database, acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]) -> str:
    """The app role's URL of a database in which Ada is in acme and Eve in globex."""
    person_of(acme, "Ada")
    person_of(globex, "Eve")
    return database.url(ROLES.app)
