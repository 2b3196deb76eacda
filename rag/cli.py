"""The command line: `citewell ask`, `chat`, `serve`, `mcp`, `sync`, `add`, `forget`, `documents`, `backup`, `restore`, `reembed`, `evaluate`, `models`, `fetch`, `doctor`,
and `users` and `keys` from rag.accounts_cli.

Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rag import accounts_cli

if TYPE_CHECKING:
    import socket
    from threading import Event

    from rich.console import Console

    from rag.assistant import Assistant
    from rag.settings import Settings
    from rag.types import Turn

app = typer.Typer(
    help="Answers from your documents, every claim numbered, every number the exact words that bear it out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(accounts_cli.users, name="users")
app.add_typer(accounts_cli.keys, name="keys")

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the store lives.")]
Model = Annotated[
    str | None,
    typer.Option("--model", help="embedded, embedded-small, a .gguf file, a name from `citewell models`, an OpenAI-compatible URL, or none."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Documents = Annotated[list[str] | None, typer.Option("--document", help="Ask this document alone (repeatable): its id or source.")]


def main() -> None:
    """Runs a command. Errors that Citewell raises on purpose are one plain line and exit code 1."""
    from index.errors import CitewellError

    try:
        app()
    except CitewellError as error:
        print(f"citewell: {error}", file=sys.stderr)
        sys.exit(1)


def _settings(data_dir: Path | None = None, model: str | None = None, **more: Any) -> Settings:
    from rag.settings import Settings

    given = {"data_dir": data_dir, "model": model, **more}
    return Settings(**{key: value for key, value in given.items() if value is not None})


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@contextmanager
def _bar(unit: str) -> Iterator[Any]:
    """A progress bar on standard error with rate and time left: a function of done, total and what is at hand."""
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    rate = TextColumn("{task.fields[rate]}")
    amounts = [DownloadColumn(), TransferSpeedColumn()] if unit == "bytes" else [MofNCompleteColumn(), rate]
    columns = [TextColumn("{task.description}"), BarColumn(), *amounts, TimeRemainingColumn()]
    console = _console()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None, rate="")

        def told(done: int, total: int, what: str) -> None:
            speed = progress.tasks[0].speed
            progress.update(task, completed=done, total=total, description=escape(what[-50:]), rate=f"{speed:.1f} {unit}/s" if speed else "")

        yield told


def _open(settings: Settings) -> Assistant:
    """Opens the assistant; the model is fetched with a bar, the seed documents are indexed when the store is empty."""
    from rag.assistant import open_assistant, seed

    with _bar("bytes") as progress:
        assistant = open_assistant(settings, progress=progress)
    seed(assistant)
    return assistant


def _tell_notices(assistant: Assistant) -> None:
    """What the user should know about the store, on standard error. What only takes a moment is not told."""
    assistant.store.wait_for_index(3.0)
    for notice in assistant.store.notices():
        print(f"citewell: {notice}", file=sys.stderr)


def _tell_later(assistant: Assistant) -> None:
    """Tells the notices of a server's store: what there is at once, and once its index is open what came of that, for which nobody is kept waiting."""
    import threading

    from index.errors import CitewellError
    from rag.assistant import PAGE_SECONDS

    known = assistant.store.notices()
    for notice in known:
        print(f"citewell: {notice}", file=sys.stderr)

    def tell() -> None:
        with suppress(CitewellError):  # it was closed meanwhile
            assistant.store.wait_for_index(3.0)
            for notice in assistant.store.notices():
                if notice not in known:
                    print(f"citewell: {notice}", file=sys.stderr)

    telling = threading.Timer(PAGE_SECONDS, tell)
    telling.daemon = True
    telling.start()


@app.command()
def ask(question: str, as_json: Json = False, document: Documents = None, data_dir: DataDir = None, model: Model = None) -> None:
    """Answer one question. A running `citewell serve` on the same store is asked instead, which saves the start-up."""
    from rag.prompt import checked

    asked = checked(question)
    with _answering(_settings(data_dir, model)) as answering:
        _show(answering(asked, [], document), as_json)


