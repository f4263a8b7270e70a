#!/usr/bin/env python3
"""Imports between the source files of both packages: cycles per room, and imports against the layering.

A file imports another when a `use` line or a path in its code (`crate::`, `super::`, `self::`, a child module, an imported
module) names something that the other file defines. Re-exports are seen through: `use super::Settings` counts as an
import of the file that defines `Settings`, not of the `mod.rs` that re-exports it. A child imports its own `mod.rs` only
where it names an item that is defined there, and a `mod.rs` imports its child only where its own code uses the child:
`mod child;` and a bare `pub use child::Item;` are no imports. Test modules are left out.

    imports.py            print cycles, upward imports and the arrows between rooms
    imports.py --edges    also print every import within a room
    imports.py --check    print only what breaks a rule, and fail if anything does
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

# Crates: name in paths, root file.
CRATES = {
    "proxygrad": "crates/proxygrad/src/lib.rs",
    "proxygrad_server": "src/lib.rs",
    "main": "src/main.rs",
}

# Rooms from the lowest to the highest. Modules of a crate's root that are no room (`text`, `invalid` ...) are the ground.
ROOMS = ["network", "engine", "calibrate", "train", "judge", "maximize", "study", "maximizer", "config", "jobs", "worker", "api", "service", "cli"]

# Most files of an import cycle, by folder.
LARGEST_CYCLE = {"crates/proxygrad/src/maximize": 3, "crates/proxygrad/src/engine/cpu": 4}

# Layers of `maximize`, lowest first: folders and files below `crates/proxygrad/src/maximize`. The first that matches counts.
MAXIMIZE = "crates/proxygrad/src/maximize"
LAYERS = [
    ("ground", r"(error|task|ops|image8|string_or_object|preprocessor|reference_image|callback)(/.*)?\.rs"),
    ("documents", r"(request(/.*)?|[a-z_]+/document|settings|start|halving|diversity|gate_schedule|animation|coarse)\.rs"),
    (
        "parts",
        r"(objective|transform|optimizer|regularization|parameterization|gate|diagnostics|projection|model_runner|outcome|enlarge)"
        r"(/.*)?\.rs",
    ),
    ("run", r"(run|memory)(/.*)?\.rs"),
]
MOST_UPWARD = 12

ITEM = r"\b(?:fn|struct|enum|union|trait|type|const|static|macro_rules!)\s+"


class Module:
    """A module: its file, its children and what its code names."""

    def __init__(self, path, file):
        self.path = path  # ("proxygrad", "maximize", "run")
        self.file = file  # relative to the repository
        self.children = {}
        self.uses = []  # (path, name it is bound to, whether it is re-exported)
        self.code = ""  # without `use` lines and without the modules inside
        self.aliases = {}


def without_comments(text):
    """The code with comments removed and strings emptied."""
    pattern = re.compile(
        r'//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?\'(?:\\.[^\']*|[^\'\\])\'', re.DOTALL
    )
    return pattern.sub(lambda match: " " if match[0].startswith("/") else '""', text)


def matching_brace(text, start):
    """Where the brace that opens at `start` closes."""
    depth = 0
    for index in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return index
    return len(text)


def tree(text):
    """The paths of a use tree, each with the name that it binds: `a::{b, c as d}`."""
    text = text.strip()
    brace = text.find("{")
    if brace < 0:
        path, _, name = text.partition(" as ")
        segments = [segment.strip() for segment in path.split("::") if segment.strip()]
        if segments and segments[-1] == "self":
            segments.pop()
        if segments:
            yield segments, name.strip() or segments[-1]
        return
    prefix = [segment.strip() for segment in text[:brace].split("::") if segment.strip()]
    inside = text[brace + 1 : matching_brace(text, brace)]
    depth = start = 0
    for index, character in enumerate(inside + ","):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "," and depth == 0:
            if inside[start:index].strip():
                for path, name in tree(inside[start:index]):
                    yield prefix + path, prefix[-1] if not path else name
            start = index + 1


def read(path, file, modules):
    """Reads a file and the files of its child modules."""
    module = Module(path, file)
    parse(module, without_comments((REPOSITORY / file).read_text()), modules)
    return module


def parse(module, text, modules):
    modules[module.path] = module
    # Modules: in files of their own, or inside this one.
    declaration = re.compile(r"((?:#\[[^\]]*\]\s*)*)(?:pub(?:\([^)]*\))?\s+)?\bmod\s+(\w+)\s*([;{])")
    while match := declaration.search(text):
        attributes, name, kind = match.groups()
        end = matching_brace(text, match.end() - 1) + 1 if kind == "{" else match.end()
        body = text[match.end() : end - 1]
        text = text[: match.start()] + text[end:]
        if re.search(r"cfg\((all\()?test", attributes):
            continue
        path = (*module.path, name)
        if kind == "{":
            child = Module(path, module.file)
            parse(child, body, modules)
        else:
            child = read(path, child_file(module.file, name), modules)
        module.children[name] = child
    # Items for tests alone.
    while match := re.search(r"#\[cfg\(test\)\]", text):
        semicolon, brace = text.find(";", match.end()), text.find("{", match.end())
        if 0 <= brace < semicolon or semicolon < 0:
            end = matching_brace(text, brace)
        else:
            end = semicolon
        text = text[: match.start()] + text[end + 1 :]
    use = re.compile(r"\b(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);")
    for match in use.finditer(text):
        module.uses += [(names, name, bool(match[1])) for names, name in tree(match[2])]
    module.code = use.sub("", text)


def child_file(file, name):
    file = Path(file)
    folder = file.parent if file.name in ("mod.rs", "lib.rs", "main.rs") else file.with_suffix("")
    single = folder / f"{name}.rs"
    return str(single if (REPOSITORY / single).exists() else folder / name / "mod.rs")


class Sources:
    def __init__(self):
        self.modules = {}
        self.found = {}
        for crate, file in CRATES.items():
            read((crate,), file, self.modules)
        for module in self.modules.values():
            module.aliases = {name: (path, public) for path, name, public in module.uses}

    def absolute(self, module, path):
        """The path from a crate's root, or None for a path into another library."""
        path, at = list(path), module.path
        if path[0] == "crate":
            return (at[0], *path[1:])
        if path[0] in ("self", "super"):
            while path and path[0] in ("self", "super"):
                if path.pop(0) == "super":
                    at = at[:-1]
            return (*at, *path)
        if path[0] in module.children:
            return (*at, *path)
        if path[0] in module.aliases and module.aliases[path[0]][0] != path:
            start = self.absolute(module, module.aliases[path[0]][0])
            return (*start, *path[1:]) if start else None
        return tuple(path) if path[0] in CRATES else None

    def defining(self, path, seen=()):
        """The module that defines what an absolute path names."""
        if path in seen:
            return None
        module, rest = self.modules.get(path[:1]), list(path[1:])
        while rest and rest[0] in module.children:
            module = module.children[rest.pop(0)]
        if not rest or rest[0] == "*":
            return module
        if rest[0] in module.aliases:
            target = self.absolute(module, module.aliases[rest[0]][0])
            return self.defining((*target, *rest[1:]), (*seen, path)) if target else None
        if not re.search(ITEM + re.escape(rest[0]) + r"\b", module.code):
            for names, _, _ in module.uses:
                target = self.absolute(module, names[:-1]) if names[-1] == "*" and len(names) > 1 else None
                inner = target and self.defining((*target, rest[0]), (*seen, path))
                if inner and re.search(ITEM + re.escape(rest[0]) + r"\b", inner.code):
                    return inner
        return module

    def imports(self):
        """Which file imports which, with the names that it imports."""
        edges = defaultdict(lambda: defaultdict(set))
        for module in self.modules.values():
            paths = []
            for names, name, public in module.uses:
                # A method or a function of the same name is no use of a re-export.
                if not public or re.search(rf"(?<![.\w])(?<!fn ){re.escape(name)}\b(?!:[^:])", module.code):
                    paths.append(names)
            for match in re.finditer(r"(?<![\w:$])\w+(?:::\w+)+", module.code):
                paths.append(match[0].split("::"))
            for names in paths:
                target = self.absolute(module, names)
                defining = target and self.defining(target)
                if defining and defining.file != module.file:
                    edges[module.file][defining.file].add(names[-1])
        return edges


