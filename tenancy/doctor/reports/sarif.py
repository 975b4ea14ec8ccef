"""The report as SARIF 2.1.0, for code scanning and editors.

Source: OASIS SARIF 2.1.0 errata 01; GitHub's "SARIF support for code scanning", which further asks that each
result has a physical location, and that its level and ruleId are its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tenancy.doctor.examination import RULES, Report
from tenancy.doctor.findings import Finding, Rule
from tenancy.doctor.ignores import Ignore

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
# How GitHub ranks a security alert: critical from 9, high from 7, medium from 4.
_SEVERITY: Mapping[str, str] = {"error": "8.0", "warning": "5.0", "note": "2.0"}
_KINDS: Mapping[str, str] = {"table": "type", "function": "function", "column": "member", "role": "resource"}
_NUMBER: Mapping[str, int] = {rule.id: number for number, rule in enumerate(RULES)}


def render_sarif(report: Report, *, docs_url: str | None = None) -> str:
    """Return one SARIF log with one run; ignored findings are in it as suppressed results.

    docs_url: where the pages of the rules are served, without the page's name; None leaves `helpUri` out.
    """
    run = {
        "tool": {
            "driver": {
                "name": "tenancy doctor",
                "semanticVersion": report.versions["tenancy"],
                "rules": [_descriptor(rule, docs_url) for rule in RULES],
            }
        },
        "automationDetails": {"id": "tenancy-doctor/"},
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {
                "executionSuccessful": True,
                "startTimeUtc": report.started_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "toolExecutionNotifications": [
                    {"level": "warning", "message": {"text": f"{finding.object_name}: {finding.what}"}}
                    for finding in report.findings
                    if finding.rule.name == "not-checked"
                ],
            }
        ],
        "results": [
            *(_result(finding) | ({"baselineState": "new"} if report.known else {}) for finding in report.findings),
            *(_result(finding) | {"baselineState": "unchanged"} for finding in report.known),
            *(_result(one.finding) | {"suppressions": [_suppression(one.ignore)]} for one in report.ignored),
        ],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False) + "\n"


def _suppression(ignore: Ignore) -> dict[str, str]:
    return {"kind": "external" if ignore.line is None else "inSource", "justification": ignore.reason}


def _descriptor(rule: Rule, docs_url: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": rule.id,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": rule.name.replace("-", " ").capitalize()},
        "fullDescription": {"text": rule.why},
        "help": {"text": rule.why, "markdown": f"**{rule.id} {rule.name}**\n\n{rule.why}"},
        "defaultConfiguration": {"level": rule.level},
        "properties": {
            "tags": ["security", "multi-tenancy"],
            "precision": "high",
            "problem.severity": "recommendation" if rule.level == "note" else rule.level,
            "security-severity": _SEVERITY[rule.level],
        },
    }
    if docs_url is not None:
        found["helpUri"] = f"{docs_url.rstrip('/')}/{rule.id}.html"
    return found


def _result(finding: Finding) -> dict[str, Any]:
    return {
        "ruleId": finding.rule.id,
        "ruleIndex": _NUMBER[finding.rule.id],
        "level": finding.rule.level,
        "message": {"text": f"{finding.object_name}: {finding.what}. {finding.rule.why} Remedy: {finding.remedy}"},
        "locations": [_location(finding)],
        "partialFingerprints": {"tenancyDoctor/v1": finding.fingerprint},
    }


def _location(finding: Finding) -> dict[str, Any]:
    is_file = finding.line is not None or finding.object_name.endswith(".py")
    uri = _uri(finding.object_name) if is_file else "database"
    physical: dict[str, Any] = {"artifactLocation": {"uri": uri}, "region": {"startLine": finding.line or 1}}
    if is_file:
        return {"physicalLocation": physical}
    kind, _, name = finding.object_name.partition(" ")
    logical = {"name": name or kind, "fullyQualifiedName": finding.object_name, "kind": _KINDS.get(kind, "resource")}
    return {"physicalLocation": physical, "logicalLocations": [logical]}


def _uri(path: str) -> str:
    return quote(path) if not path.startswith("/") else f"file://{quote(path)}"
