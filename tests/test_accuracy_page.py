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


def test_every_part_is_a_module_and_stands_in_the_page_once_at_most() -> None:
    """Each part has a section to call, and what the page has of it begins and ends with its marks."""
    page = PAGE.read_text(encoding="utf-8")
    for name, module in accuracy.PARTS.items():
        assert callable(import_module(module).section)
        begins, ends = (page.count(mark) for mark in marks(name))
        assert begins == ends <= 1
