"""Programs of `torch.export`: one that is trusted answers as its model; of any other not a byte is parsed."""

import dataclasses
import io
import logging
import pickle
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modeguard.templates_store.classifiers import (
    TRUST_EVERYTHING,
    ClassifierError,
    ClassifierSpec,
    NetworkClassifier,
    Trust,
    build_classifier,
    check_classifier,
    file_suffix,
    save_weights,
)
from tests.templates_store.classifiers.toy_classifiers import MEAN, STD, load_network, normalised

SPEC = ClassifierSpec("torch.export", 4, (3, 6, 6), MEAN, STD)
Load = Callable[..., NetworkClassifier]


def network() -> nn.Module:
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


def exported(model: nn.Module, *, is_dynamic: bool = True, images: Tensor | None = None) -> bytes:
    batch = torch.export.Dim("n", min=1, max=4096) if is_dynamic else None
    inputs = (torch.rand(2, 3, 6, 6) if images is None else images,)
    program = torch.export.export(model, inputs, dynamic_shapes=({0: batch} if batch else None,))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def program() -> bytes:
    return exported(network().eval())


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_program(
        content: bytes, spec: ClassifierSpec = SPEC, trust: Trust = TRUST_EVERYTHING, **options: Any
    ) -> NetworkClassifier:
        (tmp_path / "model.pt2").write_bytes(content)
        return load_network(spec, tmp_path / "model.pt2", trust=trust, **options)

    return load_program


def test_a_program_answers_as_its_model(program: bytes, load: Load) -> None:
    classifier, model = load(program), network().eval()
    for n in (1, 3, 7):
        pixels = torch.rand(n, 3, 6, 6)
        torch.testing.assert_close(classifier(pixels), model(normalised(pixels, SPEC)))
    check_classifier(classifier, torch.rand(4, 3, 6, 6))
    assert not any(parameter.requires_grad for parameter in classifier.parameters())


def test_the_gradient_reaches_the_pixels(program: bytes, load: Load) -> None:
    pixels, twin = (torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    load(program)(pixels.requires_grad_())[:, 2].sum().backward()
    network().eval()(normalised(twin.requires_grad_(), SPEC))[:, 2].sum().backward()
    torch.testing.assert_close(pixels.grad, twin.grad)


def test_a_program_is_stored_as_it_came(program: bytes, load: Load, tmp_path: Path) -> None:
    save_weights(load(program), tmp_path / "again.pt2")
    assert (tmp_path / "again.pt2").read_bytes() == program
    assert file_suffix(SPEC) == ".pt2"


class Trap:
    """Makes a directory when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self.place).mkdir, (self.place,))


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    return tmp_path / "trap"


def trapped(program: bytes, trap: Path) -> bytes:
    """The program with sample inputs that torch unpickles, at the latest when they are no plain tensors."""
    reader = torch._C.PyTorchFileReader(io.BytesIO(program))  # type: ignore[call-arg, arg-type, unused-ignore]
    records = {name: reader.get_record(name) for name in reader.get_all_records()}  # type: ignore[attr-defined, unused-ignore]
    samples = io.BytesIO()
    torch.save(((torch.zeros(2, 3, 6, 6),), {"trap": Trap(trap)}), samples)
    buffer = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer)  # type: ignore[call-arg, arg-type, unused-ignore]
    for name, record in (records | {"data/sample_inputs/model.pt": samples.getvalue()}).items():
        if not name.startswith(".data/") and name != "byteorder":
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    return buffer.getvalue()


def test_a_program_is_refused_with_its_digest_and_loaded_when_it_is_named(program: bytes, load: Load) -> None:
    digest = sha256(program).hexdigest()
    for trust in (Trust(), Trust(programs=("0" * 64,)), Trust(factories=(digest, "torch.export"))):
        with pytest.raises(ClassifierError, match=rf"model\.pt2 .*{digest} .*--trust-program.*MODEGUARD_TRUSTED_PROGR"):
            load(program, trust=trust)
    assert load(program, trust=Trust(programs=("0" * 64, digest)))(torch.rand(3, 3, 6, 6)).shape == (3, 4)


def test_trust_is_in_bytes_not_in_names(program: bytes, load: Load) -> None:
    """One byte more, even where a reader of archives would not look, is another program."""
    with pytest.raises(ClassifierError, match="may run code of its own"):
        load(program + b"\0", trust=Trust(programs=(sha256(program).hexdigest(),)))


def test_nothing_of_a_program_that_is_not_trusted_is_parsed(
    program: bytes, load: Load, trap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = trapped(program, trap)
    with monkeypatch.context() as patched:
        patched.setattr("torch.export.load", lambda *_, **__: pytest.fail("it was parsed"))
        with pytest.raises(ClassifierError, match=sha256(content).hexdigest()):
            load(content, trust=Trust())
    assert not trap.exists()


def test_the_trap_would_have_worked(program: bytes, load: Load, trap: Path, caplog: pytest.LogCaptureFixture) -> None:
    """So the refusal above is of what torch itself would run, and trust means to run it."""
    caplog.set_level(logging.ERROR, "torch._export.serde.serialize")  # torch's warning of it cannot be formatted
    load(trapped(program, trap))
    assert trap.exists()


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64, "0" * 64 + "\n"])
def test_what_is_no_digest_is_refused(digest: str) -> None:
    with pytest.raises(ClassifierError, match="64 digits of 0-9 and a-f, got"):
        Trust(programs=(digest,))


def test_a_program_of_a_fixed_batch_is_refused(load: Load) -> None:
    with pytest.raises(ClassifierError, match=r"takes exactly 2 images a call, expected any number; export .*Dim"):
        load(exported(network().eval(), is_dynamic=False))


def test_a_program_exported_in_training_mode_is_found_out(load: Load) -> None:
    with pytest.raises(ClassifierError, match="evaluation mode"):
        check_classifier(load(exported(network().train())), torch.rand(4, 3, 6, 6))


def test_a_program_of_other_images_is_refused(program: bytes, load: Load) -> None:
    with pytest.raises(ClassifierError, match=r"takes images of shape \(3, 6, 6\), expected input_shape \(3, 8, 8\)"):
        load(program, dataclasses.replace(SPEC, input_shape=(3, 8, 8)))


def test_a_program_of_another_type_is_refused(load: Load) -> None:
    doubles = exported(network().double().eval(), images=torch.rand(2, 3, 6, 6).double())
    with pytest.raises(ClassifierError, match=r"takes torch\.float64, expected torch\.float32"):
        load(doubles)


def test_a_program_computes_as_it_was_exported(program: bytes, load: Load) -> None:
    with pytest.raises(ClassifierError, match="type it was exported with"):
        load(program, dtype="bfloat16")
    classifier = load(program, dtype="auto")
    with pytest.raises(ClassifierError, match="type it was exported with"):
        classifier.use_dtype(torch.bfloat16)
    with pytest.raises(ClassifierError, match="no training mode"):
        classifier.train()
    with pytest.raises(ClassifierError, match="never built"):
        build_classifier(SPEC)


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x05\x06" + b"\0" * 18, pickle.dumps("a pickle")])
def test_what_is_no_program_is_named(content: bytes, load: Load) -> None:
    with pytest.raises(ClassifierError, match=r"model\.pt2 is not a torch\.export program"):
        load(content)


def test_a_truncated_program_is_named(program: bytes, load: Load) -> None:
    with pytest.raises(ClassifierError, match=r"model\.pt2 is not a torch\.export program"):
        load(program[: len(program) // 2])
