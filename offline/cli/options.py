"""Options that several commands take, each with its help; a command gives the default."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "ARTIFACTS",
    "ArtifactsOption",
    "BundleOption",
    "DataOption",
    "DeviceOption",
    "RecipeArgument",
    "SeedOption",
    "SettingsOption",
    "TrustOption",
    "WeightsOption",
]

ARTIFACTS = Path("artifacts")

ArtifactsOption = Annotated[Path, typer.Option("--artifacts", help="Directory where the steps keep their output.")]
BundleOption = Annotated[Path, typer.Option("--bundle", help="Directory of a bundle, as `modeguard build` leaves it.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Directory of the images, or the .npz file; also MODEGUARD_DATA.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda[:N].")]
RecipeArgument = Annotated[str, typer.Argument(help="Name of a shipped recipe, or path of a .toml file.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed in place of the recipe's.")]
SettingsOption = Annotated[
    list[str] | None, typer.Option("--set", help="Change one option, such as attacks.cw.n_steps=150.")
]
WeightsOption = Annotated[Path | None, typer.Option("--weights", help="Directory of weights; also MODEGUARD_WEIGHTS.")]
TrustOption = Annotated[
    list[str] | None,
    typer.Option(
        "--trust-program", help="sha256 of a torch.export program that the bundle may bring as its classifier."
    ),
]
