"""How long a start takes: `citewell --help`, `import rag`, `citewell ask` until the evidence is there, and `make run`'s second start until the page can be used.

usage: python tests/bench_start.py [--rounds 5] [--imports]

Every figure is the median of new processes on a warm disk, with the seed documents indexed and the embedded model fetched (without it, the documents' own
sentences answer). `ask` runs on a terminal, and its clock ends where it says that it reads the evidence. The page's starts with the two commands of
`make run`; a headless Chromium that runs already opens the page once the server says that it is ready, and the clock ends where a question's evidence is
shown. Nothing is
imported that only the development requirements bring. With --imports the ten imports that take longest by themselves, and with what they import, are listed for each.
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from page_browser import ARGUMENTS, ask, chromium

from rag.assistant import open_assistant, seed
from rag.settings import Settings
from rag.weights import EMBEDDED, locate

ROOT = Path(__file__).resolve().parent.parent
CITEWELL = ("-c", "import sys; sys.modules['rfc3987_syntax'] = None; from rag.cli import main; main()")
"""jsonschema, which Chroma imports, imports this where it is: seconds for a grammar. The development requirements bring it, `make run` does not."""

QUESTION = "How long can Kling 3.0 videos be?"
WANTED = {
    "citewell --help": 0.3,
    "import rag": 0.2,
    "citewell ask, to its evidence": 5.0,
    "make run again, to a question's evidence on the page": 10.0,
}

Environment = dict[str, str]


def run(arguments: Sequence[str], environment: Environment) -> float:
    """Seconds of a whole process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def ask_to_evidence(environment: Environment) -> float:
    """Seconds from the start of `citewell ask` to its first word about the evidence; it is stopped then as a user stops it."""
    ours, terminal = pty.openpty()
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *CITEWELL, "ask", QUESTION],
        cwd=ROOT, env={**environment, "TERM": "xterm"}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=terminal, start_new_session=True,
    ) as asking:  # fmt: skip
        os.close(terminal)
        shown = b""
        with suppress(OSError):  # how the end of a terminal is told
            while b"Reading the evidence" not in shown and b"Writing" not in shown:
                block = os.read(ours, 10_000)
                if not block:
                    break
                shown += block
        seconds = time.perf_counter() - began
        asking.send_signal(signal.SIGINT)
        with suppress(OSError):
            while os.read(ours, 10_000):
                pass
    os.close(ours)
    assert b"evidence" in shown or b"Writing" in shown, shown.decode(errors="replace")
    return seconds


def page_to_evidence(environment: Environment, browser: Any) -> dict[str, float]:
    """Seconds from `make run`'s first command to: the server is ready, it answers /healthz, the page takes a question, its evidence is shown."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.perf_counter()
    subprocess.run([sys.executable, *CITEWELL, "fetch"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
    seconds = {"fetch is through": time.perf_counter() - began}

    def passed(what: str) -> None:
        seconds[what] = time.perf_counter() - began

    with subprocess.Popen(
        [sys.executable, *CITEWELL, "serve", "--port", str(port)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as serving:
        assert serving.stdout is not None
        for line in serving.stdout:
            if "ready" in line:
                break
        passed("the server says that it is ready")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30) as reply:
            health = reply.read().decode()
        passed("/healthz answers" + (", the language model loading" if '"loading"' in health else ""))
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(f"http://127.0.0.1:{port}")
        page.get_by_role("textbox", name="Your question").and_(page.locator(":enabled")).wait_for()
        passed("the page takes a question")
        ask(page, QUESTION)
        page.locator("#evidence").get_by_text("Kling 3.0").first.wait_for()
        passed("a question's evidence is shown")
        page.close()
        serving.send_signal(signal.SIGINT)
        serving.stdout.read()
    return seconds


def heaviest(arguments: Sequence[str], environment: Environment, until: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """The ten imports of a command that take longest: alone, and with what they import for the first time."""
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if until(line):
                process.send_signal(signal.SIGINT)
    found = [(int(match[1]), int(match[2]), match[3]) for line in lines if (match := re.match(r"import time:\s+(\d+) \|\s+(\d+) \|\s*(\S+)", line))]
    alone = sorted(found, reverse=True)[:10]
    packages = [entry for entry in found if "." not in entry[2]]
    together = sorted(packages, key=lambda entry: -entry[1])[:10]
    return [f"{name} {one / 1000:.0f}" for one, _, name in alone], [f"{name} {whole / 1000:.0f}" for _, whole, name in together]


def report(rounds: int, imports: bool = False) -> None:
    """Measures, and prints a table."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as scratch:
        settings = Settings(data_dir=Path(scratch))
        fetched = locate(EMBEDDED, settings.models_dir) is not None
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CITEWELL_")},
            "CITEWELL_DATA_DIR": scratch, "CITEWELL_MODELS_DIR": str(settings.models_dir), "CITEWELL_MODEL": "embedded" if fetched else "none",
            "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        with open_assistant(Settings(data_dir=Path(scratch), model="none")) as assistant:
            seed(assistant)
        commands: dict[str, Callable[[], float]] = {
            "citewell --help": lambda: run([*CITEWELL, "--help"], environment),
            "import rag": lambda: run(["-c", "import rag"], environment),
            "citewell ask, to its evidence": lambda: ask_to_evidence(environment),
        }
        taken: dict[str, list[float]] = {name: [] for name in commands}
        stages: list[dict[str, float]] = []
        with sync_playwright() as playwright:
            path = chromium(playwright)
            browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS) if path else None
            for number in range(rounds + 1):
                for name, measure in commands.items():
                    taken[name].append(measure())
                if browser:
                    stages.append(page_to_evidence(environment, browser))
                if number == 0:  # it warmed the disk
                    taken, stages = {name: [] for name in commands}, []
            if browser:
                browser.close()
        figures = {name: median(each) for name, each in taken.items()}
        if stages:
            figures["make run again, to a question's evidence on the page"] = median(stage["a question's evidence is shown"] for stage in stages)
        print(f"Start-up, medians of {rounds} processes{'' if fetched else ', without the embedded model, which is not fetched'}:\n")
        print("| | seconds | wanted |\n|---|--:|--:|")
        for name, seconds in figures.items():
            print(f"| {name} | {seconds:.2f} | {WANTED[name]:g} |")
        if stages:
            told = [f"{name} {median(stage[name] for stage in stages if name in stage):.1f}" for name in stages[0]]
            print(f"\nOf the page's start: {', '.join(told)}.")
        else:
            print("\nNo Chromium is at hand, so the page's start was not measured.")
        if imports:
            ports = ["--port", "0"]
            for name, arguments in {
                "import rag": ["-c", "import rag"],
                "citewell --help": [*CITEWELL, "--help"],
                "citewell ask": [*CITEWELL, "ask", QUESTION, "--model", "none"],
                "citewell serve": [*CITEWELL, "serve", *ports],
            }.items():
                alone, together = heaviest(arguments, environment, lambda line: "Citewell is ready" in line)
                print(f"\n{name}, milliseconds: alone {', '.join(alone)}; with all they import {', '.join(together)}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--imports", action="store_true")
    chosen = parser.parse_args()
    report(chosen.rounds, chosen.imports)


if __name__ == "__main__":
    main()
