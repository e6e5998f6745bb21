"""Any network as the classifier that the method asks: pixels in [0, 1] in, float32 logits out, layers on demand."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from modeguard.templates_store.classifiers.compute import dtype_name
from modeguard.templates_store.classifiers.errors import ClassifierError, nearest_names
from modeguard.templates_store.classifiers.spec import ClassifierSpec

__all__ = ["NetworkClassifier"]

_NORMS = (nn.modules.batchnorm._BatchNorm,)


class NetworkClassifier(nn.Module):
    """A network with its normalisation inside: a `detector.FeatureMapClassifier`.

    Pixels are normalised in float32, cast to the compute type, and laid out as the network likes it. Differentiable
    with respect to the pixels.

    Args:
        network: normalised images (n, c, h, w) in, logits out.
        spec: its classes and its pixels.
        memory_format: channels-last is what the convolution kernels of CPUs and tensor cores prefer, but a network may
            call view(), which only takes the ordinary layout.
        is_dtype_fixed: whether the network computes in the one type that it came with.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        spec: ClassifierSpec,
        *,
        memory_format: torch.memory_format = torch.contiguous_format,
        is_dtype_fixed: bool = False,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.n_classes: int = spec.n_classes
        self.input_shape: tuple[int, int, int] = spec.input_shape
        self.compute_dtype = torch.float32
        self.memory_format = memory_format
        self.is_dtype_fixed = is_dtype_fixed
        self.network = network
        if memory_format != torch.contiguous_format:
            self.network = network.to(memory_format=memory_format)
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        self._exact_weights: dict[str, Tensor] | None = None

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (n, n_classes), float32, of images (n, c, h, w) with pixels in [0, 1]."""
        normalised = (pixels.float() - self.mean) / self.std
        rows = normalised.to(self.compute_dtype, memory_format=self.memory_format)
        logits: Tensor = self.network(rows)
        return logits.float()

    def feature_maps(self, images: Tensor, layers: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits, and what some layers of the network answer on the way to them.

        No other thread may call the network meanwhile: its answers would be taken for these.

        Args:
            images: (n, c, h, w) with pixels in [0, 1].
            layers: names of `network.named_modules()`, such as "layer1.0.conv1".

        Returns:
            The logits (n, n_classes), and float32 answers by layer in the order asked for, n in front for most. Of a
            layer that runs more than once it is the last answer. All are differentiable with respect to the images.

        Raises:
            ClassifierError: if there is no such layer, it does not run, or its answer is no tensor.
        """
        modules = dict(self.network.named_modules())
        for layer in layers:
            if layer not in modules:
                known = [name for name in modules if name]
                some = nearest_names(layer, known, n=3) or f"; it has {', '.join(known[:8])} and others"
                raise ClassifierError(f"the network {self.spec.architecture!r} has no layer {layer!r}{some}")
        answers: dict[str, Tensor] = {}
        with ExitStack() as hooks:
            for layer in layers:
                hooks.enter_context(modules[layer].register_forward_hook(partial(_keep_answer, answers, layer)))
            logits: Tensor = self(images)
        for layer in layers:
            if layer not in answers:
                raise ClassifierError(
                    f"layer {layer!r} did not run, expected one that the network calls for its logits; an exported "
                    "program has no layers, and a list of layers is none"
                )
        return logits, {layer: answers[layer] for layer in layers}

    def weights(self) -> dict[str, Tensor]:
        """The network's weights on the CPU as they were loaded, whatever the compute type."""
        state = self._exact_weights or self.network.state_dict()
        return {name: value.detach().to("cpu").contiguous().clone() for name, value in state.items()}

    def use_dtype(self, dtype: torch.dtype) -> None:
        """Compute in another type from now on; batch norms keep their float32 statistics.

        The weights in full precision are kept on the CPU, so that what is saved never depends on the machine.

        Raises:
            ClassifierError: for a type that no classifier computes in.
        """
        if dtype != self.compute_dtype and self.is_dtype_fixed:
            raise ClassifierError(f"an exported program computes in the type it was exported with, not {dtype}")
        dtype_name(dtype)
        if dtype == self.compute_dtype:
            return
        exact = self.weights()
        for module in self.network.modules():
            own_dtype = torch.float32 if isinstance(module, _NORMS) else dtype
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if tensor.is_floating_point():
                    tensor.data = tensor.data.to(own_dtype)
        if self._exact_weights is not None:
            self.network.load_state_dict(exact)
        self._exact_weights = None if dtype == torch.float32 else exact
        self.compute_dtype = dtype


def _keep_answer(answers: dict[str, Tensor], layer: str, _module: nn.Module, _inputs: object, answer: Any) -> None:
    if not isinstance(answer, Tensor):
        raise ClassifierError(f"layer {layer!r} answers with {type(answer).__name__}, expected one tensor")
    # a copy: the layer behind may well work in place
    answers[layer] = answer.to(torch.float32, copy=True)