@app.command()
def chat(data_dir: DataDir = None, model: Model = None) -> None:
    """Ask and follow up in the terminal; an empty line ends it."""
    from index.errors import InvalidQuestion
    from rag.types import Turn

    with _answering(_settings(data_dir, model), notices_first=True) as answering:
        history: list[Turn] = []
        while True:
            try:
                question = input("\nYou: ").strip()
            except EOFError:
                break
            if not question:
                break
            try:
                answer = _show(answering(question, history, None), False)
            except InvalidQuestion as error:
                print(error)
                continue
            history += [Turn("user", question), Turn("assistant", answer["text"])]


@contextmanager
def _answering(settings: Settings, notices_first: bool = False) -> Iterator[Any]:
    """A function from question, history and documents to (event name, data) pairs: from this process, or from the one that owns the store.

    What is to be known of the store is told at the end, as the index of a small store is still being opened when its evidence is found without it.
    """
    from dataclasses import asdict

    from index.errors import StoreInUse
    from rag.types import Answer, Evidence, Token

    try:
        assistant = _open(settings)
    except StoreInUse as error:
        from rag.remote import Running

        running = Running.of(error)

        def remotely(question: str, history: Sequence[Turn], documents: list[str] | None) -> Iterator[tuple[str, dict[str, Any]]]:
            from rag.remote import events

            return events(running, "/api/ask", {"question": question, "history": [asdict(turn) for turn in history], "documents": documents})

        yield remotely
        return

    def here(question: str, history: Sequence[Turn], documents: list[str] | None) -> Iterator[tuple[str, dict[str, Any]]]:
        for event in assistant.stream(question, history, documents):
            match event:
                case Evidence():
                    yield "evidence", {}
                case Token():
                    yield "token", {"text": event.text}
                case Answer():
                    yield "answer", event.to_dict()

    with assistant:
        if notices_first:
            _tell_notices(assistant)
        try:
            yield here
        finally:
            if not notices_first:
                _tell_notices(assistant)


def _show(events: Iterator[tuple[str, dict[str, Any]]], as_json: bool) -> dict[str, Any]:
    """Prints an answer with its sources, and returns it."""
    from rich.markup import escape

    from rag.watching import at_once

    console = _console()
    answer: dict[str, Any] | None = None
    try:
        with at_once(), console.status("Searching …") as status:
            console.show_cursor(True)  # nobody brings it back after Ctrl-C
            for name, data in events:
                if name == "evidence":
                    status.update("Reading the evidence …")
                elif name == "token":
                    status.update("Writing …")
                elif name == "answer":
                    answer = data
    except KeyError as error:
        from index.errors import CitewellError

        raise CitewellError(f"There is no document '{error.args[0]}'. `citewell documents` lists them.") from None
    assert answer is not None, "a stream ends in its answer"
    if as_json:
        print(json.dumps(answer, ensure_ascii=False, indent=2))
        return answer
    from rich.console import Console

    out = Console(highlight=False, soft_wrap=True)
    text = escape(answer["text"])
    for sentence in answer["unsupported"]:
        text = text.replace(escape(sentence), f"{escape(sentence)} [italic](not supported by the documents)[/italic]")
    out.print(text)
    for citation in answer["citations"]:
        page = f", page {citation['page']}" if citation["page"] else ""
        where = f"{escape(citation['source'])}{page}, characters {citation['start']}–{citation['end']}"
        out.print(f"\n  \\[{citation['number']}] [bold]{escape(citation['title'])}[/bold] ({where})")
        out.print(f"      “{escape(' '.join(citation['quote'].split()))}”")
    for notice in answer["notices"]:
        out.print(f"\n[italic]{escape(notice)}[/italic]")
    return answer


