"""Collect what a program reaches of a package's modules, as one short module after the other.

A statement at the top of a module is kept if something kept names it; a method, if something kept has an attribute of
its name. What is kept may be more than what runs, never less: names are compared, not traced.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from golfcore.export.minify import minified
from golfcore.export.rename import rename

PACKAGE = "golfcore"
CALLED_BY_TORCH = {"forward"}


@dataclass(frozen=True)
class Import:
    """A name that a module imports: module ``source``, or its name ``name``."""

    source: str
    name: str = ""


@dataclass
class _Module:
    """A module: its statements by the names they define, and what is kept of it."""

    name: str
    defined: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imported: dict[str, Import] = field(default_factory=dict)
    always: list[ast.stmt] = field(default_factory=list)
    order: list[ast.stmt] = field(default_factory=list)
    kept: set[int] = field(default_factory=set)  # ids of statements
    methods: set[int] = field(default_factory=set)  # ids of methods of kept classes
    uses: dict[str, Import] = field(default_factory=dict)  # imports that something kept names


class Shaker:
    """A search for what is reached from some names.

    Args:
        read: returns the source of a module by its dotted name, or None if there is no such module.
        bound: names ``module`` or ``module:name`` with what stands in their place.
        fold: returns the tree of a module, given the tree and the module's name, without what never runs.
        public: names that keep their length because data holds them.
    """

    def __init__(
        self, read: Callable[[str], str | None], bound: Mapping[str, str],
        fold: Callable[[ast.Module, str], ast.Module] = lambda tree, module: tree, public: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self._read, self._bound, self._fold, self._public = read, bound, fold, public
        self._modules: dict[str, _Module] = {}
        self._attributes: set[str] = set(CALLED_BY_TORCH)
        self._waiting: list[tuple[str, str]] = []
        self._roots: set[str] = set()
        self._classes: list[tuple[_Module, ast.ClassDef]] = []
        self._seen: set[tuple[str, str]] = set()

    def reach(self, module: str, names: Sequence[str]) -> None:
        """Keep the names of a module and all that they reach."""
        self._waiting += [(module, name) for name in names]
        self._roots |= set(names)
        while self._waiting:
            while self._waiting:
                self._need(*self._waiting.pop())
            for owner, node in self._classes:
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and id(method) not in owner.methods and self._called(method):
                        owner.methods.add(id(method))
                        self._scan(owner, method)

    def flat(self) -> ast.Module:
        """Return all that is kept as one module: imports from elsewhere, then the modules, those first others need."""
        order = self._ordered()
        owners: dict[str, set[str]] = {}
        for module in order:
            for name in module.defined:
                owners.setdefault(name, set()).add(module.name)
        number = {module.name: i for i, module in enumerate(order)}

        def final(source: str, name: str) -> str:
            return f"{name}_{number[source]}" if len(owners[name]) > 1 else name

        outside: dict[str, Import] = {}
        body: list[ast.stmt] = []
        for module in order:
            for alias, target in module.uses.items():
                foreign = target.source.partition(".")[0] != PACKAGE
                if foreign and outside.setdefault(alias, target) != target:
                    raise KeyError(f"{alias} is imported from {target.source} and from {outside[alias].source}")
            kept = [_with_methods(s, module.methods) for s in module.order if id(s) in module.kept]
            body += [_Joined(self, module, final).visit(s) for s in kept]
        flat = ast.Module([_import(alias, target) for alias, target in sorted(outside.items())] + body, [])
        rename([flat], frozenset(), self._public | self._roots)
        return flat

    def meaning(self, module_name: str, alias: str, attribute: str) -> Import | None:
        """Return what ``alias.attribute`` means if ``alias`` is one of the modules; None if it is not."""
        target = self._resolve(self._modules[module_name].imported[alias])
        if target.name or target.source.partition(".")[0] != PACKAGE:
            return None
        return self._resolve(Import(target.source, attribute))

    # --- the search ---------------------------------------------------------------------------------------------------

    def _module(self, name: str) -> _Module | None:
        if name not in self._modules:
            source = self._read(name)
            if source is None:
                return None
            self._modules[name] = self._split(_Module(name), self._fold(minified(source), name))
        return self._modules[name]

    def _split(self, module: _Module, tree: ast.Module) -> _Module:
        for statement in tree.body:
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                module.imported |= dict(_imports(statement))
                continue
            module.order.append(statement)
            names = _defines(statement)
            for name in names:
                module.defined.setdefault(name, []).append(statement)
            if not names and not isinstance(statement, ast.Expr):
                module.always.append(statement)
        return module

    def _resolve(self, wanted: Import) -> Import:
        """Follow replacements and re-exports to the module that defines a name, or to a module."""
        seen: set[Import] = set()  # a stand-in may import a submodule by the name of the package that it replaces
        while wanted.source.partition(".")[0] == PACKAGE:
            if wanted.name:
                full = f"{wanted.source}.{wanted.name}"
                both = self._bound.get(f"{wanted.source}:{wanted.name}")
                if both:
                    source, _, name = both.partition(":")
                    return Import(source, name)
                wanted = Import(self._bound.get(wanted.source, wanted.source), wanted.name)
                module = self._module(wanted.source)
                if module is not None and wanted.name in module.defined:
                    return wanted
                further = None if module is None else module.imported.get(wanted.name)
                if further is not None and further not in seen:
                    seen.add(further)
                    wanted = further
                    continue
                if full in self._bound or self._read(full) is not None:
                    return Import(self._bound.get(full, full))
                raise KeyError(f"{wanted.source} has no {wanted.name}")
            return Import(self._bound.get(wanted.source, wanted.source))
        return wanted

    def _need(self, module_name: str, name: str) -> None:
        if (module_name, name) in self._seen:
            return
        self._seen.add((module_name, name))
        module = self._module(module_name)
        if module is None:
            raise KeyError(f"no module {module_name}")
        for statement in module.always:
            self._keep(module, statement)
        for statement in module.defined.get(name, []):
            self._keep(module, statement)

    def _keep(self, module: _Module, statement: ast.stmt) -> None:
        if id(statement) in module.kept:
            return
        module.kept.add(id(statement))
        if not isinstance(statement, ast.ClassDef):
            self._scan(module, statement)
            return
        self._classes.append((module, statement))
        for part in (*statement.bases, *statement.decorator_list, *statement.body):
            if not isinstance(part, ast.FunctionDef):
                self._scan(module, part)

    def _called(self, method: ast.FunctionDef) -> bool:
        return method.name.startswith("__") or method.name in self._attributes

    def _scan(self, module: _Module, node: ast.AST) -> None:
        """Need every name that ``node`` mentions."""
        for part in ast.walk(node):
            if isinstance(part, ast.Attribute):
                self._attributes.add(part.attr)
                if isinstance(part.value, ast.Name) and part.value.id in module.imported:
                    target = self._resolve(module.imported[part.value.id])
                    if not target.name and target.source.partition(".")[0] == PACKAGE:
                        found = self._resolve(Import(target.source, part.attr))
                        self._waiting.append((found.source, found.name))
                        through = self._module(target.source)
                        if through is not None and part.attr in through.imported:
                            through.uses[part.attr] = found
            elif isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value.isidentifier():
                self._attributes.add(part.value)
            elif isinstance(part, (ast.Import, ast.ImportFrom)):
                for _, found in _imports(part):  # one of a library stays where it is: it may be missing
                    if found.source.partition(".")[0] == PACKAGE:
                        raise KeyError(f"{module.name} imports {found.source} within a function")
            if isinstance(part, ast.Name):
                if part.id in module.defined:
                    self._waiting.append((module.name, part.id))
                elif part.id in module.imported:
                    target = self._resolve(module.imported[part.id])
                    module.uses[part.id] = target
                    if target.name and target.source.partition(".")[0] == PACKAGE:
                        self._waiting.append((target.source, target.name))

    # --- writing ------------------------------------------------------------------------------------------------------

    def _ordered(self) -> list[_Module]:
        done: list[_Module] = []

        def visit(module: _Module) -> None:
            if module in done or not module.kept:
                return
            for target in module.uses.values():
                if target.source in self._modules and target.source != module.name:
                    visit(self._modules[target.source])
            if module not in done:
                done.append(module)

        for module in list(self._modules.values()):
            visit(module)
        return done


class _Joined(ast.NodeTransformer):
    """Gives the names of a module the names that they have in one namespace for all."""

    def __init__(self, shaker: Shaker, module: _Module, final: Callable[[str, str], str]) -> None:
        self._shaker, self._module = shaker, module
        self._names = {name: final(module.name, name) for name in module.defined}
        for alias, target in module.uses.items():
            if target.name and target.source.partition(".")[0] == PACKAGE:
                self._names[alias] = final(target.source, target.name)
        self._final = final

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id in self._module.imported:
            found = self._shaker.meaning(self._module.name, node.value.id, node.attr)
            if found is not None:
                return ast.Name(self._final(found.source, found.name), node.ctx)
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._names.get(node.id, node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg = self._names.get(node.arg, node.arg)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node in self._module.order:
            node.name = self._names.get(node.name, node.name)
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = self._names.get(node.name, node.name)
        return self.generic_visit(node)


def _import(alias: str, target: Import) -> ast.stmt:
    name = alias if alias != (target.name or target.source) else None
    if target.name:
        return ast.ImportFrom(target.source, [ast.alias(target.name, name)], 0)
    return ast.Import([ast.alias(target.source, None if name == target.source.partition(".")[0] else name)])


def _with_methods(statement: ast.stmt, kept: set[int]) -> ast.stmt:
    if isinstance(statement, ast.ClassDef):
        own = [s for s in statement.body if not isinstance(s, ast.FunctionDef) or id(s) in kept]
        statement.body = own or [ast.Pass()]
    return statement


def _imports(statement: ast.Import | ast.ImportFrom) -> list[tuple[str, Import]]:
    if isinstance(statement, ast.ImportFrom):
        return [(a.asname or a.name, Import(statement.module or "", a.name)) for a in statement.names]
    return [(a.asname or a.name.partition(".")[0], Import(a.name)) for a in statement.names]


def _defines(statement: ast.stmt) -> list[str]:
    """Return the names that a statement defines; none if it does anything else."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return [statement.name]
    if isinstance(statement, ast.Assign):
        return [n.id for target in statement.targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return []
