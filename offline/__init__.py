"""Everything done ahead: data, training, attacks, tuning, evaluation, the report, and the command line over them.

Here: what all its rooms use. Not here: HTTP; the service never imports this, and this never the service.
"""

from modeguard.offline.console import Console, Progress
from modeguard.offline.seeds import seed_of

__all__ = ["Console", "Progress", "seed_of"]
