"""Where the packages are: folders at the top of the repository, installed below the one name `modeguard`."""

from setuptools import find_namespace_packages, setup

ROOMS = ("detector", "templates_store", "offline", "service")

setup(
    package_dir={"modeguard": "modeguard", **{f"modeguard.{room}": room for room in ROOMS}},
    packages=[
        "modeguard",
        # folders of data too, which have no __init__
        *(
            f"modeguard.{name}"
            for room in ROOMS
            for name in find_namespace_packages(include=[room, f"{room}.*"], exclude=["*.__pycache__"])
        ),
    ],
)
