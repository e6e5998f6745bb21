"""What to install where a package is missing that only building needs."""

__all__ = ["OF_BUILD", "missing_extra"]

OF_BUILD = frozenset({"httpx", "jinja2", "markupsafe", "matplotlib", "sklearn"})
"""What is imported of the packages of pyproject.toml's extra `build`."""


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """What to tell of a package that an extra brings; None of any other."""
    package = (error.name or "").partition(".")[0]
    if package not in OF_BUILD:
        return None
    return f"this needs the package {package}, which is not installed: pip install 'modeguard[build]'"
