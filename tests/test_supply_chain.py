"""Tests of what `make check` says of pinned packages, and of their licences. Nothing is asked of the network."""

from __future__ import annotations

import re
import subprocess
from datetime import date
from importlib.metadata import metadata
from typing import Any

import pytest
import supply_chain
from supply_chain import LOCK, Acceptance, acceptances, findings, judged, main

TODAY = date(2026, 6, 1)
FOUND = [
    {"name": "apollo", "version": "1.0", "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["1.1"]}]},
    {"name": "luna", "version": "2.0", "vulns": []},
    {"name": "own", "skip_reason": "not found"},
]
PACKAGES = [line.partition("==")[0] for line in LOCK.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


def acceptance(until: date, name: str = "CVE-1", package: str = "apollo") -> Acceptance:
    return Acceptance(name, package, "It is not used.", until)


def test_a_vulnerability_fails_unless_it_is_accepted_and_the_date_is_not_past() -> None:
    assert not judged(FOUND, (), TODAY)[0]
    assert not judged(FOUND, (acceptance(TODAY, package="luna"),), TODAY)[0]
    assert not judged(FOUND, (acceptance(date(2026, 5, 31)),), TODAY)[0]
    passed, lines = judged(FOUND, (acceptance(TODAY), acceptance(TODAY, "CVE-2")), TODAY)
    assert passed
    assert lines == [
        "apollo 1.0: PYSEC-1. Fixed in 1.1. Accepted until 2026-06-01: It is not used.",
        "Not known to the service, and not looked at: own.",
        "vulnerabilities.toml accepts CVE-2 of apollo, which is no longer found: take it out.",
    ]


@pytest.mark.parametrize(
    ("stdout", "stderr", "expected"),
    [
        ('{"dependencies": [{"name": "own", "skip_reason": "not found"}]}', "", None),
        ("", "Could not connect to the feed", None),
        ("", "ConnectionError: Max retries exceeded with url", None),
        ('{"dependencies": [{"name": "luna", "version": "2.0", "vulns": []}]}', "", [{"name": "luna", "version": "2.0", "vulns": []}]),
    ],
)
def test_a_service_that_knows_none_or_does_not_answer_is_none(monkeypatch: pytest.MonkeyPatch, stdout: str, stderr: str, expected: Any) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, 0, stdout, stderr))
    assert findings("pypi") == expected


def test_a_failing_tool_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, 1, "", "ERROR: invalid requirement"))
    with pytest.raises(RuntimeError, match="invalid requirement"):
        main()


def test_what_could_not_be_asked_is_said_and_the_second_service_is_tried(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(supply_chain, "findings", lambda service: None)
    assert main() == 0
    assert "NOT CHECKED" in capsys.readouterr().out
    monkeypatch.setattr(supply_chain, "findings", lambda service: FOUND if service == "osv" else None)
    assert main() == 1
    assert "apollo 1.0: PYSEC-1" in capsys.readouterr().out


def test_an_acceptance_needs_a_reason_and_a_date() -> None:
    entry = '[[accepted]]\nid = "CVE-1"\npackage = "apollo"\nreason = "{}"\nuntil = {}\n'
    assert acceptances(entry.format("It is not used.", "2026-06-01")) == (acceptance(TODAY),)
    for wrong in (entry.format(" ", "2026-06-01"), entry.format("It is not used.", '"soon"')):
        with pytest.raises(ValueError, match="needs a reason"):
            acceptances(wrong)
    acceptances(supply_chain.ACCEPTED.read_text(encoding="utf-8"))


@pytest.mark.parametrize("package", PACKAGES)
def test_the_licence_is_known_and_asks_nothing_of_us_that_we_do_not_give(package: str) -> None:
    said = metadata(package)
    named = said.get("License-Expression") or said.get("License") or ""
    classified = [name.rpartition("::")[2] for name in said.get_all("Classifier", []) if name.startswith("License ::")]
    licences = " ".join([named.splitlines()[0] if named else "", *classified]).strip()
    assert licences, f"{package} does not say its licence: look it up, or do without the package"
    choices = re.split(r" OR ", licences)
    assert any(not re.search(r"(?<!L)GPL|(?<!Lesser )General Public License|Affero", choice) for choice in choices), f"{package}: {licences}"
