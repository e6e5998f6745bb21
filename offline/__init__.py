"""Everything done ahead: data, training, attacks, tuning, evaluation, the report, and the command line over them.

Here: what all its rooms use. Not here: HTTP; the service never imports this, and this never the service. Its rooms:

    recipe/      from a TOML file to a record of everything that a build does; the shipped recipes
    data/        data sets by name, and which of their images play which part
    training/    a classifier from random weights
    attacks/     attacks by name
    tuning/      choosing a detector
    evaluation/  measuring it
    report/      the HTML page
    pipeline/    the steps of a build, which uses all of the above
    cli/         the commands
"""

from modeguard.offline.console import Console, Progress
from modeguard.offline.seeds import seed_of

__all__ = ["Console", "Progress", "seed_of"]
