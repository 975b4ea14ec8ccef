"""Every model of the application, so that whoever imports this module sees the whole metadata."""

from app.audit.models import AuditEntry
from app.auth.models import RefreshToken, SignIn
from app.crm.models import Company, Opportunity, Person
from app.db import Base
from app.members.models import Account, Member
from app.tenants.models import Domain, Tenant

__all__ = [
    "Account",
    "AuditEntry",
    "Base",
    "Company",
    "Domain",
    "Member",
    "Opportunity",
    "Person",
    "RefreshToken",
    "SignIn",
    "Tenant",
]
