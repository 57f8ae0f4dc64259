"""The zero of the scale: what can be scored without looking at the image.

A model taught and asked with its images greyed out sees their sizes alone. The blind guesser knows the kind of a
question and gives it always the same answer, the one that would have done best on training cases. The prior knows the
question's words and the image's size, and must know no more than the guesser.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from model.prompt import END_THINK
from model.tasks.suite import Case, Suite, Verdict

_GREY = (127, 127, 127)
_CANDIDATES = 12  # answers of a kind that are tried: the commonest, and numbers cluster
_SHRINKAGE = 0.01  # of the prior's weights
_RARE = 3  # a word in fewer questions, or an answer to fewer, is left out


@dataclass(frozen=True)
class Guess:
    """Two constant answers to a kind of question: the one most often right, and the one with the best score."""

    exact: str
    score: str


def greyed(image: Image.Image) -> Image.Image:
    """An image of the same size with nothing on it."""
    return Image.new("RGB", image.size, _GREY)


def unseen(case: Case) -> Case:
    """The same case with an empty image of its size, which takes hardly any memory."""
    buffer = io.BytesIO()
    Image.new("1", case.size).save(buffer, "PNG")
    return replace(case, image=Image.open(buffer))


def best_guesses(suite: Suite, sample: Iterable[Case]) -> dict[str, Guess]:
    """For each kind of question in the sample its best constant answers, as the suite judges them."""
    kinds: dict[str, list[Case]] = {}
    for case in sample:
        kinds.setdefault(case.kind, []).append(case)
    return {kind: _best(suite, cases) for kind, cases in kinds.items()}


def guessed(suite: Suite, case: Case, guesses: dict[str, Guess]) -> tuple[Verdict, Verdict]:
    """The verdicts on the two guesses; kinds that the sample did not have get an empty answer."""
    guess = guesses.get(case.kind, Guess("", ""))
    return suite.judge(case, f"{END_THINK}{guess.exact}"), suite.judge(case, f"{END_THINK}{guess.score}")


def _best(suite: Suite, cases: Sequence[Case]) -> Guess:
    counted = Counter(case.answer for case in cases)
    candidates = sorted(counted, key=lambda answer: (-counted[answer], answer))[:_CANDIDATES]
    verdicts = {answer: [suite.judge(case, f"{END_THINK}{answer}") for case in cases] for answer in candidates}
    return Guess(
        max(candidates, key=lambda answer: sum(verdict.exact for verdict in verdicts[answer])),
        max(candidates, key=lambda answer: sum(verdict.score for verdict in verdicts[answer])),
    )


# ---- the prior


@dataclass(frozen=True)
class Advantage:
    """What the prior gets right beyond the guesser, in percent of `cases`, with the error bar of that difference."""

    cases: int
    guesser_percent: float
    prior_percent: float
    difference_percent: float
    standard_error_percent: float


def advantage(cases: Sequence[Case], folds: int = 5) -> Advantage:
    """The prior against the guesser, each taught on the other folds and tried on every case once.

    Both choose among answers word for word. Folds are runs of cases, because suites balance their answers over any run
    of seeds: of folds drawn at random, what is common in some would be rare in the rest. ValueError for fewer cases
    than folds.
    """
    if folds < 2 or len(cases) < folds:
        raise ValueError(f"needs at least two folds and as many cases, got {folds} folds and {len(cases)} cases")
    features, answers = _features(cases), [case.answer for case in cases]
    prior, guesser = np.zeros(len(cases)), np.zeros(len(cases))
    of_fold = np.arange(len(cases)) * folds // len(cases)
    for fold in range(folds):
        tried = of_fold == fold
        taught = np.flatnonzero(~tried)
        predicted = _predict(features, answers, taught)
        common = _commonest(cases, taught)
        for i in np.flatnonzero(tried).tolist():
            prior[i] = predicted[i] == answers[i]
            guesser[i] = common.get(cases[i].kind) == answers[i]
    difference = prior - guesser
    return Advantage(
        cases=len(cases),
        guesser_percent=100 * float(guesser.mean()),
        prior_percent=100 * float(prior.mean()),
        difference_percent=100 * float(difference.mean()),
        standard_error_percent=100 * float(difference.std(ddof=1) / np.sqrt(len(cases))),
    )


def _commonest(cases: Sequence[Case], taught: np.ndarray) -> dict[str, str]:
    counted: dict[str, Counter[str]] = {}
    for i in taught.tolist():
        counted.setdefault(cases[i].kind, Counter())[cases[i].answer] += 1
    return {kind: counter.most_common(1)[0][0] for kind, counter in counted.items()}


def _features(cases: Sequence[Case]) -> torch.Tensor:
    """[N, F]: width, height, their ratio and product (logarithms and squares of them), then which words occur."""
    sizes = np.log(np.array([case.size for case in cases], dtype=np.float64))
    plain = np.column_stack([sizes, sizes[:, 0] - sizes[:, 1], sizes.sum(axis=1)])
    continuous = np.column_stack([plain, plain**2])
    spread = continuous.std(axis=0)
    continuous = (continuous - continuous.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0)
    asked = [set(re.findall(r"\w+", case.question.lower())) for case in cases]
    seen = Counter(word for words in asked for word in words)
    vocabulary = sorted(word for word, count in seen.items() if _RARE <= count < len(cases))
    words = np.array([[word in one for word in vocabulary] for one in asked], dtype=np.float64)
    return torch.from_numpy(np.column_stack([continuous, words.reshape(len(cases), -1)]))


def _predict(features: torch.Tensor, answers: Sequence[str], taught: np.ndarray) -> list[str]:
    """Softmax regression on the taught rows, and its likeliest answer for every row. Rare answers are never guessed."""
    counted = Counter(answers[i] for i in taught.tolist())
    names = sorted(name for name, count in counted.items() if count >= _RARE) or sorted(counted)[:1]
    place = {name: number for number, name in enumerate(names)}
    known = [i for i in taught.tolist() if answers[i] in place]
    rows, targets = torch.tensor(known), torch.tensor([place[answers[i]] for i in known])
    weights = torch.zeros(features.shape[1] + 1, len(names), dtype=features.dtype, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def scores(which: torch.Tensor) -> torch.Tensor:
        return which @ weights[:-1] + weights[-1]

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(scores(features[rows]), targets)
        value = value + _SHRINKAGE / 2 * (weights[:-1] ** 2).sum()
        value.backward()
        return value

    optimiser.step(loss)
    with torch.no_grad():
        return [names[number] for number in scores(features).argmax(dim=1).tolist()]
