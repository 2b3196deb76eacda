"""Tests of rag.server_documents: files come in, are read or rejected with the reason, and go again; nothing too large is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import FakeEmbedder
from doors import QUESTION, served
from starlette.testclient import TestClient

from index.store import Store
from rag.assistant import Assistant
from rag.model import ModelStatus
from rag.server import create_app
from rag.settings import Settings

pytestmark = pytest.mark.usefixtures("fast_probes")

FERRY = b"The ferry Kestrel sails at noon.\n"


@pytest.fixture
def client(assistant: Assistant) -> TestClient:
    return TestClient(create_app(assistant), base_url="http://127.0.0.1", raise_server_exceptions=False)


def sent(client: TestClient, *files: tuple[str, bytes]) -> Any:
    return client.post("/api/documents", files=[("file", (name, content)) for name, content in files])


def test_files_are_read_or_rejected_and_each_is_told(client: TestClient, assistant: Assistant) -> None:
    response = sent(client, ("ferry.txt", FERRY), ("broken.pdf", b"no pdf at all"), ("odd.xyz", b"\x00\x01"))
    assert response.status_code == 200
    ferry, broken, odd = response.json()["files"]
    assert {**ferry, "id": None} == {"source": "ferry.txt", "id": None, "status": "indexed", "reason": ""}
    assert assistant.store.text(ferry["id"]) == FERRY.decode()
    for fate in (broken, odd):
        assert (fate["id"], fate["status"]) == (None, "rejected")
        assert len(fate["reason"]) > 5
    known = {entry["source"]: entry for entry in client.get("/api/documents").json()}
    assert (known["ferry.txt"]["status"], known["broken.pdf"]["reason"]) == ("indexed", broken["reason"])


def test_a_file_of_the_same_name_is_replaced_before_the_reply(client: TestClient, assistant: Assistant) -> None:
    sent(client, ("ferry.txt", FERRY))
    (now,) = sent(client, ("ferry.txt", b"The ferry Kestrel sails at midnight.\n")).json()["files"]
    assert now["status"] == "indexed"
    assert "midnight" in assistant.store.text(now["id"])
    (same,) = sent(client, ("ferry.txt", b"The ferry Kestrel sails at midnight.\n")).json()["files"]
    assert same == now


def test_a_name_is_a_name_only(client: TestClient, assistant: Assistant, tmp_path: Path) -> None:
    (fate,) = sent(client, ("../../../outside.txt", FERRY)).json()["files"]
    assert fate["source"] == "outside.txt"
    assert not list(tmp_path.glob("outside.txt"))
    assert (assistant.library.uploads / "outside.txt").is_file()


def test_a_file_that_is_too_large_is_named_and_nothing_is_kept(store: Store, embedder: FakeEmbedder) -> None:
    small = Assistant(Settings(data_dir=store.folder, model="none", max_file_mb=0.001), store, embedder, None, ModelStatus("none", "", "none"))
    client = TestClient(create_app(small), base_url="http://127.0.0.1")
    response = sent(client, ("fits.txt", FERRY), ("huge.txt", b"a " * 501))
    assert response.status_code == 413
    assert response.json()["error"] == "'huge.txt' is larger than 0.001 MB, the most that a file may have. No file was kept."
    assert small.library.waiting() == ()
    assert client.get("/api/documents").json() == []
    together = sent(client, *((f"{number}.txt", b"a" * 1000) for number in range(9)))
    assert (together.status_code, "several requests" in together.json()["error"]) == (413, True)
    assert sent(client, ("just.txt", b"a" * 1000)).json()["files"][0]["status"] == "indexed"


@pytest.mark.parametrize(
    ("more", "status", "says"),
    [
        ({"json": {"file": "x"}}, 415, "multipart/form-data"),
        ({"data": {"file": "text"}, "files": {}}, 415, "multipart/form-data"),
        ({"content": b"--x\r\nnonsense", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400, "file"),
        ({"content": b"", "headers": {"Content-Type": "multipart/form-data"}}, 400, "cannot be read"),
        ({"content": b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n', "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400, "no file"),
    ],
)  # fmt: skip
def test_what_brings_no_file_is_told_what_to_send(client: TestClient, more: dict[str, Any], status: int, says: str) -> None:
    response = client.post("/api/documents", **more)
    assert response.status_code == status
    assert says in response.json()["error"]


def test_one_document_is_told_as_the_listing_tells_it(client: TestClient) -> None:
    listed = client.get("/api/documents").json()
    assert [client.get(f"/api/documents/{entry['id']}").json() for entry in listed] == listed
    unknown = client.get("/api/documents/gone")
    assert (unknown.status_code, unknown.json()) == (404, {"error": "There is no such document."})


def test_an_uploaded_document_goes_with_its_file_and_a_synced_one_leaves_it(client: TestClient, assistant: Assistant, folder: Path) -> None:
    (fate,) = sent(client, ("ferry.txt", FERRY)).json()["files"]
    gone = client.delete(f"/api/documents/{fate['id']}")
    assert gone.json() == {"id": fate["id"], "source": "ferry.txt", "file": "deleted"}
    assert not (assistant.library.uploads / "ferry.txt").exists()
    apollo = next(entry for entry in client.get("/api/documents").json() if entry["source"] == "apollo.md")
    assert client.delete(f"/api/documents/{apollo['id']}").json()["file"] == "kept"
    assert (folder / "apollo.md").is_file()
    assistant.sync(folder)
    assert client.get(f"/api/documents/{apollo['id']}").status_code == 404, "left out from now on"
    assert client.post("/api/ask", json={"question": QUESTION}).json()["abstained"]
    again = client.delete(f"/api/documents/{apollo['id']}")
    assert (again.status_code, again.json()) == (404, {"error": "There is no such document."})


def test_pages_of_other_sites_can_neither_add_nor_remove(client: TestClient) -> None:
    other = {"Sec-Fetch-Site": "cross-site"}
    assert client.post("/api/documents", files={"file": ("ferry.txt", FERRY)}, headers=other).status_code == 403
    (one, *_) = client.get("/api/documents").json()
    assert client.delete(f"/api/documents/{one['id']}", headers=other).status_code == 403
    assert len(client.get("/api/documents").json()) == 2


def test_a_real_server_takes_files(assistant: Assistant) -> None:
    with served(assistant) as address:
        response = httpx.post(
            f"{address}/api/documents", files=[("file", ("ferry.txt", FERRY)), ("file", ("more.md", b"# More\n"))], trust_env=False, timeout=60
        )
    assert [fate["status"] for fate in response.json()["files"]] == ["indexed", "indexed"]


def test_the_api_is_described_without_anything_from_outside(client: TestClient) -> None:
    described = client.get("/api/openapi.json").json()
    paths = described["paths"]
    for path, methods in {
        "/api/ask": ["post"],
        "/api/documents": ["get", "post"],
        "/api/documents/{document_id}": ["get", "delete"],
        "/readyz": ["get"],
    }.items():
        assert sorted(paths[path]) == sorted(methods)
    assert {"question", "documents"} <= set(described["components"]["schemas"]["Asked"]["properties"])
    assert {"text", "citations", "unsupported", "evidence"} <= set(described["components"]["schemas"]["Answer"]["properties"])
    assert "http" not in json.dumps(described).replace("HTTP", "").lower().replace("httpvalidationerror", "")


@pytest.mark.parametrize("path", ["/api/ask", "/api/sync"])
def test_a_body_that_is_larger_than_any_question_is_413(client: TestClient, path: str) -> None:
    whole = client.post(path, content=b" " * 4_000_001, headers={"Content-Type": "application/json"})
    pieces = client.post(path, content=(b" " * 1_000_000 for _ in range(5)), headers={"Content-Type": "application/json"})
    for response in (whole, pieces):
        assert response.status_code == 413
        assert "4 MB" in response.json()["error"]