@app.command()
def serve(
    data_dir: DataDir = None,
    model: Model = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to serve on; any but 127.0.0.1 demands accounts and encryption.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port to serve on.")] = None,
) -> None:
    """Open the chat page in the browser's reach, and the HTTP door with it."""
    import gc
    import os
    from pkgutil import resolve_name

    from rag import logs, memory
    from rag.assistant import open_assistant, seed
    from rag.service import Visitors

    memory.share_heaps()
    settings = _settings(data_dir, model, host=host, port=port)
    logs.begin(settings.secrets, stacks=settings.log_stacks)
    with Visitors(settings) as visitors, closing(_listener(settings)) as listener, open_assistant(settings, fetch=False, patient=True) as assistant:
        if not assistant.store.document_count():
            print("Indexing the seed documents …", flush=True)
        with _bar("files") as progress:
            seed(assistant, progress)
        from rag.server import Server, create_app

        # By name: the page stands above this package and may import it, not the other way round.
        gc.disable()  # nearly all that imports make stays: to look through it for what can go, again and again, takes a fifth of the start
        try:
            door = create_app(assistant, visitors)
            page = resolve_name("ui.app:mount")(door, door.state.service)
        finally:
            gc.enable()
        gc.collect()
        gc.freeze()
        assistant.prepare_in_background()
        assistant.library.resume()
        assistant.store.announce(_address(settings, listener, own=True), visitors.local_key)
        print(f"Citewell is ready at {settings.public_url or _address(settings, listener)}  (Ctrl-C stops it)", flush=True)
        _tell_later(assistant)
        with suppress(KeyboardInterrupt):  # Ctrl-C is how it is meant to end
            Server(page, settings.tls_cert, settings.tls_key).run(sockets=[listener])
        if assistant.answering_model()[0] is not None or assistant.model_status().state == "fetching":
            # A model that computes cannot be interrupted, and freeing it waits for that; nor can a download. So the process ends without them.
            assistant.library.close()
            assistant.store.close()
            visitors.close()
            print("Stopped.", flush=True)
            os._exit(0)
    print("Stopped.")


def _listener(settings: Settings) -> socket.socket:
    """The socket that the page is served on. Raises CitewellError where it cannot be had."""
    import socket

    from index.errors import CitewellError
    from index.store import owner

    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen()  # now: a bound port alone does not keep a second server from binding it too
    except OSError as error:
        listener.close()
        _, running, _ = owner(settings.data_dir)
        if running:
            raise CitewellError(f"Citewell runs already, at {running}. Open that page, or stop it first.") from None
        raise CitewellError(
            f"Port {settings.port} on {settings.host} cannot be used ({error.strerror}). Stop what uses it, or choose another with --port."
        ) from None
    return listener


def _address(settings: Settings, listener: socket.socket, own: bool = False) -> str:
    """The address that is served; `own` is the one at which programs of this machine reach it."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"} if own else {}  # noqa: S104 - looked up
    host = everywhere.get(settings.host, settings.host)
    return f"{'https' if settings.tls_cert else 'http'}://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


@app.command()
def mcp(data_dir: DataDir = None, model: Model = None) -> None:
    """Lend the tools ask, search and read_span to other assistants, over standard input and output (MCP).

    A running `citewell serve` on the same store does the work, if there is one; start it first where several programs are to use the store.
    """
    import os

    from index.errors import StoreInUse
    from rag import logs
    from rag.assistant import open_assistant, seed

    settings = _settings(data_dir, model)
    # All but the protocol goes to standard error, which the program that started this one may show or keep.
    logs.begin(settings.secrets, stacks=settings.log_stacks)
    try:
        assistant = open_assistant(settings, fetch=False)
    except StoreInUse as error:
        from rag.mcp_server import relay, serve_stdio
        from rag.remote import Running

        running = Running.of(error)
        print(f"citewell: this store is answered for by the Citewell at {running.address}", file=sys.stderr)
        with suppress(KeyboardInterrupt):
            serve_stdio(relay(running))
        return
    with assistant:
        from rag.mcp_server import serve_stdio, server_of

        seed(assistant)
        assistant.prepare_in_background()
        assistant.library.resume()
        with suppress(KeyboardInterrupt):
            serve_stdio(server_of(lambda context: assistant))
        if assistant.answering_model()[0] is not None or assistant.model_status().state == "fetching":
            # As in `serve`: a model that computes cannot be interrupted, and freeing it waits for that.
            assistant.library.close()
            assistant.store.close()
            os._exit(0)


@app.command()
def sync(
    folder: Path,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Go on until Ctrl-C, and sync whenever something in the folder changes. Start `citewell serve` first to ask meanwhile."
        ),
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Read rejected files again although they have not changed.")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Make the store match a folder: add, replace and remove documents. A running `citewell serve` on the same store does it, if there is one.

    Ctrl-C stops it and keeps what is done. Exit code 2 when a file was rejected, 130 when it was stopped.
    """
    from index.errors import CitewellError
    from rag.watching import changes, interruptible

    settings = _settings(data_dir, "none")
    with interruptible() as stopped, _syncing(settings, stopped) as synced:

        def run(retry: bool, before: dict[str, Any] | None) -> dict[str, Any]:
            report = synced(folder, retry)
            news = any(report[fate] for fate in ("added", "changed", "removed")) or before is None or report["rejected"] != before["rejected"]
            if news and not (report["cancelled"] and before is not None):
                print(json.dumps(report, ensure_ascii=False, indent=2) if as_json else _told(report), flush=True)
            return report

        report = run(retry, None)
        if watch and not stopped.is_set():
            if not as_json:
                print(f"Watching {folder} (Ctrl-C stops it)", flush=True)
            trouble = ""
            for _ in changes(folder, settings.data_dir, stopped):
                try:
                    report, trouble = run(False, report), ""
                except CitewellError as error:
                    # A disk that is away for a while comes back; what was said once need not be said again.
                    if str(error) != trouble:
                        trouble = str(error)
                        print(f"citewell: {trouble}", file=sys.stderr)
            return
    if report["cancelled"]:
        raise typer.Exit(130)
    if report["rejected"]:
        raise typer.Exit(2)


