"""Settings come from the environment, and what is wrong with them is said in the words of the environment."""

import os
from pathlib import Path

import pytest

from modeguard.service.settings import Settings, SettingsError, load_settings


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.startswith("MODEGUARD_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MODEGUARD_BUNDLE", "/bundle")
    return monkeypatch


def test_defaults_are_for_this_machine_only(environment: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    assert settings.bundle == Path("/bundle")
    assert (settings.host, settings.port, settings.allowed_factories) == ("127.0.0.1", 8000, ())


def test_lists_are_written_with_commas_and_empty_is_unset(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MODEGUARD_ALLOWED_FACTORIES", "a.b:c, d:e,")
    environment.setenv("MODEGUARD_TRUSTED_PROGRAMS", f"{'0' * 64}, {'a' * 64}")
    environment.setenv("MODEGUARD_PORT", "")
    settings = load_settings()
    assert settings.allowed_factories == ("a.b:c", "d:e")
    assert settings.trusted_programs == ("0" * 64, "a" * 64)
    assert settings.port == 8000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("PORT", "http"),
        ("MAX_PIXELS", "0"),
        ("MAX_PIXELS", "90000000"),
        ("MAX_IMAGES", "-1"),
        ("DTYPE", "float8"),
        ("BUNDLE_DIGEST", "5F0C1E"),
        ("TRUSTED_PROGRAMS", "5f0c1e"),
        ("TRUSTED_PROGRAMS", "A" * 64),
        ("LOG_FORMAT", "xml"),
        ("BODY_TIMEOUT_S", "nan"),
        ("BODY_TIMEOUT_S", "inf"),
        ("BODY_TIMEOUT_S", "0"),
    ],
)
def test_a_wrong_value_is_named_with_its_variable(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(f"MODEGUARD_{name}", value)
    with pytest.raises(SettingsError, match=f"MODEGUARD_{name}: .*got '{value}'"):
        load_settings()


def test_all_faults_are_named_at_once(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("MODEGUARD_BUNDLE")
    environment.setenv("MODEGUARD_PORT", "x")
    with pytest.raises(SettingsError, match=r"MODEGUARD_BUNDLE is not set.*MODEGUARD_PORT"):
        load_settings()


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())
