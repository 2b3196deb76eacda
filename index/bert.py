"""A BERT sentence encoder (all-MiniLM-L6-v2 and its kin) as an int8 ONNX graph, built from its weights in a fraction of a second.

The linear layers multiply whole numbers, but for the projections to queries, keys and values in the later layers: there these bring half of the rounding
errors, so they stay in float32 as the rest does. Weights have one scale a column. Activations have one scale a token, taken while it runs, so
that a text's vector does not depend on what shares its batch, and one large value spoils one token instead of all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

GRAPH_VERSION = 2
"""Part of the identity of the vectors: grows whenever the graph gives others."""

# Without VNNI, AVX2 adds two products of an unsigned and a signed byte in 16 bits, cut off without a word: 2 x 255 x 64 still fits, on any processor.
_WEIGHT_STEPS = 64
_ACTIVATION_STEPS, _ACTIVATION_ZERO = 127, 128
_SMALLEST = 1e-20
_WHOLE_PROJECTIONS = 0.5
"""The share of the layers, the first ones, whose projections to queries, keys and values multiply whole numbers too: in the others it costs more."""

_LOWEST_GELU = 0.17
"""GELU gives nothing below -0.17, so its largest result is found without looking at its negative ones."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the graph needs to know of the model besides its weights; `tokens` is the length at which texts are cut."""

    layers: int
    heads: int
    epsilon: float
    tokens: int


def tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """The float32 tensors of a .safetensors file by name, mapped and not read: only what is used takes memory, and processes share it."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    data = np.memmap(path, np.uint8, "r", offset=8 + length)
    found = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = entry["data_offsets"]
            found[name] = np.asarray(data[begin:end].view("<f4").reshape(entry["shape"]))
    return found


def shape(folder: Path) -> Shape:
    """Reads a sentence-transformers folder's configuration. Raises ValueError with the reason when the graph would not do what the model does."""
    config = _json(folder, "config.json")
    modules = [module["type"].rpartition(".")[2] for module in _json(folder, "modules.json")]
    pooling = _json(folder, "1_Pooling/config.json")
    sentences = _json(folder, "sentence_bert_config.json")
    prompts = _json(folder, "config_sentence_transformers.json") if (folder / "config_sentence_transformers.json").exists() else {}
    modes = [mode for mode, on in pooling.items() if mode.startswith("pooling_mode_") and on]
    reasons = {
        "it is no BERT with absolute positions and GELU": (
            config.get("model_type"),
            config.get("position_embedding_type", "absolute"),
            config.get("hidden_act"),
        )
        != ("bert", "absolute", "gelu"),
        "its modules are not a transformer, pooling and normalisation": modules[:2] != ["Transformer", "Pooling"]
        or modules[2:] not in ([], ["Normalize"]),
        "its pooling is not the mean of all tokens": modes != ["pooling_mode_mean_tokens"],
        "it lowers case before its tokenizer": bool(sentences.get("do_lower_case")),
        "it puts a prompt before each text": bool(prompts.get("default_prompt_name")),
        "it has no tokenizer.json": not (folder / "tokenizer.json").is_file(),
        "it has no single model.safetensors": not (folder / "model.safetensors").is_file(),
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(reason)
    try:
        return Shape(
            config["num_hidden_layers"],
            config["num_attention_heads"],
            config["layer_norm_eps"],
            min(sentences["max_seq_length"], config["max_position_embeddings"]),
        )
    except KeyError as error:
        raise ValueError(f"its configuration lacks {error}") from error


def _json(folder: Path, name: str) -> Any:
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"its {name} cannot be read ({type(error).__name__})") from error


def token_vectors(weights: Mapping[str, NDArray[np.float32]], tokens: NDArray[np.int64]) -> NDArray[np.float32]:
    """What the graph is fed: the sum of word, position and (first) type embeddings, shape (texts, tokens, dimension).

    Looked up here because the word table is half of the weights: it stays mapped instead of being copied into the session.
    """
    fixed = weights["embeddings.position_embeddings.weight"][: tokens.shape[1]] + weights["embeddings.token_type_embeddings.weight"][0]
    looked_up: NDArray[np.float32] = weights["embeddings.word_embeddings.weight"][tokens]
    looked_up += fixed
    return looked_up


