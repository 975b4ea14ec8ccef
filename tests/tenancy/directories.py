"""Directories that need no database, and the tenants in them."""

from time import monotonic
from uuid import UUID

from tenancy.directory import Answer, Directory, Reference, TenantRecord
from tenancy.errors import DirectoryError

ACME = TenantRecord(UUID("0197c1a2-0000-7000-8000-00000000000a"), "acme", "Acme", "active")
GLOBEX = TenantRecord(UUID("0197c1a2-0000-7000-8000-00000000000b"), "globex", "Globex", "active")
DORMANT = TenantRecord(UUID("0197c1a2-0000-7000-8000-00000000000c"), "dormant", "Dormant", "suspended")
GONE = TenantRecord(UUID("0197c1a2-0000-7000-8000-00000000000d"), "gone", "Gone", "archived")


class ListedDirectory(Directory):
    """A directory of a few tenants; remembers what was looked up, and counts it."""

    def __init__(self, *tenants: TenantRecord, domains: dict[str, TenantRecord] | None = None) -> None:
        self.tenants = {Reference("slug", t.slug): t for t in tenants}
        self.tenants |= {Reference("id", str(t.id)): t for t in tenants}
        self.tenants |= {Reference("domain", name): t for name, t in (domains or {}).items()}
        self.remembered: dict[Reference, Answer] = {}
        self.lookups = 0

    def peek(self, reference: Reference) -> Answer | None:
        return self.remembered.get(reference)

    def find(self, reference: Reference) -> TenantRecord | None:
        self.lookups += 1
        tenant = self.tenants.get(reference)
        self.remembered[reference] = Answer(tenant, monotonic(), monotonic() + 60)
        return tenant


class SilentDirectory(ListedDirectory):
    def find(self, reference: Reference) -> TenantRecord | None:
        raise DirectoryError("away", hint="wait")
