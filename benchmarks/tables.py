"""Tables for the documents, made from the JSON in results/: `python -m benchmarks.tables`.

Fills the part of README.md between its result markers and writes docs/benchmarks.md; figures are never typed by hand.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
START, END = "<!-- results:start -->", "<!-- results:end -->"
HEADER = "# Benchmarks\n\nMade by `python -m benchmarks.tables` from `benchmarks/results/*.json`; do not edit.\n"

Record = dict[str, Any]


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def interval(entry: Record) -> str:
    """A rate in per cent with its interval."""
    return f"{100 * entry['value']:.1f} ({100 * entry['low']:.1f}–{100 * entry['high']:.1f})"


def origin(record: Record) -> str:
    """Who made a result, and where."""
    machine = record["machine"]
    return (
        f"`{record['command']}`, commit {record['commit'][:12]}{'+changes' if '+' in record['commit'] else ''}, "
        f"{machine['cpu']}, {machine['n_threads']} of {machine['n_cores']} cores, {machine['device']}, "
        f"torch {machine['libraries']['torch']}."
    )


def described(config: Record) -> str:
    """A detector's choices in words."""
    curves, scorer = config["questions"].get("curves"), config["scorer"]
    points = f"{len(curves['alphas'])} points, {config['n_templates']} templates; " if curves else ""
    options = ", ".join(f"{name} {value}" for name, value in scorer.items() if name != "kind")
    return f"{', '.join(config['features'])}; {points}{scorer['kind']} ({options})"


def detection(record: Record) -> str:
    """How well one recipe detects."""
    evaluation, chosen = record["evaluation"], record["evaluation"]["chosen"]
    config = chosen["config"]
    rows = [
        [
            result["attack"],
            f"{result['n_succeeded']} / {result['n_attacked']}",
            result["n_test_pairs"],
            interval(result["balanced_accuracy"]),
            interval(result["auroc"]),
            interval(result["tpr_at_5_fpr"]),
            f"{100 * result['flagged']:.1f}",
            f"{100 * result['flagged_natural']:.1f}",
        ]
        for result in evaluation["attacks"]
    ]
    columns = [
        "attack",
        "succeeded",
        "test pairs",
        "accuracy %",
        "AUROC %",
        "TPR at 5 % FPR",
        "flagged %",
        "natural flagged %",
    ]
    return "\n".join(
        [
            f"### {record['recipe']}\n",
            table(columns, rows),
            "",
            f"One detector for all attacks, {chosen['n_rows']} rows an image: {described(config)}; the best of "
            f"{evaluation['n_trials']} by cross-validation. {evaluation['n_fit_natural']} natural and "
            f"{evaluation['n_fit_adversarial']} adversarial references, {evaluation['n_calibration']} calibration "
            f"images as they come (the classifier gets {100 * evaluation['natural_accuracy']:.1f} % right). "
            f"Attacks: {'; '.join(record['attacks'].values())}. Intervals: 95 %, bootstrap over test images.",
            "",
            origin(record),
        ]
    )


def what_was_random(record: Record) -> str:
    """A warning where a speed was measured without trained weights or real images."""
    missing = [
        name
        for name, flag in (("weights", "has_trained_weights"), ("images", "has_real_images"))
        if not record.get(flag, True)
    ]
    return f", random {' and '.join(missing)}" if missing else ""


def spread(values: Sequence[float], sign: str = "", digits: int = 1) -> str:
    """Mean and standard deviation of rates in per cent."""
    return f"{100 * statistics.mean(values):{sign}.{digits}f} ± {100 * statistics.stdev(values):.{digits}f}"


