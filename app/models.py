"""Every model of the application, so that whoever imports this module sees the whole metadata."""

from app.audit.models import AuditEntry, AuditHead, AuditLink, PlatformEntry, PlatformHead, PlatformLink
from app.auth.models import RefreshToken, SignIn
from app.configuration.models import ConfigurationChange, ConfigurationValue
from app.crm.models import Company, Opportunity, Person
from app.db import Base
from app.keys.models import DataKey
from app.members.models import Account, Member
from app.plans.models import Override
from app.staff.models import KeptAnswer, StaffAccount, StaffKey, StaffLink, StaffSignIn
from app.tenants.models import (
    BulkItem,
    BulkRun,
    Domain,
    Erasure,
    ProvisioningStep,
    ReservedSlug,
    Tenant,
    Transition,
)

__all__ = [
    "Account",
    "AuditEntry",
    "AuditHead",
    "AuditLink",
    "Base",
    "BulkItem",
    "BulkRun",
    "Company",
    "ConfigurationChange",
    "ConfigurationValue",
    "DataKey",
    "Domain",
    "Erasure",
    "KeptAnswer",
    "Member",
    "Opportunity",
    "Override",
    "Person",
    "PlatformEntry",
    "PlatformHead",
    "PlatformLink",
    "ProvisioningStep",
    "RefreshToken",
    "ReservedSlug",
    "SignIn",
    "StaffAccount",
    "StaffKey",
    "StaffLink",
    "StaffSignIn",
    "Tenant",
    "Transition",
]
