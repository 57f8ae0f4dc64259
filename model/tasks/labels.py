"""What labels say: words of the shop, of which the test split has its own, and codes that no vocabulary helps with."""

from __future__ import annotations

import numpy as np

from model.tasks.suite import Split

_TRAINING_TEXT = """
    apple bacon basil bread brie cacao cake candy cedar chai chili cider clove coco cola corn cream crisp curry
    dates diet dill dough extra farm figs fizzy flour fresh fruit fudge garlic gift ginger grape gravy green
    guava half herb honey hot iced jam juice kale kiwi large leek lemon light lime local maize malt mango maple
    melon milk mini mint mocha new nougat oat olive onion orange order oven papaya party pasta peach pear pecan
    pepper pine pizza plain plum pork prime prune pure quince raw rice ripe roast rose rum rye sage salt sauce
    seed sesame soda soft soup sour soy spice steak stew sugar sweet syrup tea thyme toast today tofu tuna two
    vanilla vegan wheat whole wild yam zest
"""
_HELD_OUT_TEXT = """
    aged almond bagel banana barley bean beet berry bran broth butter cashew celery cheese cherry cocoa coffee
    cookie crumb deluxe dry duck family fennel fine free ghee ham hazel jelly kosher lentil menu mild mousse
    nacho noodle nut oregano parsley peanut pesto pickle potato promo radish ramen relish saffron sale salsa
    smoked snack sprout tahini tart toffee tomato truffle turnip value waffle yeast
"""
TRAINING_WORDS = tuple(_TRAINING_TEXT.split())
HELD_OUT_WORDS = tuple(_HELD_OUT_TEXT.split())
# No letter that passes for a digit or another letter, and none that is far wider than the rest.
CODE_LETTERS = "ACDEFHJKLNPRTUVXY"
CODE_DIGITS = "34679"

_CODE_SHARE = 0.5
_LONGEST_CODE = 5


def words(split: Split) -> tuple[str, ...]:
    """The words of a split's labels; test's are its own."""
    return HELD_OUT_WORDS if split == "test" else TRAINING_WORDS


def draw_labels(rng: np.random.Generator, n: int, longest: int, split: Split) -> list[str]:
    """`n` labels that differ, of at most `longest` characters (3 or more), half of them codes."""
    known = [word for word in words(split) if len(word) <= longest]
    chosen: list[str] = []
    while len(chosen) < n:
        label = _code(rng, longest) if rng.random() < _CODE_SHARE else known[int(rng.integers(len(known)))]
        if label not in chosen:
            chosen.append(label)
    return chosen


def widest_labels(longest: int, split: Split) -> list[str]:
    """Labels of which one is at least as wide, in any font, as each that `draw_labels` gives."""
    letters = min(longest, _LONGEST_CODE) - 1
    return [*(word for word in words(split) if len(word) <= longest), *(f"{c * letters}4" for c in CODE_LETTERS)]


def _code(rng: np.random.Generator, longest: int) -> str:
    """Letters, then one digit or two."""
    length = int(rng.integers(3, min(longest, _LONGEST_CODE) + 1))
    digits = int(rng.integers(1, 3))
    letters = rng.choice(list(CODE_LETTERS), size=length - digits)
    return "".join([*letters, *rng.choice(list(CODE_DIGITS), size=digits)])