def differences(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Value minus base, deal by deal."""
    return [value - other for value, other in zip(values, base, strict=True)]


def _aurocs(record: Record, detector: str) -> dict[str, list[float]]:
    """AUROC of one of the detectors in each deal, by attack."""
    deals = [deal["detectors"][detector]["auroc"] for deal in record["deals"]]
    return {attack: [deal[attack] for deal in deals] for attack in deals[0]}


def fold_deals(record: Record) -> str:
    """The spread over deals of the folds, and simpler detectors on the same folds."""
    chosen = _aurocs(record, "chosen")
    others = [label for label in record["deals"][0]["detectors"] if label != "chosen"]
    rows = [[label, *map(spread, _aurocs(record, label).values())] for label in ("chosen", *others)]
    for label in others:
        gains = (differences(chosen[attack], other) for attack, other in _aurocs(record, label).items())
        rows.append([f"chosen − {label}", *(spread(gain, "+") for gain in gains)])
    return (
        f"### {record['recipe']}, {len(record['deals'])} deals of the folds\n\n{table(['AUROC %', *chosen], rows)}\n\n"
        "Mean and standard deviation over deals; each deal chooses, fits and measures anew, on other folds than the "
        "table above but of the same sources. All detectors have the same references; only the chosen one is tuned. "
        f"{origin(record)}"
    )


def _figures(record: Record, fitted: str, judged: str, attack: str, figure: str = "auroc") -> list[float]:
    """One figure in each deal, of the detectors fitted in one type that judged in one type."""
    cases = (case for deal in record["deals"] for case in deal["cases"])
    return [case[figure][attack] for case in cases if (case["fitted_in"], case["judged_in"]) == (fitted, judged)]


def compute_types(record: Record) -> str:
    """What bfloat16 changes, for a detector that stays in its type and for one that meets the other."""
    exact, rounded = "float32", "bfloat16"
    attacks = list(record["deals"][0]["cases"][0]["auroc"])
    rows = []
    for attack in attacks:
        in_exact, in_rounded = (_figures(record, dtype, dtype, attack) for dtype in (exact, rounded))
        shifts = [
            differences(in_rounded, in_exact),
            differences(_figures(record, exact, rounded, attack), in_exact),
            differences(_figures(record, rounded, exact, attack), in_rounded),
        ]
        fooling = statistics.mean(_figures(record, rounded, rounded, attack, "still_fooling"))
        told = [spread(in_exact), spread(in_rounded), *(spread(shift, "+", digits=2) for shift in shifts)]
        rows.append([attack, *told, f"{100 * fooling:.1f}"])
    columns = [
        "attack",
        "AUROC % in float32",
        "in bfloat16",
        "bfloat16 − float32",
        "fitted in float32, judging in bfloat16",
        "fitted in bfloat16, judging in float32",
        "still fooling in bfloat16, %",
    ]
    flagged = [
        [fitted, judged, *(spread(_figures(record, fitted, judged, attack, "natural_flagged")) for attack in attacks)]
        for fitted in (exact, rounded)
        for judged in (exact, rounded)
    ]
    return (
        f"### {record['recipe']} in float32 and in bfloat16\n\n{table(columns, rows)}\n\nNatural twins flagged, %:\n\n"
        f"{table(['fitted in', 'judging in', *attacks], flagged)}\n\n"
        f"Mean and standard deviation over {len(record['deals'])} deals of the folds. The last two differences are to "
        "the same detector judging in its own type. The detector's choices are the recipe's, for which most of these "
        f"sources were used. Attacks are made in float32. {origin(record)}"
    )


def training(record: Record) -> str:
    """What a full training schedule reaches."""
    config, history, n_test = record["training"], record["history"], record["n_test"]
    told = [entry for entry in history if entry["epoch"] % 5 == 0 or entry["epoch"] in (1, len(history))]
    rows = [
        ["after epoch", *(entry["epoch"] for entry in told)],
        ["test accuracy %", *(f"{100 * entry['test_accuracy']:.1f}" for entry in told)],
        ["loss", *(f"{entry['loss']:.3f}" for entry in told)],
    ]
    averaging = ""
    if config["averaged_epochs"]:
        averaging = (
            f"Then {config['averaged_epochs']} epochs at a rate of {config['averaged_learning_rate']}, with the same "
            "left out, whose weights are averaged: the last accuracy is that of the average, those before are of an "
            "epoch's own. "
        )
    final = "; ".join(
        f"{dtype}: {100 * value:.2f} ± {100 * 1.96 * (value * (1 - value) / n_test) ** 0.5:.2f}"
        for dtype, value in record["test_accuracy"].items()
    )
    return (
        f"### Training of {record['recipe']}\n\n{table(rows[0], rows[1:])}\n\n"
        f"Test accuracy of the finished weights, %: {final} (95 % interval over {n_test:,} test images, by which no "
        f"weights were chosen). {config['epochs']} scheduled epochs of {record['n_train']:,} images in "
        f"{record['computed_in']}; before the last ones, images that are learned are left out (`prune_ratio` "
        f"{config['prune_ratio']}). "
        f"{averaging}{origin(record)}"
    )


def curve_speed(record: Record) -> str:
    """Loss curves beside the bare classifier."""
    rows = [
        [
            entry["classifier"] + what_was_random(entry),
            entry["dtype"],
            entry["n_points"],
            f"{entry['ratio_median']:.3f} ({entry['ratio_min']:.3f}–{entry['ratio_max']:.3f})",
            f"{entry['rows_per_s_curves']:.0f}",
        ]
        for entry in record["curves"]
    ]
    columns = ["classifier", "type", "points", "rows/s over the bare classifier's", "rows/s"]
    return (
        f"### Loss curves\n\n{table(columns, rows)}\n\nMedian and range of {record['rounds']} rounds. {origin(record)}"
    )


def attack_speed(record: Record) -> str:
    """Attacks beside foolbox's."""
    rows = [
        [
            entry["attack"],
            entry["n_images"],
            f"{entry['ratio_median']:.3f} ({entry['ratio_min']:.3f}–{entry['ratio_max']:.3f})",
            f"{100 * entry['ours']['success_rate']:.1f} / {100 * entry['foolbox']['success_rate']:.1f}",
            f"{entry['ours']['median_distance']:.4f} / {entry['foolbox']['median_distance']:.4f}",
        ]
        for entry in record["attacks"]
    ]
    columns = ["attack", "images", "time over foolbox's", "success %, ours / foolbox", "median size, ours / foolbox"]
    return f"### Attacks, {record['classifier']}{what_was_random(record)}\n\n{table(columns, rows)}\n\n{origin(record)}"


def memory(record: Record) -> str:
    """Peak memory of detect."""
    subject = record["classifier"] + what_was_random(record)
    return (
        f"### Memory of `detect`\n\n{record['n_images']} images, {record['n_points']} points, {record['n_templates']} "
        f"templates ({record['n_rows']} rows, {subject}, {record['dtype']}): peak "
        f"{record['peak_above_loaded_mib']:.0f} MiB above the loaded classifier, {record['images_mib']:.0f} MiB of "
        f"them the images. {origin(record)}"
    )


SECTIONS: dict[str, Callable[[Record], str]] = {
    "detection_*.json": detection,
    "fold_deals_*.json": fold_deals,
    "attack_speed*.json": attack_speed,
    "loss_curve_speed*.json": curve_speed,
    "detect_memory*.json": memory,
    "compute_types_*.json": compute_types,
    "training_*.json": training,
}


def sections(results: Path) -> Iterator[str]:
    """Every section that there is a result for."""
    for pattern, make in SECTIONS.items():
        for path in sorted(results.glob(pattern)):
            yield make(json.loads(path.read_text()))


def readme_part(results: Path) -> str:
    """The short tables of the README: AUROC and TPR at 5 % FPR by recipe and attack, and how AUROC spreads."""
    records = [json.loads(path.read_text()) for path in sorted(results.glob("detection_*.json"))]
    if not records:
        return "No results yet; `make bench` makes them."
    attacks = [result["attack"] for result in records[0]["evaluation"]["attacks"]]
    rows = [
        [
            record["recipe"],
            *(
                f"{100 * result['auroc']['value']:.1f} / {100 * result['tpr_at_5_fpr']['value']:.0f}"
                for result in record["evaluation"]["attacks"]
            ),
        ]
        for record in records
    ]
    text = f"AUROC / TPR at 5 % FPR on the test fold, %:\n\n{table(['recipe', *attacks], rows)}\n\n"
    dealt = [json.loads(path.read_text()) for path in sorted(results.glob("fold_deals_*.json"))]
    if dealt:
        spreads = [[record["recipe"], *map(spread, _aurocs(record, "chosen").values())] for record in dealt]
        columns = ["recipe", *_aurocs(dealt[0], "chosen")]
        text += (
            "AUROC over other deals of the folds of the same images, each with its own choice of detector, mean ± "
            f"standard deviation, %:\n\n{table(columns, spreads)}\n\n"
        )
    return f"{text}Intervals, accuracies, cost and speed are in [docs/benchmarks.md](docs/benchmarks.md)."


def main() -> None:
    """Write the tables, or with --check say whether they are up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 if a table is out of date")
    options = parser.parse_args()
    readme = (ROOT / "README.md").read_text()
    before, rest = readme.split(START)
    after = rest.split(END)[1]
    wanted = {
        ROOT / "README.md": f"{before}{START}\n{readme_part(RESULTS)}\n{END}{after}",
        ROOT / "docs" / "benchmarks.md": "\n".join([HEADER, *(f"{section}\n" for section in sections(RESULTS))]),
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if options.check:
        sys.exit(
            f"out of date: {', '.join(path.name for path in stale)}; run python -m benchmarks.tables" if stale else 0
        )
    for path in stale:
        path.write_text(wanted[path])
        print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
