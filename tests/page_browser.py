"""Where a Chromium is, and how it is started so that it asks nothing of the outside."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Playwright

CANDIDATES = ("/usr/bin/chromium", "/usr/bin/chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]


def chromium(playwright: Playwright) -> str | None:
    """The path of a Chromium, the system's before playwright's own; None when there is neither."""
    return next((path for path in (*CANDIDATES, playwright.chromium.executable_path) if Path(path).exists()), None)
