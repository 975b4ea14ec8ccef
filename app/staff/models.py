"""Platform staff: their accounts, sign-ins, API keys, one-time links, and the answers kept for repeated requests."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, ForeignKey, LargeBinary, Text, UniqueConstraint, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Timestamped, one_of
from app.staff.permissions import StaffRole
from tenancy.lookups import Lookup, declare_lookup
from tenancy.marks import staff_table
from tenancy.tables import new_id


class LinkPurpose(StrEnum):
    """What a one-time link may be used for."""

    FIRST_OWNER = "first_owner"
    SET_PASSWORD = "set_password"  # noqa: S105 - the name of a purpose


@staff_table(reason="people who run the service, apart from every tenant's accounts")
class StaffAccount(Timestamped, Base):
    """One person of the staff. `password_hash` is None until she has used the link that sets it."""

    __tablename__ = "staff_accounts"
    __table_args__ = (one_of("role", StaffRole),)

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=new_id)
    email: Mapped[str] = mapped_column(Text, unique=True)
    password_hash: Mapped[str | None] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    disabled_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


@staff_table(reason="sign-ins of platform staff")
class StaffSignIn(Timestamped, Base):
    """One sign-in of one person of the staff, by the hash of its token."""

    __tablename__ = "staff_sign_ins"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=new_id)
    staff_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("staff_accounts.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


@staff_table(reason="API keys of programs that platform staff run")
class StaffKey(Timestamped, Base):
    """One API key, by its hash. It never reaches further than the person who answers for it does now.

    prefix: the part of the key that is shown. last_used_at: right to within some minutes.
    """

    __tablename__ = "staff_keys"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=new_id)
    staff_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("staff_accounts.id"), index=True)
    name: Mapped[str] = mapped_column(Text)
    prefix: Mapped[str] = mapped_column(Text, unique=True)
    key_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    permissions: Mapped[list[str]] = mapped_column(JSONB)
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    last_used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


@staff_table(reason="one-time links that set a password of platform staff")
class StaffLink(Timestamped, Base):
    """One link, by the hash of its secret. `staff_id` is None for the link that makes the first owner."""

    __tablename__ = "staff_links"
    __table_args__ = (one_of("purpose", LinkPurpose),)

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=new_id)
    staff_id: Mapped[UUID | None] = mapped_column(Uuid, ForeignKey("staff_accounts.id", ondelete="CASCADE"), index=True)
    purpose: Mapped[str] = mapped_column(Text)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


@staff_table(reason="answers to requests of platform staff, kept so that a repeated one is not done twice")
class KeptAnswer(Base):
    """What one `Idempotency-Key` of one actor stands for.

    status: None while the request is still under way. body: None where the answer holds a secret.
    """

    __tablename__ = "kept_answers"
    __table_args__ = (UniqueConstraint("actor_id", "key"),)

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=new_id)
    actor_id: Mapped[str] = mapped_column(Text)
    key: Mapped[str] = mapped_column(Text)
    request_hash: Mapped[bytes] = mapped_column(LargeBinary)
    status: Mapped[int | None]
    body: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    begun_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), index=True)


staff_by_id = declare_lookup(
    Base.metadata,
    Lookup("staff_by_id", "staff_accounts", "id", ("id", "email", "role", "disabled_at"), key_type="uuid"),
)
staff_of_email = declare_lookup(Base.metadata, Lookup("staff_of_email", "staff_accounts", "email", ("id",)))
staff_sign_in_by_hash = declare_lookup(
    Base.metadata,
    Lookup(
        "staff_sign_in_by_hash",
        "staff_sign_ins",
        "token_hash",
        ("id", "staff_id", "expires_at", "ended_at"),
        key_type="bytea",
    ),
)
staff_key_by_hash = declare_lookup(
    Base.metadata,
    Lookup(
        "staff_key_by_hash",
        "staff_keys",
        "key_hash",
        ("id", "staff_id", "prefix", "permissions", "expires_at", "revoked_at", "last_used_at"),
        key_type="bytea",
    ),
)
staff_link_by_hash = declare_lookup(
    Base.metadata,
    Lookup(
        "staff_link_by_hash",
        "staff_links",
        "token_hash",
        ("id", "staff_id", "purpose", "expires_at", "used_at"),
        key_type="bytea",
    ),
)
