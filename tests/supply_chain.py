"""Part of `make check`: does a service know of a vulnerability in a package that requirements.lock pins?

A vulnerability fails the check, unless vulnerabilities.toml accepts it with a reason until a date. Where no service can be asked, that is said, and the check
goes on: it must work without the network.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
ACCEPTED = ROOT / "vulnerabilities.toml"
SERVICES = ("pypi", "osv")
SECONDS = 300
UNREACHABLE = ("ConnectionError", "Could not connect", "Max retries exceeded", "timed out")


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Why a vulnerability is let pass, and the last day on which it is."""

    id: str
    package: str
    reason: str
    until: date


def acceptances(text: str) -> tuple[Acceptance, ...]:
    """What vulnerabilities.toml holds; each entry must have all its fields, and a reason in words."""
    entries = tuple(Acceptance(**entry) for entry in tomllib.loads(text).get("accepted", ()))
    for entry in entries:
        if not entry.reason.strip() or type(entry.until) is not date:
            raise ValueError(f"{ACCEPTED.name}: {entry.id} needs a reason, and a date as its last day.")
    return entries


def audited(packages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a service knew anything of the packages: one that knows none of them is no service, but a mirror that stands in its place."""
    return any("skip_reason" not in package for package in packages)


def judged(packages: Sequence[Mapping[str, Any]], accepted: Sequence[Acceptance], today: date) -> tuple[bool, list[str]]:
    """Whether pip-audit's findings pass, and what is to be said of them."""
    lines, failed, used = [], False, set()
    for package in packages:
        for found in package.get("vulns", ()):
            names = {found["id"], *found.get("aliases", ())}
            entry = next((entry for entry in accepted if entry.package == package["name"] and entry.id in names), None)
            fixed = f"Fixed in {', '.join(found['fix_versions'])}." if found.get("fix_versions") else "There is no fixed version yet."
            told = f"{package['name']} {package['version']}: {found['id']}. {fixed}"
            if entry is None:
                failed = True
                lines.append(f"{told} Renew the package, or accept it in {ACCEPTED.name} with a reason and a date.")
                continue
            used.add(entry)
            if entry.until < today:
                failed = True
                lines.append(f"{told} It was accepted until {entry.until}: look at it again. The reason was: {entry.reason}")
            else:
                lines.append(f"{told} Accepted until {entry.until}: {entry.reason}")
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if skipped:
        lines.append(f"Not known to the service, and not looked at: {', '.join(skipped)}.")
    lines += [
        f"{ACCEPTED.name} accepts {entry.id} of {entry.package}, which is no longer found: take it out." for entry in accepted if entry not in used
    ]
    return not failed, lines


def findings(service: str) -> list[Mapping[str, Any]] | None:
    """What a service knows of the pinned packages, None where it cannot be asked. Raises RuntimeError where pip-audit itself fails."""
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--requirement",
        str(LOCK),
        "--no-deps",
        "--disable-pip",
        "--progress-spinner",
        "off",
        "--timeout",
        "10",
    ]
    try:
        done = subprocess.run(
            [*command, "--format", "json", "--vulnerability-service", service], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    try:
        found: list[Mapping[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        if any(words in done.stderr for words in UNREACHABLE):
            return None
        raise RuntimeError(f"pip-audit failed: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}") from None
    return found if audited(found) else None


def main() -> int:
    accepted = acceptances(ACCEPTED.read_text(encoding="utf-8"))
    for service in SERVICES:
        found = findings(service)
        if found is None:
            continue
        passed, lines = judged(found, accepted, date.today())
        print("\n".join([*lines, f"{len(found)} pinned packages looked up: {'no' if passed else 'a'} vulnerability that fails the check."]))
        return 0 if passed else 1
    print("NOT CHECKED for known vulnerabilities: no service that knows them can be reached from here. Run `make check` where the network is.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
