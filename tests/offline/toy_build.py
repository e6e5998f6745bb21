"""A build of the digits that takes seconds: few images, two attacks, a small grid."""

from dataclasses import replace

from modeguard.offline.recipe import Recipe, read_recipe

SETTINGS = (
    "split.n_calibration=40",
    "split.n_sources=60",
    "split.n_extra=10",
    "training.epochs=8",
    "templates.n_templates=2",
    "templates.max_loss=0.5",
    "attacks.cw.n_sources=60",
    "attacks.fgsm.epsilon=0.2",
    "attacks.bim.epsilon=0.2",
    "detector.n_points=[5]",
    "detector.n_templates=[1, 2]",
    "detector.n_neighbors=[5]",
    'detector.weights=["distance"]',
    'detector.scaling=["standard"]',
    "evaluation.n_bootstrap=20",
)


def toy_recipe() -> Recipe:
    """Two attacks on a few digits."""
    recipe = read_recipe("digits", settings=SETTINGS, environment={})
    return replace(recipe, name="toy", attacks={name: recipe.attacks[name] for name in ("fgsm", "bim")})
