"""Programs of `torch.export`: sound ones answer as their model; none that could run code of its own is loaded."""

import dataclasses
import io
import json
import pickle
from contextlib import suppress

import pytest
import torch
from torch import nn

from modeguard.templates_store.classifiers import (
    ClassifierError,
    ClassifierSpec,
    build_classifier,
    check_classifier,
    load_classifier,
    save_weights,
)

SPEC = ClassifierSpec("torch.export", 4, (3, 6, 6), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(16, 4),
    )


def exported(model, *, is_dynamic=True):
    batch = torch.export.Dim("n", min=1, max=4096) if is_dynamic else None
    program = torch.export.export(model, (torch.rand(2, 3, 6, 6),), dynamic_shapes=({0: batch} if batch else None,))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def program():
    return exported(network().eval())


@pytest.fixture
def load(tmp_path):
    def load_program(content, spec=SPEC, **options):
        (tmp_path / "model.pt2").write_bytes(content)
        return load_classifier(spec, tmp_path / "model.pt2", **options)

    return load_program


def rewritten(content, changes):
    """The archive with records changed, added, or (None) left out."""
    reader = torch._C.PyTorchFileReader(io.BytesIO(content))
    records = {name: reader.get_record(name) for name in reader.get_all_records()}
    buffer = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer)
    for name, record in (records | changes).items():
        if record is not None and not name.startswith(".data/") and name != "byteorder":
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    return buffer.getvalue()


def read_json(content, record):
    return json.loads(torch._C.PyTorchFileReader(io.BytesIO(content)).get_record(record))


def test_a_program_answers_as_its_model(program, load):
    classifier, model = load(program), network().eval()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (SPEC.mean, SPEC.std))
    for n in (1, 3, 7):
        pixels = torch.rand(n, 3, 6, 6)
        torch.testing.assert_close(classifier(pixels), model((pixels - mean) / std))
    check_classifier(classifier, torch.rand(4, 3, 6, 6))
    assert not any(parameter.requires_grad for parameter in classifier.parameters())


def test_the_gradient_reaches_the_pixels(program, load):
    pixels, twin = (torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (SPEC.mean, SPEC.std))
    load(program)(pixels.requires_grad_())[:, 2].sum().backward()
    network().eval()((twin.requires_grad_() - mean) / std)[:, 2].sum().backward()
    torch.testing.assert_close(pixels.grad, twin.grad)


def test_a_program_is_stored_as_it_came(program, load, tmp_path):
    save_weights(load(program), tmp_path / "again.pt2")
    assert (tmp_path / "again.pt2").read_bytes() == program
    assert SPEC.weights_suffix == ".pt2"


def test_an_archive_written_anew_is_still_a_program(program, load):
    assert load(rewritten(program, {}))(torch.rand(3, 3, 6, 6)).shape == (3, 4)


def test_a_program_of_a_fixed_batch_is_refused(load):
    with pytest.raises(ClassifierError, match=r"takes exactly 2 images a call, expected any number; export .*Dim"):
        load(exported(network().eval(), is_dynamic=False))


def test_a_program_exported_in_training_mode_is_found_out(load):
    with pytest.raises(ClassifierError, match="evaluation mode"):
        check_classifier(load(exported(network().train())), torch.rand(4, 3, 6, 6))


def test_a_program_of_other_images_is_refused(program, load):
    with pytest.raises(ClassifierError, match=r"takes images of shape \(3, 6, 6\), expected input_shape \(3, 8, 8\)"):
        load(program, dataclasses.replace(SPEC, input_shape=(3, 8, 8)))


def test_a_program_computes_as_it_was_exported(program, load):
    with pytest.raises(ClassifierError, match="type it was exported with"):
        load(program, dtype="bfloat16")
    classifier = load(program, dtype="auto")
    with pytest.raises(ClassifierError, match="type it was exported with"):
        classifier.use_dtype(torch.bfloat16)
    with pytest.raises(ClassifierError, match="no training mode"):
        classifier.train()
    with pytest.raises(ClassifierError, match="never built"):
        build_classifier(SPEC)


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_program_is_named(content, load):
    with pytest.raises(ClassifierError, match=r"model\.pt2 is not a torch\.export program"):
        load(content)


