"""Pictures for places that take no SVG: a slide, a paper's template, the card of a link. Needs the extra `pictures`."""

from typing import Final

from joulebox.errors import JouleboxError

WIDTH_MAX_PX: Final = 4_000


def png_of(svg: str, width_px: int) -> bytes:
    """An SVG drawn as PNG, so many pixels wide, all its text in Roboto whatever the machine has.

    Raises `JouleboxError`: `pictures_missing` where the extra is not installed, `bad_request` for an absurd width.
    """
    if not 1 <= width_px <= WIDTH_MAX_PX:
        raise JouleboxError("bad_request", f"A picture is 1 to {WIDTH_MAX_PX} pixels wide, not {width_px}.")
    try:
        from importlib.resources import as_file, files

        import resvg_py

        fonts = files("font_roboto") / "files"
    except ImportError as error:
        raise JouleboxError("pictures_missing", "PNG needs the extra: pip install 'joulebox[pictures]'.") from error
    with as_file(fonts / "Roboto-Regular.ttf") as regular, as_file(fonts / "Roboto-Bold.ttf") as bold:
        return resvg_py.svg_to_bytes(
            svg_string=svg,
            width=width_px,
            skip_system_fonts=True,
            font_files=[str(regular), str(bold)],
            font_family="Roboto",
            sans_serif_family="Roboto",
        )
