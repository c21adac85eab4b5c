#!/usr/bin/env python3
"""Compares everything that tells about options with the one table in the program: configs/carillon.yaml, the README's table
and the help texts. With --write it makes the first two anew.

usage: check_options.py [--write] build/carillon
"""
import difflib
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "configs/carillon.yaml"
README = ROOT / "README.md"
BEGIN, END = "<!-- options -->", "<!-- /options -->"
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("CARILLON_")}


def ask(program, *args):
    """What the program prints; nothing when it fails."""
    done = subprocess.run([program, *args], capture_output=True, text=True, env=ENVIRONMENT, timeout=30, check=False)
    return done.stdout if done.returncode == 0 else None


def readme_table(options):
    """The table as Markdown, a row an option."""
    def cell(text):
        return text.replace("|", "\\|")

    rows = ["| option | default | meaning |", "|---|---|---|"]
    for option in options:
        default = f"`{cell(option['default'])}`" if option["default"] is not None else ""
        reload = " Reloaded." if option["reload"] else ""
        rows.append(f"| `{option['key']}` | {default} | {cell(option['help'])} ({cell(option['allowed'])}){reload} |")
    return "\n".join(rows)


def difference(name, there, wanted):
    lines = difflib.unified_diff(there.splitlines(), wanted.splitlines(), name, "the program", lineterm="", n=1)
    return [f"{name} is not what the program says; `make options` writes it:", *lines]


def check_sample(program, options, write):
    sample = ask(program, "config", "sample")
    if write:
        SAMPLE.write_text(sample, encoding="utf-8")
    there = SAMPLE.read_text(encoding="utf-8")
    if there != sample:
        return difference("configs/carillon.yaml", there, sample)
    effective = ask(program, "config", "check", "--json", str(SAMPLE))
    if effective is None or effective != ask(program, "config", "check", "--json"):
        return ["configs/carillon.yaml does not read as the defaults: see `carillon config check --json`"]
    missing = [o["key"] for o in options if not re.search(rf"^[ #]*{o['key'].split('.')[-1]}:", sample, re.MULTILINE)]
    return [f"configs/carillon.yaml lacks {key}" for key in missing]


def check_readme(options, write):
    text = README.read_text(encoding="utf-8") if README.exists() else ""
    if BEGIN not in text and END not in text:
        return []  # it has no table
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        return [f"README.md: {BEGIN} and {END} must stand there once each, in this order"]
    head, rest = text.split(BEGIN)
    there, tail = rest.split(END)
    wanted = f"\n{readme_table(options)}\n"
    if write:
        README.write_text(f"{head}{BEGIN}{wanted}{END}{tail}", encoding="utf-8")
        return []
    return [] if there == wanted else difference("README.md", there, wanted)


def check_help(program, options):
    """Each command has a help text, and what that names exists."""
    known = {o["key"] for o in options}
    sections = {key.split(".")[0] for key in known}
    overview = ask(program, "help")
    commands = re.findall(r"^  ([a-z]+(?: [a-z]+)?)  +\S", overview, re.MULTILINE)
    problems = [] if commands else ["carillon help lists no commands"]
    for command in commands:
        text = ask(program, *command.split(), "--help")
        if not text:
            problems.append(f"carillon {command} --help fails")
            continue
        usage = next(line for line in text.splitlines() if line.startswith("usage:"))
        flags = set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", text, re.MULTILINE))
        problems += [f"carillon {command} --help: usage names {flag}, which is no flag"
                     for flag in re.findall(r"--[a-z-]+", usage) if flag not in flags]
        problems += [f"carillon {command} --help names {key}, which is no option"
                     for key in re.findall(r"(?<![\w/.])([a-z]+\.[a-z_]+(?:\.[a-z_]+)*)(?![\w/])", text)
                     if key.split(".")[0] in sections and key not in known and not key.endswith(".yaml")]
    return problems


def main():
    args = sys.argv[1:]
    write = "--write" in args
    [program] = [a for a in args if a != "--write"]
    listed = ask(program, "config", "options", "--json")
    if listed is None:
        print(f"{program} config options --json fails", file=sys.stderr)
        return 1
    options = json.loads(listed)
    problems = check_sample(program, options, write) + check_readme(options, write) + check_help(program, options)
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
