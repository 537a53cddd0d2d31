#!/usr/bin/env python3
"""Finds cycles of modules, and exits with 1 if there are any.

    scripts/circles.py [CRATE'S FOLDER ...]      (all of the workspace)

In each crate, dependencies among the modules of one parent, each including its submodules, must form no cycle. A
parent and its submodules may depend on each other, because together they form one module. Test code is
ignored.

It parses `use` and paths in the source text and follows re-exports, without the compiler, so it takes a second.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Comments and string literals, in which paths do not count.
NO_CODE = re.compile(
    r"""//[^\n]*|/\*.*?\*/|\b[bc]?r(?P<hashes>\#*)".*?"(?P=hashes)|"(?:\\.|[^"\\])*"|'(?:\\[^']+|\\'|[^'\\\n])'""",
    re.DOTALL,
)
VISIBLE = r"(?:pub(?:\([^)]*\))?\s+)?"
TEST = r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*"
TEST_FILE = re.compile(rf"{TEST}{VISIBLE}mod\s+(\w+)\s*;")
TEST_BLOCK = re.compile(rf"{TEST}{VISIBLE}mod\s+\w+\s*\{{")
TEST_USE = re.compile(rf"{TEST}{VISIBLE}use\s[^;]*;")
USE = re.compile(r"(pub(?:\([^)]*\))?\s+)?\buse\s+([^;]+);")
PATH = re.compile(r"(?<![\w:])\w+(?:\s*::\s*\w+)+")


def code(text):
    """The code of a file without comments, strings and tests; line numbers are preserved."""
    blank = lambda found: "\n" * found.group().count("\n") or " "
    text = TEST_USE.sub(blank, NO_CODE.sub(blank, text))
    while block := TEST_BLOCK.search(text):
        depth, end = 1, block.end()
        while depth and end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        text = text[: block.start()] + "\n" * text.count("\n", block.start(), end) + text[end:]
    return text


def split(names):
    """Splits at commas outside braces."""
    depth, start = 0, 0
    for at, character in enumerate(names):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "," and depth == 0:
            yield names[start:at]
            start = at + 1
    yield names[start:]


def leaves(tree, prefix=()):
    """Each path of a `use`, with the name it introduces."""
    tree = tree.strip()
    if braces := re.fullmatch(r"((?:\w+\s*::\s*)*)\{(.*)\}", tree, re.DOTALL):
        prefix += tuple(re.findall(r"\w+", braces.group(1)))
        for part in split(braces.group(2)):
            if part.strip():
                yield from leaves(part, prefix)
        return
    path, _, name = tree.partition(" as ")
    path = prefix + tuple(part.strip() for part in path.split("::") if part.strip())
    if path and path[-1] == "self":
        path = path[:-1]
    if path:
        yield path, name.strip() or path[-1]


class Crate:
    def __init__(self, source):
        self.code = {}
        for file in sorted(source.rglob("*.rs")):
            parts = file.relative_to(source).with_suffix("").parts
            if parts != ("main",):
                self.code[() if parts == ("lib",) else parts] = file.read_text()
        tests = {module + (name,) for module, text in self.code.items() for name in TEST_FILE.findall(text)}
        is_test = lambda module: any(module[: len(test)] == test for test in tests)
        self.code = {module: code(text) for module, text in self.code.items() if not is_test(module)}
        self.exported = {}

    def absolute(self, module, path, known=None):
        """A path resolved from the root of the crate, or None if it leads outside."""
        if path[0] == "crate":
            return path[1:]
        if path[0] in ("self", "super"):
            base = module
            while path and path[0] in ("self", "super"):
                base, path = base[:-1] if path[0] == "super" else base, path[1:]
            return base + path
        if known and path[0] in known:
            return known[path[0]] + path[1:]
        return module + path if module + path[:1] in self.code else None

    def file(self, path):
        """The module whose file defines the item of a path."""
        for _ in range(9):
            ends = range(len(path), 0, -1)
            end = next((end for end in ends if path[:end] in self.exported and path[:end] not in self.code), None)
            if end is None:
                break
            path = self.exported[path[:end]] + path[end:]
        return next(path[:end] for end in range(len(path), -1, -1) if path[:end] in self.code)

    def needs(self):
        """Dependencies: (module, line, other module)."""
        found = []
        for module, text in self.code.items():
            known = {}
            for use in USE.finditer(text):
                for path, name in leaves(use.group(2)):
                    path = self.absolute(module, path)
                    if path is not None:
                        known[name] = path
                        found.append((module, text.count("\n", 0, use.start()) + 1, path))
                        if use.group(1):
                            self.exported[module + (name,)] = path
            text = USE.sub(lambda use: "\n" * use.group().count("\n"), text)
            for match in PATH.finditer(text):
                path = self.absolute(module, tuple(re.findall(r"\w+", match.group())), known)
                if path is not None:
                    found.append((module, text.count("\n", 0, match.start()) + 1, path))
        return [(module, line, self.file(path)) for module, line, path in found]


def circle(arrows):
    """One cycle of a graph, the shortest through its first member, or None."""
    for start in sorted(arrows):
        came, queue = {}, [start]
        for here in queue:
            for there in sorted(arrows.get(here, ())):
                if there == start:
                    way = [here]
                    while way[-1] != start:
                        way.append(came[way[-1]])
                    return way[::-1]
                if there not in came:
                    came[there] = here
                    queue.append(there)
    return None


def circles(crate):
    """A cycle among the children of each parent, as lines."""
    siblings = {}
    for module, line, other in crate.needs():
        shared = next((n for n, (a, b) in enumerate(zip(module, other)) if a != b), None)
        if shared is not None:
            arrows = siblings.setdefault(module[:shared], {})
            arrow = arrows.setdefault(module[: shared + 1], {})
            arrow.setdefault(other[: shared + 1], (module, line, other))
    for _, arrows in sorted(siblings.items()):
        if way := circle(arrows):
            yield [arrows[here][there] for here, there in zip(way, way[1:] + way[:1])]


def main():
    members = re.search(r"^members = \[([^\]]*)\]", (ROOT / "Cargo.toml").read_text(), re.MULTILINE).group(1)
    crates = sys.argv[1:] or re.findall(r'"([^"]+)"', members)
    found = 0
    for crate in crates:
        source = ROOT / crate / "src"
        if not source.is_dir():
            sys.exit(f"{source} is not the folder of a crate")
        for way in circles(Crate(source)):
            found += 1
            print(f"a cycle of modules in {crate}/src:", file=sys.stderr)
            for module, line, other in way:
                print(f"    {'/'.join(module)}.rs:{line} needs {'::'.join(other)}", file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