def graph(weights: Mapping[str, NDArray[np.float32]], shape: Shape) -> bytes:
    """The serialised ONNX model: `token_vectors` and `attention_mask` (int32, 1 for a token, 0 for padding) to `sums`, shape (texts, dimension).

    `sums` adds a text's last token states up; brought to length one, it is the mean of them brought to length one.
    Uses ONNX Runtime's own operators (com.microsoft), which its builds for the processor have had for years. Raises KeyError when a tensor is missing.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value), name))
        return name

    def node(operator: str, inputs: list[str], output: str, own: bool = True, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], domain="com.microsoft" if own else "", **attributes))
        return output

    step = constant("activation_scale", np.float32(1 / _ACTIVATION_STEPS))
    zero = constant("activation_zero", np.uint8(_ACTIVATION_ZERO))
    smallest = constant("smallest", np.float32(_SMALLEST))
    lowest_gelu = constant("lowest_gelu", np.float32(_LOWEST_GELU))
    last_axis = constant("last_axis", np.array([-1], np.int64))
    middle_axis = constant("middle_axis", np.array([1], np.int64))

    def divided_by_largest(name: str, states: str, lowest: str = "") -> tuple[str, str]:
        """Each token's states within [-1, 1] as unsigned bytes, and the number that they were divided by. None of them is below `-lowest`."""
        sizes = states if lowest else node("Abs", [states], f"{name}.sizes", own=False)
        largest = node("ReduceMax", [sizes, last_axis], f"{name}.largest", own=False, keepdims=1)
        largest = node("Max", [largest, lowest or smallest], f"{name}.divisor", own=False)
        ratios = node("Div", [states, largest], f"{name}.ratios", own=False)
        return node("QuantizeLinear", [ratios, step, zero], f"{name}.bytes", own=False), largest

    def whole(name: str, quantized: str, divisor: str) -> str:
        """Quantized states times the layer's matrix, without its bias: the operators after it add that."""
        matrix = weights[f"{name}.weight"]
        scale = np.maximum(np.abs(matrix).max(axis=1), _SMALLEST) / np.float32(_WEIGHT_STEPS)
        steps = np.rint(matrix / scale[:, None]).astype(np.int8)
        inputs = [quantized, constant(f"{name}.whole", steps.T), step, constant(f"{name}.scale", scale), zero]
        return node("Mul", [node("MatMulIntegerToFloat", inputs, f"{name}.ratio"), divisor], f"{name}.product", own=False)

    def linear(name: str, states: str, lowest: str = "") -> str:
        return whole(name, *divided_by_largest(name, states, lowest))

    def parameter(name: str) -> str:
        return constant(name, weights[name])

    def normalized(name: str, states: str) -> str:
        inputs = [states, parameter(f"{name}.weight"), parameter(f"{name}.bias")]
        return node("LayerNormalization", inputs, f"{name}.states", own=False, axis=-1, epsilon=shape.epsilon)

    def added_and_normalized(name: str, states: str, residual: str, dense: str) -> str:
        # ONNX Runtime's one operator for all three is several times slower on a processor: run without its optimiser, which would put that here.
        biased = node("Add", [states, parameter(f"{dense}.bias")], f"{name}.biased", own=False)
        return normalized(name, node("Add", [biased, residual], f"{name}.added", own=False))

    states = normalized("embeddings.LayerNorm", "token_vectors")
    for number in range(shape.layers):
        layer = f"encoder.layer.{number}"
        projections = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
        biases = constant(f"{layer}.biases", np.concatenate([weights[f"{projection}.bias"] for projection in projections]))
        if number < shape.layers * _WHOLE_PROJECTIONS:
            quantized = divided_by_largest(f"{layer}.attention.self", states)
            projected = [whole(projection, *quantized) for projection in projections]
            attended = node("MultiHeadAttention", [*projected, biases, "attention_mask"], f"{layer}.attended", num_heads=shape.heads)
        else:
            matrix = constant(f"{layer}.projection", np.concatenate([weights[f"{projection}.weight"] for projection in projections]).T)
            attended = node("Attention", [states, matrix, biases, "attention_mask"], f"{layer}.attended", num_heads=shape.heads)
        output = f"{layer}.attention.output"
        mixed = linear(f"{output}.dense", attended)
        states = added_and_normalized(f"{output}.LayerNorm", mixed, states, f"{output}.dense")
        widened = linear(f"{layer}.intermediate.dense", states)
        widened = node("BiasGelu", [widened, parameter(f"{layer}.intermediate.dense.bias")], f"{layer}.activated")
        narrowed = linear(f"{layer}.output.dense", widened, lowest_gelu)
        states = added_and_normalized(f"{layer}.output.LayerNorm", narrowed, states, f"{layer}.output.dense")

    counted = node("Cast", ["attention_mask"], "counted", own=False, to=TensorProto.FLOAT)
    rows = node("MatMul", [node("Unsqueeze", [counted, middle_axis], "row", own=False), states], "rows", own=False)
    node("Squeeze", [rows, middle_axis], "sums", own=False)

    dimension = weights["embeddings.LayerNorm.weight"].shape[0]
    described = helper.make_graph(
        nodes,
        "sentence encoder",
        [
            helper.make_tensor_value_info("token_vectors", TensorProto.FLOAT, ["texts", "tokens", dimension]),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT32, ["texts", "tokens"]),
        ],
        [helper.make_tensor_value_info("sums", TensorProto.FLOAT, ["texts", dimension])],
        constants,
    )
    versions = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    serialised: bytes = helper.make_model(described, opset_imports=versions, ir_version=8).SerializeToString()
    return serialised
