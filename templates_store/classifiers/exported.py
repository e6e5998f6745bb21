"""Classifiers that come as a `torch.export` program (.pt2), screened first (`export_screen`)."""

from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass
from torch.export.pt2_archive._package import load_pt2

from modeguard.templates_store.classifiers.export_screen import check_arguments, screen
from modeguard.templates_store.classifiers.spec import ClassifierError, ClassifierSpec

__all__ = ["ExportedNetwork", "load_exported"]

_HOW_TO_EXPORT = (
    "export on the CPU with torch.export.export(model.eval(), (images,), "
    "dynamic_shapes=({0: torch.export.Dim('n', min=1, max=4096)},)) and torch.export.save"
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
        screen(content)
        programs = load_pt2(BytesIO(content)).exported_programs
        program = programs["model"]
        check_arguments(program.graph_module)
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
