"""The images that a detector is chosen by, fitted on and measured on: sources and their attacked twins, taken together.

A set is named by the sources that it is `among`, (n_sources,) bool, so that an image and its adversarial versions are
never in different sets.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from modeguard.detector import join, pick
from modeguard.detector.questions import Observation
from modeguard.offline.pipeline.steps import Attacked
from modeguard.offline.tuning import LabelledObservation


@dataclass(frozen=True, slots=True, eq=False)
class ObservedSets:
    """What the classifier said of the images of a build.

    Attributes:
        sources: of every source.
        extra: of further natural images; None where there are none.
        attacked: the first sources under each attack, by its name in the recipe.
        adversarial: what the classifier said of these.
    """

    sources: Observation
    extra: Observation | None
    attacked: Mapping[str, Attacked]
    adversarial: Mapping[str, Observation]

    def successes(self, attack: str, among: Tensor) -> Tensor:
        """(n,) bool: images of one attack that fool the classifier, of some sources."""
        attacked = self.attacked[attack]
        return attacked.is_successful & among[: len(attacked)]

    def pairs(self, attack: str, among: Tensor) -> LabelledObservation:
        """Natural twins, then adversarial images, of one attack's successes on some sources."""
        rows = self.successes(attack, among).nonzero()[:, 0]
        both = join([pick(self.sources, rows), pick(self.adversarial[attack], rows)])
        return LabelledObservation(both, torch.arange(2 * len(rows)) >= len(rows), rows.repeat(2))

    def labelled(self, among: Tensor) -> LabelledObservation:
        """Some sources, every successful attack on one of them, and the extra images, each once."""
        rows = among.nonzero()[:, 0]
        observations, sources = [pick(self.sources, rows)], [rows]
        if self.extra is not None:
            observations.append(self.extra)
            sources.append(torch.arange(len(among), len(among) + len(self.extra)))  # sources of nothing else
        n_natural = sum(map(len, observations))
        for name, observation in self.adversarial.items():
            successes = self.successes(name, among).nonzero()[:, 0]
            observations.append(pick(observation, successes))
            sources.append(successes)
        source = torch.cat(sources)
        return LabelledObservation(join(observations), torch.arange(len(source)) >= n_natural, source)
