"""One row for each file a tenant has uploaded, and their sum."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Text, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from tenancy.tables import TenantIndex, TenantTable, limit_grants


@limit_grants(app=("SELECT", "INSERT", "DELETE"), platform=("SELECT", "INSERT", "DELETE"))
class File(TenantTable, Base):
    """A file whose content is in the storage, under the row's id. It is replaced by another, never changed.

    name: what its sender called it; shown, and no part of where it lies. sha256: of the content, in hexadecimal.
    """

    __tablename__ = "files"
    __table_args__ = (TenantIndex("created_at"), CheckConstraint("size_bytes >= 0", name="size_positive"))

    name: Mapped[str] = mapped_column(Text)
    content_type: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class FileTotal(TenantTable, Base):
    """How many bytes a tenant's files have together, kept in the transactions that add and remove them."""

    __tablename__ = "file_totals"
    __table_args__ = (CheckConstraint("size_bytes >= 0", name="size_positive"),)

    # What is summed, in place of an id that counts nothing.
    id: Mapped[str] = mapped_column("kind", Text, primary_key=True)  # type: ignore[assignment]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
