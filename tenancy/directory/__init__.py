"""The directory: which tenant a reference names. Cached, and told by the database when a tenant changes."""

from tenancy.directory.answers import Answer, Directory, Reference, TenantRecord
from tenancy.directory.listener import CHANNEL
from tenancy.directory.models import STATUSES, DomainMixin, TenantMixin
from tenancy.directory.sql import SQLDirectory

__all__ = [
    "CHANNEL",
    "STATUSES",
    "Answer",
    "Directory",
    "DomainMixin",
    "Reference",
    "SQLDirectory",
    "TenantMixin",
    "TenantRecord",
]
