"""Tests of index.bert: the int8 graph against the same arithmetic in numpy, on a small model of random weights, and what it refuses."""

from __future__ import annotations

import json
from math import erf, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from index import bert

LAYERS, HEADS, DIMENSION, WORDS = 2, 4, 64, 50
CONFIGURATION: dict[str, dict[str, Any] | list[dict[str, str]]] = {
    "config.json": {
        "model_type": "bert",
        "hidden_act": "gelu",
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 32,
    },
    "modules.json": [{"type": f"sentence_transformers.models.{name}"} for name in ("Transformer", "Pooling", "Normalize")],
    "1_Pooling/config.json": {"word_embedding_dimension": DIMENSION, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True},
    "sentence_bert_config.json": {"max_seq_length": 24, "do_lower_case": False},
    "tokenizer.json": {},
}


def random_weights() -> dict[str, NDArray[np.float32]]:
    """A BERT's tensors by their names, drawn from a fixed seed."""
    draw = np.random.default_rng(6)
    shapes = {f"embeddings.{name}_embeddings.weight": (size, DIMENSION) for name, size in (("word", WORDS), ("position", 32), ("token_type", 2))}
    norms = ["embeddings.LayerNorm"]
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        wide = {f"{layer}.intermediate.dense": (4 * DIMENSION, DIMENSION), f"{layer}.output.dense": (DIMENSION, 4 * DIMENSION)}
        square = [f"{layer}.attention.{part}" for part in ("self.query", "self.key", "self.value", "output.dense")]
        for name, size in (wide | dict.fromkeys(square, (DIMENSION, DIMENSION))).items():
            shapes |= {f"{name}.weight": size, f"{name}.bias": size[:1]}
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    weights = {name: (draw.normal(size=size) / sqrt(DIMENSION)).astype(np.float32) for name, size in shapes.items()}
    for norm in norms:
        weights[f"{norm}.weight"] = draw.uniform(0.5, 1.5, DIMENSION).astype(np.float32)
        weights[f"{norm}.bias"] = draw.normal(scale=0.2, size=DIMENSION).astype(np.float32)
    return weights


def made(folder: Path, **changes: Any) -> Path:
    """A model's folder; `changes` replace single entries of its files: {"config.json": {"hidden_act": "relu"}}."""
    for name, content in CONFIGURATION.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        changed = changes.get(name, {})
        path.write_text(json.dumps(content | changed if isinstance(content, dict) else changed or content))
    save_file(random_weights(), folder / "model.safetensors")
    return folder


def expected_sums(weights: dict[str, NDArray[np.float32]], tokens: list[int]) -> NDArray[np.float64]:
    """What BERT computes for one text, in float64, as its paper and its authors' code define it."""

    def linear(states: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return states @ weights[f"{name}.weight"].T.astype(np.float64) + weights[f"{name}.bias"]

    def normalized(states: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        centred = states - states.mean(axis=1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-12) * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    words, positions, types = (weights[f"embeddings.{name}_embeddings.weight"].astype(np.float64) for name in ("word", "position", "token_type"))
    states = normalized(words[tokens] + positions[: len(tokens)] + types[0], "embeddings.LayerNorm")
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        query, key, value = (
            linear(states, f"{layer}.attention.self.{part}").reshape(len(tokens), HEADS, -1).transpose(1, 0, 2) for part in ("query", "key", "value")
        )
        scores = np.exp(query @ key.transpose(0, 2, 1) / sqrt(DIMENSION / HEADS))
        attended = (scores / scores.sum(axis=2, keepdims=True) @ value).transpose(1, 0, 2).reshape(len(tokens), DIMENSION)
        states = normalized(states + linear(attended, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
        widened = linear(states, f"{layer}.intermediate.dense")
        activated = widened * (1 + np.vectorize(erf)(widened / sqrt(2))) / 2
        states = normalized(states + linear(activated, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return states.sum(axis=0)


def sums(weights: dict[str, NDArray[np.float32]], batch: list[list[int]]) -> NDArray[np.float32]:
    """What the graph computes for a batch of texts of several lengths."""
    session = onnxruntime.InferenceSession(bert.graph(weights, bert.Shape(LAYERS, HEADS, 1e-12, 24)), providers=["CPUExecutionProvider"])
    ids = np.zeros((len(batch), max(map(len, batch))), dtype=np.int64)
    mask = np.zeros(ids.shape, dtype=np.int32)
    for row, tokens in enumerate(batch):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    computed: NDArray[np.float32] = session.run(None, {"token_vectors": bert.token_vectors(weights, ids), "attention_mask": mask})[0]
    return computed


TEXTS = [[1, 2, 3, 4, 5, 6, 7], [9], [11, 49, 30, 2, 2, 2, 17, 8, 20, 21, 22, 23], [4, 3, 2, 1]]


def test_the_graph_computes_what_bert_computes() -> None:
    weights = random_weights()
    for found, tokens in zip(sums(weights, TEXTS), TEXTS, strict=True):
        wanted = expected_sums(weights, tokens)
        assert found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted) > 0.999
        assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(wanted), rel=0.05)


def test_a_text_does_not_depend_on_its_batch() -> None:
    weights = random_weights()
    # One loud text must not cost the others their digits, as it does with one scale a batch.
    weights["embeddings.word_embeddings.weight"][49] *= 1000
    together = sums(weights, TEXTS)
    for row, tokens in zip(together, TEXTS, strict=True):
        assert sums(weights, [tokens])[0] == pytest.approx(row, rel=1e-4, abs=1e-4)


def test_no_two_products_of_bytes_overflow_sixteen_bits() -> None:
    assert np.iinfo(np.int16).max >= 2 * 255 * bert._WEIGHT_STEPS


def test_tensors_are_those_that_were_saved_and_are_not_read_in(tmp_path: Path) -> None:
    saved = random_weights()
    save_file(saved | {"whole": np.arange(3)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = bert.tensors(tmp_path / "model.safetensors")
    assert found.keys() == saved.keys()
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor, saved[name])
        assert not tensor.flags.owndata
        assert not tensor.flags.writeable


def test_the_shape_is_read_from_the_configuration(tmp_path: Path) -> None:
    assert bert.shape(made(tmp_path)) == bert.Shape(LAYERS, HEADS, 1e-12, 24)


def test_a_folder_without_configuration_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"its config\.json cannot be read \(FileNotFoundError\)"):
        bert.shape(tmp_path)


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("config.json", {"hidden_act": "relu"}, "no BERT"),
        ("config.json", {"model_type": "mpnet"}, "no BERT"),
        ("config.json", {"position_embedding_type": "relative_key"}, "no BERT"),
        ("modules.json", [{"type": "a.Transformer"}, {"type": "a.Pooling"}, {"type": "a.Dense"}], "its modules"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, "its pooling"),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False}, "its pooling"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "lowers case"),
    ],
)
def test_a_model_that_works_differently_is_refused_with_the_reason(tmp_path: Path, file: str, change: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        bert.shape(made(tmp_path, **{file: change}))


def test_a_default_prompt_is_refused(tmp_path: Path) -> None:
    (made(tmp_path) / "config_sentence_transformers.json").write_text('{"default_prompt_name": "passage"}')
    with pytest.raises(ValueError, match="prompt"):
        bert.shape(tmp_path)
