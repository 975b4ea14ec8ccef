"""The report as JUnit XML: a test case for each rule, which its findings fail."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from xml.etree import ElementTree

from tenancy.doctor.examination import KINDS, RULES, Report
from tenancy.doctor.findings import LEVELS, Finding, Level, Rule

# What XML 1.0 cannot hold, however it is written.
_UNSPEAKABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_junit(report: Report, *, fail_on: Level = "warning") -> str:
    """Return a suite for each kind of check. Rules of a kind that was not examined are skipped, not passed.

    fail_on: findings of a lesser level are printed with their case and do not fail it.
    """
    root = ElementTree.Element("testsuites", name="tenancy doctor", time=f"{report.seconds:.3f}")
    for digit, rules in groupby(sorted(RULES, key=lambda rule: rule.id), key=lambda rule: rule.id[3]):
        kind = KINDS.get(digit, "examination")
        started_at = report.started_at.strftime("%Y-%m-%dT%H:%M:%S")
        suite = ElementTree.SubElement(root, "testsuite", name=kind, timestamp=started_at)
        for rule in rules:
            found = [finding for finding in report.findings if finding.rule.id == rule.id]
            _case(suite, kind, rule, found, fail_on=fail_on, is_checked=rule.id not in report.unchecked)
        _count(suite)
    _count(root)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(
    suite: ElementTree.Element, kind: str, rule: Rule, found: Sequence[Finding], *, fail_on: Level, is_checked: bool
) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=f"tenancy.doctor.{kind}", name=f"{rule.id} {rule.name}")
    told = "\n\n".join(f"{place(one)}: {one.what}\nremedy: {one.remedy}" for one in found)
    if found and LEVELS.index(rule.level) <= LEVELS.index(fail_on):
        message = f"{len(found)} {'finding' if len(found) == 1 else 'findings'}: {rule.why}"
        failure = ElementTree.SubElement(case, "failure", type=rule.level, message=_spoken(message))
        failure.text = _spoken(told)
    elif found:
        ElementTree.SubElement(case, "system-out").text = _spoken(told)
    elif not is_checked:
        ElementTree.SubElement(case, "skipped", message="not checked: see TEN001")


def _count(element: ElementTree.Element) -> None:
    element.set("tests", str(len(element.findall(".//testcase"))))
    element.set("failures", str(len(element.findall(".//failure"))))
    element.set("skipped", str(len(element.findall(".//skipped"))))
    element.set("errors", "0")


def place(finding: Finding) -> str:
    """Return the object a finding is about, with its line."""
    return finding.object_name if finding.line is None else f"{finding.object_name}:{finding.line}"


def _spoken(text: str) -> str:
    return _UNSPEAKABLE.sub("?", text)
