"""Recipes: the TOML file that says everything about a build, the record that it becomes, and the shipped ones.

Everything is checked before any work begins: names, types, ranges, and what sections must agree on. What a section
means lives with the code that uses it; work that a recipe asks for, and the data it names, do not belong here.
"""

from modeguard.offline.recipe.errors import RecipeError
from modeguard.offline.recipe.reading import read_recipe, shipped_recipes
from modeguard.offline.recipe.recipe import Recipe
from modeguard.offline.recipe.sections import (
    CALIBRATION_SET,
    EXTRA_SET,
    SOURCE_SET,
    AttackPlan,
    ClassifierSection,
    InputSection,
    TemplateConfig,
)

__all__ = [
    "CALIBRATION_SET",
    "EXTRA_SET",
    "SOURCE_SET",
    "AttackPlan",
    "ClassifierSection",
    "InputSection",
    "Recipe",
    "RecipeError",
    "TemplateConfig",
    "read_recipe",
    "shipped_recipes",
]
