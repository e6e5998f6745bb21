"""What to install where a package is missing that only building needs."""

__all__ = ["OF_BUILD", "what_to_install"]

OF_BUILD = frozenset({"httpx", "jinja2", "markupsafe", "matplotlib", "sklearn"})
"""What is imported of the packages of pyproject.toml's extra `build`."""


def what_to_install(error: BaseException) -> str | None:
    """What to tell whom a package of an extra is missing; None for every other error."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package not in OF_BUILD:
        return None
    return f"this command needs the package {package}, which is not installed: pip install 'modeguard[build]'"
