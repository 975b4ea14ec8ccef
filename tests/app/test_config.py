"""Settings: complete or refused, and each of them changes something."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.config import (
    RESOLVERS,
    MigrationSettings,
    Settings,
    SettingsError,
    development_settings,
    read_migration_settings,
    read_settings,
    settings_table,
)

URL = "postgresql+psycopg://app@/x"
COMPLETE = {
    "APP_DATABASE_URL": URL,
    "APP_PLATFORM_DATABASE_URL": URL,
    "APP_BASE_DOMAIN": "example.com",
    "APP_RESOLVERS": "subdomain, jwt",
    "APP_SECRET_KEY": "s" * 32,
    "APP_JWT_KEYS": '{"2026-11": "' + "k" * 32 + '"}',
    "APP_JWT_SIGNING_KID": "2026-11",
    "APP_STORAGE_URL": "file:///var/lib/crm/files",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_complete_environment_is_read(environment: pytest.MonkeyPatch) -> None:
    settings = read_settings()

    assert settings.environment == "production"
    assert settings.resolvers == ("subdomain", "jwt")
    assert settings.jwt_keys["2026-11"].get_secret_value() == "k" * 32


def test_empty_environment_names_every_missing_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in COMPLETE:
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(SettingsError) as refused:
        read_settings()

    assert [name for name in COMPLETE if f"{name}: missing" not in str(refused.value)] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("APP_SECRET_KEY", "short-secret"),
        ("APP_JWT_KEYS", '{"2026-11": "short-secret"}'),
        ("APP_JWT_KEYS", "{}"),
        ("APP_JWT_KEYS", "short-secret"),
        ("APP_RESOLVERS", "subdomain,guess"),
        ("APP_ENVIRONMENT", "short-secret"),
        ("APP_ACCESS_TOKEN_TTL_S", "0"),
        ("APP_MAX_BODY_BYTES", "-1"),
        ("APP_TRUSTED_PROXIES", "many"),
        ("APP_STORAGE_URL", "short-secret"),
        ("APP_STORAGE_URL", "file://short-secret/files"),
        ("APP_STORAGE_URL", "file:///"),
        ("APP_STORAGE_URL", "memory:///"),
        ("APP_CACHE_URL", "http://short-secret"),
    ],
)
def test_unusable_value_is_named_and_not_shown(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    """T103"""
    environment.setenv(name, value)

    with pytest.raises(SettingsError) as refused:
        read_settings()

    assert name in str(refused.value)
    assert "short-secret" not in str(refused.value)


def test_signing_key_must_be_among_the_keys(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("APP_JWT_SIGNING_KID", "2025-01")

    with pytest.raises(SettingsError, match="APP_JWT_SIGNING_KID"):
        read_settings()


def test_no_resolver_and_no_single_tenant_is_refused(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("APP_RESOLVERS", "")

    with pytest.raises(SettingsError, match="APP_RESOLVERS"):
        read_settings()


def test_settings_are_frozen_and_hide_their_secrets(environment: pytest.MonkeyPatch) -> None:
    settings = read_settings()

    with pytest.raises(ValidationError):
        settings.environment = "development"  # type: ignore[misc]
    assert "s" * 32 not in repr(settings)
    assert "k" * 32 not in repr(settings)


def test_development_generates_secrets_anew_and_turns_every_resolver_on() -> None:
    one = development_settings(database_url=URL, platform_database_url=URL)
    two = development_settings(database_url=URL, platform_database_url=URL)

    assert one.resolvers == RESOLVERS
    assert one.base_domain == "localhost"
    assert one.secret_key != two.secret_key
    assert one.jwt_keys != two.jwt_keys


def test_development_keeps_the_secrets_it_is_given() -> None:
    kept = {"secret_key": "s" * 40, "jwt_keys": {"dev": "k" * 40}, "jwt_signing_kid": "dev"}

    settings = development_settings(database_url=URL, platform_database_url=URL, **kept)

    assert settings.secret_key.get_secret_value() == "s" * 40


def test_migrators_password_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APP_MIGRATOR_DATABASE_URL", raising=False)

    with pytest.raises(SettingsError, match="APP_MIGRATOR_DATABASE_URL: missing"):
        read_migration_settings()


def test_table_explains_every_setting() -> None:
    lines = settings_table().splitlines()

    assert len(lines) == 2 + len(Settings.model_fields) + len(MigrationSettings.model_fields)
    for name, field in (Settings.model_fields | MigrationSettings.model_fields).items():
        assert field.description, name
        assert any(line.startswith(f"| `APP_{name.upper()}` |") for line in lines), name
