"""Every error the library raises: what was found, and in `hint` the one next step."""

from sqlalchemy.exc import DontWrapMixin


class TenancyError(DontWrapMixin, Exception):
    """Base of all library errors; carries a hint that names one action."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} (hint: {self.hint})"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.hint, self.__dict__)


def _rebuild(kind: type[TenancyError], message: str, hint: str, state: dict[str, object]) -> TenancyError:
    """Make an error anew on unpickling: a keyword-only hint does not survive Exception's own way."""
    error = kind.__new__(kind, message)
    error.__dict__.update(state)
    return error


class ScopeError(TenancyError):
    """The running code acts for the wrong scope, or for none."""


class NoTenantError(ScopeError):
    """No tenant is in scope where one is needed."""


class WrongTenantError(ScopeError):
    """An object, session or transaction of one tenant met the scope of another."""


class PlatformAccessError(ScopeError):
    """Platform access was asked for without its role, its scope or its read-only form."""


class TenantReferenceError(TenancyError):
    """A request's reference to a tenant could not be turned into one usable tenant."""


class MalformedReferenceError(TenantReferenceError):
    """A host, header, slug or token that no tenant could ever have."""


class ConflictingReferencesError(TenantReferenceError):
    """Two pieces of evidence in one request name different tenants."""


class InvalidTokenError(TenantReferenceError):
    """A bearer token is expired, forged, or lacks a claim it must carry."""


class TenantUnavailableError(TenantReferenceError):
    """The reference is well formed, but no request may be served for it now."""


class UnknownTenantError(TenantUnavailableError):
    """No tenant answers to the reference."""


class ClosedTenantError(TenantUnavailableError):
    """The tenant exists but is archived, being deleted, or deleted; callers see an unknown tenant."""


class SuspendedTenantError(TenantUnavailableError):
    """The tenant is suspended; its own members may be told so."""


class DirectoryError(TenancyError):
    """The directory could not answer: the database is away, or too many lookups wait."""


class JobError(TenancyError):
    """A job was not run, because of what it carries or of its tenant's state."""


class EnvelopeRefusedError(JobError):
    """What came with a job is unsigned, altered, expired, or was made for another task or other arguments."""


class ParkedJobError(JobError):
    """The job's tenant is suspended, archived or not yet active: keep the job, and run it when that ends."""


class DiscardedJobError(JobError):
    """The job's tenant is unknown or being deleted: nobody may run the job any more."""


class ModelError(TenancyError):
    """A table or relationship is declared in a way that cannot be isolated."""


class ConfigurationError(TenancyError):
    """An engine, session factory or extension is set up in a way that opens a hole."""


class UnsafeConnectionError(ConfigurationError):
    """A database connection's role, settings, pooler or server cannot hold the promise."""


class StatementRefusedError(TenancyError):
    """A statement was not sent because it could change or outlive the transaction's scope."""


class TenantBusyError(TenancyError):
    """The tenant has as many transactions open as its work budget allows."""


class MigrationError(TenancyError):
    """A migration operation would lose isolation, or cannot run here."""


class ServerError(TenancyError):
    """No PostgreSQL server could be found or started."""


class SeedError(TenancyError):
    """The test kit could not make the rows that a proof is about."""


class NamespaceError(TenancyError):
    """A cache or a storage could not be used for the tenant in scope."""


class KeyRefusedError(NamespaceError):
    """A key or the name of an object that could be read in two ways, or that leads out of the tenant's own."""


class ObjectNotFoundError(NamespaceError):
    """The tenant has no object of that name, whoever else may have one."""


class ObjectTooLargeError(NamespaceError):
    """The content is longer than was allowed; nothing of it is kept."""


class EncryptionError(TenancyError):
    """A value could not be encrypted or decrypted; no plain value was stored or shown instead."""


class InvalidCiphertextError(EncryptionError):
    """A stored value is damaged, or was sealed for another row, column, table or tenant."""


class KeyStoreError(EncryptionError):
    """The store of master keys does not answer, or lacks the key that is asked for."""


class KeyDestroyedError(EncryptionError):
    """The tenant's data keys were destroyed: what they sealed is gone for good."""
