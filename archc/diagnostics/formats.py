"""Findings for programs: plain data, SARIF 2.1.0 (code scanning), and the annotations of GitHub's workflows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from archc.diagnostics.findings import Diagnostic, Label
from archc.diagnostics.pages import explain
from archc.diagnostics.render import to_json

SARIF = "https://json.schemastore.org/sarif-2.1.0.json"


def as_json(findings: Sequence[Diagnostic]) -> str:
    """A list of findings; `render.to_json` says what each holds."""
    return json.dumps([to_json(finding) for finding in findings], indent=2)


def as_sarif(findings: Sequence[Diagnostic], version: str) -> str:
    """A log of one run. Columns count code points, as everywhere in archc."""
    codes = sorted({finding.code for finding in findings})
    driver = {"name": "archc", "version": version, "rules": [_rule(code) for code in codes]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, codes) for finding in findings],
    }
    return json.dumps({"$schema": SARIF, "version": "2.1.0", "runs": [run]}, indent=2)


def as_github(findings: Sequence[Diagnostic]) -> str:
    """A workflow command for each finding: https://docs.github.com/actions/reference/workflow-commands."""
    return "\n".join(map(_command, findings))


def _rule(code: str) -> dict[str, Any]:
    page = explain(code) or ""
    first = page.partition("\n\n")[2].partition("\n\n")[0]
    return {
        "id": code,
        "shortDescription": {"text": " ".join(first.split()) or code},
        "help": {"text": page or code, "markdown": page or code},
    }


def _result(finding: Diagnostic, codes: list[str]) -> dict[str, Any]:
    primary = [label for label in finding.labels if label.primary][:1]
    others = [label for label in finding.labels if label not in primary]
    text = finding.message + (f"\n{finding.help}" if finding.help else "")
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "ruleIndex": codes.index(finding.code),
        "level": finding.severity,
        "message": {"text": text},
        "locations": [_location(label) for label in primary],
    }
    if others:
        result["relatedLocations"] = [{"id": i, **_location(label)} for i, label in enumerate(others)]
    return result


def _location(label: Label) -> dict[str, Any]:
    source = label.span.source
    (line, column), (last, end) = source.position(label.span.start), source.position(label.span.end)
    region = {"startLine": line, "startColumn": column, "endLine": last, "endColumn": end}
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": {"uri": quote(source.name, safe="/")}, "region": region}
    }
    return location | ({"message": {"text": label.text}} if label.text else {})


def _command(finding: Diagnostic) -> str:
    where = {"title": finding.code}
    label = next((label for label in finding.labels if label.primary), None)
    if label is not None:
        source = label.span.source
        (line, column), (last, end) = source.position(label.span.start), source.position(label.span.end)
        where |= {"file": source.name, "line": f"{line}", "endLine": f"{last}"}
        where |= {"col": f"{column}", "endColumn": f"{end}"} if line == last else {}
    text = finding.message + (f"\n{finding.help}" if finding.help else "")
    properties = ",".join(f"{name}={_escaped(value, ',:')}" for name, value in where.items())
    return f"::{finding.severity} {properties}::{_escaped(text)}"


def _escaped(text: str, more: str = "") -> str:
    """`text` with what ends a command or one of its properties as a percent escape."""
    return "".join(f"%{ord(char):02X}" if char in "%\r\n" + more else char for char in text)