def _told(report: dict[str, Any]) -> str:
    from index.sync import SyncReport

    return str(SyncReport(**report))


@contextmanager
def _syncing(settings: Settings, stopped: Event) -> Iterator[Callable[[Path, bool], dict[str, Any]]]:
    """A function that syncs a folder and returns the report: in this process, or in the one that owns the store."""
    from dataclasses import asdict

    from index.errors import StoreInUse
    from index.sync import SyncReport
    from rag.assistant import open_assistant

    def here(folder: Path, retry: bool) -> dict[str, Any]:
        with _bar("files") as progress:
            return asdict(assistant.sync(folder, progress, stopped.is_set, retry))

    def remotely(folder: Path, retry: bool) -> dict[str, Any]:
        from rag.remote import events

        # What is done when it is stopped, the server knows alone.
        report = asdict(SyncReport(cancelled=True))
        body = {"folder": str(folder.expanduser().absolute()), "retry": retry}
        with _bar("files") as progress, closing(events(running, "/api/sync", body)) as told:
            for name, data in told:
                if name == "progress":
                    progress(data["done"], data["total"], data["current"])
                elif name == "report":
                    report = data
                if stopped.is_set() and name != "report":
                    break
        return report

    try:
        opened = open_assistant(settings)
    except StoreInUse as error:
        from rag.remote import Running

        running = Running.of(error)
        yield remotely
        return
    with ExitStack() as until_closed, opened as assistant:
        _tell_notices(assistant)
        yield here
        # Closing waits for what a small store's vector index has still to learn: seconds, where much is new.
        until_closed.enter_context(_console().status("Putting what is new into the vector index"))


@app.command()
def forget(folder: Path, data_dir: DataDir = None) -> None:
    """Let go of a synced folder, be it there or not: its documents answer no more, its files stay as they are."""
    from index.errors import StoreInUse
    from rag.assistant import open_assistant

    try:
        with open_assistant(_settings(data_dir, "none")) as assistant:
            gone = assistant.library.forget(folder.expanduser())
    except StoreInUse as error:
        from rag import remote

        gone = remote.forget(remote.Running.of(error), str(folder.expanduser().absolute()))
    print(f"{gone} documents of {folder} are gone from the store.")


