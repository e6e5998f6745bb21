"""Bytes become tensors or a TensorFileError."""

import json

import pytest
import safetensors.torch
import torch

from modeguard.templates_store.files import TensorFileError, tensors_of


def test_tensors_come_back_by_name() -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2], dtype=torch.uint8)}
    found = tensors_of(safetensors.torch.save(tensors))
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype for name in tensors)


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\x00" * 8, bytes(range(100))])
def test_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(TensorFileError):
        tensors_of(content)


def test_types_that_torch_does_not_have_are_named() -> None:
    header = json.dumps({"a": {"dtype": "F8_E8M0", "shape": [1], "data_offsets": [0, 1]}}).encode()
    with pytest.raises(TensorFileError, match="F8_E8M0"):
        tensors_of(len(header).to_bytes(8, "little") + header + b"\x00")
