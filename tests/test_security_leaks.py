"""Whatever goes wrong: no key, password, token, path or stack comes back to anybody, and no key, password or token stands in the log."""

from __future__ import annotations

import inspect
import io
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from model_server import FAULTS, LEAK, SECRET, running
from security_world import PASSWORD, Direct, Reply, World, through_the_proxy

from index.errors import CitewellError, InvalidSettings, StoreDamaged, StoreError
from index.store import Store
from index.visible import Visible
from rag import logs
from rag.accounts import Accounts
from rag.assistant import configured_model, fallback_model, open_assistant
from rag.conversations import Conversations
from rag.library import Library, OwnLibrary
from rag.model import OpenAIModel
from rag.settings import Settings

pytestmark = pytest.mark.usefixtures("fast_probes")

KEY = "sk-live-4f9d8c7b6a5e4d3c2b1a"
LOGIN = "operator:hunter2hunter2"
PLACE = "/srv/private/place"
MCP = {"accept": "application/json, text/event-stream"}
EVENTS = {"accept": "text/event-stream"}
CHAT = {"model": "citewell", "messages": [{"role": "user", "content": "Who eats seeds?"}]}
STACK = ("Traceback (most recent", 'File "', "site-packages", ".py:", "line 1, in")


def call(tool: str, **arguments: Any) -> Any:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


def requests(world: World) -> list[tuple[str, str, dict[str, str], Any]]:
    """A good request to everything of ours that does something; those that would take something away ask for what is not there."""
    document, conversation, exchange = (world.ben.ids[name] for name in ("document", "conversation", "exchange"))
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="new.txt"\r\n\r\nOne kea.\r\n--x--\r\n'
    given = {"fn_index": 0, "data": [], "session_hash": "tab"}
    return [
        ("GET", "/healthz", {}, b""),
        ("GET", "/readyz", {}, b""),
        ("GET", "/metrics", {}, b""),
        ("GET", "/api/me", {}, b""),
        ("GET", "/api/keys", {}, b""),
        ("POST", "/api/keys", {}, {"label": "x"}),
        ("DELETE", "/api/keys/cw_nothing", {}, b""),
        ("GET", "/api/documents", {}, b""),
        ("GET", f"/api/documents/{document}", {}, b""),
        ("GET", f"/api/documents/{document}/text", {}, b""),
        ("DELETE", "/api/documents/none", {}, b""),
        ("POST", "/api/documents", {"content-type": "multipart/form-data; boundary=x"}, form),
        ("GET", "/api/conversations", {}, b""),
        ("GET", "/api/conversations?q=kea", {}, b""),
        ("POST", "/api/conversations", {}, {"title": "t"}),
        ("GET", f"/api/conversations/{conversation}", {}, b""),
        ("PATCH", f"/api/conversations/{conversation}", {}, {"title": "wombats", "shared": False}),
        ("GET", f"/api/conversations/{conversation}/export", {}, b""),
        ("GET", f"/api/conversations/{conversation}/export?format=json", {}, b""),
        ("DELETE", "/api/conversations/none", {}, b""),
        ("POST", f"/api/exchanges/{exchange}/feedback", {}, {"verdict": "right"}),
        ("POST", "/api/ask", {}, {"question": "Who eats seeds?", "documents": [document]}),
        ("POST", "/api/ask", {}, {"question": "Who eats seeds?", "conversation": conversation}),
        ("POST", "/api/ask", EVENTS, {"question": "Who eats seeds?"}),
        ("POST", "/v1/chat/completions", {}, CHAT),
        ("POST", "/v1/chat/completions", {}, {**CHAT, "stream": True}),
        ("POST", "/mcp", MCP, call("ask", question="Who eats seeds?")),
        ("POST", "/mcp", MCP, call("search", query="seeds", documents=[document])),
        ("POST", "/mcp", MCP, call("read_span", document_id=document, start=0, end=5)),
        ("POST", "/api/documents/url", {}, {"url": "https://127.0.0.1/"}),
        ("POST", "/api/sync", {}, {"folder": str(world.folder)}),
        ("POST", "/api/forget", {}, {"folder": "nowhere"}),
        ("GET", f"/documents/{document}", {}, b""),
        ("GET", f"/documents/{document}?view=page&page=1&fragment=1", {}, b""),
        ("GET", f"/documents/{document}/pages/1.png", {}, b""),
        ("GET", "/library", {}, b""),
        ("GET", "/library/list", {}, b""),
        ("GET", "/library/work", {}, b""),
        ("PUT", "/library/files?name=new.txt", {}, b"One kea."),
        ("POST", "/library/remove", {}, {"documents": ["none"]}),
        ("POST", "/library/discard", {}, {"root": "uploads/x", "source": "x"}),
        ("POST", "/library/retry", {}, {"root": world.ben.ids["root"], "source": world.ben.ids["waiting"]}),
        ("POST", "/library/cancel", {}, b""),
        ("POST", "/gradio_api/run/predict", {}, given),
        ("GET", "/login", {}, b""),
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, fast_probes: None) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("leaks"), api_key=KEY)
    made.furnish(made.ben)
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(world: World) -> Iterator[Direct]:
    with through_the_proxy(world).running() as client:
        yield client