@app.command()
def add(
    url: Annotated[str, typer.Argument(help="The address of a public web page, such as https://example.org/page.html.")],
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Fetch a web page and add it, in place of what was fetched from that address before. A running `citewell serve` on the same store does it, if there is one.

    The setting `add_urls` must be on, at the server if there is one. Exit code 2 when the page cannot be read.
    """
    import time

    from index.errors import StoreInUse
    from rag.assistant import open_assistant
    from rag.library import fates

    try:
        with open_assistant(_settings(data_dir, "none")) as assistant:
            _tell_notices(assistant)
            source, wanted = assistant.add_url(url)
            while (fate := fates(assistant.library, assistant.store, [(source, wanted, "")])[0])["status"] == "waiting":
                time.sleep(0.05)
    except StoreInUse as error:
        from rag import remote

        fate = remote.add_url(remote.Running.of(error), url)
    if as_json:
        print(json.dumps(fate, ensure_ascii=False, indent=2))
    else:
        print(f"{fate['source']}: {fate['status']}{': ' if fate['reason'] else ''}{fate['reason']}")
    if fate["status"] == "rejected":
        raise typer.Exit(2)


@app.command()
def documents(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List the documents in the store, and the files that were rejected with the reasons."""
    from index.errors import StoreInUse
    from rag.assistant import open_assistant
    from rag.library import listing

    try:
        with open_assistant(_settings(data_dir, "none")) as assistant:
            _tell_notices(assistant)
            entries = listing(assistant.store)
    except StoreInUse as error:
        from rag import remote

        entries = remote.documents(remote.Running.of(error))
    if as_json:
        print(json.dumps(entries, ensure_ascii=False, indent=2))
    elif not entries:
        print("There are no documents yet. Add some with `citewell sync FOLDER`.")
    else:
        _show_documents(entries)


def _show_documents(entries: Sequence[dict[str, Any]]) -> None:
    """A table that cuts nothing; where no terminal limits it, a document takes one line."""
    from datetime import datetime

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("Source", "Title", "Bytes", "Passages", "When", "Status"):
        number = name in ("Bytes", "Passages")
        table.add_column(name, justify="right" if number else "left", no_wrap=number or name == "When", overflow="fold")
    for entry in entries:
        status = f"rejected: {entry['reason']}" if entry["reason"] else "indexed"
        when = datetime.fromisoformat(entry["indexed_at"]).astimezone().strftime("%Y-%m-%d %H:%M")
        cells = (entry["source"], entry["title"], entry["bytes"] or "", entry["passages"] or "", when, status)
        table.add_row(*(escape(str(cell)) for cell in cells))
    Console(highlight=False, width=None if sys.stdout.isatty() else 100_000).print(table)


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="The file to write, such as citewell-backup.zip.")],
    data_dir: DataDir = None,
) -> None:
    """Write everything that the store knows, and the files that were uploaded, into one file. It can be done while Citewell runs."""
    from index.backup import backup as write

    settings = _settings(data_dir)
    _refuse_shared(settings, "`pg_dump` backs it up: documents, passages, vectors and uploaded files are in it")
    write(settings.data_dir, target)
    print(f"The store in {settings.data_dir} is backed up in {target}. `citewell restore {target}` brings it back.")


def _refuse_shared(settings: Settings, instead: str) -> None:
    """Raises CitewellError for a shared store, which is its database's to keep."""
    from index.errors import CitewellError

    if settings.shared:
        raise CitewellError(
            f"The store is in PostgreSQL, and {instead}. For accounts and conversations, which are in the data folder of each machine, run this command "
            "with CITEWELL_STORE_URL and CITEWELL_CHROMA_URL empty."
        )


