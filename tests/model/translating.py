"""Makes steps of C: what a thread of the model does is the C that the core is built from.

A function is flattened: what it calls is put in its place. Of its steps only some are seen by other
threads, those that touch memory which threads share by atomic operations, and the calls of the kernel
(`PRIMITIVES` of the model). The others, which touch locals and plain fields, happen together with the one
before, as plain fields are nobody else's business at that moment.

It knows the C that native/interrupt.c, tick.c and ring.c have in the functions of the model, and says so
where it meets more: NotImplementedError. Time and the contents of a `struct timespec` are left out.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import attrs
from pycparser import c_ast, c_parser

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

TYPES = (
    *("bool", "int16_t", "int32_t", "int64_t", "uint8_t", "uint16_t", "uint32_t", "uint64_t", "uintptr_t"),
    *("ssize_t", "size_t", "nfds_t", "sigset_t", "tu_core", "tu_event", "tu_statistics", "tu_status"),
)
LEFT_OUT = ("timespec", "__kernel_timespec", "tu_identity")
"""What is left out of the model, by the names of the structures."""

Step = tuple[Any, ...]


@cache
def functions_of(*texts: str) -> tuple[dict[str, c_ast.FuncDef], dict[str, int]]:
    """The functions that pieces of C define, later ones in the place of earlier ones; and their constants."""
    functions: dict[str, c_ast.FuncDef] = {}
    constants: dict[str, int] = {}
    for commented in texts:
        text = re.sub(r"/\*.*?\*/", "", commented, flags=re.DOTALL)
        for name, value in re.findall(r"^#define (\w+) +(.+?) *$", text, re.MULTILINE):
            if re.fullmatch(r"[-\w()<*/~ ]+", value):
                in_python = re.sub(r"(?<=\d)(u|U|LL|L)+\b", "", value).replace("/", "//")
                constants[name] = int(eval(in_python, {}, constants))
        code = re.sub(r"^#.*$", "", text, flags=re.MULTILINE).replace("_Atomic ", "")
        head = "".join(f"typedef int {name};" for name in TYPES)
        for node in c_parser.CParser().parse(head + code).ext:
            if isinstance(node, c_ast.FuncDef):
                functions[node.decl.name] = node
    return functions, constants


def source(*paths: Path) -> str:
    return "\n".join(path.read_text() for path in paths)


class Label:
    at = -1


@attrs.define
class Scope:
    """The names of one call of a function."""

    locals: dict[str, int] = attrs.field(factory=dict)
    paths: dict[str, str] = attrs.field(factory=dict)
    """What a pointer points to, or which function it is."""
    structures: set[str] = attrs.field(factory=set)
    result: int = -1
    end: Label = attrs.field(factory=Label)


@attrs.define
class Program:
    """The steps of one thread."""

    steps: list[Step]
    live: list[tuple[int, ...]]
    """The locals whose values matter, by the steps before which they do."""


ATOMIC = re.compile(
    r"(?:__)?atomic_(load|store|exchange|fetch_add|fetch_sub|fetch_or|and_fetch|or_fetch)(_n|_explicit)?"
)
ORDERS = ("relaxed", "consume", "acquire", "release", "acq_rel", "seq_cst")


class Translator:
    """Makes the program of one thread, which begins with the function ``entry``."""

    def __init__(
        self,
        functions: Mapping[str, c_ast.FuncDef],
        constants: Mapping[str, int],
        primitives: Collection[str],
        plain: dict[str, int],
    ) -> None:
        self.functions = functions
        self.constants = {"NULL": 0, "true": 1, "false": 0, **constants}
        self.primitives = primitives
        self.plain = plain
        self.steps: list[Step] = []
        self.size = 0
        self.scope = Scope()
        self.loops: list[tuple[Label, Label]] = []

    def program(self, entry: str) -> Program:
        self.call(entry, [])
        self.steps.append(("end",))
        resolved = [
            tuple(part.at if isinstance(part, Label) else part for part in step) for step in self.steps
        ]
        return Program(resolved, live_at(resolved))

    # Steps

    def emit(self, *step: Any) -> None:
        self.steps.append(step)

    def new(self) -> int:
        self.size += 1
        return self.size - 1

    def place(self, label: Label) -> None:
        label.at = len(self.steps)

    # Names

    def path(self, node: c_ast.Node) -> str:
        """What an expression names in memory."""
        if isinstance(node, c_ast.ID):
            return self.scope.paths.get(node.name, str(node.name))
        if isinstance(node, c_ast.StructRef):
            return f"{self.path(node.name)}.{node.field.name}"
        if isinstance(node, c_ast.ArrayRef):
            return f"{self.path(node.name)}[{node.subscript.value}]"
        if isinstance(node, c_ast.UnaryOp) and node.op in "&*":
            return self.path(node.expr)
        raise NotImplementedError(type(node).__name__)

    def variable(self, node: c_ast.Node) -> tuple[str, int | str]:
        """How to assign to what an expression names: ("set", a local) or ("put", a plain field)."""
        path = self.path(node)
        if re.split(r"[.\[]", path)[0] in self.scope.structures:
            if path not in self.scope.locals:
                self.scope.locals[path] = self.new()
            return "set", self.scope.locals[path]
        if path in self.scope.locals:
            return "set", self.scope.locals[path]
        if path.isupper():
            raise NotImplementedError(f"the constant {path} is not defined")
        return "put", self.plain.setdefault(path, len(self.plain))

    def read(self, node: c_ast.Node) -> str:
        how, index = self.variable(node)
        return f"L[{index}]" if how == "set" else f"P[{index}]"

    # Expressions: each gives Python that has no effect, after the steps that have one.

    def value(self, node: c_ast.Node) -> str:
        return str(getattr(self, f"value_of_{type(node).__name__.lower()}")(node))

    def value_of_constant(self, node: c_ast.Constant) -> str:
        return str(int(re.sub("[uUlL]+$", "", node.value), 0))

    def value_of_id(self, node: c_ast.ID) -> str:
        if node.name in self.constants and node.name not in self.scope.locals:
            return str(self.constants[node.name])
        return self.read(node)

    def value_of_structref(self, node: c_ast.StructRef) -> str:
        return self.read(node)

    def value_of_cast(self, node: c_ast.Cast) -> str:
        return self.value(node.expr)

    def value_of_unaryop(self, node: c_ast.UnaryOp) -> str:
        if node.op in ("p++", "++", "p--", "--"):
            how, index = self.variable(node.expr)
            self.emit(how, index, f"{self.read(node.expr)} {node.op[-1]} 1")
            return "None"
        if node.op == "sizeof":
            return "8"
        if node.op == "*":
            return self.read(node)
        return (
            f"int(not {self.value(node.expr)})" if node.op == "!" else f"({node.op}{self.value(node.expr)})"
        )

    def value_of_binaryop(self, node: c_ast.BinaryOp) -> str:
        if node.op not in ("&&", "||"):
            return f"int({self.value(node.left)} {node.op} {self.value(node.right)})"
        result, end = self.new(), Label()
        self.emit("set", result, f"int(bool({self.value(node.left)}))")
        self.emit("unless", f"L[{result}]" if node.op == "&&" else f"not L[{result}]", end)
        self.emit("set", result, f"int(bool({self.value(node.right)}))")
        self.place(end)
        return f"L[{result}]"

    def value_of_ternaryop(self, node: c_ast.TernaryOp) -> str:
        result, other, end = self.new(), Label(), Label()
        self.emit("unless", self.value(node.cond), other)
        self.emit("set", result, self.value(node.iftrue))
        self.emit("jump", end)
        self.place(other)
        self.emit("set", result, self.value(node.iffalse))
        self.place(end)
        return f"L[{result}]"

    def value_of_funccall(self, node: c_ast.FuncCall) -> str:
        name = self.path(node.name)
        arguments = node.args.exprs if node.args else []
        if atomic := ATOMIC.fullmatch(name):
            return self.atomic(atomic[1], arguments)
        if name == "ppoll":
            return self.poll(arguments[0])
        if name in self.primitives:
            values = [self.value(one) for one in arguments if not is_pointer(one, self.scope)]
            result = self.new()
            self.emit("do", result, name, values)
            return f"L[{result}]"
        return self.call(name, arguments)

    def atomic(self, name: str, arguments: list[c_ast.Node]) -> str:
        path = self.path(arguments[0])
        order = "seq_cst"
        if isinstance(arguments[-1], c_ast.ID):
            last = arguments[-1].name.lower().removeprefix("memory_order_").removeprefix("__atomic_")
            if last in ORDERS:
                order, arguments = last, arguments[:-1]
        values = [self.value(one) for one in arguments[1:]]
        result = self.new()
        self.emit("do", result, name, values, path, order)
        return f"L[{result}]"

    def poll(self, watched: c_ast.Node) -> str:
        """poll(2) on the first of the descriptors, which alone the model has."""
        name = self.path(watched)
        first = name if f"{name}.fd" in self.scope.locals else f"{name}[0]"
        result = self.new()
        self.emit("do", result, "ppoll", [f"L[{self.scope.locals[first + '.fd']}]"])
        if f"{first}.revents" in self.scope.locals:
            self.emit("set", self.scope.locals[f"{first}.revents"], f"L[{result}]")
        return f"L[{result}]"

    def call(self, name: str, arguments: list[c_ast.Node]) -> str:
        """Puts the steps of a function here."""
        if name not in self.functions:
            raise NotImplementedError(f"{name} is neither defined nor a primitive")
        function = self.functions[name]
        scope = Scope(result=self.new())
        parameters = function.decl.type.args.params if function.decl.type.args else []
        for parameter, argument in zip(parameters, arguments, strict=False):
            if isinstance(parameter.type, c_ast.PtrDecl):
                scope.paths[parameter.name] = self.path(argument)
            elif parameter.name:
                scope.locals[parameter.name] = local = self.new()
                self.emit("set", local, self.value(argument))
        outer, self.scope = self.scope, scope
        self.statement(function.body)
        self.place(scope.end)
        self.scope = outer
        return f"L[{scope.result}]"

    # Statements

    def statement(self, node: c_ast.Node | None) -> None:
        if node is None:
            return
        maker = getattr(self, f"make_{type(node).__name__.lower()}", None)
        if maker is not None:
            maker(node)
        else:
            self.value(node)

    def make_emptystatement(self, _: c_ast.EmptyStatement) -> None:
        pass

    def make_compound(self, node: c_ast.Compound) -> None:
        for item in node.block_items or []:
            self.statement(item)

    def make_decl(self, node: c_ast.Decl) -> None:
        kind = node.type
        if isinstance(kind, c_ast.PtrDecl):
            if node.init is not None:
                self.scope.paths[node.name] = self.path(node.init)
            return
        is_array = isinstance(kind, c_ast.ArrayDecl)
        inner = kind.type.type if is_array else kind.type
        if isinstance(inner, c_ast.Struct):
            if inner.name not in LEFT_OUT:
                self.scope.structures.add(node.name)
                groups = enumerate(node.init.exprs) if is_array else [(None, node.init)]
                for number, group in groups:
                    prefix = node.name if number is None else f"{node.name}[{number}]"
                    self.fields(prefix, group)
            return
        if is_array:
            raise NotImplementedError(node.name)
        self.scope.locals[node.name] = local = self.new()
        if node.init is not None:
            self.emit("set", local, self.value(node.init))

    def fields(self, prefix: str, group: c_ast.InitList | None) -> None:
        for path, text in (("fd", "-1"), ("revents", "0")):
            self.scope.locals[f"{prefix}.{path}"] = local = self.new()
            self.emit("set", local, text)
        for one in group.exprs if group else []:
            if one.name[0].name == "fd":
                self.emit("set", self.scope.locals[f"{prefix}.fd"], self.value(one.expr))

    def make_assignment(self, node: c_ast.Assignment) -> None:
        if isinstance(node.rvalue, c_ast.CompoundLiteral) or node.lvalue.__class__ is c_ast.ArrayRef:
            return
        if isinstance(node.rvalue, c_ast.FuncCall) and self.path(node.rvalue.name) == "tu_identify":
            return
        value = self.value(node.rvalue)
        how, index = self.variable(node.lvalue)
        if node.op != "=":
            value = f"{self.read(node.lvalue)} {node.op[:-1]} {value}"
        self.emit(how, index, value)

    def make_if(self, node: c_ast.If) -> None:
        other, end = Label(), Label()
        self.emit("unless", self.value(node.cond), other)
        self.statement(node.iftrue)
        self.emit("jump", end)
        self.place(other)
        self.statement(node.iffalse)
        self.place(end)

    def make_while(self, node: c_ast.While) -> None:
        begin, end = Label(), Label()
        self.place(begin)
        self.emit("unless", self.value(node.cond), end)
        self.body(node.stmt, begin, end)
        self.emit("jump", begin)
        self.place(end)

    def make_dowhile(self, node: c_ast.DoWhile) -> None:
        begin, test, end = Label(), Label(), Label()
        self.place(begin)
        self.body(node.stmt, test, end)
        self.place(test)
        self.emit("unless", self.value(node.cond), end)
        self.emit("jump", begin)
        self.place(end)

    def make_for(self, node: c_ast.For) -> None:
        begin, after, end = Label(), Label(), Label()
        for one in node.init.decls if isinstance(node.init, c_ast.DeclList) else [node.init]:
            self.statement(one)
        self.place(begin)
        if node.cond is not None:
            self.emit("unless", self.value(node.cond), end)
        self.body(node.stmt, after, end)
        self.place(after)
        self.statement(node.next)
        self.emit("jump", begin)
        self.place(end)

    def body(self, node: c_ast.Node, begin: Label, end: Label) -> None:
        self.loops.append((begin, end))
        self.statement(node)
        self.loops.pop()

    def make_break(self, _: c_ast.Break) -> None:
        self.emit("jump", self.loops[-1][1])

    def make_continue(self, _: c_ast.Continue) -> None:
        self.emit("jump", self.loops[-1][0])

    def make_return(self, node: c_ast.Return) -> None:
        if node.expr is not None:
            self.emit("set", self.scope.result, self.value(node.expr))
        self.emit("jump", self.scope.end)


def is_pointer(node: c_ast.Node, scope: Scope) -> bool:
    """Whether an argument of a primitive is a pointer, which the model's primitives do without."""
    if isinstance(node, c_ast.UnaryOp) and node.op == "&":
        return True
    return isinstance(node, c_ast.ID) and (node.name in scope.paths or node.name in ("NULL", "core"))


def texts_of(step: Step) -> list[str]:
    if step[0] in ("set", "put"):
        return [step[2]]
    if step[0] == "unless":
        return [step[1]]
    return list(step[3]) if len(step) > 3 else []


def live_at(steps: list[Step]) -> list[tuple[int, ...]]:
    """The locals that are still read, by the steps before which they are."""
    reads = [{int(n) for text in texts_of(step) for n in re.findall(r"L\[(\d+)\]", text)} for step in steps]
    writes = [{step[1]} if step[0] in ("set", "do") else set() for step in steps]
    live: list[set[int]] = [set() for _ in range(len(steps) + 1)]
    changed = True
    while changed:
        changed = False
        for at in reversed(range(len(steps))):
            step = steps[at]
            after: set[int] = set()
            if step[0] == "jump":
                after = live[step[1]]
            elif step[0] == "unless":
                after = live[at + 1] | live[step[2]]
            elif step[0] != "end":
                after = live[at + 1]
            now = reads[at] | (after - writes[at])
            if now != live[at]:
                live[at], changed = now, True
    return [tuple(sorted(one)) for one in live[:-1]]
