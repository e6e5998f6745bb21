"""Classifiers that come as a `torch.export` program (.pt2): screened first, so that loading one runs no foreign code.

What torch (2.11 to 2.15) does with such an archive: plain weights are raw bytes and the graph is JSON, but tensor
subclasses, custom objects, the sample inputs and the older format are unpickled (the sample inputs with
`weights_only=True`, and when that fails without it), compiled parts are loaded as shared libraries, symbolic sizes go
through sympy, which evaluates Python after some replacing of text, and guards, also those made of the sample inputs'
names, are pasted into Python and executed. `_screen` therefore reads the same bytes with the same reader first, and
refuses every program in which one of these could do more than arithmetic: whatever is not known to be harmless is
refused, and guards are not compiled at all. It is no sandbox: a program can still be wrong, slow or greedy for memory.
"""

import ast
import json
import re
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass
from torch.export.pt2_archive._package import load_pt2

from templates_store.classifier_spec import ClassifierError, ClassifierSpec

__all__ = ["ExportedNetwork", "load_exported"]

_HOW_TO_EXPORT = (
    "export on the CPU with torch.export.export(model.eval(), (images,), "
    "dynamic_shapes=({0: torch.export.Dim('n', min=1, max=4096)},)) and torch.export.save"
)
_MODEL, _SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
_PAYLOADS = {
    "data/weights/model_weights_config.json": re.compile(r"weight_\d+"),
    "data/constants/model_constants_config.json": re.compile(r"tensor_\d+"),
}
_RECORDS = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|extra/[\w./-]+|archive_format|archive_version|byteorder|"
    r"\.data/serialization_id|(\.data/)?version|" + "|".join(map(re.escape, (_MODEL, _SAMPLES, *_PAYLOADS)))
)
_ARITHMETIC = "add|sub|mul|floordiv|truediv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem"
_OPERATORS = re.compile(
    r"torch\.ops\.aten\.(?!from_file)(_{0,2}[a-z][a-z0-9]*(_[a-z0-9]+)*_{0,2})\.[A-Za-z]\w*|"
    r"torch\.ops\.higher_order\.wrap_with_(set_grad_enabled|autocast)|"
    rf"torch\.sym_[a-z]+|torch\._sym_sqrt|_operator\.({_ARITHMETIC})|math\.[a-z]+"
)
_IDENTIFIER = re.compile(r"[\w.]*", re.ASCII)
_WORDS = re.compile(r"[\w.\-+ :]*", re.ASCII)
_SYMBOL = re.compile(r"[a-z]{1,3}[0-9]+|true|false|True|False|int_oo|oo")
# sympy drops line breaks and torch pastes between double quotes: no text that either reads otherwise than we do
_EXPRESSION = re.compile(r"[\w ()\[\]+\-*/%,.<>=!&|~']*", re.ASCII)
_SIZE_FUNCTIONS = re.compile(
    "Symbol|Integer|Rational|Float|Add|Mul|Pow|Min|Max|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|CeilToInt|FloorToInt|"
    "ModularIndexing|Where|IntTrueDiv|FloatTrueDiv|PowByNatural|FloatPow|ToFloat|TruncToInt|Eq|Ne|Lt|Le|Gt|Ge|"
    "Equality|Unequality|StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|And|Or|Not"
)
_GUARD_ATTRIBUTES = frozenset({"size", "stride", "storage_offset", "shape", "ndim", "dim"})
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")
_TEXT_METADATA = frozenset({"stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom"})
_PLAIN_NODES = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.operator,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
    ast.expr_context,
    ast.keyword,
)


class ExportedNetwork(nn.Module):
    """A screened program as a network. It has no training mode, and computes in the type it was exported with.

    Args:
        graph: the program's module.
        program: the bytes it was loaded from, so that it can be stored again as it came.
    """

    def __init__(self, graph: nn.Module, program: bytes) -> None:
        super().__init__()
        self.graph = graph
        self.program = program
        for module in self.modules():
            module.training = False

    def forward(self, images: Tensor) -> Tensor:
        """What the program answers to normalised images (n, c, h, w)."""
        logits: Tensor = self.graph(images)
        return logits

    def train(self, mode: bool = True) -> "ExportedNetwork":
        """Does nothing in evaluation mode; a program cannot be put into training mode.

        Raises:
            ClassifierError: if training mode is asked for.
        """
        if mode:
            raise ClassifierError("an exported program has no training mode; train the model it was exported from")
        return self


def load_exported(spec: ClassifierSpec, content: bytes, device: torch.device, *, origin: Path) -> ExportedNetwork:
    """The network of a program saved by `torch.export.save`.

    Args:
        spec: the input shape is compared with the program's.
        content: bytes of the .pt2 file.
        device: where it shall run.
        origin: where the bytes came from, for errors.

    Raises:
        ClassifierError: if the file is no such program, could run foreign code when loaded, was exported for one
            batch size only, or takes other images.
    """
    try:
        _screen(content)
        programs = load_pt2(BytesIO(content)).exported_programs
        program = programs["model"]
        _check_input(program, spec)
        if device.type != "cpu":
            program = move_to_device_pass(program, device)
        graph = program.module(check_guards=False)
    except ClassifierError as error:
        raise ClassifierError(f"{origin}: {error}") from error
    except Exception as error:  # torch promises no particular errors for a file that is not what it should be
        reason = str(error).strip().splitlines()
        raise ClassifierError(
            f"{origin} is not a torch.export program that this torch {torch.__version__} can load "
            f"({type(error).__name__}: {reason[0] if reason else 'no reason given'}); {_HOW_TO_EXPORT}"
        ) from error
    return ExportedNetwork(graph, content)


