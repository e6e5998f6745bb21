"""What a classifier computes on and in: devices and number types by name."""

from collections.abc import Callable
from typing import Literal

import torch

from modeguard.templates_store.classifiers.errors import ClassifierError, DeviceError

__all__ = ["DTYPES", "DtypeName", "dtype_name", "resolve_device", "resolve_dtype"]

DtypeName = Literal["float32", "bfloat16"]
_NAMES: dict[torch.dtype, DtypeName] = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
DTYPES: dict[str, torch.dtype] = {name: dtype for dtype, name in _NAMES.items()}


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
