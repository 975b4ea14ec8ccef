"""Setting, clearing and restoring values of the configuration, with their history."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.audit.actors import require_actor
from app.audit.entries import record
from app.auth.passwords import refuse_weak
from app.configuration.keys import (
    PASSWORD_POLICY,
    SET,
    InvalidValueError,
    Key,
    UnknownKeyError,
    key_of,
)
from app.configuration.models import ConfigurationChange, ConfigurationValue
from app.errors import InvalidInputError, RowNotFoundError
from app.plans.standing import lock_tenant, note_change, standing_of, standings


def known_key(name: str) -> Key[Any]:
    """Return the key of this name.

    Raises: RowNotFoundError - there is none; a key is named in the path.
    """
    try:
        return key_of(name)
    except UnknownKeyError:
        raise RowNotFoundError from None


def set_value(session: Session, name: str, value: object, *, reason: str | None = None) -> ConfigurationChange:
    """Set one key for the session's tenant, as its own wish.

    Raises: InvalidInputError - the value is not one the key can have, asks for more than the tenant was granted, or
    the key is not a tenant's to set; each names the key.
    """
    key = known_key(name)
    try:
        wanted = key.parse(value)
    except InvalidValueError as error:
        raise InvalidInputError.of(name, str(error)) from None
    lock_tenant(session)
    granted = standings().read(session).granted(key)
    if not key.is_tenants:
        raise InvalidInputError.of(name, "is not yours to set: ask the people who run this service")
    if key.stricter(granted, wanted) != wanted:
        raise InvalidInputError.of(
            name, f"is more than your plan grants, which is {key.plain(granted)}: send that or something stricter"
        )
    return _write(session, key, wanted, reason=reason)


def clear_value(session: Session, name: str, *, reason: str | None = None) -> ConfigurationChange:
    """Take the tenant's own value of a key away, so that what it was granted counts.

    Raises: RowNotFoundError - the tenant has set none.
    """
    lock_tenant(session)
    key = known_key(name)
    if _stored(session, name) is None:
        raise RowNotFoundError
    return _write(session, key, None, reason=reason)


def restore(session: Session, change_id: UUID, *, reason: str | None = None) -> ConfigurationChange:
    """Set a key back to what it was before a change; that is a change of its own, checked like any other.

    Raises: RowNotFoundError - there is no such change. InvalidInputError - what it was is no longer granted, or was a
    secret, of which only the last is kept.
    """
    change: ConfigurationChange | None = session.get(ConfigurationChange, change_id)
    if change is None:
        raise RowNotFoundError
    if change.before is not None:
        if known_key(change.key).is_secret:
            raise InvalidInputError.of(change.key, "is a secret, and what it was is not kept: set it anew")
        return set_value(session, change.key, change.before, reason=reason)
    lock_tenant(session)
    return _write(session, known_key(change.key), None, reason=reason)


def _stored(session: Session, name: str) -> ConfigurationValue | None:
    return session.scalar(select(ConfigurationValue).where(ConfigurationValue.key == name))


def _write(session: Session, key: Key[Any], wanted: Any, *, reason: str | None) -> ConfigurationChange:
    """Store the value, None for none, and its history; the tenant is locked."""
    row = _stored(session, key.name)
    before = _told(key, row)
    if wanted is None and row is not None:
        session.delete(row)
        row = None
    elif wanted is not None:
        row = row or ConfigurationValue(key=key.name)
        if key.is_secret:
            row.secret = wanted
        else:
            row.value = key.plain(wanted)
        session.add(row)
    after = _told(key, row)
    change = ConfigurationChange(
        key=key.name, before=before, after=after, actor_label=require_actor().label, reason=reason
    )
    session.add(change)
    session.flush()
    record(
        session,
        "configuration.changed",
        target=("configuration_change", change.id),
        before={key.name: before},
        after={key.name: after},
        reason=reason,
    )
    note_change(session)
    return change


def _told(key: Key[Any], row: ConfigurationValue | None) -> Any:
    """Return what the history and the audit say of a value: of a secret, that it was set."""
    if row is None:
        return None
    return SET if key.is_secret else row.value


# What other packages ask ------------------------------------------------------------------------------


def setting_of(session: Session, key: Key[Any]) -> Any:
    """Return the value of a key that counts for the session's tenant; no statement while it is remembered."""
    return standing_of(session).setting(key)


def secret_of(session: Session, key: Key[str | None]) -> str | None:
    """Return a secret that the session's tenant has set, in clear; None when it has set none. Two statements.

    Raises: TenancyError - it cannot be opened, as without the master key.
    """
    row = _stored(session, key.name)
    return None if row is None else row.secret


def check_new_password(session: Session, password: str, *, field: str) -> None:
    """Refuse a password that the policy of the session's tenant does not let through.

    field: of the request, for the answer. Raises: InvalidInputError - says what the password has not.
    """
    refuse_weak(password, standing_of(session).setting(PASSWORD_POLICY), field=field)
