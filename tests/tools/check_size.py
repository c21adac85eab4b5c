#!/usr/bin/env python3
"""Refuses functions over 80 lines and files over 800.

The house format puts a function's braces, and nothing else, alone into column 0; `make check-format` makes sure of it.
"""
import re
import statistics
import sys

import csource

FUNCTION_LINES_MAX = 80
FILE_LINES_MAX = 800


def functions(text):
    """(line, name, length) of each function; the length counts the body with its braces."""
    lines = csource.blank(text).split("\n")
    start = None
    for number, line in enumerate(lines, 1):
        if line.rstrip() == "{":
            start = number
        elif start and re.match(r"}[\s;]*$", line):
            yield start, name_above(lines, start), number - start + 1
            start = None


def name_above(lines, start):
    signature = ""
    for line in reversed(lines[max(0, start - 12):start - 1]):
        signature = line + " " + signature
        if line and not line[0].isspace():
            break
    match = re.search(r"(\w+)\s*\(\s*([^()]*)", signature)
    if not match:
        return "?"
    return f"{match.group(1)}({match.group(2).strip()})" if match.group(1) == "Test" else match.group(1)


def main():
    problems, lengths = [], []
    for path in csource.files(*csource.PRODUCT, "tests"):
        text = csource.read(path)
        count = text.count("\n")
        if count > FILE_LINES_MAX:
            problems.append(f"{path}: {count} lines, at most {FILE_LINES_MAX}")
        for line, name, length in functions(text):
            if path.parts[0] != "tests":
                lengths.append(length)
            if length > FUNCTION_LINES_MAX:
                problems.append(f"{path}:{line}: {name} has {length} lines, at most {FUNCTION_LINES_MAX}")
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    if lengths:
        print(f"check-size: {len(lengths)} functions, median {statistics.median(lengths):.0f} lines, "
              f"longest {max(lengths)}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
