"""The reference pages are made from the code: nothing public is undocumented, nothing documented is gone."""

import pytest

import reference
from joulebox.errors import REGISTRY
from joulebox.settings import Settings


@pytest.mark.parametrize("name", sorted(reference.PAGES))
def test_page_is_what_the_code_says(name: str) -> None:
    """A committed reference page equals what `make docs` writes from the code."""
    written = (reference.FOLDER / name).read_text(encoding="utf-8")
    assert written == reference.PAGES[name](), f"docs/reference/{name} is out of date: run `make docs`"


def test_every_error_code_is_documented() -> None:
    """Each code of the registry has a row of its own."""
    page = reference.errors_page()
    assert [code for code in REGISTRY if page.count(f"| `{code}` |") != 1] == []


def test_every_setting_is_documented() -> None:
    """Each setting has a row with its environment variable and a meaning that is a sentence."""
    page = reference.settings_page()
    assert [name for name in Settings.model_fields if page.count(f"`JOULEBOX_{name.upper()}`") != 1] == []
    meanings = [field.description or "" for field in Settings.model_fields.values()]
    assert [meaning for meaning in meanings if not meaning.endswith(".")] == []
