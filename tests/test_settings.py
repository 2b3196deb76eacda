"""Tests of rag.settings: where each value may come from, what comes first, and how a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from index.errors import InvalidSettings
from rag.settings import Settings

SECRET = "sk-do-not-show-me"


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, so that a citewell.toml is there only when a test writes one."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_defaults_serve_this_machine_with_the_embedded_model() -> None:
    settings = Settings()
    assert (settings.model, settings.host, settings.port, settings.api_key.get_secret_value()) == ("embedded", "127.0.0.1", 7860, "")


def test_arguments_beat_environment_beats_file_beats_defaults(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (working_folder / "citewell.toml").write_text('port = 1111\nmodel = "none"\nembedder = "from-file"\n', encoding="utf-8")
    assert (Settings().port, Settings().model, Settings().embedder) == (1111, "none", "from-file")
    monkeypatch.setenv("CITEWELL_PORT", "2222")
    monkeypatch.setenv("CITEWELL_MODEL", "embedded-small")
    settings = Settings(port=3333)
    assert (settings.port, settings.model, settings.embedder) == (3333, "embedded-small", "from-file")


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITEWELL_PORT", "")
    assert Settings().port == 7860


def test_unknown_argument_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidSettings, match=r"Unknown setting 'modle'\. Known settings: .*\bmodel\b.*\bport\b"):
        Settings(modle="none")


@pytest.mark.parametrize("name", ["CITEWELL_MODLE", "CITEWELL_DATA", "citewell_modle"])
def test_unknown_variable_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, SECRET)
    with pytest.raises(InvalidSettings, match=f"Unknown setting in the environment: {name}") as caught:
        Settings()
    assert SECRET not in str(caught.value)


def test_unknown_key_in_the_file_is_refused(working_folder: Path) -> None:
    (working_folder / "citewell.toml").write_text('modle = "none"\n', encoding="utf-8")
    with pytest.raises(InvalidSettings, match="Unknown setting 'modle'"):
        Settings()


@pytest.mark.parametrize("content", [b"port = = 1", b"\xff\xfe\x00", b'model = "none'])
def test_a_broken_file_is_named(working_folder: Path, content: bytes) -> None:
    (working_folder / "citewell.toml").write_bytes(content)
    with pytest.raises(InvalidSettings, match=r"citewell\.toml"):
        Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 70_000),
        ("port", -1),
        ("port", "web"),
        ("model_seconds", 0),
        ("model_seconds", -3),
        ("model_seconds", "inf"),
        ("model_seconds", "nan"),
        ("data_dir", 5),
    ],
)
def test_an_impossible_value_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidSettings, match=f"Setting '{name}' cannot be used: .+"):
        Settings(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("port", "web", "must be a whole number"),
        ("port", 70_000, "must be 65535 or less"),
        ("port", -1, "must be 0 or more"),
        ("model_seconds", "soon", "must be a number"),
        ("model_seconds", 0, "must be more than 0"),
        ("data_dir", 5, "must be a path"),
        ("model", 5, "must be text"),
    ],
)
def test_what_is_wrong_with_a_value_is_told_in_plain_words(name: str, value: object, says: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        Settings(**{name: value})
    assert str(caught.value) == f"Setting '{name}' cannot be used: it {says}."


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(InvalidSettings) as caught:
        Settings(port=-1, model_seconds=0, modle="x")
    assert all(word in str(caught.value) for word in ("'port'", "'model_seconds'", "'modle'"))


@pytest.mark.parametrize("source", ["argument", "environment"])
def test_the_key_is_never_shown(source: str, working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}
    if source == "argument":
        given["api_key"] = SecretStr(SECRET)
    else:
        monkeypatch.setenv("CITEWELL_API_KEY", SECRET)
    settings = Settings(**given)
    assert settings.api_key.get_secret_value() == SECRET
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_a_key_in_a_file_is_refused(working_folder: Path) -> None:
    (working_folder / "citewell.toml").write_text(f'api_key = "{SECRET}"\n', encoding="utf-8")
    with pytest.raises(InvalidSettings, match="Take out api_key, and set CITEWELL_API_KEY") as refused:
        Settings()
    assert SECRET not in str(refused.value)


def test_home_is_expanded_and_paths_are_absolute(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(working_folder))
    monkeypatch.setenv("CITEWELL_MODELS_DIR", "~/models")
    settings = Settings(data_dir=Path("~/data"), bench=Path("bench"))
    assert settings.data_dir == working_folder / "data"
    assert settings.models_dir == working_folder / "models"
    assert settings.bench == working_folder / "bench"


def test_the_home_of_nobody_is_refused() -> None:
    with pytest.raises(InvalidSettings, match=r"'data_dir' cannot be used: .*~nobody-of-this-name"):
        Settings(data_dir=Path("~nobody-of-this-name/data"))


def test_settings_cannot_be_changed_but_copied() -> None:
    settings = Settings(port=1234, api_key=SecretStr(SECRET))
    copy = settings.replaced(port=4321, model=None)
    assert (settings.port, copy.port, copy.model, copy.api_key) == (1234, 4321, settings.model, settings.api_key)
    with pytest.raises(InvalidSettings, match="modle"):
        settings.replaced(modle="none")


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("https://user:hunter2@models.example/v1", "https://models.example/v1"),
        ("http://key@localhost:1234/v1", "http://localhost:1234/v1"),
        ("http://localhost:1234/v1/@me", "http://localhost:1234/v1/@me"),
        ("embedded", "embedded"),
        ("~/m@dels/my.gguf", "~/m@dels/my.gguf"),
    ],
)
def test_a_login_in_the_url_is_not_shown(model: str, shown: str) -> None:
    assert Settings(model=model).model_shown == shown


def test_a_whole_answer_may_take_as_long_as_three_replies() -> None:
    assert Settings().longest_answer == 540
    assert Settings(model_seconds=20).longest_answer == 300
    assert Settings(model_seconds=600).longest_answer == 1800
    assert Settings(model_seconds=600, answer_seconds=60).longest_answer == 60


# A shared store

DATABASE, CHROMA = f"postgresql://ann:{SECRET}@db.example.org/citewell", "http://chroma.example.org:8000"


def test_a_shared_store_needs_both_servers() -> None:
    with pytest.raises(InvalidSettings, match="CITEWELL_CHROMA_URL") as caught:
        Settings(store_url=DATABASE)
    assert SECRET not in str(caught.value)
    with pytest.raises(InvalidSettings, match="CITEWELL_STORE_URL"):
        Settings(chroma_url=CHROMA)
    settings = Settings(store_url=DATABASE, chroma_url=f"{CHROMA}/")
    assert (settings.shared, settings.chroma_url, Settings().shared) == (True, CHROMA, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("store_url", f"mysql://ann:{SECRET}@db/x"),
        ("store_url", SECRET),
        ("chroma_url", f"http://ann:{SECRET}@chroma:8000"),
        ("chroma_url", f"http://chroma:8000/{SECRET}"),
        ("chroma_url", "chroma:8000"),
        ("chroma_url", "http://chroma:port"),
    ],
)
def test_an_address_that_is_none_is_refused_and_not_repeated(name: str, value: str) -> None:
    with pytest.raises(InvalidSettings, match=f"'{name}' cannot be used: it must be") as caught:
        Settings(**{"store_url": DATABASE, "chroma_url": CHROMA, name: value})
    assert SECRET not in str(caught.value)


def test_secrets_of_a_shared_store_are_not_shown_and_not_in_the_file(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "from-outside")
    settings = Settings(store_url=DATABASE, chroma_url=CHROMA, chroma_api_key="ck-hidden")
    assert SECRET not in repr(settings) + str(settings.model_dump()) + settings.model_dump_json()
    assert "ck-hidden" not in repr(settings)
    assert {SECRET, "ck-hidden", "from-outside", DATABASE} <= set(settings.secrets)
    behind = Settings(store_url="postgresql://ann@db/citewell?password=pa%2B55+word&sslmode=require", chroma_url=CHROMA)
    assert "pa+55+word" in behind.secrets
    assert "require" not in behind.secrets
    for line, variable in ((f'store_url = "{DATABASE}"', "PGPASSWORD"), ('chroma_api_key = "ck-hidden"', "CITEWELL_CHROMA_API_KEY")):
        (working_folder / "citewell.toml").write_text(f'{line}\nchroma_url = "{CHROMA}"\n', encoding="utf-8")
        with pytest.raises(InvalidSettings, match=variable) as caught:
            Settings()
        assert SECRET not in str(caught.value)
    (working_folder / "citewell.toml").write_text(f'store_url = "postgresql://ann@db/citewell"\nchroma_url = "{CHROMA}"\n', encoding="utf-8")
    assert Settings().shared
