"""Classifiers that come as a `torch.export` program (.pt2).

Loading such a file can run code that came with it, in more ways than a look at the file could rule out. So nobody
looks: a program is loaded if its digest is trusted, else not a byte of it is parsed.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from modeguard.templates_store.classifiers.errors import ClassifierError
from modeguard.templates_store.classifiers.network_classifier import NetworkClassifier
from modeguard.templates_store.classifiers.spec import ClassifierSpec
from modeguard.templates_store.classifiers.trust import Trust

__all__ = ["ExportedSource"]

_HOW_TO_EXPORT = (
    "export on the CPU with torch.export.export(model.eval(), (images,), "
    "dynamic_shapes=({0: torch.export.Dim('n', min=1, max=4096)},)) and torch.export.save"
)


class _ExportedNetwork(nn.Module):
    """A program as a network. It has no training mode, and computes in the type it was exported with.

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

    def train(self, mode: bool = True) -> "_ExportedNetwork":
        """Does nothing in evaluation mode; a program cannot be put into training mode.

        Raises:
            ClassifierError: if training mode is asked for.
        """
        if mode:
            raise ClassifierError("an exported program has no training mode; train the model it was exported from")
        return self


@dataclass(frozen=True, slots=True)
class ExportedSource:
    """A `Source` of programs saved by `torch.export.save`; the program is its own network and weights."""

    named: ClassVar[str] = ""
    suffix: ClassVar[str] = ".pt2"

    def open(
        self,
        name: str,
        spec: ClassifierSpec,
        content: bytes,
        *,
        origin: Path,
        dtype: str,
        device: torch.device,
        trust: Trust,
    ) -> NetworkClassifier:
        """The program, if its digest is trusted, see `Source`.

        Raises:
            ClassifierError: also if it was exported for one batch size only, or takes other images.
        """
        trust.check_program(content, origin=origin)
        if dtype == "bfloat16":
            raise ClassifierError("an exported program computes in the type it was exported with; use dtype auto")
        network = _ExportedNetwork(_graph_of(spec, content, device, origin), content)
        classifier = NetworkClassifier(network, spec, is_dtype_fixed=True)
        return classifier.to(device).eval().requires_grad_(requires_grad=False)

    def save(self, classifier: NetworkClassifier) -> bytes:
        """The program as it came, byte for byte."""
        assert isinstance(classifier.network, _ExportedNetwork)  # noqa: S101 - `open` made it
        return classifier.network.program


def _graph_of(spec: ClassifierSpec, content: bytes, device: torch.device, origin: Path) -> nn.Module:
    try:
        program = torch.export.load(BytesIO(content))
        _check_input(program, spec)
        if device.type != "cpu":
            program = move_to_device_pass(program, device)
        # whether it takes batches of any size is found by asking it (`check_classifier`)
        return program.module(check_guards=False)
    except ClassifierError as error:
        raise ClassifierError(f"{origin}: {error}") from error
    except Exception as error:  # torch promises no particular errors for a file that is not what it should be
        reason = str(error).strip().splitlines()
        raise ClassifierError(
            f"{origin} is not a torch.export program that this torch {torch.__version__} can load "
            f"({type(error).__name__}: {reason[0] if reason else 'no reason given'}); {_HOW_TO_EXPORT}"
        ) from error


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