@contextmanager
def logged(*secrets: str, masked: bool = True) -> Iterator[io.StringIO]:
    """All that any logger says, at its most talkative, as it would stand in the log; not `masked`, as it is said."""
    into, root = io.StringIO(), logging.getLogger()
    handler, before = logging.StreamHandler(into), root.level
    handler.setFormatter(logs.Masking(secrets) if masked else logging.Formatter("%(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield into
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


def secrets_of(world: World) -> list[str]:
    people = (world.ann, world.ben, world.eve)
    return [KEY, PASSWORD, world.visitors.local_key, *(person.key for person in people), *(person.session for person in people)]


def clean(reply: Reply, world: World, what: Any, *more: str) -> None:
    """A reply tells of nothing behind it."""
    said = reply.text + repr(reply.headers)
    for secret in (*secrets_of(world), str(world.store.folder), str(Path(__file__).parent.parent), PLACE, *STACK, *more):
        assert secret not in said, (what, secret, reply)


ERRORS: dict[str, Callable[[World], Exception]] = {
    "disk": lambda world: OSError(28, "No space left on device", f"{world.store.folder}/{world.ben.session}"),
    "key": lambda world: KeyError(f"{world.ben.key} {PLACE}"),
    "bug": lambda world: RuntimeError(f"at {PLACE} with {KEY}, {world.ben.session} and {world.visitors.local_key}"),
    "value": lambda world: ValueError(f"Authorization: Bearer {world.ben.key} at {PLACE}"),
}

BREAKABLE = (Visible, OwnLibrary, Conversations, Accounts)


def parts() -> list[tuple[type, str]]:
    """Everything that a request may come upon, by its class and name."""
    methods = [(kind, name) for kind in BREAKABLE for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")]
    return [
        *methods,
        (Store, "seen"),
        (Store, "roots"),
        (Library, "add"),
        (Library, "discard"),
        (Library, "retry"),
        (Library, "waiting"),
        (Library, "work"),
        (Library, "outcomes"),
    ]


def test_what_breaks_behind_a_door_is_not_told_at_the_door(world: World, client: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, broke = requests(world), 0
    with logged(KEY) as log:
        for (kind, name), error in zip(parts(), cycle(ERRORS), strict=False):

            def fail(*_: object, error: str = error, **__: object) -> None:
                raise ERRORS[error](world)

            with monkeypatch.context() as patched:
                patched.setattr(kind, name, fail)
                for method, address, headers, body in asked:
                    reply = client.send(method, address, {**world.ben.by_session, **headers}, body, patience=5)
                    clean(reply, world, (kind.__name__, name, error, method, address))
                    broke += reply.status >= 500
        world.settled()
        world.forget_what_is_new(world.ben)
    assert broke > 100
    said = log.getvalue()
    assert "RuntimeError at rag." in said, "the log has what nobody else is told"
    for secret in (*secrets_of(world), str(world.store.folder), PLACE, *STACK):
        assert secret not in said


def test_an_admin_is_told_no_more(world: World, client: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Visible, Store, Library):
        for name in ("text", "info", "documents", "rejections", "notices", "known", "roots", "add", "sync", "forget", "work"):
            if not hasattr(kind, name):
                continue
            with monkeypatch.context() as patched:
                patched.setattr(kind, name, lambda *_, **__: (_ for _ in ()).throw(ERRORS["disk"](world)))
                for method, address, headers, body in requests(world):
                    clean(client.send(method, address, {**world.eve.by_key, **headers}, body, patience=5), world, (kind, name, address))
    world.settled()
    world.forget_what_is_new(world.eve)


def test_a_store_whose_file_is_gone_or_broken_tells_no_path(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Not patched: SQLite's file is overwritten under the open store."""
    world = World(tmp_path_factory.mktemp("broken"))
    world.furnish(world.ben)
    try:
        with through_the_proxy(world).running() as client:
            asked = requests(world)
            for name in ("citewell.sqlite3", "people.sqlite3"):
                for suffix in ("-wal", "-shm", ""):
                    path = world.store.folder / (name + suffix)
                    if path.exists():
                        path.write_bytes(b"this is no database at all " * 4_000)
            seen = set()
            for method, address, headers, body in asked:
                reply = client.send(method, address, {**world.ben.by_session, **headers}, body, patience=5)
                clean(reply, world, address)
                seen.add(reply.status)
            assert seen & {500, 503}
    finally:
        world.close()


def test_errors_of_the_store_name_no_folder(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = world.store._database
    import sqlite3

    told: list[CitewellError] = [database._unreadable(sqlite3.OperationalError("disk I/O error")), database._unwritable("No space left on device")]
    told.append(database._unreadable(sqlite3.DatabaseError("file is not a database")))
    monkeypatch.setattr("shutil.copyfile", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device", PLACE)))
    (tmp_path / "file").write_text("One kea.")
    with pytest.raises(CitewellError, match="could not be kept") as kept:
        world.assistant.for_user(world.ben.user).library.add("new.txt", tmp_path / "file")
    for error in (*told, kept.value):
        assert str(world.store.folder) not in str(error)
        assert PLACE not in str(error)
    assert {type(error) for error in told} <= {StoreError, StoreDamaged}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_model_server_says_of_itself_is_told_to_nobody(tmp_path_factory: pytest.TempPathFactory, fault: str) -> None:
    """It echoes the key that it was sent, a path and a stack, with every status."""
    with running() as server, logged(masked=False) as log:
        server.fault, server.retry_after = fault, "9"
        address = server.url.replace("://", f"://{LOGIN}@")
        world = World(
            tmp_path_factory.mktemp("model"), OpenAIModel(address, "tiny", SECRET, 1.0, 0.5), api_key=SECRET, model_seconds=1, answer_seconds=2
        )
        try:
            with through_the_proxy(world).running() as client:
                for method, where, headers, body in (
                    ("POST", "/api/ask", {}, {"question": "Who eats seeds?"}),
                    ("POST", "/v1/chat/completions", {}, CHAT),
                    ("GET", "/healthz", {}, b""),
                    ("GET", "/metrics", {}, b""),
                ):
                    reply = client.send(method, where, {**world.eve.by_key, **headers}, body)
                    clean(
                        reply,
                        world,
                        (fault, where),
                        SECRET,
                        LOGIN,
                        LOGIN.partition(":")[2],
                        "/srv/models",
                        "server.py",
                        server.url.removeprefix("http://"),
                    )
        finally:
            world.close()
        if fault != "refused":
            assert server.asked
    for secret in (*secrets_of(world), SECRET, LOGIN, LOGIN.partition(":")[2]):
        assert secret not in log.getvalue(), "not even before the log is masked"
    assert SECRET in LEAK


def test_a_model_server_that_repeats_its_headers_is_not_repeated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    import model_server

    def echo(self: Any) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        said = dict(self.headers.items())
        self.send(
            self.server.status,
            f'{{"error": {{"message": "refused: {said}", "type": "{said.get("Authorization")}"}}}}',
            X_Echo=self.headers.get("Authorization") or "",
        )

    monkeypatch.setattr(model_server._Request, "do_POST", echo)
    world = World(tmp_path_factory.mktemp("echo"))
    try:
        with running() as server, logged() as log, through_the_proxy(world).running() as client:
            for status in (200, 301, 400, 401, 402, 403, 404, 413, 429, 500, 503):
                server.status = status  # type: ignore[attr-defined]
                world.assistant._model = OpenAIModel(server.url, "tiny", SECRET, 1.0, 0.5)
                reply = client.send("POST", "/api/ask", world.ben.by_key, {"question": "Who eats seeds?"})
                assert reply.status == 200
                clean(reply, world, status, SECRET, "Bearer")
    finally:
        world.close()
    assert SECRET not in log.getvalue()


def test_what_people_sign_in_with_is_not_written_down(world: World, client: Direct) -> None:
    """As it is said, before anything is taken out: wrong and right passwords, keys, sessions, and an address with all of them in it."""
    with logged(masked=False) as log:
        page = client.send("GET", "/login")
        token = page.all("set-cookie")[0].partition("=")[2].partition(";")[0]
        form = {"cookie": f"citewell-login={token}", "content-type": "application/x-www-form-urlencoded"}
        for password in ("wrong+wrong+wrong", PASSWORD.replace(" ", "+")):
            client.send("POST", "/login", form, f"token={token}&name=ann&password={password}".encode())
        for name in ("authorization", "cookie", "x-api-key"):
            client.send("GET", f"/api/me?key={world.ann.key}&password={PASSWORD.replace(' ', '+')}", {name: f"Bearer {world.ann.key}"})
        client.send("GET", "/api/documents", world.ann.by_key)
        client.send("POST", "/api/ask", world.ann.by_session, {"question": "Who eats seeds?"})
        client.send("POST", "/mcp", {**world.ann.by_key, **MCP}, call("search", query="seeds"))
        made = client.send("POST", "/api/keys", world.ann.by_session, {"label": "x"}).json["key"]
        world.accounts.revoke_key(made)
    for secret in (*secrets_of(world), made, "wrong wrong wrong", "wrong+wrong+wrong", PASSWORD.replace(" ", "+"), token):
        assert secret not in log.getvalue()


def test_keys_and_logins_are_taken_out_of_the_log() -> None:
    with logged("hunter2hunter2") as log:
        talker = logging.getLogger("somebody.elses")
        talker.warning("GET http://%s@models.example/v1 with {'Authorization': 'Bearer %s'}", LOGIN, SECRET)
        talker.warning("cookie: citewell=%s; theme=dark", "s" * 43)
        talker.warning("a key cw_%s, a token %s and hunter2hunter2", "k" * 43, "t" * 43)
        try:
            raise RuntimeError(f"{KEY} {LOGIN}")
        except RuntimeError:
            talker.exception("failed with %s", KEY)
    said = log.getvalue()
    for secret in (LOGIN, SECRET, "s" * 43, "k" * 43, "t" * 43, "hunter2hunter2", KEY):
        assert secret not in said
    assert "theme=dark" in said
    assert "RuntimeError" in said
    assert "models.example/v1" in said


def test_the_server_and_the_tools_write_their_log_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both begin their logs by rag.logs, and uvicorn's lines go there too."""
    import inspect as looked

    from rag import cli
    from rag.server import Server

    for command in (cli.serve, cli.mcp):
        assert "logs.begin(settings.secrets, stacks=settings.log_stacks)" in looked.getsource(command)
    monkeypatch.setenv("OPENAI_API_KEY", "not-like-a-key-at-all")
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    for name in ("uvicorn", "uvicorn.error"):  # a server of another test has set them up in its own way
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET)
    into = io.StringIO()
    logs.begin(["mine"], into)
    Server(lambda *_: None)  # type: ignore[arg-type]
    logging.getLogger("uvicorn.error").error("with not-like-a-key-at-all and mine")
    assert into.getvalue() == "ERROR uvicorn.error: with … and …\n"


def failing(question: str) -> None:
    try:
        raise ValueError(f"{question} at {PLACE}")
    except ValueError as error:
        raise OSError(28, "No space left on device", f"{PLACE}/store") from error


@pytest.mark.parametrize("stacks", [False, True])
def test_an_error_is_one_line_that_says_where_it_came_from(stacks: bool, tmp_path: Path) -> None:
    into = io.StringIO()
    handler = logging.StreamHandler(into)
    handler.setFormatter(logs.Masking([KEY], stacks))
    logger = logging.Logger("of this test")
    logger.addHandler(handler)
    try:
        failing("Who eats seeds?")
    except OSError:
        logger.exception("Answering of %s at %s failed, asked by POST /api/ask", KEY, tmp_path)
    said = into.getvalue()
    assert KEY not in said
    if stacks:
        assert "Traceback" in said
        assert str(tmp_path) in said
        return
    first, *rest = said.splitlines()
    assert first == f"ERROR of this test: Answering of … at …/{tmp_path.name} failed, asked by POST /api/ask"
    assert [re.sub(r"\d+", "N", line) for line in rest] == [
        f"  OSError (No space left on device), raised in {__name__}:N",
        f"  of ValueError, raised in {__name__}:N",
    ]


def test_what_is_logged_as_text_has_no_stack_and_no_folders() -> None:
    trace = 'A file could not be read:\nTraceback (most recent call last):\n  File "/usr/lib/x.py", line 3, in read\n    whole()\nValueError: page 7'
    assert logs.without_places(trace) == "A file could not be read:\nValueError: page 7"
    assert logs.without_places("'/usr/lib/python3/x.so' and /etc/passwd, https://a.example/b/c, 1/2, C:\\Users\\me\\a.txt") == (
        "'…/x.so' and …/passwd, https://a.example/b/c, 1/2, …/a.txt"
    )


SETTINGS: list[dict[str, Any]] = [
    {"api_key": KEY, "port": KEY},
    {"api_key": [KEY]},
    {"api_key": KEY, "model": f"http://{LOGIN}@models.example/v1"},
    {"api_key": KEY, "model": f"https://{LOGIN}@models.example/v1 and more"},
    {"api_key": KEY, "model": "none-such"},
    {"api_key": KEY, "model": "openai", "fallback_model": f"http://{LOGIN}@models.example/"},
    {"api_key": KEY, "fallback_model": f"ftp://{LOGIN}@models.example/"},
    {"api_key": KEY, KEY: KEY},
    {"api_key": KEY, "public_url": f"https://{LOGIN}@docs.example.org/x"},
]


@pytest.mark.parametrize("given", SETTINGS, ids=lambda given: "-".join(name for name in given if name != KEY))
def test_wrong_settings_are_told_without_keys_and_logins(given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    with logged(masked=False) as log:
        try:
            settings = Settings(data_dir=tmp_path / "data", **{name: value for name, value in given.items() if name != KEY})
            said.append(repr(settings.model_shown))
            configured_model(settings)
            fallback_model(settings)
            open_assistant(settings, fetch=False).close()
        except CitewellError as error:
            said.append(str(error))
        lines = [f'{name} = "{value}"' for name, value in given.items() if isinstance(value, str)]
        (tmp_path / "citewell.toml").write_text("\n".join([*lines, f'unknown = "{KEY}"', f"broken {KEY}"]))
        with pytest.raises(InvalidSettings) as unread:
            Settings()
        (tmp_path / "citewell.toml").write_text("\n".join([f'api_key = "{KEY}"', "port = 99999999", f'unknown = "{KEY}"']))
        with pytest.raises(InvalidSettings) as refused:
            Settings()
    for text in (*said, str(unread.value), str(refused.value), log.getvalue(), *map(repr, (unread.value, refused.value))):
        assert KEY not in text
        assert "hunter2" not in text
    assert not re.search("hunter2|sk-live", repr(Settings.model_construct(api_key=Settings.model_fields["api_key"].default)))
