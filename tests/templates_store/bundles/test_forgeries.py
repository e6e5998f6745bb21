"""Everything that must not be read as a bundle: damaged, swapped, forged."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeguard.templates_store.bundles import DETECTOR_FILE, MANIFEST_FILE, BundleError, read_bundle
from modeguard.templates_store.classifiers import ClassifierError, save_weights
from tests.templates_store.bundles.toy_bundle import edit_manifest, random_classifier, rehash


def truncate(path: Path) -> None:
    file = path / DETECTOR_FILE
    file.write_bytes(file.read_bytes()[:-7])


def flip_a_byte(path: Path) -> None:
    file = path / "classifier.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(bytes(data))


def put_nan(name: str) -> Callable[[Path], None]:
    def forge(path: Path) -> None:
        tensors = load_file(path / DETECTOR_FILE)
        tensors[name][0] = float("nan")
        save_file(tensors, path / DETECTOR_FILE)
        rehash(path, DETECTOR_FILE)

    return forge


def change_shape(path: Path) -> None:
    tensors = load_file(path / DETECTOR_FILE)
    tensors["calibration_scores"] = tensors["calibration_scores"][1:].clone()
    save_file(tensors, path / DETECTOR_FILE)
    rehash(path, DETECTOR_FILE)


def no_safetensors(path: Path) -> None:
    (path / DETECTOR_FILE).write_bytes(b"not a tensor")
    rehash(path, DETECTOR_FILE)


def other_version(path: Path) -> None:
    edit_manifest(path, lambda manifest: manifest.update(format_version=99))


def other_classifier(path: Path) -> None:
    save_weights(random_classifier(1), path / "classifier.safetensors")
    rehash(path, "classifier.safetensors")


def without_tensor(path: Path) -> None:
    tensors = load_file(path / DETECTOR_FILE)
    del tensors["scorer.scaling.scale"]
    save_file(tensors, path / DETECTOR_FILE)
    rehash(path, DETECTOR_FILE)
    edit_manifest(path, lambda manifest: manifest["files"][DETECTOR_FILE]["tensors"].pop("scorer.scaling.scale"))


def unsorted_calibration(path: Path) -> None:
    tensors = load_file(path / DETECTOR_FILE)
    tensors["calibration_scores"] = tensors["calibration_scores"].flip(0).contiguous()
    save_file(tensors, path / DETECTOR_FILE)
    rehash(path, DETECTOR_FILE)


def as_type(name: str, dtype: torch.dtype) -> Callable[[Path], None]:
    def forge(path: Path) -> None:
        tensors = load_file(path / DETECTOR_FILE)
        tensors[name] = tensors[name].to(dtype)
        save_file(tensors, path / DETECTOR_FILE)
        rehash(path, DETECTOR_FILE)
        described = str(dtype).removeprefix("torch.")
        edit_manifest(path, lambda m: m["files"][DETECTOR_FILE]["tensors"][name].update(dtype=described))

    return forge


def negative_class(path: Path) -> None:
    tensors = load_file(path / DETECTOR_FILE)
    tensors["templates.classes"][0] = -1
    save_file(tensors, path / DETECTOR_FILE)
    rehash(path, DETECTOR_FILE)


def no_scale(path: Path) -> None:
    tensors = load_file(path / DETECTOR_FILE)
    tensors["scorer.scaling.scale"][0] = 0.0
    save_file(tensors, path / DETECTOR_FILE)
    rehash(path, DETECTOR_FILE)


def other_choices(**choices: object) -> Callable[[Path], None]:
    return lambda path: edit_manifest(path, lambda manifest: manifest["detector"].update(choices))


def with_noise(**options: object) -> Callable[[Path], None]:
    questions: dict[str, object] = {"curves": {"alphas": [0.0, 0.5, 1.0]}, "noise": options}
    return other_choices(features=["loss_curve", "sorted_logits", "stability"], questions=questions)


def pipe(path: Path) -> None:
    (path / MANIFEST_FILE).unlink()
    os.mkfifo(path / MANIFEST_FILE)


def name_of_many_lines(path: Path) -> None:
    tensors = load_file(path / DETECTOR_FILE)
    save_file({**tensors, "a\nb\x1b" + 9999 * "c": torch.zeros(1)}, path / DETECTOR_FILE)
    rehash(path, DETECTOR_FILE)
    described = {"shape": [1], "dtype": "float32"}
    edit_manifest(path, lambda m: m["files"][DETECTOR_FILE]["tensors"].update({"a\nb\x1b" + 9999 * "c": described}))


FORGERIES = {
    "many points": (
        other_choices(questions={"curves": {"alphas": [k / 9999 for k in range(10_000)]}}, n_templates=9),
        r"manifest\.json: an image would cost 8\.998e\+04 rows",
    ),
    "a million points": (
        other_choices(questions={"curves": {"alphas": [k / 999_999 for k in range(1_000_000)]}}),
        r"manifest\.json is not the manifest of a bundle: .* at most 4194304 bytes",
    ),
    "more points than any path has": (
        other_choices(questions={"curves": {"alphas": ["a"] * 100_000}}),
        r"manifest\.json is damaged: detector: .*alphas is at most 10000 long, got 100000",
    ),
    "points that float32 takes for one": (
        other_choices(questions={"curves": {"alphas": [0.0, 1e-320, 0.5, 1.0]}}),
        r"manifest\.json is damaged: detector: .*alphas are ascending within \[0, 1\], also in float32",
    ),
    "a rate of nothing": (other_choices(target_fpr=1e-320), r"manifest\.json is damaged: detector: .*target_fpr is a"),
    "noise without end": (with_noise(n_draws=10**12), r"manifest\.json: an image would cost 4e\+12 rows"),
    "a device in place of a file": (pipe, r"manifest\.json cannot be read: it is no regular file"),
    "a name of many lines": (name_of_many_lines, r"detector\.safetensors: Detector has no tensor a b c+…$"),
    "calibration out of order": (unsorted_calibration, r"detector\.safetensors: calibration_scores are one ascending"),
    "classes that are no integers": (
        as_type("templates.classes", torch.float32),
        r"detector\.safetensors: classes of ClassTemplates is stored as torch\.int64, got torch\.float32",
    ),
    "numbers of eight bits": (
        as_type("templates.losses", torch.float8_e4m3fn),
        r"detector\.safetensors: losses of ClassTemplates is stored as torch\.float32, got torch\.float8_e4m3fn",
    ),
    "a negative class": (negative_class, r"detector\.safetensors: the classes of templates are int64, from 0"),
    "no scale": (no_scale, r"detector\.safetensors: the scale of a feature is a positive"),
    "a family not known here": (other_choices(features=["telepathy"]), r"do not fit together: unknown feature"),
    "other families": (other_choices(features=["loss_curve"]), r"do not fit together: features of shape"),
    "more templates": (other_choices(n_templates=2), r"do not fit together: .* hold no selection .* 2 templates"),
    "alphas out of order": (
        other_choices(questions={"curves": {"alphas": [1.0, 0.0]}}),
        r"manifest\.json is damaged: detector: .*alphas are ascending",
    ),
    "alphas that are NaN": (
        other_choices(questions={"curves": {"alphas": [float("nan")]}}),
        r"manifest\.json is damaged: detector",
    ),
    "a question not known here": (
        other_choices(questions={"seance": {}}),
        r"manifest\.json is damaged: detector: .*unknown question 'seance'; the known ones are curves, noise",
    ),
    "an option not known here": (
        other_choices(questions={"curves": {"colour": 1}}),
        r"manifest\.json is damaged: detector: .*unknown colour; the known ones are alphas",
    ),
    "a scorer not known here": (
        other_choices(scorer={"kind": "oracle"}),
        r"manifest\.json is damaged: detector: .*unknown scorer 'oracle'; the known ones are neighbors",
    ),
    "text for a number": (
        other_choices(scorer={"kind": "neighbors", "n_neighbors": "3"}),
        r"manifest\.json is damaged: detector",
    ),
    "the version before": (
        lambda path: edit_manifest(path, lambda manifest: manifest.update(format_version=2)),
        r"manifest\.json has format version 2, this modeguard reads version 3; build the bundle again",
    ),
    "too strict an FPR": (other_choices(target_fpr=0.001), r"manifest\.json: a target FPR of 0\.001 needs 999"),
    "other images": (
        lambda path: edit_manifest(path, lambda manifest: manifest["input"].update(shape=[3, 8, 8])),
        r"manifest\.json: images are made \(3, 8, 8\), but the classifier takes \(1, 8, 8\)",
    ),
    "truncated": (truncate, r"detector\.safetensors is not the file .*sha256.* cut short"),
    "tampered": (flip_a_byte, r"classifier\.safetensors is not the file .* changed or swapped"),
    "NaN": (
        put_nan("calibration_scores"),
        r"detector\.safetensors: calibration_scores are one ascending row of finite",
    ),
    "NaN elsewhere": (
        put_nan("templates.losses"),
        r"detector\.safetensors: tensor 'templates\.losses' has values that",
    ),
    "another shape": (change_shape, r"detector\.safetensors: tensor 'calibration_scores' is TensorInfo"),
    "not safetensors": (no_safetensors, r"detector\.safetensors is no safetensors file"),
    "another version": (other_version, r"manifest\.json has format version 99, this modeguard reads version 3"),
    "another classifier": (other_classifier, r"classifier\.safetensors is not the classifier that the detector was"),
    "a missing tensor": (
        without_tensor,
        r"detector\.safetensors: Scaling needs the tensor scale, which is missing",
    ),
    "no manifest": (lambda path: (path / MANIFEST_FILE).unlink(), r"manifest\.json cannot be read: No such file"),
    "no classifier": (
        lambda path: (path / "classifier.safetensors").unlink(),
        r"classifier\.safetensors cannot be read",
    ),
    "no JSON": (lambda path: (path / MANIFEST_FILE).write_text("{"), r"manifest\.json is not the manifest of a bundle"),
    "an unknown entry": (
        lambda path: edit_manifest(path, lambda m: m.update(extra=1)),
        r"manifest\.json is damaged: extra",
    ),
    "no compute type": (
        lambda path: edit_manifest(path, lambda m: m.pop("compute_dtype")),
        r"manifest\.json is damaged: compute_dtype",
    ),
    "an unknown compute type": (
        lambda path: edit_manifest(path, lambda m: m.update(compute_dtype="float16")),
        r"manifest\.json is damaged: compute_dtype",
    ),
    "no seeds": (lambda path: edit_manifest(path, lambda m: m.pop("seeds")), r"manifest\.json is damaged: seeds"),
    "too few names": (
        lambda path: edit_manifest(path, lambda m: m["class_names"].pop()),
        r"3 class names were expected",
    ),
}


@pytest.mark.parametrize(("forge", "message"), FORGERIES.values(), ids=FORGERIES.keys())
def test_a_bad_bundle_is_refused_with_file_and_reason(
    path: Path, forge: Callable[[Path], object], message: str
) -> None:
    forge(path)
    with pytest.raises(BundleError, match=message):
        read_bundle(path)


def test_a_network_that_would_fill_the_machine_is_never_made(path: Path) -> None:
    side = 10**6
    edit_manifest(path, lambda manifest: manifest["classifier"].update(input_shape=[1, side, side]))
    with pytest.raises(ClassifierError, match=r"classifier\.safetensors holds the weights of another architecture"):
        read_bundle(path)
