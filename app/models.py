"""Every model of the application, so that whoever imports this module sees the whole metadata."""

from app.admin.models import SearchedTenant
from app.audit.models import AuditEntry, AuditHead, AuditLink, PlatformEntry, PlatformHead, PlatformLink
from app.auth.models import RefreshToken, SignIn
from app.cards.models import Card, Manufacturer, Player, Team
from app.configuration.models import ConfigurationChange, ConfigurationValue
from app.crm.models import Company, Opportunity, Person
from app.db import Base
from app.files.models import File, FileTotal
from app.impersonation.models import Impersonation
from app.keys.models import DataKey
from app.members.models import Account, Invitation, Member
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
from app.usage.models import QuotaCounter, QuotaEvent, UsageRecord, UsageRollup

__all__ = [
    "Account",
    "AuditEntry",
    "AuditHead",
    "AuditLink",
    "Base",
    "BulkItem",
    "BulkRun",
    "Card",
    "Company",
    "ConfigurationChange",
    "ConfigurationValue",
    "DataKey",
    "Domain",
    "Erasure",
    "File",
    "FileTotal",
    "Impersonation",
    "Invitation",
    "KeptAnswer",
    "Manufacturer",
    "Member",
    "Opportunity",
    "Override",
    "Person",
    "PlatformEntry",
    "PlatformHead",
    "PlatformLink",
    "Player",
    "ProvisioningStep",
    "QuotaCounter",
    "QuotaEvent",
    "RefreshToken",
    "ReservedSlug",
    "SearchedTenant",
    "SignIn",
    "StaffAccount",
    "StaffKey",
    "StaffLink",
    "StaffSignIn",
    "Team",
    "Tenant",
    "Transition",
    "UsageRecord",
    "UsageRollup",
]
