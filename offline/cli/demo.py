"""`modeguard demo`: the main job from end to end on data that come with the package."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch
from torch import Tensor

from modeguard.detector import VERDICT_WORDS, Sliced, to_bytes, to_pixels
from modeguard.offline.cli.demo_server import ServerError, running_server
from modeguard.offline.cli.options import ARTIFACTS, ArtifactsOption
from modeguard.offline.cli.resumable import resumable
from modeguard.offline.console import Console
from modeguard.offline.evaluation import evaluation_table
from modeguard.offline.pipeline import Build
from modeguard.offline.recipe import Recipe, read_recipe
from modeguard.offline.report import png_of

__all__ = ["Sample", "ask", "demo", "run_demo", "samples_of"]

_RECIPE = "digits"
_N_NATURAL, _N_PER_ATTACK = 3, 2
_ANSWER_TIMEOUT_S = 60.0
_COLUMNS = ("image", "true label", "predicted", "score", "p-value", "verdict")


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """An image to send.

    Attributes:
        name: what it is, for people.
        label: index of the true class.
        is_adversarial: whether an attack made it.
        image: (c, h, w) uint8, as it is in the file that is sent.
    """

    name: str
    label: int
    is_adversarial: bool
    image: Tensor


def demo(artifacts: ArtifactsOption = ARTIFACTS) -> None:
    """The main job on scikit-learn's digits: build, serve, ask over HTTP, report."""
    with resumable():
        run_demo(artifacts, Console())


def run_demo(artifacts: Path, console: Console, *, recipe: Recipe | None = None) -> None:
    """Build a recipe, serve its bundle, send it natural and adversarial test images, and write a report.

    What an earlier run built is used again.

    Args:
        artifacts: directory of artefacts; those of the demo are in a directory of the recipe's name.
        console: where progress and results are told.
        recipe: None for the shipped recipe "digits".

    Raises:
        ModeguardError: if a step fails, or the server does not do what it should.
    """
    build = Build(recipe or read_recipe(_RECIPE), artifacts, console)
    bundle, report = build.store.root / "bundle", build.store.root / "report.html"
    with build.store.locked(), _one_thread():
        digest = build.write_bundle(bundle)
        samples = samples_of(build)
        console.note("starting the server ...")
        with running_server(bundle, {"torch_threads": "1"}) as url:
            console.note(f"serving the bundle on {url}, sending {len(samples)} images")
            results = ask(url, samples)
        console.note("the server has stopped")
        build.write_report(report, digest=digest)
    _tell_verdicts(console, samples, results, build.dataset.class_names)
    evaluation_table(console, build.evaluation)
    console.say(f"bundle: {bundle.resolve()} (digest {digest})")
    console.say(f"report: {report.resolve()}")


def samples_of(build: Build, *, n_natural: int = _N_NATURAL, n_per_attack: int = _N_PER_ATTACK) -> list[Sample]:
    """Test images of both kinds, as 8-bit files hold them.

    An attack may fail once its image is rounded to 8 bits; such images are natural ones with noise, and left out.

    Args:
        build: a recipe's build.
        n_natural: natural images.
        n_per_attack: adversarial images of each attack, fewer if there are not as many.
    """
    roles, test = build.roles.value, build.dataset.test
    samples = [
        Sample(f"natural {number + 1}", int(test.labels[row]), False, test.images[row])
        for number, row in enumerate(roles.sources[build.folds.is_test][:n_natural].tolist())
    ]
    for offset, name in enumerate(build.recipe.attacks):
        attacked = build.attacked(name).value
        kept = build.sets.successes(name, build.folds.is_test)
        images = to_bytes(attacked.images[kept])
        labels = test.labels[roles.sources[: len(attacked)][kept]]
        fooling = _fooling(build, images, labels)
        build.console.note(f"{name}: {len(fooling)} of {len(images)} attacked test images still fool as 8-bit images")
        # each attack starts at another image, so that not all show the same one
        for number, row in enumerate(fooling.roll(-offset * n_per_attack)[:n_per_attack].tolist()):
            samples.append(Sample(f"{name} {number + 1}", int(labels[row]), True, images[row]))
    return samples


def ask(url: str, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Send images as PNG files, one a request; the server's results, in order.

    Raises:
        ServerError: if the server refuses an image.
        httpx.TransportError: if it cannot be reached.
    """
    results = []
    # without trust_env a proxy of the environment would be asked for the loopback address
    with httpx.Client(base_url=url, timeout=_ANSWER_TIMEOUT_S, trust_env=False) as client:
        for sample in samples:
            headers = {"content-type": "image/png"}
            response = client.post("/v1/detect", content=png_of(sample.image), headers=headers)
            if response.status_code != httpx.codes.OK:
                raise ServerError(f"the server refused {sample.name} with {response.status_code}: {response.text}")
            results += response.json()["results"]
    return results


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one CPU thread: for images as small as these, threads wait for each other more than they work.

    Nor does the result then depend on the number of cores.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def _fooling(build: Build, images: Tensor, labels: Tensor) -> Tensor:
    """Rows of the images (n, c, h, w) uint8 that the classifier takes for another class than their label."""
    with torch.inference_mode():
        logits = Sliced(build.exact_classifier)(to_pixels(images).to(build.device))
    return (logits.argmax(dim=1).cpu() != labels).nonzero()[:, 0]


def _tell_verdicts(
    console: Console, samples: Sequence[Sample], results: Sequence[dict[str, Any]], class_names: Sequence[str]
) -> None:
    rows = [
        [
            sample.name,
            class_names[sample.label],
            result["predicted"]["name"],
            _figure(result["score"]),
            _figure(result["p_value"]),
            VERDICT_WORDS[result["is_adversarial"]],
        ]
        for sample, result in zip(samples, results, strict=True)
    ]
    console.table("the server's verdicts on test images", _COLUMNS, rows)
    flagged = [
        sample.is_adversarial for sample, result in zip(samples, results, strict=True) if result["is_adversarial"]
    ]
    n_adversarial = sum(sample.is_adversarial for sample in samples)
    console.say(
        f"flagged: {sum(flagged)} of {n_adversarial} adversarial images and {len(flagged) - sum(flagged)} of "
        f"{len(samples) - n_adversarial} natural ones"
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
