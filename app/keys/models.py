"""The data keys that tenants' encrypted values are sealed with, wrapped by a master key."""

from __future__ import annotations

from app.db import Base
from tenancy.encryption import DataKeyMixin
from tenancy.marks import limit_grants
from tenancy.tables import TenantTable


@limit_grants(app=("SELECT", "INSERT"))
class DataKey(DataKeyMixin, TenantTable, Base):
    """One version of one tenant's data key."""

    __tablename__ = "data_keys"
