"""Readable numbers, such as those of invoices: counted by tenant, from 1, without a gap."""

from __future__ import annotations

from sqlalchemy import BigInteger, Text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from tenancy.tables import TENANT_KEY


class CounterMixin:
    """Columns of the table of counters: `class Counter(CounterMixin, TenantTable, Base)`. An application has one.

    A row is one series of numbers in one tenant.
    """

    id: Mapped[str] = mapped_column("series", Text, primary_key=True)
    last: Mapped[int] = mapped_column(BigInteger)


def next_number(session: Session, counters: type[CounterMixin], series: str) -> int:
    """Return the next number of the tenant's series; a rollback gives it back.

    Who comes second in the same tenant and series waits until the first has committed or rolled back: that is
    the price of numbers without a gap, so take them last in a transaction. A sequence would not wait, but has gaps
    and is shared by all tenants, who could read in it how much the others write.
    """
    first = insert(counters).values(id=series, last=1)
    counted = first.on_conflict_do_update(index_elements=[TENANT_KEY, "series"], set_={"last": counters.last + 1})
    return session.execute(counted.returning(counters.last)).scalar_one()
