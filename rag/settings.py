"""The one place where settings come from: arguments, then CITEWELL_* variables, then citewell.toml, then defaults."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from platformdirs import user_cache_path, user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from index.errors import InvalidSettings

PREFIX = "CITEWELL_"
SEEDS = Path(__file__).resolve().parent.parent / "seeds"


class Settings(BaseSettings):
    """Everything that can be set; an unknown key is an error, never ignored."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, toml_file="citewell.toml", extra="forbid", frozen=True, env_ignore_empty=True)

    data_dir: Path = Field(default_factory=lambda: user_data_path("citewell"), description="where the store lives")
    store_url: SecretStr = Field(
        SecretStr(""),
        description="postgresql://USER@HOST/DATABASE of a store that several machines share; needs `chroma_url`; a password only in the environment",
    )
    chroma_url: str = Field("", description="the Chroma server of the shared store, such as http://127.0.0.1:8000")
    chroma_api_key: SecretStr = Field(SecretStr(""), description="the key of a hosted Chroma; set it in the environment, not in a file")
    chroma_tenant: str = Field("default_tenant", min_length=1, description="the tenant at the Chroma server")
    chroma_database: str = Field("default_database", min_length=1, description="the database at the Chroma server")
    models_dir: Path = Field(
        default_factory=lambda: user_cache_path("citewell") / "models", description="where model files are kept, one copy for all stores"
    )
    model: str = Field(
        "embedded",
        description="embedded, embedded-small, a path to a .gguf file, a preset's name (`citewell models` lists them), an OpenAI-compatible URL, or none",
    )
    model_name: str = Field("", description="the model to ask for at a preset or a URL; `#NAME` behind either says the same")
    api_key: SecretStr = Field(
        SecretStr(""), description="the key for `model`, in place of its preset's own variable; set it in the environment, not in a file"
    )
    fallback_model: str = Field("", description="the second model, which answers where `model` cannot: any value that `model` takes but none")
    model_seconds: float = Field(
        180.0,
        gt=0,
        le=86_400,
        description="the longest that one reply of the model may take, in seconds; an answer takes one to three, and short ones where documents are compared",
    )
    answer_seconds: float | None = Field(
        None,
        gt=0,
        le=86_400,
        description="the longest that the models may take for one answer, in seconds; what is there by then is given, and says so; three times model_seconds, but at least 300, where it is not set",
    )
    refusal: Literal["cautious", "balanced", "eager"] = Field(
        "balanced", description="how sure it must be that the documents answer a question: cautious refuses more, eager answers more"
    )
    embedder: str = Field("all-MiniLM-L6-v2", description="any sentence-transformers model, by name or folder")
    reranker: str = Field(
        "", description="a sentence-transformers cross-encoder, by name or folder, that puts what was found in order; none by default"
    )
    max_file_mb: float = Field(25.0, gt=0, le=1_000, description="the largest file that is read, in megabytes")
    add_urls: bool = Field(False, description="fetch documents by their web address; off by default")
    log_stacks: bool = Field(False, description="let paths and stacks stand in the log, to find a fault; off by default")
    host: str = Field("127.0.0.1", description="address the page is served on")
    port: int = Field(7860, ge=0, le=65535, description="port the page is served on")
    tls_cert: Path | None = Field(None, description="a certificate file (PEM), with which the page is served by https")
    tls_key: Path | None = Field(None, description="the certificate's key file (PEM)")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="addresses or networks of the reverse proxies in front, whose word on who asks and by which protocol is taken"
    )
    public_url: str = Field("", description="the address under which people open the page, where it is another than host and port")
    user_files: int = Field(1_000, ge=1, description="the most files that one user may have uploaded")
    user_mb: float = Field(1_000.0, gt=0, description="the most megabytes that one user's uploaded files may have together")
    requests_per_minute: int = Field(120, ge=1, description="the most requests a minute of one user, and of one address without an account")
    queue_length: int = Field(20, ge=0, description="the most questions that may wait for the model")
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

    @field_validator("data_dir", "models_dir", "bench", "tls_cert", "tls_key", mode="after")
    @classmethod
    def _expand(cls, path: Path | None) -> Path | None:
        try:
            return None if path is None else path.expanduser().absolute()
        except RuntimeError:
            raise ValueError(f"names a home folder that is not there, {path.parts[0] if path else ''}") from None

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _separate(cls, given: object) -> object:
        return [part for part in re.split(r"[,\s]+", given) if part] if isinstance(given, str) else given

    @field_validator("trusted_proxies", mode="after")
    @classmethod
    def _networks(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for part in given:
            try:
                network = ip_network(part, strict=False)
            except ValueError:
                raise ValueError("must be addresses or networks, such as 10.0.0.2 or 10.0.0.0/24, separated by commas") from None
            if not network.prefixlen:
                raise ValueError("must not be all addresses there are: then anybody could claim to be anybody")
        return given

    @field_validator("public_url", mode="after")
    @classmethod
    def _address(cls, given: str) -> str:
        parts = urlsplit(given)
        if given and (parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment):
            raise ValueError("must be an address such as https://docs.example.org, without anything behind the name")
        return given.rstrip("/")

    @field_validator("store_url", mode="after")
    @classmethod
    def _database(cls, given: SecretStr) -> SecretStr:
        address = given.get_secret_value()
        if address and not address.startswith(("postgresql://", "postgres://")):
            raise ValueError("must be the address of a PostgreSQL database, such as postgresql://USER@HOST:5432/DATABASE")
        return given

    @field_validator("chroma_url", mode="after")
    @classmethod
    def _server(cls, given: str) -> str:
        try:
            parts = urlsplit(given)
            right = parts.scheme in ("http", "https") and parts.hostname and not parts.path.strip("/") and not parts.query and parts.port != 0
        except ValueError:
            right = False
        if given and (not right or "@" in given):
            raise ValueError("must be an address such as http://127.0.0.1:8000, without a login and without anything behind the port")
        return given.rstrip("/")

    @model_validator(mode="after")
    def _both(self) -> Self:
        if self.shared and not self.chroma_url:
            raise ValueError("store_url needs chroma_url beside it: set CITEWELL_CHROMA_URL to a Chroma server, such as one that `chroma run` starts")
        if self.chroma_url and not self.shared:
            raise ValueError(
                "chroma_url needs store_url beside it: set CITEWELL_STORE_URL to a PostgreSQL database, or take out chroma_url for a store on this machine"
            )
        return self

    @property
    def shared(self) -> bool:
        """Whether the store is one that several machines share."""
        return bool(self.store_url.get_secret_value())

    @property
    def secrets(self) -> tuple[str, ...]:
        """What the log must never hold."""
        address = self.store_url.get_secret_value()
        try:
            parts = urlsplit(address)
            passwords = [
                parts.password or "",
                *(value for name, value in parse_qsl(parts.query.replace("+", "%2B")) if name in ("password", "sslpassword")),
            ]
        except ValueError:
            passwords = []
        known = (self.api_key.get_secret_value(), self.chroma_api_key.get_secret_value(), address, *passwords, *map(unquote, passwords))
        return tuple(secret for secret in (*known, os.environ.get("PGPASSWORD", "") if self.shared else "") if secret)

    @property
    def longest_answer(self) -> float:
        """The most seconds that the models may take for one answer."""
        return self.answer_seconds or max(300.0, 3 * self.model_seconds)

    @property
    def max_bytes(self) -> int:
        """The size of the largest file that is read."""
        return int(self.max_file_mb * 1_000_000)

    @property
    def model_shown(self) -> str:
        """The model as it may be shown: without the login that a URL can hold."""
        return without_login(self.model)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = TomlConfigSettingsSource(settings_cls)
        if "api_key" in file.toml_data:
            # A file beside documents is copied, shared and committed with them.
            raise InvalidSettings("The file citewell.toml holds a key. Take out api_key, and set CITEWELL_API_KEY in the environment instead.")
        if "chroma_api_key" in file.toml_data:
            raise InvalidSettings(
                "The file citewell.toml holds a key. Take out chroma_api_key, and set CITEWELL_CHROMA_API_KEY in the environment instead."
            )
        if re.search(r"//[^/@]*:[^/]*@|[?&]password=", str(file.toml_data.get("store_url", ""))):
            raise InvalidSettings(
                "The file citewell.toml holds a password. Take it out of store_url, and set PGPASSWORD, or CITEWELL_STORE_URL, in the environment instead."
            )
        return init_settings, env_settings, file

    def replaced(self, **values: Any) -> Self:
        """A copy with some values changed; None leaves a value as it is."""
        return type(self)(**{**self.model_dump(), **{key: value for key, value in values.items() if value is not None}})


def without_login(model: str) -> str:
    """A model's address as it may be shown."""
    return re.sub(r"(?<=://)[^/]*@", "", model)


def known_settings() -> str:
    return ", ".join(Settings.model_fields)


def explain(error: ValidationError) -> str:
    """One line a problem, in the user's words."""
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"Unknown setting '{name}'. Known settings: {known_settings()}.")
        elif not name:
            lines.append(f"The setting {problem['ctx']['error']}.")
        else:
            lines.append(f"Setting '{name}' cannot be used: it {problem_told(problem)}.")
    return " ".join(lines)


def problem_told(problem: Mapping[str, Any]) -> str:
    """What is wrong with a value, as a clause that follows its name. What was given is not repeated: it may be a secret."""
    kind, limits = problem["type"], problem.get("ctx", {})
    match kind:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return "is not known"
        case "int_parsing" | "int_type" | "int_from_float" | "int_parsing_size":
            return "must be a whole number"
        case "float_parsing" | "float_type" | "finite_number":
            return "must be a number"
        case "greater_than":
            return f"must be more than {limits['gt']:g}"
        case "greater_than_equal":
            return f"must be {limits['ge']:g} or more"
        case "less_than":
            return f"must be less than {limits['lt']:g}"
        case "less_than_equal":
            return f"must be {limits['le']:g} or less"
        case "bool_parsing" | "bool_type":
            return "must be true or false"
        case "string_type":
            return "must be text"
        case "path_type":
            return "must be a path"
        case "list_type":
            return "must be a list"
        case "literal_error":
            return f"must be {limits['expected']}"
        case "json_invalid":
            return "is no JSON"
        case "model_attributes_type" | "model_type" | "dict_type":
            return "must be a JSON object"
        case "value_error":
            return str(limits["error"])
        case _:
            return f"is wrong ({problem['msg']})"
