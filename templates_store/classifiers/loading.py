"""Classifiers as the method needs them: pixels in [0, 1] in, float32 logits out, at the device's best precision.

Weights are safetensors, or a `torch.export` program that has been screened (`exported`); nothing
is unpickled, and no code is imported that the caller has not allowed by name.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from modeguard.detector.errors import ModeguardError
from modeguard.templates_store.classifiers.architectures import ARCHITECTURES, LIBRARIES, build_network
from modeguard.templates_store.classifiers.checks import check_classifier, check_pixel_scale
from modeguard.templates_store.classifiers.exported import ExportedNetwork, load_exported
from modeguard.templates_store.classifiers.spec import EXPORT, ClassifierError, ClassifierSpec
from modeguard.templates_store.files import TensorFileError, tensors_of, write_file_atomically

__all__ = [
    "ARCHITECTURES",
    "ClassifierError",
    "ClassifierSpec",
    "DeviceError",
    "DtypeName",
    "NetworkClassifier",
    "build_classifier",
    "check_classifier",
    "check_pixel_scale",
    "classifier_of",
    "dtype_name",
    "load_classifier",
    "resolve_device",
    "resolve_dtype",
    "save_weights",
]

DtypeName = Literal["float32", "bfloat16"]
_NAMES: dict[torch.dtype, DtypeName] = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
DTYPES: dict[str, torch.dtype] = {name: dtype for dtype, name in _NAMES.items()}
_NORMS = (nn.modules.batchnorm._BatchNorm,)
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_SHOWN_KEYS = 3


class DeviceError(ModeguardError, ValueError):
    """A device that this machine does not have."""


class NetworkClassifier(nn.Module):
    """A network with its normalisation inside: the `detector.Classifier` of everything built here.

    Pixels are normalised in float32, cast to the compute type, and for known architectures laid out channels-last,
    which the convolution kernels of CPUs and tensor cores prefer. Differentiable with respect to the pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, spec: ClassifierSpec) -> None:
        super().__init__()
        self.spec = spec
        self.n_classes: int = spec.n_classes
        self.input_shape: tuple[int, int, int] = spec.input_shape
        self.compute_dtype = torch.float32
        # a network of the user's own may well call view(), which only takes the ordinary layout
        is_known = spec.architecture.partition(":")[0] in (*ARCHITECTURES, *LIBRARIES)
        self.memory_format = torch.channels_last if is_known else torch.contiguous_format
        self.network = network
        if is_known:
            self.network = network.to(memory_format=torch.channels_last)
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        self._exact_weights: dict[str, Tensor] | None = None

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (n, n_classes), float32, of images (n, c, h, w) with pixels in [0, 1]."""
        normalised = (pixels.float() - self.mean) / self.std
        rows = normalised.to(self.compute_dtype, memory_format=self.memory_format)
        logits: Tensor = self.network(rows)
        return logits.float()

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
        if dtype != torch.float32 and isinstance(self.network, ExportedNetwork):
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


def build_classifier(spec: ClassifierSpec, *, allowed_factories: Collection[str] = ()) -> NetworkClassifier:
    """A classifier with random weights (from torch's global generator), in training mode, to be trained.

    Raises:
        ClassifierError: as `build_network`; also for "torch.export", which is trained already.
    """
    if spec.architecture == EXPORT:
        raise ClassifierError(f"{EXPORT!r} is a finished program: it is loaded from a .pt2 file, never built")
    return NetworkClassifier(build_network(spec, allowed_factories=allowed_factories), spec)


def load_classifier(
    spec: ClassifierSpec,
    weights: Path,
    *,
    dtype: str = "auto",
    device: str | torch.device = "cpu",
    allowed_factories: Collection[str] = (),
) -> NetworkClassifier:
    """A classifier with stored weights, in evaluation mode, its parameters frozen.

    Args:
        spec: what the weights belong to.
        weights: safetensors (float32, or float16 or bfloat16, which are cast up), or a `torch.export` program.
        dtype: "float32", "bfloat16", or "auto", which asks `resolve_dtype`.
        device: where it shall run.
        allowed_factories: the "package.module:factory" names that may be imported and called.

    Raises:
        ClassifierError: if the file is missing, unreadable, holds other weights or values that are not finite.
    """
    if not weights.is_file():
        raise ClassifierError(f"no file of weights at {weights}; train the classifier or correct the path")
    try:
        content = weights.read_bytes()
    except OSError as error:
        raise ClassifierError(f"the weights {weights} cannot be read: {error.strerror}") from error
    return classifier_of(spec, content, origin=weights, dtype=dtype, device=device, allowed_factories=allowed_factories)


def classifier_of(
    spec: ClassifierSpec,
    content: bytes,
    *,
    origin: Path,
    dtype: str = "auto",
    device: str | torch.device = "cpu",
    allowed_factories: Collection[str] = (),
) -> NetworkClassifier:
    """As `load_classifier`, of a file that has been read already: what was verified is what is used.

    Args:
        spec: what the weights belong to.
        content: the file's bytes.
        origin: where they came from, for errors.
        dtype, device, allowed_factories: see `load_classifier`.

    Raises:
        ClassifierError: see `load_classifier`.
    """
    device = torch.device(device)
    if spec.architecture == EXPORT:
        if dtype == "bfloat16":
            raise ClassifierError("an exported program computes in the type it was exported with; use dtype auto")
        classifier = NetworkClassifier(load_exported(spec, content, device, origin=origin), spec)
    else:
        with torch.random.fork_rng(devices=[]):  # the random weights are replaced: leave no trace of drawing them
            classifier = NetworkClassifier(build_network(spec, allowed_factories=allowed_factories), spec)
        _load_weights(classifier.network, content, origin)
        classifier.use_dtype(resolve_dtype(dtype, device))
    return classifier.to(device).eval().requires_grad_(requires_grad=False)


def save_weights(classifier: NetworkClassifier, path: Path) -> None:
    """Write what `load_classifier` reads, complete or not at all, in the precision it was loaded with.

    An exported program is written as it came; the weights of any other network as safetensors.

    Raises:
        OSError: whatever the file system refused, for example a full disk.
    """
    network = classifier.network
    content = network.program if isinstance(network, ExportedNetwork) else to_safetensors(classifier.weights())
    write_file_atomically(path, content)


def resolve_device(device: str) -> torch.device:
    """The device that is named; for "auto" the GPU where there is one, else the CPU.

    Raises:
        DeviceError: if there is no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch has no one error for this
        reason = str(error).partition("\n")[0]
        raise DeviceError(
            f"a device of this machine was expected, got {device!r} ({reason}); use auto, cpu or cuda[:N]"
        ) from error
    return found


def dtype_name(dtype: torch.dtype) -> DtypeName:
    """The name of a compute type, as recipes and manifests write it.

    Raises:
        ClassifierError: for a type that no classifier computes in.
    """
    if dtype not in _NAMES:
        raise ClassifierError(f"classifiers compute in {' or '.join(DTYPES)}, not in {dtype}")
    return _NAMES[dtype]


def resolve_dtype(dtype: str, device: str | torch.device = "cpu") -> torch.dtype:
    """The type to compute in: what is asked for, or for "auto" what the device multiplies natively.

    "auto" is bfloat16 on CUDA devices of capability 8.0 and more, and on CPUs with AMX or AVX512_BF16; else float32.

    Raises:
        ClassifierError: for another name.
    """
    if dtype in DTYPES:
        return DTYPES[dtype]
    if dtype != "auto":
        raise ClassifierError(f"dtype is auto, {' or '.join(DTYPES)}, got {dtype!r}")
    has_bfloat16 = _HAS_BFLOAT16.get(torch.device(device).type)
    return torch.bfloat16 if has_bfloat16 is not None and has_bfloat16(device) else torch.float32


def _cpu_has_bfloat16(_: str | torch.device) -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _cuda_has_bfloat16(device: str | torch.device) -> bool:
    return torch.cuda.get_device_capability(device)[0] >= 8


_HAS_BFLOAT16: dict[str, Callable[[str | torch.device], bool]] = {"cpu": _cpu_has_bfloat16, "cuda": _cuda_has_bfloat16}


def _load_weights(network: nn.Module, content: bytes, origin: Path) -> None:
    try:
        stored = tensors_of(content)
    except TensorFileError as error:
        raise ClassifierError(
            f"{origin} is not a readable safetensors file ({error}); convert other formats with "
            "safetensors.torch.save_file(model.state_dict(), path)"
        ) from error
    wanted = network.state_dict()
    for name in wanted:
        if name.endswith("num_batches_tracked"):  # a counter of training; many files leave it out
            stored.setdefault(name, wanted[name])
    _check_keys(wanted, stored, origin)
    for name, value in stored.items():
        if not bool(torch.isfinite(value).all()):
            raise ClassifierError(f"{origin}: {name} holds values that are not finite; the file cannot be used")
    network.load_state_dict({name: value.to(wanted[name].dtype) for name, value in stored.items()})


def _check_keys(wanted: dict[str, Tensor], stored: dict[str, Tensor], origin: Path) -> None:
    faults = {
        "missing": sorted(set(wanted) - set(stored)),
        "unexpected": sorted(set(stored) - set(wanted)),
        "of another shape": [
            f"{name} {tuple(stored[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in sorted(set(wanted) & set(stored))
            if stored[name].shape != wanted[name].shape
        ],
        "of another kind": [
            f"{name} {stored[name].dtype} instead of {wanted[name].dtype}"
            for name in sorted(set(wanted) & set(stored))
            if (stored[name].dtype in _FLOATS) != wanted[name].is_floating_point()
        ],
    }
    if any(faults.values()):
        listed = "; ".join(
            f"{len(names)} {fault}: {', '.join(names[:_SHOWN_KEYS])}{', …' if len(names) > _SHOWN_KEYS else ''}"
            for fault, names in faults.items()
            if names
        )
        raise ClassifierError(f"{origin} holds the weights of another architecture or number of classes: {listed}")
