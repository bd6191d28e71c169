"""The accuracy page is written part by part."""

from importlib import import_module

import accuracy
from accuracy_page import PAGE, marks, with_part


def test_a_part_replaces_its_own_text_and_no_other() -> None:
    """Writing a part again changes what stands between its marks and nothing else of the page."""
    page = with_part(with_part("# Head\n", "one", "first"), "two", "second")
    assert page.startswith("# Head\n")
    again = with_part(page, "one", "changed\n\n| a table |")
    assert again == page.replace("first", "changed\n\n| a table |")
    assert with_part(again, "one", "first") == page


def test_the_page_has_every_part_that_the_command_writes() -> None:
    """Each part is a module with a section, and its marks stand in the page."""
    page = PAGE.read_text(encoding="utf-8")
    for name, module in accuracy.PARTS.items():
        assert callable(import_module(module).section)
        assert all(page.count(mark) == 1 for mark in marks(name))
