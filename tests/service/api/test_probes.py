"""GET /livez and GET /readyz, before and after the bundle is there."""

import pytest

from tests.service.conftest import MakeClient, problem_of

pytestmark = pytest.mark.anyio


async def test_probes(make_client: MakeClient) -> None:
    async with make_client() as client:
        for path in ("/livez", "/readyz"):
            response = await client.get(path)
            assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_until_the_bundle_is_loaded_only_livez_is_well(make_client: MakeClient) -> None:
    async with make_client(None) as client:
        assert (await client.get("/livez")).status_code == 200
        for method, path in [("GET", "/readyz"), ("GET", "/v1/model"), ("POST", "/v1/detect")]:
            response = await client.request(method, path)
            problem_of(response, 503, "not-ready")
            assert int(response.headers["retry-after"]) >= 1
