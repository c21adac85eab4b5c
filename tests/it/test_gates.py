"""The gates and runners of tests/tools: each must refuse what it is there for, and only that."""
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

TOOLS = pathlib.Path(__file__).resolve().parents[1] / "tools"


@pytest.fixture
def tree(folder):
    """tree(path=text …) writes a small source tree with the tools in it and returns its root."""
    shutil.copytree(TOOLS, folder / "tests/tools", ignore=shutil.ignore_patterns("__pycache__"))

    def make(files):
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return folder

    return make


def run(root, tool, *args):
    done = subprocess.run([sys.executable, root / "tests/tools" / tool, *map(str, args)], cwd=root, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
    return done.returncode, done.stdout


def function_of(lines):
    return "int f(int a,\n      int b)\n{\n" + "    a += b;\n" * (lines - 3) + "    return a;\n}\n"


def test_size_counts_the_lines_of_a_function_with_its_braces(tree):
    assert run(tree({"agent/a.c": function_of(80)}), "check_size.py")[0] == 0
    code, output = run(tree({"agent/a.c": function_of(81)}), "check_size.py")
    assert code == 1 and "agent/a.c:3: f has 81 lines" in output


def test_size_counts_the_lines_of_a_file(tree):
    assert run(tree({"agent/a.c": "/* */\n" * 800}), "check_size.py")[0] == 0
    code, output = run(tree({"agent/a.c": "/* */\n" * 801}), "check_size.py")
    assert code == 1 and "agent/a.c: 801 lines" in output


def test_size_is_not_confused_by_braces_in_comments_and_strings(tree):
    text = "/*\n{\n*/\n" + 'const char *s = "\\\n{\\\n";\n' + "\n" * 90 + function_of(10)
    assert run(tree({"agent/a.c": text}), "check_size.py")[0] == 0


@pytest.mark.parametrize("path, include, legal", [
    ("agent/core/a.c", "agent/base/x.h", True),
    ("agent/core/a.c", "agent/core/x.h", True),
    ("agent/core/a.c", "agent/io/x.h", False),
    ("agent/base/a.c", "agent/core/x.h", False),
    ("agent/store/a.c", "agent/io/x.h", True),
    ("agent/store/a.c", "consul/x.h", False),
    ("consul/a.c", "callback/x.h", False),
    ("callback/a.c", "agent/store/x.h", False),
    ("callback/a.c", "agent/x.h", False),
    ("agent/api/a.c", "consul/x.h", True),
    ("agent/a.c", "agent/api/x.h", True),
    ("agent/a.c", "tests/lib/x.h", False),
    ("tests/unit/core/a.c", "agent/x.h", True),
])
def test_layers_follow_their_order(tree, path, include, legal):
    root = tree({path: f'#include "{include}"\n', include: "#include <stdint.h>\n"})
    assert run(root, "check_layers.py")[0] == (0 if legal else 1)


def test_layers_refuse_header_cycles(tree):
    code, output = run(tree({"agent/base/a.h": '#include "agent/base/b.h"\n',
                             "agent/base/b.h": '#include "agent/base/a.h"\n'}), "check_layers.py")
    assert code == 1 and "header cycle: agent/base/a.h -> agent/base/b.h -> agent/base/a.h" in output


@pytest.mark.parametrize("text", ["#include <unistd.h>\n", "long f(void)\n{\n    return time(0);\n}\n"])
def test_layers_keep_the_core_pure(tree, text):
    assert run(tree({"agent/base/a.c": text}), "check_layers.py")[0] == 0
    assert run(tree({"agent/core/a.c": text}), "check_layers.py")[0] == 1


@pytest.mark.parametrize("call, banned", [
    ("strcpy(a, b)", True), ("sleep (1)", True), ("exit(1)", True), ("x.sleep_ms(1)", False), ("my_exit(1)", False),
    ('puts("strcpy(a, b)")', False), ("1 /* rand() */", False), ("snprintf(a, 1, b)", False), ("nanosleep(a, b)", False),
])
def test_ban_sees_calls_only(tree, call, banned):
    root = tree({"agent/a.c": f"void f(void)\n{{\n    {call};\n}}\n"})
    assert run(root, "check_ban.py")[0] == (1 if banned else 0)


def test_exit_is_for_main_and_tests_only(tree):
    root = tree({"agent/main.c": "void f(void)\n{\n    exit(1);\n}\n", "tests/tsan/a.c": "void g(void)\n{\n    exit(1);\n}\n"})
    assert run(root, "check_ban.py")[0] == 0


FALLIBLE = "int work(struct err *e)\n{\n    return ask(e);\n}\n\nint ask(struct err *e)\n{\n    return mem_try_alloc(1, e) != 0;\n}\n"
LOOP = "Test(a, b)\n{\n    fault_arm(0);\n    work(0);\n}\n"


@pytest.mark.parametrize("files, refused", [
    ({}, "agent/base/a.c: ask() can fail"),
    ({"tests/unit/base/test_a.c": LOOP}, None),
    ({"tests/unit/base/test_b.c": LOOP}, "agent/base/a.c: ask() can fail"),
    ({"tests/unit/base/test_a.c": LOOP.replace("work(0)", "play(0)")}, "agent/base/a.c: ask() can fail"),
    ({"tests/unit/base/test_a.c": LOOP.replace("fault_arm(0);", "")}, "agent/base/a.c: ask() can fail"),
    ({"tests/unit/base/test_b.c": LOOP, "tests/tools/faults.txt": "agent/base/a.c tests/unit/base/test_b.c there\n"}, None),
    ({"tests/tools/faults.txt": "agent/base/a.c tests/unit/base/test_b.c not there\n"}, "no fault loop of tests/unit/base/test_b.c"),
    ({"tests/tools/faults.txt": "agent/base/a.c - it ends the program\n"}, None),
    ({"tests/tools/faults.txt": "agent/base/a.c -\n"}, "faults.txt:1: say why"),
    ({"tests/unit/base/test_a.c": LOOP, "tests/tools/faults.txt": "agent/base/a.c - why\n"}, "has a fault loop of its own"),
    ({"tests/unit/base/test_a.c": LOOP, "tests/tools/faults.txt": "agent/base/z.c - why\n"}, "agent/base/z.c is no fallible module"),
])
def test_faults_wants_a_loop_or_a_reason(tree, files, refused):
    code, output = run(tree({"agent/base/a.c": FALLIBLE, "tests/tools/faults.txt": "", **files}), "check_faults.py")
    assert (code, refused is None or refused in output) == (1 if refused else 0, True), output


SYNTHESIS = "[====] Synthesis: Tested: {} | Passing: {} | Failing: {} | Crashing: 0"


@pytest.mark.parametrize("script, passed, failed", [
    (f"echo '{SYNTHESIS.format(3, 3, 0)}'", 3, 0),
    (f"echo '{SYNTHESIS.format(3, 2, 1)}'; exit 1", 2, 1),
    (f"echo '{SYNTHESIS.format(3, 3, 0)}'; exit 1", 3, 1),  # a report of a sanitizer at exit
    (f"echo '{SYNTHESIS.format(0, 0, 0)}'", 0, 1),
    ("exit 0", 0, 1),
    ("kill -SEGV $$", 0, 1),
])
def test_unit_runner_adds_up_and_refuses_silence(tree, script, passed, failed):
    root = tree({"b/tests/unit/x": f"#!/bin/sh\n{script}\n", "b/tests/unit/y": f"#!/bin/sh\necho '{SYNTHESIS.format(2, 2, 0)}'\n"})
    programs = [root / "b/tests/unit/x", root / "b/tests/unit/y"]
    for program in programs:
        program.chmod(0o755)
    code, _ = run(root, "run_unit.py", "--results", root / "results", "--name", "check", *programs)
    assert code == (1 if failed else 0)
    assert (root / "results/check.json").read_text() == f'{{"passed": {passed + 2}, "failed": {failed}}}'


@pytest.mark.parametrize("first, second, failed", [
    ("echo m: TEST_SEED=12", "[ $TEST_SEED = 12 ]", 0),
    ("echo m: TEST_SEED=12", "[ $TEST_SEED = 13 ]", 1),
    ("echo m: TEST_SEED=12; echo n: TEST_SEED=13", "[ $TEST_SEED = 12 ]", 1),  # each seed has to pass
    ("true", "true", 0),
    ("true", "false", 1),
    ("echo '[CRASH] a::b'", "true", 1),
    ("kill -SEGV $$", "true", 1),
])
def test_what_fails_beside_others_may_pass_alone_with_the_same_seeds(tree, first, second, failed):
    good, bad = SYNTHESIS.format(3, 3, 0), SYNTHESIS.format(3, 2, 1)
    root = tree({"b/tests/unit/x": f"#!/bin/sh\nif [ -e again ]; then {second} && echo '{good}'; exit; fi\n"
                                   f"touch again; {first}; echo '{bad}'; exit 1\n"})
    (root / "b/tests/unit/x").chmod(0o755)
    code, output = run(root, "run_unit.py", "--again", 1, "--results", root / "results", "--name", "check", root / "b/tests/unit/x")
    assert code == failed
    assert ("==> FLAKY" in output, "==> FAILED" in output) == (not failed, bool(failed))


MAKEFILE = """
build good-gate:
check:
\t@mkdir -p results; echo '{{"passed": 5, "failed": {failed}}}' >results/check.json; exit {failed}
bad-gate:
\t@echo what was wrong; exit 1
"""


@pytest.mark.parametrize("failed, stages, line", [
    (0, ["build", "check", "good-gate"], "5 passed, 0 failed"),
    (1, ["build", "check", "good-gate"], "5 passed, 1 failed"),
    (0, ["build", "bad-gate", "check"], "5 passed, 1 failed"),
    (0, ["build", "good-gate"], "0 passed, 1 failed"),
    (0, ["build", "--waiting", "check", "--busy", "good-gate"], "5 passed, 0 failed"),
    (1, ["build", "--waiting", "check", "--busy", "good-gate"], "5 passed, 1 failed"),
    (0, ["build", "--waiting", "check", "--busy", "good-gate", "bad-gate"], "5 passed, 1 failed"),
    (0, ["bad-gate", "--waiting", "check", "--busy"], "5 passed, 1 failed"),
])
def test_stages_end_with_one_line_of_counts(tree, failed, stages, line):
    root = tree({"Makefile": MAKEFILE.format(failed=failed)})
    code, output = run(root, "run_stages.py", "--results", root / "results", *stages)
    assert output.splitlines()[-1] == line
    assert ("what was wrong" in output.split("in all")[1]) == ("bad-gate" in stages)
    assert code == (0 if line.endswith(" 0 failed") else 1)


def test_each_line_of_the_threat_model_names_tests_that_are_there():
    root = TOOLS.parents[1]
    text = (root / "helm/README.md").read_text().split("## Threat model")[1]
    lines = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert len(lines) > 10
    for line in lines:
        named = re.findall(r"`(test_\w+)::(\w+)`", line.rsplit(" | ", 1)[1])
        assert named, line
        for file, test in named:
            python, c = root / f"tests/it/{file}.py", list(root.glob(f"tests/unit/**/{file}.c"))
            there = [re.search(rf"^def {test}\(", python.read_text(), re.MULTILINE)] if python.exists() else \
                [re.search(rf"^Test\(\w+, {test}[,)]", path.read_text(), re.MULTILINE) for path in c]
            assert any(there), f"{file}::{test}"
