"""Every error is a problem: one table, and what FastAPI and Starlette refuse by themselves."""

import pytest

from modeguard.detector import ModeguardError
from modeguard.service.http import INTERNAL, INVALID_REQUEST, PROBLEMS
from tests.service.conftest import PNG, MakeClient, problem_of
from tests.service.toy import RED, image_file

pytestmark = pytest.mark.anyio


async def test_every_kind_of_error_has_a_type_of_its_own() -> None:
    slugs = [problem.slug for problem in (*PROBLEMS.values(), INTERNAL, INVALID_REQUEST)]
    assert len(set(slugs)) == len(slugs)
    assert all(issubclass(kind, ModeguardError) for kind in PROBLEMS)


async def test_a_wrong_option_is_named(make_client: MakeClient) -> None:
    async with make_client() as client:
        response = await client.post("/v1/detect?curve=perhaps", content=image_file(RED), headers=PNG)
    problem = problem_of(response, 422, "invalid-request")
    assert [fault["location"] for fault in problem["errors"]] == ["query.curve"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/v1/detect", 405), ("POST", "/v1/detect/", 404), ("GET", "/redoc", 404)],
)
async def test_wrong_addresses_are_problems_too(make_client: MakeClient, method: str, path: str, status: int) -> None:
    async with make_client() as client:
        problem_of(await client.request(method, path), status, None)