def _check_input(program: ExportedProgram, spec: ClassifierSpec) -> None:
    names = program.graph_signature.user_inputs
    inputs = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor):
        raise ClassifierError(f"the program takes {len(inputs)} inputs, expected one batch of images")
    (images,) = inputs
    if tuple(images.shape[1:]) != spec.input_shape or images.ndim != 4:
        raise ClassifierError(
            f"the program takes images of shape {tuple(images.shape[1:])}, expected input_shape {spec.input_shape}"
        )
    if isinstance(images.shape[0], int):
        raise ClassifierError(
            f"the program takes exactly {images.shape[0]} images a call, expected any number; {_HOW_TO_EXPORT}"
        )
    if images.dtype != torch.float32:
        raise ClassifierError(f"the program takes {images.dtype}, expected torch.float32; {_HOW_TO_EXPORT}")


def _screen(content: bytes) -> None:
    # torch's own reader, as another reader might find other records in a crafted file
    reader: Any = torch._C.PyTorchFileReader(BytesIO(content))  # type: ignore[call-arg, arg-type, unused-ignore]
    records: list[str] = reader.get_all_records()
    if odd := [name for name in records if not _RECORDS.fullmatch(name)]:
        raise _refused(f"it holds {odd[0]!r}, which torch would unpickle or load as compiled code")
    if len(set(records)) != len(records):
        raise _refused("it holds one record twice")
    for config, file_name in _PAYLOADS.items():
        for payload in json.loads(reader.get_record(config))["config"].values():
            if payload["use_pickle"] is not False or not file_name.fullmatch(payload["path_name"]):
                raise _refused(f"{config} names a pickled object")
    samples: bytes = reader.get_record(_SAMPLES)
    if samples:
        try:
            inputs = torch.load(BytesIO(samples), weights_only=True)
        except Exception as error:  # unpickling stops at the first thing that is no tensor or container of them
            raise _refused("its sample inputs are not plain tensors on the CPU") from error
        if not (isinstance(inputs, tuple) and len(inputs) == 2 and _is_one_batch(*inputs)):
            raise _refused("its sample inputs are not one batch of images")
    _screen_graph(json.loads(reader.get_record(_MODEL)), "")


def _is_one_batch(positional: object, named: object) -> bool:
    return isinstance(positional, tuple) and list(map(type, positional)) == [Tensor] and named == {}


def _screen_graph(part: object, key: str) -> None:
    """Walk the JSON of a program; every text must be of the harmless kind that belongs to its key."""
    if isinstance(part, dict):
        for name, value in part.items():
            if not _WORDS.fullmatch(name):
                raise _refused(f"it names something {name[:60]!r}")
            if name == "metadata" and _is_text_metadata(value):
                continue
            _screen_graph(value, name)
    elif isinstance(part, list):
        for value in part:
            _screen_graph(value, key)
    elif isinstance(part, str) and not _HARMLESS.get(key, _WORDS.fullmatch)(part):
        raise _refused(f"its {key or 'graph'} has {part[:80]!r}")


def _is_text_metadata(metadata: object) -> bool:
    """Whether it is the record of where a node came from, which torch keeps as text."""
    return isinstance(metadata, dict) and all(
        name in _TEXT_METADATA and isinstance(value, str) for name, value in metadata.items()
    )


def _is_size(expression: str) -> bool:
    return _is_plain(expression, _is_size_node)


def _is_guard(expression: str) -> bool:
    return _is_plain(expression, _is_guard_node)


def _is_plain(expression: str, is_known: Callable[[ast.AST], bool]) -> bool:
    if not _EXPRESSION.fullmatch(expression):
        return False
    try:
        tree = ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError):
        return False
    return all(isinstance(node, _PLAIN_NODES) or is_known(node) for node in ast.walk(tree))


def _is_size_node(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and _SIZE_FUNCTIONS.fullmatch(node.func.id) is not None
    if isinstance(node, ast.Name):
        return (_SIZE_FUNCTIONS.fullmatch(node.id) or _SYMBOL.fullmatch(node.id)) is not None
    return _is_constant(node, _SYMBOL)  # sympy parses texts too: only Symbol('s0') has one


def _is_guard_node(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute)
    if isinstance(node, ast.Attribute):
        return node.attr in _GUARD_ATTRIBUTES
    return isinstance(node, ast.Subscript | ast.Name) or _is_constant(node, _IDENTIFIER)


def _is_constant(node: ast.AST, text: re.Pattern[str]) -> bool:
    """Whether it is a number, or a text of one kind."""
    if not isinstance(node, ast.Constant):
        return False
    return isinstance(node.value, int | float) or (isinstance(node.value, str) and bool(text.fullmatch(node.value)))


def _is_container(text: str) -> bool:
    _, tree = json.loads(text)
    return all(
        part["type"] in _CONTAINERS and (part["context"] is None or re.fullmatch(r'[\w\[\]", ]*', part["context"]))
        for part in _parts(tree)
    )


def _parts(tree: dict[str, Any]) -> Iterable[dict[str, Any]]:
    yield tree
    for child in tree["children_spec"]:
        yield from _parts(child)


_HARMLESS: dict[str, Callable[[str], object]] = {
    "target": _OPERATORS.fullmatch,
    "expr_str": _is_size,
    "guards_code": _is_guard,
    "in_spec": _is_container,
    "out_spec": _is_container,
    "name": _IDENTIFIER.fullmatch,
    "as_name": _IDENTIFIER.fullmatch,
    "forward_arg_names": _IDENTIFIER.fullmatch,
}


def _refused(reason: str) -> ClassifierError:
    return ClassifierError(
        f"refused, because loading it might run code that came with it: {reason}; export a plain classifier "
        "(torch's own operators, no custom ones), or use architecture package.module:factory"
    )