@app.command()
def restore(
    archive: Annotated[Path, typer.Argument(help="A file that `citewell backup` wrote.")],
    replace: Annotated[bool, typer.Option("--replace", help="Put the store that is there now aside.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Bring back a store from its backup, checked before anything is touched."""
    from index.backup import restore as bring_back

    settings = _settings(data_dir)
    _refuse_shared(settings, "`pg_restore` brings back what `pg_dump` wrote")
    kept = bring_back(archive, settings.data_dir, replace)
    print(f"The store in {settings.data_dir} is as it was when {archive} was written.")
    for folder in kept:
        print(f"The store that was there before is kept in {folder}. If you miss nothing, you can delete that folder.")


@app.command()
def reembed(data_dir: DataDir = None) -> None:
    """Make new vectors for all passages, after another embedding model was set. It goes on where it was stopped."""
    from rag.assistant import open_assistant
    from rag.watching import interruptible

    with interruptible() as stopped, open_assistant(_settings(data_dir, "none"), reembed=True) as assistant, _bar("passages") as progress:
        done = assistant.reembed(progress, stopped.is_set)
        # Else whoever opens the store next would have to build the index of the new vectors.
        while done and not stopped.is_set() and assistant.store.wait_for_index(0.5) in ("opening", "rebuilding"):
            pass
    if not done:
        print("Stopped. What is done is kept; run it again to go on.")
        raise typer.Exit(130)
    print("All passages have vectors of the embedding model that is set.")


@app.command()
def evaluate(
    sets: Annotated[
        list[str],
        typer.Argument(metavar="SET...", help="Folders with questions.jsonl (and corpus.jsonl), questions files, or 'mine': your own cases."),
    ],
    documents: Annotated[
        Path | None, typer.Option("--documents", help="Folder to ask where a set has no corpus.jsonl; by default the seeds.")
    ] = None,
    baseline: Annotated[str | None, typer.Option("--baseline", help="A run to compare with, question by question: its folder or its name.")] = None,
    part: Annotated[str, typer.Option("--part", help="tune, report (the two halves of each set) or all.")] = "all",
    limit: Annotated[int | None, typer.Option(min=1, help="Ask N questions of each set, chosen at random (of planted instructions, N).")] = None,
    seed: Annotated[int, typer.Option(help="What is chosen at random follows from this number.")] = 0,
    retrieval: Annotated[bool, typer.Option("--retrieval", help="Measure search alone: nothing is answered, no model is needed.")] = False,
    given: Annotated[bool, typer.Option("--given", help="Ask each question of its gold documents alone, as clapnq's figures are counted.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for runs, indexed corpora and known replies; by default in the data folder.")
    ] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    model: Model = None,
) -> None:
    """Measure answers on question sets: a table here, a report with every failure in a file. A run that was stopped goes on when it is called again."""
    from rag.evaluation import report, run

    settings = _settings(data_dir, model)
    folder = (out or settings.data_dir / "evaluations").expanduser().absolute()
    before = run.load_run(baseline, folder) if baseline else None
    options = run.Options(tuple(sets), documents, part, limit, seed, retrieval, given)
    with _bar("questions") as progress:
        made, place = run.evaluate(options, settings, folder, progress)
    page = report.write(made, place, before)
    if as_json:
        print(json.dumps(made, ensure_ascii=False, indent=2))
        return
    _show_table(report.short_table(made, before), before is not None)
    print(f"\nReport, run and summary: {page.parent}")


def _show_table(rows: Sequence[tuple[str, ...]], compared: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    out = Console(highlight=False)
    table = Table()
    for name, *cells in rows:
        if name:
            if table.columns:
                out.print(table, "")
            table = Table(box=None, pad_edge=False, header_style="dim")
            table.add_column(escape(name), justify="left", header_style="bold")
            for title in ("tune", "report", "all", "since baseline" if compared else "95 % interval"):
                table.add_column(title, justify="right", no_wrap=True)
        table.add_row(*(escape(cell) for cell in (*cells[:4], cells[5] if compared else cells[4])))
    out.print(table)


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="A preset, or anything else that --model takes: it is asked one tiny question.")] = None,
    as_json: Json = False,
) -> None:
    """List the model services that are known by name; with a name, ask that one whether it answers. Exit code 1 when it does not."""
    from rag import trial

    if name is None:
        presets = trial.listing()
        print(json.dumps(presets, ensure_ascii=False, indent=2)) if as_json else _show_presets(presets)
        return
    tried = trial.tried(_settings(None, name))
    print(json.dumps(tried, ensure_ascii=False, indent=2) if as_json else tried["text"], file=None if as_json or tried["answered"] else sys.stderr)
    if not tried["answered"]:
        raise typer.Exit(1)


def _show_presets(presets: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("Name", "Service", "Model", "Key", "Address"):
        table.add_column(title, no_wrap=True)
    for preset in presets:
        key = f"{preset['key_variable']} ({'set' if preset['key_set'] else 'not set'})" if preset["key_variable"] else "none needed"
        table.add_row(preset["name"], preset["title"], preset["model"] or "what runs there", key, preset["url"])
    Console(highlight=False, width=100_000 if not sys.stdout.isatty() else None).print(table)
    print("\nChoose one with CITEWELL_MODEL=NAME, and another model there with CITEWELL_MODEL_NAME. `citewell models NAME` asks it a question.")


@app.command()
def fetch(model: Model = None) -> None:
    """Fetch the embedded model's file now, so that nothing needs the network later."""
    from rag import weights

    settings = _settings(None, model)
    if settings.model not in weights.CATALOG:
        from rag.assistant import configured_model

        configured_model(settings)  # says so where there is no such model
        print(f"The model is set to '{settings.model_shown}', for which nothing is to be fetched.")
        return
    with _bar("bytes") as progress:
        path = weights.fetch(weights.CATALOG[settings.model], settings.models_dir, progress)
    print(f"The model is at {path}")


@app.command()
def doctor(data_dir: DataDir = None, model: Model = None) -> None:
    """Say what is installed, where data and model are, what is wrong, and what to do. Exit code 1 when something is wrong."""
    from rag.doctor import examine

    findings = examine(lambda: _settings(data_dir, model))
    for finding in findings:
        print(f"{'ok   ' if finding.good else 'WRONG'}  {finding.about}: {finding.text}")
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
