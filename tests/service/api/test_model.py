"""GET /v1/model says what is in the bundle and what a request may have."""

import dataclasses
import math

import pytest

from modeguard.templates_store.bundles import Bundle
from tests.service.conftest import MakeClient

pytestmark = pytest.mark.anyio


async def test_what_is_served_is_described(make_client: MakeClient, bundle: Bundle) -> None:
    async with make_client(max_images=7) as client:
        model = (await client.get("/v1/model")).json()
    assert model["model"] == {"name": "colours", "version": bundle.digest}
    assert model["class_names"] == ["red", "green", "blue"]
    assert model["classes_without_template"] == [2]
    assert model["input"] == {"shape": [3, 8, 8], "resize_to": None, "allow_resize": True}
    assert model["classifier"] == {
        "architecture": "tests.service.toy:BrightestChannel",
        "n_classes": 3,
        "input_shape": [3, 8, 8],
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
    }
    assert model["detector"]["questions"]["curves"]["alphas"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert model["detector"]["scorer"]["kind"] == "neighbors"
    assert model["measured"] == {"auroc": {"none": 1.0}}
    assert model["limits"]["max_images"] == 7


async def test_what_json_cannot_hold_is_null(make_client: MakeClient, bundle: Bundle) -> None:
    measured = {"auroc": math.nan, "by_attack": [{"fgsm": math.inf, "pgd": 0.5}]}
    manifest = dataclasses.replace(bundle.manifest, measured=measured)
    async with make_client(dataclasses.replace(bundle, manifest=manifest)) as client:
        model = (await client.get("/v1/model")).json()
    assert model["measured"] == {"auroc": None, "by_attack": [{"fgsm": None, "pgd": 0.5}]}
