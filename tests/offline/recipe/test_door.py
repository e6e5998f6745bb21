"""Reading a recipe is quick: the doors that it opens load nothing that only later steps need."""

import subprocess
import sys

LATER = ("matplotlib", "sklearn", "scipy", "torchvision")
CODE = f"""
import sys
import modeguard.offline.data, modeguard.offline.training
from modeguard.offline.recipe import read_recipe
read_recipe("digits", environment={{}})
print(*(name for name in {LATER} if name in sys.modules))
"""


def test_reading_a_recipe_loads_nothing_that_only_later_steps_need() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
