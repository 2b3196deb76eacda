"""The one place where settings come from: arguments, then CITEWELL_* variables, then citewell.toml, then defaults."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Self

from platformdirs import user_cache_path, user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from index.errors import InvalidSettings

PREFIX = "CITEWELL_"
SEEDS = Path(__file__).resolve().parent.parent / "seeds"


class Settings(BaseSettings):
    """Everything that can be set; an unknown key is an error, never ignored."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, toml_file="citewell.toml", extra="forbid", frozen=True, env_ignore_empty=True)

    data_dir: Path = Field(default_factory=lambda: user_data_path("citewell"), description="where the store lives")
    models_dir: Path = Field(
        default_factory=lambda: user_cache_path("citewell") / "models", description="where model files are kept, one copy for all stores"
    )
    model: str = Field("embedded", description="embedded, embedded-small, a path to a .gguf file, an OpenAI-compatible URL, or none")
    model_name: str = Field("", description="the model to ask for at an OpenAI-compatible URL")
    api_key: SecretStr = Field(SecretStr(""), description="the key for that URL; set it in the environment, not in a file")
    model_seconds: float = Field(180.0, gt=0, le=86_400, description="hard deadline for one answer of the model, in seconds")
    embedder: str = Field("all-MiniLM-L6-v2", description="any sentence-transformers model, by name or folder")
    max_file_mb: float = Field(25.0, gt=0, le=1_000, description="the largest file that is read, in megabytes")
    host: str = Field("127.0.0.1", description="address the page is served on")
    port: int = Field(7860, ge=0, le=65535, description="port the page is served on")
    bench: Path | None = Field(None, description="folder of public question sets, for `citewell evaluate` and `make bench`")

    def __init__(self, **values: Any) -> None:
        stray = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name[len(PREFIX) :].lower() not in type(self).model_fields)
        if stray:
            raise InvalidSettings(f"Unknown setting in the environment: {', '.join(stray)}. Known settings: {known_settings()}.")
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InvalidSettings(explain(error)) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise InvalidSettings(f"The file citewell.toml here cannot be read ({error}). Mend it, or move it away.") from None

    @field_validator("data_dir", "models_dir", "bench", mode="after")
    @classmethod
    def _expand(cls, path: Path | None) -> Path | None:
        try:
            return None if path is None else path.expanduser().absolute()
        except RuntimeError:
            raise ValueError(f"there is no home folder for {path.parts[0]}" if path else "") from None

    @property
    def max_bytes(self) -> int:
        """The size of the largest file that is read."""
        return int(self.max_file_mb * 1_000_000)

    @property
    def model_shown(self) -> str:
        """The model as it may be shown: without the login that a URL can hold."""
        return re.sub(r"(?<=://)[^/]*@", "", self.model)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    def replaced(self, **values: Any) -> Self:
        """A copy with some values changed; None leaves a value as it is."""
        return type(self)(**{**self.model_dump(), **{key: value for key, value in values.items() if value is not None}})


def known_settings() -> str:
    return ", ".join(Settings.model_fields)


def explain(error: ValidationError) -> str:
    """One line a problem, in the user's words."""
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"Unknown setting '{name}'. Known settings: {known_settings()}.")
        else:
            lines.append(f"Setting '{name}' cannot be used: {problem['msg']}.")
    return " ".join(lines)
