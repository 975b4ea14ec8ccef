"""The catalogue: what is shipped, and which mistakes are refused when it is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.configuration.keys import PASSWORD_POLICY, SESSION_TIMEOUT, PasswordPolicy
from app.plans.catalogue import PLANS_FILE, CatalogueError, UnknownPlanError, read_catalogue, shipped_catalogue
from app.plans.terms import Feature, Quota
from app.tenants.models import Plan


def changed(folder: Path, found: str, instead: str) -> Path:
    """The shipped catalogue with one text in it replaced, once."""
    text = PLANS_FILE.read_text()
    assert found in text
    path = folder / "catalogue.toml"
    path.write_text(text.replace(found, instead, 1))
    return path


def test_shipped_catalogue_has_every_plan_that_a_tenant_may_have() -> None:
    assert list(shipped_catalogue().order) == list(Plan) == ["basic", "premium", "enterprise", "custom"]


def test_shipped_figures_are_those_that_are_sold() -> None:
    found = shipped_catalogue()

    assert [found.newest(plan).limits[Quota.USERS] for plan in found.order] == [100, 1_000, 10_000, 100_000]
    assert found.newest("basic").limits[Quota.STORAGE_BYTES] == 10_737_418_240
    assert found.newest("custom").limits[Quota.API_CALLS_DAY] is None
    assert found.newest("premium").features == {Feature.BIOMETRIC_AUTH, Feature.CUSTOM_BRANDING}
    assert found.newest("enterprise").setting(SESSION_TIMEOUT) == 14_400
    assert found.newest("basic").setting(PASSWORD_POLICY) == PasswordPolicy(
        min_length=8, upper=True, lower=True, number=True, special=False
    )


def test_feature_names_the_plans_that_have_it_from_the_least() -> None:
    assert shipped_catalogue().plans_with(Feature.ADVANCED_ANALYTICS) == ["enterprise", "custom"]


@pytest.mark.parametrize(
    ("found", "instead", "words"),
    [
        ('"custom"]', '"custom", "gold"]', "`order` and the plans differ: ['gold']"),
        ('"enterprise", "custom"]', '"enterprise"]', "`order` and the plans differ: ['custom']"),
        ("users = 100,", "users = -1,", "greater than or equal to 0"),
        ("users = 100,", "", "no limit is given for users"),
        ("users = 100,", "users = 100, elephants = 1,", "elephants"),
        ("users = 100,", 'users = "many",', "valid integer"),
        ("users = 100,", "users = true,", "valid integer"),
        ("users = 1_000,", "users = 99,", "premium comes after basic and has less of users"),
        ("users = 100,", 'users = "unlimited",', "premium comes after basic and has less of users"),
        ('features = ["biometric_auth", "custom_branding"]', 'features = ["teleporting"]', "plans.premium.0.features"),
        ('"ai_verification", "advanced_analytics", "custom_branding"', '"ai_verification"', "less of custom_branding"),
        ("version = 1", "version = 2", "the versions of basic are not 1, 2, 3"),
        ("version = 1", "version = 0", "greater than or equal to 1"),
        ('"session.timeout" = 3_600', '"session.timeout" = 1', "session.timeout"),
        ('"session.timeout" = 3_600', '"session.timeuot" = 3_600', "no key of the configuration is named"),
        ("min_length = 8", "min_length = 7", "security.password_policy: min_length"),
        ("since = 2026-11-01", 'since = 2026-11-01\nprice = "free"', "Extra inputs"),
        ("order = [", "order = [[", "is no TOML file"),
    ],
)
def test_catalogue_with_a_mistake_is_refused_and_the_mistake_named(
    tmp_path: Path, found: str, instead: str, words: str
) -> None:
    path = changed(tmp_path, found, instead)

    with pytest.raises(CatalogueError, match=re.escape(words)):
        read_catalogue(path)


SECOND = """
[[plans.custom]]
version = 2
since = {since}
features = ["biometric_auth", "ai_verification", "advanced_analytics", "custom_branding", "priority_support"]
limits = {{ users = 200_000, storage_bytes = "unlimited", cards = "unlimited", api_calls_hour = "unlimited", api_calls_day = "unlimited" }}
configuration = {{}}
"""  # noqa: E501


def test_newest_version_is_sold_and_an_older_one_is_still_found(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text(PLANS_FILE.read_text() + SECOND.format(since="2026-12-01"))

    found = read_catalogue(path)

    assert found.newest("custom").limits[Quota.USERS] == 200_000
    assert found.version("custom", 1).limits[Quota.USERS] == 100_000


def test_version_that_begins_before_the_one_before_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text(PLANS_FILE.read_text() + SECOND.format(since="2026-10-01"))

    with pytest.raises(CatalogueError, match="a version of custom does not begin after the one before"):
        read_catalogue(path)


def test_plans_and_versions_that_are_not_there_are_refused() -> None:
    with pytest.raises(UnknownPlanError, match="there is no plan 'gold'"):
        shipped_catalogue().newest("gold")
    with pytest.raises(UnknownPlanError, match="plan 'basic' has no version 7"):
        shipped_catalogue().version("basic", 7)
