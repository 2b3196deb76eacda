"""The house rules that a machine can hold: which package may import which, and who may import a third party."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BELOW = {"index": set(), "rag": {"index"}, "ui": {"index", "rag"}}
ONLY_IN = {
    "argon2": ("rag/accounts.py",),
    "chromadb": ("index/collection.py", "index/chroma_server.py"),
    "fastapi": ("rag/server*.py",),
    "gradio": ("ui/app.py",),
    "httpcore": ("rag/fetch_url.py",),
    "httpx2": ("rag/mcp_server.py",),
    "idna": ("rag/web_address.py",),
    "mcp": ("rag/mcp_server.py",),
    "psycopg": ("index/postgres*.py", "index/shared_vectors.py"),
    "psycopg_pool": ("index/postgres_database.py",),
    "prometheus_client": ("rag/metrics.py",),
    "xllamacpp": ("rag/model.py",),
}
MODULES = sorted(path for package in BELOW for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Top-level names of all modules that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    for name in imported(path):
        assert name not in BELOW or name == package or name in BELOW[package], f"{package} must not import {name}"
        homes = ONLY_IN.get(name, ("**/*.py",))
        assert any(path.relative_to(ROOT).match(home) for home in homes), f"{name} belongs into {homes}"


def test_every_public_name_is_there() -> None:
    import rag

    for name in rag.__all__:
        assert getattr(rag, name).__doc__, f"rag.{name} needs a docstring"
    assert {"ask", "stream", "open_assistant", "Settings", "Answer", "Citation", "Turn"} <= set(rag.__all__)


def test_readme_tree_names_every_module() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in MODULES:
        assert path.name == "__init__.py" or path.name in readme, f"README's tree misses {path.relative_to(ROOT)}"
