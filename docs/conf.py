"""How the site is built (`docs/website.py` calls the generator): no address outside it, both schemes, strict."""

import sys
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent))

project = "Joulebox"
html_title = "Joulebox"
extensions = ["myst_parser", "glossary_links"]
exclude_patterns = ["files"]
myst_heading_anchors = 4
highlight_language = "text"
suppress_warnings = ["misc.highlighting_failure"]
"""Examples with an ellipsis in them are no valid JSON, and are shown all the same."""
html_theme = "furo"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_domain_indices = False
html_use_index = False
_LIGHT: Final[dict[str, str]] = {
    "color-brand-primary": "#1c6548",
    "color-brand-content": "#1c6548",
    "color-brand-visited": "#1c6548",
    "color-background-primary": "#fffdf8",
    "color-background-secondary": "#f4f1ea",
    "color-foreground-primary": "#211e19",
    "color-foreground-secondary": "#625b50",
    "color-foreground-muted": "#625b50",
}
_DARK: Final[dict[str, str]] = {
    "color-brand-primary": "#8fd1b0",
    "color-brand-content": "#8fd1b0",
    "color-brand-visited": "#8fd1b0",
    "color-background-primary": "#201e1b",
    "color-background-secondary": "#151412",
    "color-foreground-primary": "#ece7dc",
    "color-foreground-secondary": "#aaa294",
    "color-foreground-muted": "#aaa294",
}
html_theme_options: dict[str, Any] = {
    "light_css_variables": _LIGHT,
    "dark_css_variables": _DARK,
    "navigation_with_keys": True,
}
