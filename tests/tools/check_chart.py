#!/usr/bin/env python3
"""The table of values in the chart's README, made of values.yaml and its comments. With --write it is made anew.

usage: check_chart.py [--write]
"""
import difflib
import json
import pathlib
import re
import sys

import yaml

CHART = pathlib.Path(__file__).resolve().parents[2] / "helm/carillon"
BEGIN, END = "<!-- values -->", "<!-- /values -->"


def leaves(node, prefix=""):
    """(dotted name, value) of all that a user sets; what is a free map or list counts as one."""
    for key, value in node.items():
        free = not value or not isinstance(value, dict) or key == "resources"
        yield from [(prefix + key, value)] if free else leaves(value, f"{prefix}{key}.")


def comments(text):
    """{dotted name: comment above it} by indentation."""
    found, path, waiting = {}, [], []
    for line in text.splitlines():
        match = re.match(r"( *)(?:# (.*)|([\w]+):)", line)
        if not match:
            waiting = []
        elif match[2] is not None:
            waiting.append(match[2])
        else:
            path = path[:len(match[1]) // 2] + [match[3]]
            found[".".join(path)] = " ".join(waiting)
            waiting = []
    return found


def table():
    text = (CHART / "values.yaml").read_text()
    why = comments(text)
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for name, value in leaves(yaml.safe_load(text)):
        assert why.get(name), f"values.yaml: {name} has no comment"
        rows.append(f"| `{name}` | `{json.dumps(value)}` | {why[name]} |")
    return "\n".join(rows)


def main():
    readme = CHART / "README.md"
    before = readme.read_text()
    head, _, rest = before.partition(BEGIN)
    after = f"{head}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"
    if "--write" in sys.argv:
        readme.write_text(after)
    elif before != after:
        sys.exit("helm/carillon/README.md differs from values.yaml; tests/tools/check_chart.py --write makes it anew\n" + "\n".join(
            difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="")))


if __name__ == "__main__":
    main()
