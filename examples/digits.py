"""Find good settings for a classifier of handwritten digits, train it on shards of the data, let them vote.

    python examples/digits.py

Needs nothing but `pip install skyward`: the machines are made on this computer, and scikit-learn is
installed on them, not here. With another provider (`sky.AWS()`, …) nothing else in this file changes.
"""

import itertools
import time
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

import skyward as sky

NODES = 2
IMAGE = sky.Image(pip=["scikit-learn"])
GAMMAS = [0.0001, 0.0005, 0.001, 0.002]
PENALTIES = [1.0, 10.0, 100.0]


@dataclass
class Trial:
    """One pair of hyper-parameters, and how well it did."""

    gamma: float
    penalty: float
    accuracy: float
    node: int
    seconds: float


@dataclass
class Vote:
    """What the model of one shard thinks of every test image: a score for each of the ten digits."""

    node: int
    rows: int
    accuracy: float
    scores: list[list[float]]
    truth: list[int]
    seconds: float


def try_settings(settings: tuple[float, float]) -> Trial:
    """Train with these settings and score by cross-validation. Runs on one node."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import cross_val_score
    from sklearn.svm import SVC

    gamma, penalty = settings
    began = time.perf_counter()
    images, digits = load_digits(return_X_y=True)
    accuracy = float(cross_val_score(SVC(gamma=gamma, C=penalty), images, digits, cv=5).mean())
    print(f"gamma={gamma:g} C={penalty:g}: {accuracy:.4f}")
    return Trial(gamma, penalty, accuracy, sky.instance_info().node, time.perf_counter() - began)


@sky.function
def vote(gamma: float, penalty: float) -> Vote:
    """Train on this node's shard of the training images and judge the test images. Runs on every node."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.svm import SVC

    began = time.perf_counter()
    images, digits = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(images, digits, test_size=0.25, random_state=0)
    my_x, my_y = sky.shard(train_x, train_y, shuffle=True, seed=42)
    model = SVC(gamma=gamma, C=penalty).fit(my_x, my_y)
    print(f"trained on {len(my_y)} of {len(train_y)} images")
    return Vote(
        node=sky.instance_info().node,
        rows=len(my_y),
        accuracy=float(model.score(test_x, test_y)),
        scores=model.decision_function(test_x).tolist(),
        truth=test_y.tolist(),
        seconds=time.perf_counter() - began,
    )


def merged_accuracy(votes: list[Vote]) -> float:
    """The accuracy of the sum of all scores: what one model would say that had seen every shard."""
    right = 0
    for position, truth in enumerate(votes[0].truth):
        totals = [sum(scores) for scores in zip(*(vote.scores[position] for vote in votes), strict=True)]
        right += totals.index(max(totals)) == truth
    return right / len(votes[0].truth)


def report(trials: list[Trial], best: Trial, votes: list[Vote]) -> Table:
    """Every call with its accuracy, its node and how long it took."""
    table = Table(title="Handwritten digits: a map over settings, then a broadcast over shards")
    table.add_column("call")
    for title in ("accuracy", "node", "seconds"):
        table.add_column(title, justify="right")
    for trial in trials:
        call = f"gamma={trial.gamma:g} C={trial.penalty:g}" + ("  ← best" if trial is best else "")
        table.add_row(call, f"{trial.accuracy:.4f}", str(trial.node), f"{trial.seconds:.2f}")
    table.add_section()
    for part in votes:
        call = f"best, on a shard of {part.rows} images"
        table.add_row(call, f"{part.accuracy:.4f}", str(part.node), f"{part.seconds:.2f}")
    table.add_row(f"{len(votes)} shards merged", f"{merged_accuracy(votes):.4f}", "all", "")
    return table


def main() -> None:
    """Search, vote, report."""
    settings = list(itertools.product(GAMMAS, PENALTIES))
    with sky.Compute(provider=sky.Local(), nodes=NODES, image=IMAGE) as pool:
        trials = pool.map(try_settings, settings)
        best = max(trials, key=lambda trial: trial.accuracy)
        votes = vote(best.gamma, best.penalty) @ pool
        Console().print(report(trials, best, votes))


if __name__ == "__main__":
    main()
