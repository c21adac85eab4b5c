"""What the gate scripts share: which C files there are, and their text without comments and strings."""
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
PRODUCT = ("agent", "consul", "callback")

_TOKEN = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'',
    re.DOTALL,
)


def files(*tops, suffixes=(".c", ".h")):
    """All C files under the given folders, as sorted paths relative to the root of the tree."""
    found = []
    for top in tops:
        found += [p for p in (ROOT / top).rglob("*") if p.suffix in suffixes]
    return sorted(p.relative_to(ROOT) for p in found)


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def blank(text):
    """TEXT with comments and literals replaced by blanks: every remaining character keeps its line and column."""
    return _TOKEN.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1
