"""What a `torch.export` archive may hold so that loading it runs no foreign code: looked at before torch loads it.

What torch (2.11 to 2.15) does with such an archive: plain weights are raw bytes and the graph is JSON, but tensor
subclasses, custom objects, the sample inputs and the older format are unpickled (the sample inputs with
`weights_only=True`, and when that fails without it), compiled parts are loaded as shared libraries, symbolic sizes go
through sympy, which evaluates Python after some replacing of text, and guards, also those made of the sample inputs'
names, are pasted into Python and executed. `screen` therefore reads the same bytes with the same reader first, and
refuses every program in which one of these could do more than arithmetic: whatever is not known to be harmless is
refused, and guards are not compiled at all. It is no sandbox: a program can still be wrong, slow or greedy for memory.
"""

import ast
import json
import re
from collections.abc import Callable, Iterable
from io import BytesIO
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_leaves

from modeguard.templates_store.classifiers.spec import ClassifierError

__all__ = ["check_arguments", "screen"]

_MODEL, _SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
_PAYLOADS = {
    "data/weights/model_weights_config.json": re.compile(r"weight_\d+"),
    "data/constants/model_constants_config.json": re.compile(r"tensor_\d+"),
}
_RECORDS = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|extra/[\w./-]+|archive_format|archive_version|byteorder|"
    r"\.data/serialization_id|(\.data/)?version|" + "|".join(map(re.escape, (_MODEL, _SAMPLES, *_PAYLOADS)))
)
# what classifiers are made of; "in place" variants end in an underscore. Others may write files (save) or read what
# memory holds (empty, as_strided).
_ATEN_NAMES = """
    abs add addbmm addcdiv addcmul addmm alias all alpha_dropout amax amin any arange argmax argmin argsort atan atan2
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d
    adaptive_max_pool1d adaptive_max_pool2d baddbmm batch_norm bilinear bitwise_and bitwise_not bitwise_or bmm
    broadcast_to bucketize cat cdist ceil celu chunk clamp clamp_max clamp_min clone col2im constant_pad_nd contiguous
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d convolution _convolution copy cos cosh cumprod cumsum detach
    diagonal div dot dropout einsum elu embedding eq erf exp expand expand_as expm1 eye feature_alpha_dropout
    feature_dropout fill flatten flip floor floor_divide fmod frac full full_like gather ge gelu glu grid_sampler
    group_norm gt hardshrink hardsigmoid hardswish hardtanh im2col index index_put index_select instance_norm isfinite
    isinf isnan layer_norm le leaky_relu lerp lift_fresh lift_fresh_copy linalg_vector_norm linear linspace log log10
    log1p log2 log_sigmoid log_softmax _log_softmax logical_and logical_not logical_or logical_xor logsumexp lt
    masked_fill matmul max max_pool1d max_pool2d max_pool2d_with_indices max_pool3d maximum mean median meshgrid min
    minimum mish mm movedim mul mv nan_to_num narrow native_batch_norm _native_batch_norm_legit
    _native_batch_norm_legit_no_training native_dropout native_group_norm native_layer_norm ne neg new_full new_ones
    new_zeros norm numpy_T ones ones_like pad permute pixel_shuffle pixel_unshuffle pow prelu prod reciprocal
    reflection_pad1d reflection_pad2d relu relu6 remainder repeat repeat_interleave replication_pad1d
    replication_pad2d reshape rms_norm roll round rrelu rsqrt rsub scalar_tensor scaled_dot_product_attention scatter
    select select_scatter selu sigmoid sign silu sin sinh size slice slice_scatter softmax _softmax softplus softshrink
    sort split split_with_sizes sqrt square squeeze stack std std_mean sub sum swapaxes sym_numel sym_size sym_stride t
    tan tanh threshold tile to _to_copy topk transpose tril triu true_divide trunc type_as unbind unflatten unfold
    _unsafe_view unsqueeze upsample_bicubic2d upsample_bilinear2d upsample_nearest2d _upsample_bicubic2d_aa
    _upsample_bilinear2d_aa var var_mean view where zero zeros zeros_like _assert_scalar _assert_tensor_metadata
"""
_ATEN = "|".join(_ATEN_NAMES.split())
_ARITHMETIC = "add|sub|mul|floordiv|truediv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem"
_OPERATORS = re.compile(
    rf"torch\.ops\.aten\.({_ATEN})_?\.[A-Za-z]\w*|"
    r"torch\.ops\.higher_order\.wrap_with_(set_grad_enabled|autocast)|"
    rf"torch\.sym_[a-z]+|torch\._sym_sqrt|_operator\.({_ARITHMETIC})|math\.[a-z]+",
    re.ASCII,
)
_IDENTIFIER = re.compile(r"[\w.]*", re.ASCII)
_WORDS = re.compile(r"[\w.\-+ :]*", re.ASCII)
_ARGUMENT = re.compile(r"[\w.\-+ :,>]*", re.ASCII)  # the longest is einsum's equation
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
_ARGUMENTS = (Node, int, float, str, NoneType, torch.dtype, torch.device, torch.layout, torch.memory_format)


def screen(content: bytes) -> None:
    """Refuse an archive that could do more than arithmetic when it is loaded or called.

    Args:
        content: bytes of the .pt2 file.

    Raises:
        ClassifierError: saying what it holds.
        Exception: any other, if it is no such archive at all.
    """
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


def check_arguments(graph: nn.Module) -> None:
    """Operators get values and each other's results, never functions; what a graph calls, `screen` has seen.

    Raises:
        ClassifierError: naming the kind of thing that one gets.
    """
    for module in graph.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                for argument in tree_leaves((node.args, node.kwargs)):
                    if not isinstance(argument, _ARGUMENTS):
                        raise _refused(f"an operator gets a {type(argument).__name__}")


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
        name in _TEXT_METADATA and isinstance(value, str) and '"""' not in value for name, value in metadata.items()
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
    "as_string": _ARGUMENT.fullmatch,
    "as_operator": lambda _: False,  # torch looks it up as freely as a target, and calls it
    "forward_arg_names": _IDENTIFIER.fullmatch,
}


def _refused(reason: str) -> ClassifierError:
    return ClassifierError(
        f"refused, because loading it might run code that came with it: {reason}; export a plain classifier "
        "(torch's own operators, no custom ones), or use architecture package.module:factory"
    )
