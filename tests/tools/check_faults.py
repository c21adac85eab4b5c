#!/usr/bin/env python3
"""Refuses a fallible module that no fault loop exercises.

A step that the fault hooks of agent/base/mem.h can fail is a call of mem_try_*, of jansson's constructors, or of fault_hit()
itself. A module (a .c file) is fallible when one of its functions asks for such a step, or handles errors (`struct err`) and
reaches one through what it calls. It is exercised when a test in the folder of tests/unit that mirrors its own, named like the
module or like its name cut at an underscore (planner_load: test_planner_load.c, test_planner.c), reaches one of those functions
from a Test() that arms faults. "Reaches" goes by names, anywhere in a body or a table: so a function handed over by its address
counts.

What is exercised elsewhere, or cannot be, is in faults.txt, one line a module, and why:

    agent/core/planner_load.c  tests/unit/core/test_planner_model.c  the loads of the weather "allocations that fail"
    agent/main.c               -                                      hands over to the commands
"""
import pathlib
import re
import sys

import check_layers
import check_size
import csource

UNIT = pathlib.Path("tests/unit")
LIST = pathlib.Path("tests/tools/faults.txt")
JANSSON = "object|array|string|stringn|integer|real|pack|sprintf|dumps|loads|loadb|deep_copy|copy"
STEP = re.compile(rf"\b(mem_try_\w+|fault_hit|json_(?:{JANSSON}|object_set\w*|array_append\w*|array_insert\w*|object_update\w*))\s*\(")
ARM = re.compile(r"\b(fault_arm|fault_arm_threads)\b")
ERRORS = re.compile(r"\bstruct err\b")
TABLE = re.compile(r"^(?:(?:static )?(?:const )?\w[\w ]*[ *]|\} )(?P<name>\w+)(?:\[\w*\])? = \{(?P<body>.*?)\};", re.M | re.DOTALL)
INCLUDE = re.compile(r'^#include "(tests/[^"]+\.h)"', re.MULTILINE)
GENERATED = re.compile(r"^ *#define .*\n?.*\bTest\(", re.M)
STATIC = re.compile(r"^static\b")
WORD = re.compile(r"\b[a-zA-Z_]\w+\b")


class Function:
    def __init__(self, path, name, signature, body):
        self.path, self.name, self.layer = path, name, check_layers.layer(path)
        self.words = set(WORD.findall(body))
        self.asks = bool(STEP.search(body))
        self.arms = bool(ARM.search(body))
        self.errors = bool(ERRORS.search(signature) or ERRORS.search(body))
        self.static = path.suffix == ".c" and bool(STATIC.search(signature))


def functions(path):
    """The functions of a file, and its tables as if each called what it names."""
    text = csource.blank(csource.read(path))
    lines = text.split("\n")
    for start, name, length in check_size.functions(text):
        first = start - 1
        while first > 0 and lines[first - 1].strip() and not lines[first - 1].rstrip().endswith((";", "}")):
            first -= 1
        yield Function(path, name, " ".join(lines[first:start - 1]), "\n".join(lines[start - 1:start - 1 + length]))
    for table in TABLE.finditer(text):
        yield Function(path, table["name"], table.group(), table["body"])


class Program:
    def __init__(self, *tops):
        self.functions = [f for path in csource.files(*tops) for f in functions(path)]
        self.in_file, self.anywhere = {}, {}
        for f in self.functions:
            self.in_file.setdefault(f.path, {})[f.name] = f
            if not f.static:
                self.anywhere.setdefault(f.name, f)  # the product's before a test's stand-in of the same name
        self.calls = {f: self._called(f) for f in self.functions}

    def _called(self, f):
        own, below = self.in_file[f.path], check_layers.BELOW[f.layer]
        return {g for word in f.words if (g := own.get(word) or self.anywhere.get(word)) and g is not f and g.layer in below}

    def reached(self, roots):
        seen, left = set(roots), list(roots)
        while left:
            new = self.calls[left.pop()] - seen
            seen |= new
            left += new
        return seen

    def reaching(self, ends):
        callers, seen, left = {}, set(ends), list(ends)
        for f in self.functions:
            for g in self.calls[f]:
                callers.setdefault(g, set()).add(f)
        while left:
            new = callers.get(left.pop(), set()) - seen
            seen |= new
            left += new
        return seen


def fallible(program):
    """{module: its functions that a fault can strike}"""
    strikes, modules = program.reaching([f for f in program.functions if f.asks]), {}
    for f in program.functions:
        if f.path.suffix == ".c" and f.path.parts[0] in csource.PRODUCT and (f.asks or (f.errors and f in strikes)):
            modules.setdefault(f.path, set()).add(f)
    return modules


def tests_of(module):
    """Where a test of MODULE may be, the nearest name first."""
    folder = pathlib.Path("tests/unit", *(module.parts[1:-1] if module.parts[0] == "agent" else module.parts[:-1]))
    folder = folder / "agent" if folder == UNIT else folder
    words = module.stem.split("_")
    while folder != UNIT:
        for n in range(len(words), 0, -1):
            yield folder / f"test_{'_'.join(words[:n])}.c"
        folder = folder.parent


def armed(program, test):
    """What is reached from those Test()s of a file and the headers of tests that it includes that arm faults. Where macros make the
    tests, or main() runs them from a table, all its functions count as one."""
    files, left = set(), [test]
    while left:
        path = left.pop()
        if path not in files and (csource.ROOT / path).exists():
            files.add(path)
            left += map(pathlib.Path, INCLUDE.findall(csource.read(path)))
    found = [f for path in sorted(files) for f in program.in_file.get(path, {}).values()]
    roots = [[f] for f in found if f.name.startswith("Test(")]
    if any(f.name == "main" for f in found) or any(GENERATED.search(csource.read(path)) for path in files):
        roots.append(found)
    reached = [program.reached(r) for r in roots]
    return set().union(*(r for r in reached if any(f.arms for f in r)))


def exceptions():
    """{module: (the test that exercises it or None, why)}, and what is wrong with the list."""
    listed, problems = {}, []
    for number, line in enumerate(csource.read(LIST).splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        module, test, *why = line.split(maxsplit=2)
        if not why:
            problems.append(f"{LIST}:{number}: say why")
        listed[pathlib.Path(module)] = None if test == "-" else pathlib.Path(test)
    return listed, problems


def main():
    program = Program(*csource.PRODUCT, "tests/unit", "tests/lib", "tests/tools")
    listed, problems = exceptions()
    modules = fallible(program)
    reached = {}

    def exercised(functions_of_module, test):
        if test not in reached:
            reached[test] = armed(program, test)
        return bool(functions_of_module & reached[test])

    for module, struck in sorted(modules.items()):
        own = any(exercised(struck, test) for test in tests_of(module))
        if module not in listed and not own:
            problems.append(f"{module}: {min(f.name for f in struck)}() can fail, and no fault loop of its unit test reaches it; "
                            f"write one (tests/unit/README.md), or say in {LIST} where it is or why not")
        elif module in listed and own:
            problems.append(f"{LIST}: {module} has a fault loop of its own, strike it out")
        elif listed.get(module) and not exercised(struck, listed[module]):
            problems.append(f"{LIST}: no fault loop of {listed[module]} reaches {module}")
    problems += [f"{LIST}: {module} is no fallible module" for module in sorted(listed.keys() - modules.keys())]
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    print(f"check-faults: {len(modules)} fallible modules, {sum(1 for t in listed.values() if not t)} without a fault loop")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
