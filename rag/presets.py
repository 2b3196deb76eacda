"""Model services by name: where each answers, which variable holds its key, which model is asked for, and how it wants to be spoken to. Data alone.

Addresses, models and manners were looked up in November 2026; `source` says where. Makers rename models often: CITEWELL_MODEL_NAME asks for another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Manners:
    """How a server wants to be spoken to.

    `length` is the field for the longest reply. `temperature` None is not sent. With `alternates`, system text goes into the first user message.
    `usage` asks for token counts in a stream. `thinks` is how many tokens a model may think before it replies, 0 where it replies at once: these get
    no one-token question. `probabilities`: whether it is asked for them. `extras` are further fields, dropped where a model refuses them.
    """

    protocol: Literal["openai", "anthropic"] = "openai"
    length: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    temperature: float | None = 0.0
    alternates: bool = False
    usage: bool = True
    thinks: int = 0
    probabilities: bool = True
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preset:
    """A service. `key` is the variable of its key, empty where it needs none; `model` is empty where the server is asked for what it runs."""

    title: str
    url: str
    key: str
    model: str
    manners: Manners
    source: str


PRESETS: Mapping[str, Preset] = {
    "zai": Preset(
        "Z.ai GLM",
        "https://api.z.ai/api/paas/v4",
        "ZAI_API_KEY",
        "glm-5.2",
        # Its reference lists no stream_options; the counts come in the last event all the same.
        Manners(usage=False, probabilities=False, extras={"thinking": {"type": "disabled"}}),
        "docs.z.ai, API reference and GLM-5.2",
    ),
    "minimax": Preset(
        "MiniMax",
        "https://api.minimax.io/v1",
        "MINIMAX_API_KEY",
        "MiniMax-M3",
        # A temperature of 0 is refused. Its older models think whatever they are told, in <think> unless it is split off.
        Manners(
            length="max_completion_tokens",
            temperature=None,
            thinks=1024,
            probabilities=False,
            extras={"reasoning_split": True, "thinking": {"type": "disabled"}},
        ),
        "platform.minimax.io/docs/api-reference/text-openai-api",
    ),
    "qwen": Preset(
        "Qwen (DashScope)",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "DASHSCOPE_API_KEY",
        "qwen3.8-max",
        Manners(probabilities=False, extras={"enable_thinking": False}),
        "help.aliyun.com/en/model-studio/deep-thinking",
    ),
    "deepseek": Preset(
        "DeepSeek",
        "https://api.deepseek.com",
        "DEEPSEEK_API_KEY",
        "deepseek-flash",
        Manners(extras={"thinking": {"type": "disabled"}}),
        "api-docs.deepseek.com, first call and thinking mode",
    ),
    "moonshot": Preset(
        "Moonshot Kimi",
        "https://api.moonshot.ai/v1",
        "MOONSHOT_API_KEY",
        "kimi-k3",
        # It always thinks, for thousands of tokens at the lowest effort too, and refuses any temperature but its own.
        Manners(length="max_completion_tokens", temperature=None, thinks=8192, probabilities=False, extras={"reasoning_effort": "low"}),
        "platform.kimi.ai/docs/models, as cited by java.agentscope.io/v2/en/integration/model/kimi",
    ),
    "openai": Preset(
        "OpenAI",
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        "gpt-5.6",
        Manners(length="max_completion_tokens", temperature=None, extras={"reasoning_effort": "none"}),
        "developers.openai.com/api/docs/guides/reasoning",
    ),
    "anthropic": Preset(
        "Anthropic Claude",
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
        "claude-sonnet-5-5",
        # Sampling parameters are refused. It decides itself how much to think; effort limits it.
        Manners(protocol="anthropic", temperature=None, thinks=2048, probabilities=False, extras={"output_config": {"effort": "low"}}),
        "platform.claude.com/docs/en/models/sonnet-5-5/migration-guide",
    ),
    "gemini": Preset(
        "Google Gemini",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_API_KEY",
        "gemini-3.8-flash",
        Manners(temperature=None, thinks=4096, probabilities=False, extras={"reasoning_effort": "low"}),
        "ai.google.dev/gemini-api/docs/openai: its OpenAI-compatible endpoint",
    ),
    "openrouter": Preset(
        "OpenRouter",
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_KEY",
        "openrouter/auto",
        # Which model answers is not known beforehand, so it may be one that thinks.
        Manners(thinks=2048, probabilities=False, extras={"reasoning": {"effort": "low", "exclude": True}}),
        "openrouter.ai/docs, API reference and reasoning tokens",
    ),
    "ollama": Preset("Ollama", "http://localhost:11434/v1", "", "", Manners(), "docs.ollama.com/api/openai-compatibility"),
    "vllm": Preset("vLLM", "http://localhost:8000/v1", "", "", Manners(), "docs.vllm.ai, OpenAI-compatible server"),
    "lmstudio": Preset("LM Studio", "http://localhost:1234/v1", "", "", Manners(), "lmstudio.ai/docs/developer, OpenAI-compatible endpoints"),
}
