"""Settings: read once from the environment, frozen, and complete or refused."""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Environment = Literal["development", "production"]
ResolverName = Literal["jwt", "subdomain", "custom_domain", "path", "header", "query"]
RESOLVERS: tuple[ResolverName, ...] = ("jwt", "subdomain", "custom_domain", "path", "header", "query")
ENV_PREFIX = "APP_"
_MIN_SECRET_BYTES = 32
_MIN_TOKEN_CHARACTERS = 24
STORES = ("file", "s3", "gs", "az", "memory")
_FROM_ENVIRONMENT: dict[str, Any] = {}  # nothing is passed, so every value is read


class SettingsError(Exception):
    """The environment does not describe a program that could start; names every variable at fault."""


class Settings(BaseSettings):
    """Everything the application is told from outside. One field, one variable `APP_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    environment: Environment = Field(
        "production", description="`development` drops the Secure cookie and shows reasons; anything else is live."
    )
    database_url: SecretStr = Field(description="SQLAlchemy URL of the runtime role, `postgresql+psycopg://…`.")
    platform_database_url: SecretStr = Field(
        description="SQLAlchemy URL of the platform role, used inside `platform_scope` only."
    )
    listen_database_url: SecretStr | None = Field(
        None, description="URL for LISTEN when `database_url` goes through a pooler; unset uses `database_url`."
    )
    database_pool_size: int = Field(
        10, ge=1, le=100, description="Connections that one process opens at most, for each of the two roles."
    )
    tenant_concurrency: int = Field(
        5, ge=0, le=100, description="Transactions that one tenant has open at once in one process; 0 sets no bound."
    )
    tenant_wait_s: float = Field(
        0.5, ge=0, le=10, description="How long a request beyond that waits, in seconds, before it is a 429."
    )
    tenant_waiting: int = Field(
        5, ge=0, le=100, description="Requests of one tenant that wait so at once in one process; more are refused."
    )
    tenant_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Part of the time that each of them may be in use; at 0.5 it rests as long as it was.",
    )
    tenant_statement_timeout_s: float = Field(
        10.0, ge=0.01, le=3600, description="How long one statement of a tenant may take, in seconds."
    )
    tenant_lock_timeout_s: float | None = Field(
        None, ge=0.01, le=3600, description="How long it may wait for a lock, in seconds; unset leaves the role's own."
    )
    base_domain: str = Field(description="Domain below which each tenant has one label, such as `example.com`.")
    resolvers: Annotated[tuple[ResolverName, ...], NoDecode] = Field(
        description=f"Comma-separated ways to name a tenant: {', '.join(f'`{name}`' for name in RESOLVERS)}."
    )
    trusted_proxies: int = Field(
        0, ge=0, le=10, description="Proxies in front whose `X-Forwarded-*` headers count; 0 ignores the headers."
    )
    single_tenant: str | None = Field(None, description="Slug of the one tenant to serve at `/`; unset serves many.")
    secret_key: SecretStr = Field(description="Signs the session cookie and CSRF tokens; at least 32 bytes.")
    jwt_keys: Annotated[dict[str, SecretStr], NoDecode] = Field(
        description='JSON object of key id to HMAC key, each at least 32 bytes: `{"2026-11": "…"}`. All verify.'
    )
    jwt_signing_kid: str = Field(description="The key id in `jwt_keys` that signs new tokens.")
    jwt_issuer: str = Field("crm", min_length=1, description="`iss` of every token.")
    jwt_audience: str = Field("crm-api", min_length=1, description="`aud` of every token.")
    access_token_ttl_s: int = Field(900, ge=30, le=86_400, description="Life of an access token, in seconds.")
    refresh_token_ttl_s: int = Field(
        2_592_000, ge=60, description="Life of a refresh token, in seconds; each use starts it anew."
    )
    sign_in_ttl_s: int = Field(
        7_776_000, ge=60, description="Longest life of one sign-in however often it is refreshed, in seconds."
    )
    staff_sign_in_ttl_s: int = Field(
        43_200, ge=60, le=604_800, description="Life of one sign-in of platform staff, in seconds."
    )
    staff_link_ttl_s: int = Field(
        3_600, ge=60, le=604_800, description="Life of a one-time link that sets a password of staff, in seconds."
    )
    master_keys_file: Path | None = Field(
        None, description="File of the master keys that wrap tenants' data keys; mode 0600, read at each use."
    )
    master_keys: SecretStr | None = Field(
        None, description='The same as JSON in place of a file: `{"current": "…", "keys": {"…": "<base64>"}}`.'
    )
    data_key_ttl_s: float = Field(
        300.0, ge=1, le=86_400, description="How long one process keeps an unwrapped data key, in seconds."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="The least that is logged; `INFO` has a line for each request."
    )
    log_format: Literal["json", "console"] | None = Field(
        None, description="`json` or `console`, for people; unset is `json` in production and `console` in development."
    )
    health_timeout_s: float = Field(
        2.0, ge=0.1, le=30, description="How long the parts may take to answer a question after health, in seconds."
    )
    sql_comments: bool = Field(
        False, description="Put tenant, request and route into each statement, for the server's own logs; costs CPU."
    )
    metrics_token: SecretStr | None = Field(
        None, description="Bearer token that `/metrics` is read with, at least 24 characters; unset answers 404 there."
    )
    otel_endpoint: str | None = Field(
        None,
        description="Base URL of an OpenTelemetry collector, such as `http://localhost:4318`; unset traces nothing.",
    )
    tenant_counts_ttl_s: int = Field(
        10, ge=0, le=3600, description="How old the counts of tenants by state may be, in seconds; 0 counts each time."
    )
    argon2_time_cost: int = Field(3, ge=1, le=20, description="Argon2id passes over the memory.")
    argon2_memory_kib: int = Field(65_536, ge=8, description="Argon2id memory for one hash, in KiB.")
    argon2_parallelism: int = Field(4, ge=1, le=32, description="Argon2id lanes.")
    audit_keep_days: int | None = Field(
        None, ge=30, le=36_500, description="Days that entries of the audit are kept; unset keeps them for ever."
    )
    invitation_ttl_s: int = Field(604_800, ge=60, le=7_776_000, description="Life of an invitation, in seconds.")
    impersonation_ttl_s: int = Field(
        1_800, ge=60, le=28_800, description="Longest life of one impersonation of a member by staff, in seconds."
    )
    mail_server: str | None = Field(
        None, description="SMTP server that mail goes out through; unset sends none, and development logs it."
    )
    mail_port: int = Field(587, ge=1, le=65_535, description="Port of the SMTP server.")
    mail_tls: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="How the way to the SMTP server is kept private; `none` only for a server on this host."
    )
    mail_username: str | None = Field(None, description="Name to sign in to the SMTP server with; unset does not.")
    mail_password: SecretStr | None = Field(None, description="Password for `mail_username`.")
    mail_from: str | None = Field(None, description="Sender of every mail; required with `mail_server`.")
    mail_timeout_s: float = Field(10.0, ge=1, le=60, description="How long the SMTP server may take, in seconds.")
    max_body_bytes: int = Field(1_048_576, ge=1_024, description="Largest request body, in bytes; more is a 413.")
    storage_url: SecretStr = Field(
        description="Where files lie: `file:///folder`, `s3://bucket/prefix`, `gs://…` or `az://…`; keys of a cloud "
        "come from its own variables, such as `AWS_ACCESS_KEY_ID`."
    )
    max_upload_bytes: int = Field(
        20_971_520, ge=1_024, description="Largest uploaded file, in bytes, also where a tenant may have larger ones."
    )
    cache_url: SecretStr | None = Field(
        None, description="`redis://…` or `rediss://…` of a cache that all processes share; unset keeps one in each."
    )

    rate_limit_url: SecretStr | None = Field(
        None, description="`redis://…` or `rediss://…` that rate limits are counted in; unset counts in PostgreSQL."
    )
    rate_limit_fallback: Literal["postgres", "refuse"] = Field(
        "postgres", description="What counts while that server is away: PostgreSQL, or nothing, and calls are a 503."
    )
    sign_in_attempts: int = Field(
        10,
        ge=1,
        le=1_000_000,
        description="Wrong passwords for one account from one address in 15 minutes; ten times that for either alone.",
    )

    usage_flush_s: float = Field(
        5.0,
        ge=0.05,
        le=300,
        description="How often usage is written, in seconds; a process that is killed loses so much of it at most.",
    )
    usage_keep_days: int = Field(
        90, ge=2, le=3650, description="Days that single records of usage are kept; sums of hours and days stay."
    )

    deletion_grace_days: int = Field(
        30,
        ge=0,
        le=3650,
        description="Days between the deletion of a tenant and its erasure, in which it can be undone.",
    )
    domain_recheck_h: int = Field(24, ge=1, le=720, description="Hours between two checks of a verified custom domain.")
    domain_failures: int = Field(
        7, ge=1, le=100, description="Failed checks of a verified domain in a row after which it is no longer served."
    )

    job_concurrency: int = Field(4, ge=1, le=64, description="Jobs that one worker runs at once, each in a thread.")
    job_tenant_concurrency: int = Field(
        2, ge=1, le=64, description="Jobs of one tenant that run at once, in all workers together."
    )
    job_stalled_after_s: float = Field(
        30.0, ge=1, le=3600, description="Silence after which a worker counts as dead and its jobs go to others."
    )
    job_stop_timeout_s: float = Field(
        20.0, ge=0, le=3600, description="How long a worker that is asked to stop waits for its jobs, in seconds."
    )

    @field_validator("resolvers", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("jwt_keys", mode="before")
    @classmethod
    def _parse_object(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("not a JSON object") from None

    @field_validator("secret_key")
    @classmethod
    def _long_secret(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value().encode()) < _MIN_SECRET_BYTES:
            raise ValueError(f"at least {_MIN_SECRET_BYTES} bytes are needed")
        return value

    @field_validator("metrics_token")
    @classmethod
    def _long_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < _MIN_TOKEN_CHARACTERS:
            raise ValueError(f"at least {_MIN_TOKEN_CHARACTERS} characters are needed")
        return value

    @field_validator("jwt_keys")
    @classmethod
    def _long_keys(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        short = [kid for kid, key in value.items() if len(key.get_secret_value().encode()) < _MIN_SECRET_BYTES]
        if short or not value:
            raise ValueError(f"each of one or more keys needs {_MIN_SECRET_BYTES} bytes; too short: {short}")
        return value

    @field_validator("storage_url")
    @classmethod
    def _known_store(cls, value: SecretStr) -> SecretStr:
        parts = urlsplit(value.get_secret_value())
        if parts.scheme not in STORES:
            raise ValueError(f"begin it with one of {', '.join(f'{scheme}://' for scheme in STORES)}")
        if parts.scheme == "file" and (parts.netloc or not parts.path.strip("/")):
            raise ValueError("name a folder of this machine: file:///var/lib/crm/files")
        return value

    @field_validator("cache_url", "rate_limit_url")
    @classmethod
    def _known_cache(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and urlsplit(value.get_secret_value()).scheme not in ("redis", "rediss"):
            raise ValueError("begin it with redis:// or rediss://")
        return value

    @model_validator(mode="after")
    def _keeps_files(self) -> Self:
        if urlsplit(self.storage_url.get_secret_value()).scheme == "memory" and not self.is_development:
            raise ValueError("APP_STORAGE_URL names this process's memory, which loses every file when it ends")
        return self

    @model_validator(mode="after")
    def _can_sign(self) -> Self:
        if self.jwt_signing_kid not in self.jwt_keys:
            raise ValueError("APP_JWT_SIGNING_KID is not a key id in APP_JWT_KEYS")
        if self.master_keys_file is not None and self.master_keys is not None:
            raise ValueError("APP_MASTER_KEYS_FILE and APP_MASTER_KEYS are both set: keep one")
        if self.mail_server is not None and self.mail_from is None:
            raise ValueError("APP_MAIL_FROM is missing, and APP_MAIL_SERVER sends mail: say who it is from")
        if not self.resolvers and self.single_tenant is None:
            raise ValueError("APP_RESOLVERS is empty, so no request could ever name a tenant")
        return self

    @property
    def is_development(self) -> bool:
        return self.environment == "development"


def read_settings() -> Settings:
    """Read the settings from the environment.

    Raises: SettingsError - names every variable that is missing or wrong, never its value.
    """
    try:
        return Settings(**_FROM_ENVIRONMENT)
    except ValidationError as error:
        raise SettingsError(_faults(error)) from None


def development_settings(*, database_url: str, platform_database_url: str, **given: Any) -> Settings:
    """Return settings for this machine: all six resolvers, `localhost`, and secrets made on the spot.

    given: any other setting, such as secrets kept from the last run; it wins over what is generated.
    """
    generated: dict[str, Any] = {
        "environment": "development",
        "base_domain": "localhost",
        "resolvers": RESOLVERS,
        **({} if "jwt_keys" in given else {"jwt_keys": {"dev": secrets.token_urlsafe(48)}, "jwt_signing_kid": "dev"}),
        "secret_key": secrets.token_urlsafe(48),
        "storage_url": "memory:///",
        **({} if {"master_keys", "master_keys_file"} & set(given) else {"master_keys": _new_master_keys()}),
    }
    values: dict[str, Any] = (
        generated | {"database_url": database_url, "platform_database_url": platform_database_url} | given
    )
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError(_faults(error)) from None


def _new_master_keys() -> str:
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    return json.dumps({"current": "dev", "keys": {"dev": key}})


class MigrationSettings(BaseSettings):
    """What `alembic` is told from outside; the running application never knows the migrator's password."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    migrator_database_url: SecretStr = Field(description="SQLAlchemy URL of the migrator role, for `alembic` only.")


def read_migration_settings() -> MigrationSettings:
    """Read the migrator's settings from the environment.

    Raises: SettingsError - names the variable that is missing.
    """
    try:
        return MigrationSettings(**_FROM_ENVIRONMENT)
    except ValidationError as error:
        raise SettingsError(_faults(error)) from None


def settings_table() -> str:
    """Return every setting as a Markdown table, derived from the fields, for the README and the reference."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for model in (Settings, MigrationSettings):
        for name, field in model.model_fields.items():
            default = "**required**" if field.is_required() else "" if field.default is None else f"`{field.default}`"
            lines.append(f"| `{ENV_PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


def _faults(error: ValidationError) -> str:
    faults = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        name = f"{ENV_PREFIX}{str(fault['loc'][0]).upper()}: " if fault["loc"] else ""
        faults.append(f"{name}{'missing' if fault['type'] == 'missing' else fault['msg']}")
    return "settings are incomplete:\n  " + "\n  ".join(faults)
