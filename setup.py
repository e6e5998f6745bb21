"""Where the packages are: folders at the top of the repository, installed below the one name `modeguard`."""

from setuptools import find_packages, setup

ROOMS = ("detector", "templates_store", "offline", "service")

setup(
    package_dir={"modeguard": "modeguard", **{f"modeguard.{room}": room for room in ROOMS}},
    packages=[
        "modeguard",
        *(f"modeguard.{name}" for room in ROOMS for name in find_packages(include=[room, f"{room}.*"])),
    ],
)
