"""What plans speak of: features, which a plan has or has not, and quotas, which it limits."""

from __future__ import annotations

from enum import StrEnum


class Feature(StrEnum):
    """Something that only some plans include."""

    BIOMETRIC_AUTH = "biometric_auth"
    AI_VERIFICATION = "ai_verification"
    ADVANCED_ANALYTICS = "advanced_analytics"
    CUSTOM_BRANDING = "custom_branding"
    PRIORITY_SUPPORT = "priority_support"


class Quota(StrEnum):
    """Something of which a tenant may have, or do, only so much."""

    USERS = "users"
    STORAGE_BYTES = "storage_bytes"
    CARDS = "cards"
    API_CALLS_HOUR = "api_calls_hour"
    API_CALLS_DAY = "api_calls_day"


class TermKind(StrEnum):
    """The three kinds of things that a plan says, and an override may say otherwise."""

    FEATURE = "feature"
    LIMIT = "limit"
    CONFIGURATION = "configuration"
