"""Make the sheet of pictograms: `python catalogs/make_pictograms.py PACKAGE` writes model/tasks/data/pictograms/.

PACKAGE is the unpacked npm package @phosphor-icons/core, version 2.1.1 (MIT): `npm pack @phosphor-icons/core@2.1.1` and
`tar xzf`. Rendering needs the Python package resvg-py (0.5.0 made the sheet), which nothing else here does.
Kinds were chosen by eye: filled, told apart at 24 pixels, a common word for each, and none a kind of another.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
from pathlib import Path
from typing import NamedTuple

from PIL import Image

DATA = Path(__file__).parents[1] / "model" / "tasks" / "data" / "pictograms"
PACKAGE = "@phosphor-icons/core 2.1.1"
SIDE, COLUMNS = 96, 16  # pixels of a cell, cells a row
HELD_OUT_EVERY = 5  # of the names in their order, one in five is the test split's own

# icon, icon=name, icon=name/plural or icon/plural; the plural is by rule where it is not said.
KINDS = """
acorn, airplane-tilt=airplane, alien, anchor, atom, avocado, axe, baby-carriage=stroller, backpack, barbell,
barn, baseball-cap=baseball cap, basket, basketball, bathtub, battery-full=battery, beanie, bed, beer-bottle=bottle,
beer-stein=mug, bell, bicycle, bird, boat, bomb, bone, book-open=book, boot, bowl-steam=bowl,
boxing-glove=boxing glove, brain, bridge, briefcase, broom, bug-beetle=beetle, bulldozer,
bus, butterfly, cable-car=cable car, cactus/cacti, cake, calculator, calendar-dots=calendar, camera, campfire, car,
carrot, cassette-tape=cassette, castle-turret=castle, cat, chair, chef-hat=chef hat, church, clipboard, clock, cloud,
clover, coat-hanger=hanger, coffee=cup, cookie, cooking-pot=pot, couch, cow, cowboy-hat=cowboy hat, crown,
desktop=monitor, dice-five=die/dice, dog, door, dress, dresser, drone, ear, envelope, eraser, eye, factory, fan,
feather, film-slate=clapperboard, fire-extinguisher=fire extinguisher, fire=flame, fish/fish, flag, flashlight, flask,
flower, flying-saucer=flying saucer, folder, football, football-helmet=helmet, game-controller=controller,
gas-pump=gas pump, gear, ghost, gift, globe-stand=globe, graduation-cap=graduation cap, guitar, hair-dryer=hair dryer,
hamburger=burger, hammer, hand, handbag, hard-hat=hard hat, headset, high-heel=high heel, hoodie, horse, hourglass,
house, ice-cream=ice cream, joystick, key, keyboard, knife/knives, ladder, lamp, laptop, leaf/leaves, lego=brick,
lifebuoy, lightbulb=light bulb, lighthouse, lightning=lightning bolt, lock, magic-wand=magic wand, magnet,
magnifying-glass=magnifying glass, mailbox, map-trifold=map, mask-happy=mask, martini=cocktail, medal, megaphone,
meteor, microphone, microscope, moon, motorcycle, mouse/mice, music-note=music note, oven, package=box,
paint-brush=paintbrush, paint-roller=paint roller, palette, paper-plane-tilt=paper plane, parachute, paw-print=paw,
pencil, pepper, person/people, phone, piano-keys=piano, piggy-bank=piggy bank, pill, ping-pong=paddle, pinwheel, pizza,
planet, plug, popsicle, potted-plant=plant, printer, push-pin=pin, puzzle-piece=puzzle piece, rabbit, racquet=racket,
radio, rainbow, robot, rocket, ruler, scooter, screwdriver, shield, shopping-cart=cart, shovel, shrimp/shrimps,
signpost, siren, skull, smiley, sneaker, snowflake, soccer-ball=soccer ball, sock, speaker-hifi=speaker, spiral, stamp,
stethoscope, stool, storefront=shop, suitcase-rolling=suitcase, sun, sword, syringe, t-shirt, tag, tea-bag=tea bag,
television, tent, test-tube=test tube, thermometer, toilet, tooth/teeth, tornado, tractor, traffic-cone=traffic cone,
traffic-signal=traffic light, train, trash=trash can, treasure-chest=chest, tree-evergreen=pine, tree-palm=palm,
trophy, truck, umbrella, vault=safe, virus, watch, wheelchair, windmill, wine=wine glass, wrench
"""


class Kind(NamedTuple):
    """One kind of pictogram: its icon in the package and what English calls it."""

    icon: str
    name: str
    plural: str


def kinds(table: str = KINDS) -> list[Kind]:
    """The kinds of a table, by name."""
    found = []
    for entry in " ".join(table.split()).split(", "):
        words, _, said = entry.partition("/")
        icon, _, name = words.partition("=")
        name = name or icon
        found.append(Kind(icon, name, said or plural(name)))
    return sorted(found, key=lambda kind: kind.name)


def plural(name: str) -> str:
    """The regular plural of a name: box -> boxes, battery -> batteries."""
    if name.endswith(("s", "x", "ch", "sh")):
        return name + "es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"


def render(svg: Path) -> Image.Image:
    """The coverage of a drawing, its longer side SIDE pixels, cut to what is drawn."""
    import resvg_py

    drawn = Image.open(io.BytesIO(resvg_py.svg_to_bytes(svg_path=str(svg), width=8 * SIDE, height=8 * SIDE)))
    return fit(drawn.getchannel("A"))


def fit(mask: Image.Image) -> Image.Image:
    """A mask cut to what it covers and scaled, so that its longer side is SIDE pixels. ValueError when it is empty."""
    box = mask.getbbox()
    if box is None:
        raise ValueError("a drawing covers nothing: is this the package's folder assets/fill?")
    cut = mask.crop(box)
    scale = SIDE / max(cut.size)
    return cut.resize((round(cut.width * scale), round(cut.height * scale)), Image.Resampling.BOX)


def make_sheet(masks: list[Image.Image]) -> Image.Image:
    """All masks on one sheet, each at its cell's upper left corner, row by row."""
    sheet = Image.new("L", (COLUMNS * SIDE, -(-len(masks) // COLUMNS) * SIDE))
    for index, mask in enumerate(masks):
        sheet.paste(mask, (index % COLUMNS * SIDE, index // COLUMNS * SIDE))
    return sheet


def make_names(masks: list[Image.Image]) -> dict[str, object]:
    """What the sheet's cells hold, in their order."""
    rows = [
        {"name": kind.name, "plural": kind.plural, "icon": kind.icon, "size": list(mask.size),
         "held_out": index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1}
        for index, (kind, mask) in enumerate(zip(kinds(), masks, strict=True))
    ]  # fmt: skip
    return {"source": f"{PACKAGE}, weight fill", "side": SIDE, "columns": COLUMNS, "kinds": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description="Render the pictograms of an icon package into one sheet.")
    parser.add_argument("package", type=Path, help="the unpacked package")
    package = parser.parse_args().package
    masks = [render(package / "assets" / "fill" / f"{kind.icon}-fill.svg") for kind in kinds()]
    DATA.mkdir(parents=True, exist_ok=True)
    make_sheet(masks).save(DATA / "sheet.png", optimize=True)
    names = json.dumps(make_names(masks)).replace('{"name"', '\n{"name"')  # one kind a line
    (DATA / "names.json").write_text(names + "\n")
    shutil.copy(package / "LICENSE", DATA / "LICENSE-phosphor-icons")
    print(f"{len(masks)} kinds, {(DATA / 'sheet.png').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
