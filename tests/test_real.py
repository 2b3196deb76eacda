"""The product as it is: the real embedder, the real Chroma, the real embedded model, a real server process, and a real Chromium."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from page_browser import ARGUMENTS, chromium

from rag import Answer, Assistant, Evidence, Settings, Turn, open_assistant
from rag.evaluation.measures import bare_sentences
from rag.model import reply
from rag.resilient import Resilient, Stopped
from rag.settings import SEEDS
from rag.weights import EMBEDDED, locate

pytestmark = pytest.mark.model

CITEWELL = [sys.executable, "-c", "from rag.cli import main; main()"]


def models_dir() -> Path:
    return Settings(model="none").models_dir


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Assistant]:
    if locate(EMBEDDED, models_dir()) is None:
        pytest.skip("needs the embedded model: run `citewell fetch`")
    with open_assistant(Settings(data_dir=tmp_path_factory.mktemp("store"), model="embedded")) as assistant:
        report = assistant.sync(SEEDS)
        assert len(report.added) == 4
        assert not report.rejected
        yield assistant


def holds(assistant: Assistant, answer: Answer) -> None:
    """What must be true of every answer."""
    for citation in answer.citations:
        assert assistant.store.text(citation.document_id)[citation.start : citation.end] == citation.quote
        assert f"[{citation.number}]" in answer.text
    assert [citation.number for citation in answer.citations] == list(range(1, len(answer.citations) + 1))
    assert not bare_sentences(answer)


def test_answers_with_the_exact_words(real: Assistant) -> None:
    answer = real.ask("How long can videos made by Kling 3.0 be?")
    assert not answer.abstained
    assert re.search(r"15|fifteen", answer.text)
    assert any("15 seconds" in citation.quote for citation in answer.citations)
    assert answer.model == "embedded"
    assert 0 < answer.usage.prompt_tokens < 1200
    holds(real, answer)


def test_evidence_comes_before_the_model_speaks(real: Assistant) -> None:
    events = real.stream("Who made RynnBrain?")
    first = next(events)
    assert isinstance(first, Evidence)
    assert "RynnBrain" in first.hits[0].passage.text
    events.close()


def test_whoever_leaves_while_it_reads_frees_the_model(real: Assistant) -> None:
    model, _ = real.answering_model()
    assert model is not None
    reply(model, [{"role": "user", "content": "Say yes."}], 1)
    long = " ".join(f"{number} ferries left quay {number * 7} at noon." for number in range(90))
    asked, _ = real.question_model()
    assert asked is not None
    reading = threading.Thread(target=_gate, args=(asked, long), daemon=True)
    reading.start()
    time.sleep(1.0)
    asked.stop()
    began = time.monotonic()
    reply(model, [{"role": "user", "content": "Say no."}], 1)
    # With batches of the default size the prompt is read to its end first: a quarter of a minute here.
    assert time.monotonic() - began < 8
    reading.join(10)
    asked.close()


def _gate(model: Resilient, text: str) -> None:
    with suppress(Stopped):
        model.probability([{"role": "user", "content": text}])


def test_follows_up(real: Assistant) -> None:
    answer = real.ask(
        "And who made it?", [Turn("user", "What is RynnBrain for?"), Turn("assistant", "It helps robots to understand physical objects.")]
    )
    assert answer.standalone_question == "Who made RynnBrain?"
    assert "Alibaba" in answer.text
    holds(real, answer)


def test_refuses_what_the_documents_do_not_say(real: Assistant) -> None:
    answer = real.ask("What is the capital of France?")
    assert answer.abstained
    assert "Paris" not in answer.text
    assert not answer.citations


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """`citewell serve` in a process of its own, as `make run` starts it."""
    if locate(EMBEDDED, models_dir()) is None:
        pytest.skip("needs the embedded model: run `citewell fetch`")
    environment = {**os.environ, "CITEWELL_DATA_DIR": str(tmp_path / "data"), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([*CITEWELL, "serve", "--port", "0"], env=environment, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout
    address = ""
    for line in process.stdout:
        if found := re.search(r"http://\S+", line):
            address = found.group()
            break
    assert address, "the server did not start"
    yield address
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


@pytest.mark.browser
def test_the_page_answers_and_opens_the_quote(server: str, tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with sync_api.sync_playwright() as playwright:
        path = chromium(playwright)
        if path is None:
            pytest.skip("needs Chromium: install your system's chromium package, or run `playwright install chromium`")
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        page = browser.new_page()
        outside: list[str] = []
        page.on("request", lambda request: None if request.url.startswith((server, "data:", "blob:")) else outside.append(request.url))
        page.goto(server)
        box = page.get_by_placeholder("Ask about your documents")
        box.fill("How long can videos made by Kling 3.0 be?")
        box.press("Enter")
        page.locator("#evidence").get_by_text("Kling 3.0").first.wait_for(timeout=60_000)
        chip = page.locator("#transcript a.chip").first
        chip.wait_for(timeout=240_000)
        assert "15" in page.locator("#transcript").inner_text()
        chip.click()
        quote = page.locator("dialog #quote")
        quote.wait_for(timeout=10_000)
        assert "15 seconds" in quote.inner_text()
        assert quote.evaluate("e => { const r = e.getBoundingClientRect(); return r.top >= 0 && r.bottom <= innerHeight }")
        if shots := os.environ.get("SHOTS"):
            page.screenshot(path=Path(shots, "real.png"))
        assert not outside
        browser.close()

    # Another process on the same store has the server do it.
    environment = {**os.environ, "CITEWELL_DATA_DIR": str(tmp_path / "data")}
    synced = subprocess.run([*CITEWELL, "sync", str(SEEDS)], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert synced.returncode == 0
    assert "4 unchanged" in synced.stdout
    answer: dict[str, Any] = json.loads(
        subprocess.run(
            [*CITEWELL, "ask", "--json", "Who made Kling 3.0?"], env=environment, capture_output=True, text=True, cwd=tmp_path, check=True
        ).stdout
    )
    assert "Kuaishou" in answer["text"]