def components(nodes, edges):
    """Strongly connected components (Tarjan) of more than one file, largest first."""
    index, low, stack, result = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in edges.get(node, ()):
            if target not in nodes:
                continue
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            at = stack.index(node)
            result.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(nodes):
        if node not in index:
            visit(node)
    return sorted((group for group in result if len(group) > 1), key=len, reverse=True)


def room(file):
    """The room of a file, or None for the ground and the roots of crates."""
    parts = file.removeprefix("crates/proxygrad/").split("/")
    name = parts[1].removesuffix(".rs")
    return name if name in ROOMS else None


def layer(file):
    """The layer of a file of `maximize`: its number, or None where the table has no line for it."""
    inside = file.removeprefix(MAXIMIZE + "/")
    for number, (_, pattern) in enumerate(LAYERS):
        if re.fullmatch(pattern, inside):
            return number
    return None


def main():
    check = "--check" in sys.argv
    sys.setrecursionlimit(10_000)
    edges = Sources().imports()
    files = set(edges) | {target for targets in edges.values() for target in targets}
    broken = []

    def say(line):
        if not check:
            print(line)

    for name in ROOMS:
        inside = {file for file in files if room(file) == name}
        for group in components(inside, edges):
            say(f"{name}: cycle of {len(group)} files\n    " + "\n    ".join(group))
    for folder, most in LARGEST_CYCLE.items():
        inside = {file for file in files if file.startswith(folder + "/")}
        for group in components(inside, edges):
            if len(group) > most:
                broken.append(f"{folder}: a cycle of {len(group)} files, at most {most}: "
                              + " ".join(file.removeprefix(folder + "/") for file in group))

    inside = sorted(file for file in files if file.startswith(MAXIMIZE + "/") and file != MAXIMIZE + "/mod.rs")
    unknown = [file for file in inside if layer(file) is None]
    if unknown:
        broken.append(f"maximize: no layer in {Path(__file__).name} for "
                      + " ".join(file.removeprefix(MAXIMIZE + "/") for file in unknown))
    upward = [
        f"{file.removeprefix(MAXIMIZE + '/')} ({LAYERS[layer(file)][0]}) imports "
        f"{target.removeprefix(MAXIMIZE + '/')} ({LAYERS[layer(target)][0]}): {' '.join(sorted(names))}"
        for file in inside
        for target, names in sorted(edges[file].items())
        if target in inside and file not in unknown and target not in unknown and layer(target) > layer(file)
    ]
    say(f"maximize: {len(upward)} upward imports between layers, at most {MOST_UPWARD}")
    for line in upward:
        say(f"    {line}")
    if len(upward) > MOST_UPWARD:
        broken.append(f"maximize: {len(upward)} upward imports between layers, at most {MOST_UPWARD}")

    arrows = defaultdict(set)
    for file, targets in sorted(edges.items()):
        for target, names in sorted(targets.items()):
            below, above = room(target), room(file)
            if below is None or below == above:
                continue
            if above is not None:
                arrows[above].add(below)
            elif file in CRATES.values():
                continue
            if above is None or ROOMS.index(below) > ROOMS.index(above):
                broken.append(f"{file} imports {target}, which is in a room above: {' '.join(sorted(names))}")
    for name in reversed(ROOMS):
        say(f"{name} -> {' '.join(sorted(arrows[name], key=ROOMS.index, reverse=True))}")

    if "--edges" in sys.argv:
        for file, targets in sorted(edges.items()):
            for target, names in sorted(targets.items()):
                if room(file) == room(target):
                    say(f"{file} -> {target}: {' '.join(sorted(names))}")

    for line in broken:
        print(f"broken: {line}")
    return 1 if broken and check else 0


if __name__ == "__main__":
    sys.exit(main())
