"""Resolvers: what a request says about its tenant. All of it is collected, and all of it must agree."""

from tenancy.resolvers.chain import Chain, Resolution, Step, Trace, resolve
from tenancy.resolvers.evidence import (
    ORIGINAL_PATH,
    Evidence,
    PathPrefix,
    Request,
    Resolver,
    for_single_tenant,
    from_custom_domain,
    from_header,
    from_path,
    from_query,
    from_subdomain,
    host_of,
)
from tenancy.resolvers.looks import Look, look, printable
from tenancy.resolvers.spelling import RESERVED_SLUGS, normalize_domain, normalize_slug, parse_tenant_id, valid_slug
from tenancy.resolvers.tokens import TokenResolver, VerificationKey, from_jwt

__all__ = [
    "ORIGINAL_PATH",
    "RESERVED_SLUGS",
    "Chain",
    "Evidence",
    "Look",
    "PathPrefix",
    "Request",
    "Resolution",
    "Resolver",
    "Step",
    "TokenResolver",
    "Trace",
    "VerificationKey",
    "for_single_tenant",
    "from_custom_domain",
    "from_header",
    "from_jwt",
    "from_path",
    "from_query",
    "from_subdomain",
    "host_of",
    "look",
    "normalize_domain",
    "normalize_slug",
    "parse_tenant_id",
    "printable",
    "resolve",
    "valid_slug",
]
