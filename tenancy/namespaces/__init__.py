"""Caches and object storage in which a tenant has a part of its own, and can spell no key outside of it."""

from tenancy.namespaces.caches import CacheBackend, PinnedCache, TenantCache
from tenancy.namespaces.keys import cache_key, object_key, storage_prefix
from tenancy.namespaces.redis_backend import RedisBackend
from tenancy.namespaces.storage import ObjectStore, OpenedObject, StoredObject, TenantStorage, stored_tenants

__all__ = [
    "CacheBackend",
    "ObjectStore",
    "OpenedObject",
    "PinnedCache",
    "RedisBackend",
    "StoredObject",
    "TenantCache",
    "TenantStorage",
    "cache_key",
    "object_key",
    "storage_prefix",
    "stored_tenants",
]
