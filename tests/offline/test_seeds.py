"""Seeds are what they were: kept artefacts and checkpoints depend on them."""

import subprocess

import pytest
import torch

from modeguard.offline.seeds import seed_of


@pytest.mark.parametrize("text", ["0/1", "42/pgd/3"])
def test_a_seed_is_the_first_seven_bytes_of_a_hash_in_every_process(text: str) -> None:
    """Golden: sha256sum of coreutils."""
    said = subprocess.run(["sha256sum"], input=text.encode(), capture_output=True, check=True).stdout
    assert seed_of(text) == int(said[:14], 16)


def test_generators_take_the_seed_and_other_texts_give_other_numbers() -> None:
    drawn = {
        int(torch.randint(2**60, (), generator=torch.Generator().manual_seed(seed_of(f"0/{k}")))) for k in range(50)
    }
    assert len(drawn) == 50
