#!/usr/bin/env python3
"""Refuses calls that have no safe use here, and exit() anywhere but in agent/main.c."""
import re
import sys

import csource

BANNED = re.compile(r"\b(strcpy|strcat|sprintf|vsprintf|strtok|atoi|atol|gets|alloca|rand|sleep)\s*\(")
EXIT = re.compile(r"(?<![\w>.])exit\s*\(")


def main():
    problems = []
    for path in csource.files(*csource.PRODUCT, "tests"):
        text = csource.blank(csource.read(path))
        found = list(BANNED.finditer(text))
        if path.parts[0] != "tests" and str(path) != "agent/main.c":
            found += EXIT.finditer(text)
        problems += [f"{path}:{csource.line_of(text, m.start())}: {m.group().rstrip('( ')}() is banned" for m in found]
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
