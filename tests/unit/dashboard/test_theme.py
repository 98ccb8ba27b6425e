from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import dashboard
from dashboard.theme import DARK, LIGHT, Palette, arm_colours, css_properties

ASSETS = Path(dashboard.__path__[0]) / "assets"
SCHEMES = pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
# Machado, Oliveira and Fernandes (2009), full severity.
DEFICIENCIES = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    weights = np.array([0.2126, 0.7152, 0.0722])
    low, high = sorted((float(linear(one) @ weights), float(linear(other) @ weights)))
    return (high + 0.05) / (low + 0.05)


def oklab(light: np.ndarray) -> np.ndarray:
    cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    axes = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return axes @ np.cbrt(cones @ np.clip(light, 0, 1))


@SCHEMES
def test_text_is_readable(colours: Palette) -> None:
    for ink in (
        colours.ink,
        colours.ink_2,
        colours.ink_3,
        colours.accent,
        colours.good,
        colours.warning,
        colours.bad,
    ):
        for ground in (colours.surface, colours.background):
            assert contrast(ink, ground) >= 4.5, (ink, ground)


@SCHEMES
def test_marks_are_visible(colours: Palette) -> None:
    assert all(contrast(colour, colours.surface) >= 3 for colour in colours.categories)


@SCHEMES
@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_no_two_categories_look_alike_to_the_colour_blind(colours: Palette, deficiency: str) -> None:
    matrix = np.array(DEFICIENCIES[deficiency])
    seen = {colour: oklab(matrix @ linear(colour)) for colour in colours.categories}
    for one, other in combinations(colours.categories, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 0.08, (one, other)


def test_stylesheet_has_the_same_colours() -> None:
    css = (ASSETS / "console.css").read_text()
    light, dark = (
        re.search(pattern, css, re.S)
        for pattern in (r":root \{(.*?)\}", r':root\[data-mantine-color-scheme="dark"\] \{(.*?)\}')
    )
    assert light is not None
    assert dark is not None
    for block, colours in ((light.group(1), LIGHT), (dark.group(1), DARK)):
        for name, value in css_properties(colours).items():
            assert re.search(rf"{name}: {value};", block), (name, value)


def test_arm_keeps_its_colour_whatever_is_shown() -> None:
    arms = ("control", "a", "b")
    assert arm_colours(arms, "light")["b"] == LIGHT.categories[2]
    assert len(set(arm_colours([str(place) for place in range(6)], "dark").values())) == 6


def test_nothing_is_fetched_from_elsewhere() -> None:
    for file in ASSETS.rglob("*"):
        if file.suffix in (".css", ".js", ".svg"):
            addresses = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", file.read_text())
            assert set(addresses) <= {"http://www.w3.org"}, file


def test_every_icon_that_is_used_is_drawn() -> None:
    drawn = set(re.findall(r"\.icon-([a-z]+) ", (ASSETS / "icons.css").read_text()))
    used = set()
    for file in Path(dashboard.__path__[0]).rglob("*.py"):
        used |= set(re.findall(r'(?:icon|empty)\(\s*"([a-z]+)"|icon_name="([a-z]+)"', file.read_text()))
    assert {one or other for one, other in used} <= drawn
