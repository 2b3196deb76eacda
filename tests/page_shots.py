"""Screenshots of a running page, for looking at: `python tests/page_shots.py http://127.0.0.1:7860 FOLDER [QUESTION]`."""

from __future__ import annotations

import sys
from pathlib import Path

from page_browser import ARGUMENTS, chromium
from playwright.sync_api import Page, sync_playwright

SIZES = {"desktop": (1280, 800), "phone": (390, 844)}


def shoot(page: Page, address: str, folder: Path, name: str, question: str) -> None:
    """Empty, mid-answer, answered, with a document open, with the documents view open, with a document chosen."""

    def save(state: str, whole: bool = False) -> None:
        page.screenshot(path=folder / f"{name}-{state}.png", full_page=whole)

    page.goto(address)
    page.get_by_role("textbox").wait_for()
    page.wait_for_timeout(800)
    save("1-empty")
    page.get_by_role("textbox").fill(question)
    page.get_by_role("textbox").press("Enter")
    page.locator(".running .status").wait_for()
    page.locator("[data-phase=evidence]").wait_for()
    page.wait_for_timeout(300)
    save("2-reading")
    page.locator("[data-phase=draft], .log .answer").first.wait_for(timeout=120_000)
    page.wait_for_timeout(400)
    save("3-draft")
    page.locator(".log .answer").wait_for(timeout=240_000)
    page.wait_for_timeout(600)
    save("4-answered")
    save("4-answered-whole", whole=True)
    chips = page.locator(".log .chip")
    if chips.count():
        chips.first.click()
        page.locator("dialog[open] :is(.text, .picture)").wait_for()
        page.wait_for_timeout(500)
        save("5-document")
        views = page.locator("dialog[open] .views a")
        if views.count():
            views.last.click()
            page.locator("dialog[open] .picture").wait_for()
            page.wait_for_timeout(800)
            save("6-page")
        page.keyboard.press("Escape")
    page.locator("[data-open-library]").last.click()
    page.locator(".library .count, .library .nothing").first.wait_for()
    page.wait_for_timeout(400)
    save("7-documents")
    boxes = page.locator(".library [data-choose]")
    if boxes.count():
        boxes.first.check()
        page.wait_for_timeout(400)
        save("8-chosen")
        page.locator(".library .chosen-bar .primary").click()
        page.wait_for_timeout(400)
        save("9-asking")


def main(address: str, folder: str, question: str = "How long does the crossing take, slow and with a notice?") -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(playwright), args=ARGUMENTS)
        for device, (width, height) in SIZES.items():
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
                shoot(page, address, Path(folder), f"{device}-{scheme}", question)
                page.close()
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