def test_a_truncated_program_is_named(program, load):
    with pytest.raises(ClassifierError, match=r"model\.pt2 is not a torch\.export program"):
        load(program[: len(program) // 2])


def test_a_program_without_its_weights_is_named(program, load):
    with pytest.raises(ClassifierError, match=r"model\.pt2 is not a torch\.export program"):
        load(rewritten(program, {"data/weights/weight_0": None}))


class Trap:
    """Makes a directory when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return (type(self.place).mkdir, (self.place,))


def with_text(program, key, text, record=MODEL):
    """The program with the first text under a key, or the list there, replaced."""
    tree = read_json(program, record)
    assert _replace(tree, key, text)
    return rewritten(program, {record: json.dumps(tree).encode()})


def _replace(part, key, text):
    if isinstance(part, dict):
        if key in part and isinstance(part[key], str | list | bool):
            part[key] = [text] if isinstance(part[key], list) else text
            return True
        return any(_replace(value, key, text) for value in part.values())
    return isinstance(part, list) and any(_replace(value, key, text) for value in part)


def with_argument(program, argument):
    """The program with the first operator's first argument replaced."""
    tree = read_json(program, MODEL)
    tree["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = argument
    return rewritten(program, {MODEL: json.dumps(tree).encode()})


def sample_inputs(trap):
    return saved(((torch.zeros(2, 3, 6, 6),), {"trap": trap}))


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def hidden_in_a_comment(code):
    """Harmless as Python; sympy drops the line breaks, so that the text ends in the comment and the code follows."""
    return f"Max(Symbol('s0\\\n'), 1 # '), {code}\n)"


ATTEMPTS = {
    "sample inputs": lambda program, trap, code: rewritten(
        program, {"data/sample_inputs/model.pt": sample_inputs(trap)}
    ),
    "old format": lambda program, trap, code: rewritten(program, {"data/weights/model.pt": sample_inputs(trap)}),
    "opaque object": lambda program, trap, code: rewritten(
        program, {"data/constants/opaque_obj_0": pickle.dumps(trap)}
    ),
    "opaque object under a tensor's name": lambda program, trap, code: rewritten(
        program,
        {
            "data/constants/tensor_0": pickle.dumps(trap),
            "data/constants/model_constants_config.json": json.dumps(
                {"config": {"c": {"path_name": "../constants/opaque_obj_0", "use_pickle": False}}}
            ).encode(),
        },
    ),
    "pickled weight": lambda program, trap, code: rewritten(
        with_text(program, "use_pickle", True, WEIGHTS), {"data/weights/weight_0": sample_inputs(trap)}
    ),
    "compiled code": lambda program, trap, code: rewritten(program, {"data/aotinductor/model/a.so": b"\x7fELF"}),
    "size": lambda program, trap, code: with_text(program, "expr_str", code),
    "size in a symbol": lambda program, trap, code: with_text(program, "expr_str", f"Symbol({code!r})"),
    "size by attributes": lambda program, trap, code: with_text(program, "expr_str", "Symbol.__class__.__base__"),
    "size in a comment": lambda program, trap, code: with_text(program, "expr_str", hidden_in_a_comment(code)),
    "guard that ends torch's message": lambda program, trap, code: with_text(
        program, "guards_code", f"1 != '\", {code}, \"'"
    ),
    "name of a sample input": lambda program, trap, code: rewritten(
        program,
        {"data/sample_inputs/model.pt": saved((({f'", {code}, "': torch.zeros(2, 3, 6, 6)},), {}))},
    ),
    "guard": lambda program, trap, code: with_text(program, "guards_code", code),
    "guard with a method": lambda program, trap, code: with_text(program, "guards_code", "L['input'].storage()"),
    "operator of torch": lambda program, trap, code: with_text(program, "target", "torch.hub.load"),
    "operator that reads files": lambda program, trap, code: with_text(
        program, "target", "torch.ops.aten.from_file.default"
    ),
    "operator that writes files": lambda program, trap, code: with_text(
        program, "target", "torch.ops.aten.save.default"
    ),
    "operator as an argument": lambda program, trap, code: with_argument(program, {"as_operator": "torch.os.system"}),
    "metadata that ends a text": lambda program, trap, code: with_text(program, "stack_trace", f'"""\n{code}\n"""'),
    "operator of the class": lambda program, trap, code: with_text(
        program, "target", "torch.ops.aten.__init__.__globals__"
    ),
    "name": lambda program, trap, code: with_text(program, "name", f"x): pass\n{code}\ndef f(x"),
    "container": lambda program, trap, code: with_text(
        program, "in_spec", '[1, {"type": "collections.defaultdict", "context": "x", "children_spec": []}]'
    ),
    "argument names": lambda program, trap, code: with_text(program, "forward_arg_names", f"x=({code})"),
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_program_that_could_run_code_is_refused(program, attempt, load, tmp_path):
    trap = tmp_path / "trap"
    code = f"__import__('os').mkdir({str(trap)!r})"
    content = ATTEMPTS[attempt](program, Trap(trap), code)
    with pytest.raises(ClassifierError, match=r"model\.pt2: refused, because loading it might run code"):
        load(content)
    assert not trap.exists()


@pytest.mark.parametrize("disguise", [lambda code: f"{code} or Integer(2)", hidden_in_a_comment])
def test_the_traps_would_have_worked(program, tmp_path, disguise):
    """So the refusals above are of what torch itself would run."""
    trap = tmp_path / "trap"
    content = with_text(program, "expr_str", disguise(f"__import__('os').mkdir({str(trap)!r})"))
    with suppress(Exception):  # the size itself may be none
        torch.export.load(io.BytesIO(content))
    assert trap.exists()
