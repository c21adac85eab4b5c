#!/usr/bin/env python3
"""Refuses an #include against the direction of the layers, header cycles, and system access from agent/core.

A file includes its own folder and folders of lower layers, never sideways: store, consul and callback know nothing of
each other.
"""
import re
import sys

import csource

# Folder of a file (longest prefix wins) -> layer, and layer -> layers it may include.
LAYER_OF_FOLDER = {
    "agent/base": "base", "agent/core": "core", "agent/io": "io", "agent/store": "store",
    "consul": "consul", "callback": "callback", "agent": "agent", "tests": "tests",
}
BELOW = {
    "base": {"base"},
    "core": {"core", "base"},
    "io": {"io", "core", "base"},
    "store": {"store", "io", "core", "base"},
    "consul": {"consul", "io", "core", "base"},
    "callback": {"callback", "io", "core", "base"},
    "agent": {"agent", "callback", "consul", "store", "io", "core", "base"},
}
BELOW["tests"] = BELOW["agent"] | {"tests"}

# agent/core is fed and never asks: no descriptors, threads, sockets or clocks.
CORE_HEADERS_REFUSED = re.compile(
    r"<(unistd|fcntl|pthread|threads|poll|signal|dirent|netdb|uv|mysql|microhttpd|curl/.*|sys/(?!types).*|netinet/.*)"
    r"(\.h)?>")
CORE_CALLS_REFUSED = re.compile(r"\b(time|clock_gettime|gettimeofday|clock|getenv|fopen|open|read|write|socket)\s*\(")

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(<[^>]+>|"[^"]+")', re.MULTILINE)


def layer(path):
    best = max((f for f in LAYER_OF_FOLDER if str(path).startswith(f + "/")), key=len, default=None)
    return LAYER_OF_FOLDER.get(best)


def includes(path):
    text = csource.read(path)
    for match in INCLUDE.finditer(text):
        yield csource.line_of(text, match.start()), match.group(1)


def check_include(path, line, target, known):
    if target.startswith("<"):
        if layer(path) == "core" and CORE_HEADERS_REFUSED.match(target):
            yield f"{path}:{line}: agent/core may not include {target}"
        return
    name = target.strip('"')
    if name not in known:
        # Generated headers have no file in the tree; everything else is named from the root of the tree.
        if (csource.ROOT / path).parent.joinpath(name).exists():
            yield f'{path}:{line}: include "{name}" by its path from the root of the tree'
        return
    if layer(name) not in BELOW[layer(path)]:
        yield f"{path}:{line}: {layer(path)} may not include {name} ({layer(name)})"


def cycles(graph):
    """One message a cycle among headers, found by depth-first search."""
    state, stack = {}, []

    def visit(node):
        state[node] = "open"
        stack.append(node)
        for child in graph.get(node, ()):
            if state.get(child) == "open":
                yield "header cycle: " + " -> ".join(stack[stack.index(child):] + [child])
            elif child not in state:
                yield from visit(child)
        stack.pop()
        state[node] = "done"

    for node in sorted(graph):
        if node not in state:
            yield from visit(node)


def main():
    paths = csource.files(*csource.PRODUCT, "tests")
    known = {str(p) for p in paths}
    problems, graph = [], {}
    for path in paths:
        for line, target in includes(path):
            problems += check_include(path, line, target, known)
            if path.suffix == ".h" and target.startswith('"') and target.strip('"') in known:
                graph.setdefault(str(path), []).append(target.strip('"'))
        if layer(path) == "core":
            text = csource.blank(csource.read(path))
            problems += [f"{path}:{csource.line_of(text, m.start())}: agent/core may not call {m.group(1)}()"
                         for m in CORE_CALLS_REFUSED.finditer(text)]
    problems += cycles(graph)
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    print(f"check-layers: {len(paths)} files")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
