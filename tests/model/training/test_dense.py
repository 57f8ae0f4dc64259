"""Dense targets: the right place is asked the right question."""

from __future__ import annotations

import math

import pytest
import torch

from model.training.dense import MOST_PATCHES, DenseHead, DetailHead
from model.training.facts import UNKNOWN, Fact, Facts, Line
from model.training.targets import CLASSES, FAR_PATCHES, DenseTargets, targets_of

ONE = Facts((Fact((10.0, 20.0, 30.0, 60.0), 5, 2),))
SCALE = (0.01, 0.01)  # an image of 100 x 100 pixels


def test_patches_inside_a_thing_are_its_own_and_one_cell_has_its_centre() -> None:
    patches = targets_of(ONE, SCALE, 10, 10, owns_centre=False)
    inside = patches.present.view(10, 10).nonzero().tolist()
    assert inside == [[row, column] for row in (2, 3, 4, 5) for column in (1, 2)]
    cells = targets_of(ONE, SCALE, 2, 4, owns_centre=True)
    assert cells.present.nonzero()[:, 0].tolist() == [0]
    assert torch.allclose(cells.boxes[0], torch.tensor([0.1, 0.2, 0.3, 0.6]))
    assert cells.classes[0, :3].tolist() == [5, 2, UNKNOWN]


def test_a_patch_of_a_price_is_asked_for_the_character_printed_there() -> None:
    tag = Facts((Fact((10.0, 0.0, 60.0, 10.0), 5, print=((0.3, 7), (0.6, 10), (0.97, 2))),))
    asked = targets_of(tag, SCALE, 10, 10, owns_centre=False).classes[:10, 3:]
    # of the tag's 50 pixels, 2.5 before and after the middle of each patch: 0.05 and 0.15, 0.25 and 0.35, ...
    assert asked[:, 0].tolist() == [UNKNOWN, 7, 7, 10, 2, 2, *[UNKNOWN] * 4]
    assert asked[:, 1].tolist() == [UNKNOWN, 7, 10, 10, 2, 2, *[UNKNOWN] * 4]


CROSS = Facts(
    (Fact((0.0, 40.0, 10.0, 50.0), 5), Fact((90.0, 40.0, 100.0, 50.0), 6)),
    lines=(
        Line(tuple((x, 45.0) for x in range(10, 91, 2)), ((0.0, 40.0, 10.0, 50.0), (90.0, 40.0, 100.0, 50.0))),
        Line(tuple((55.0, y) for y in range(10, 91, 2)), ((50.0, 0.0, 60.0, 10.0), (50.0, 90.0, 60.0, 100.0))),
    ),
)


def test_a_line_is_asked_for_where_it_runs_how_and_whither() -> None:
    asked = targets_of(CROSS, SCALE, 10, 10, owns_centre=False)
    there = {(at // 10, at % 10) for at in (asked.stroke[:, 0] == 1).nonzero()[:, 0].tolist()}
    assert there == {(4, x) for x in range(1, 10)} | {(y, 5) for y in range(1, 10)}
    assert torch.allclose(asked.stroke[42], torch.tensor([1.0, 1.0, 0.0]))  # flat
    assert torch.allclose(asked.stroke[25], torch.tensor([1.0, -1.0, 0.0]), atol=1e-6)  # upright
    assert torch.allclose(asked.leads[42], torch.tensor([0.05, 0.45, 0.95, 0.45]))
    assert torch.allclose(asked.leads[25], torch.tensor([0.55, 0.05, 0.55, 0.95]))
    assert torch.equal(asked.leads[40], asked.leads[42])  # an icon leads where its line does
    assert (targets_of(ONE, SCALE, 10, 10, owns_centre=False).stroke[:, 0] == -1).all()


def test_a_crossing_is_a_line_that_is_asked_for_no_way() -> None:
    asked = targets_of(CROSS, SCALE, 10, 10, owns_centre=False)
    assert asked.stroke[45].tolist() == [1.0, 0.0, 0.0] and (asked.leads[45] == -1).all()
    assert (asked.leads[0] == -1).all() and asked.stroke[0].tolist() == [0.0, 0.0, 0.0]


def test_a_head_that_knows_where_lines_lead_has_no_loss_of_them() -> None:
    for relative in (False, True):
        targets = DenseTargets.stack([targets_of(CROSS, SCALE, 10, 10, owns_centre=False)])
        head = DenseHead(100, relative=relative)
        known = targets.leads[0, :, 0] > -1
        places = torch.arange(100)
        middles = torch.stack([(places % 10 + 0.5) / 10, (places // 10 + 0.5) / 10] * 2, dim=1)
        says = torch.cat([targets.stroke[0], targets.leads[0]], dim=1)
        says[:, 0] = 60 * says[:, 0] - 30
        says[:, 3:] = (says[:, 3:] - middles) * 4 if relative else says[:, 3:]
        with torch.no_grad():
            features = torch.eye(100)[None]
            basis = torch.cat([head.norm(features)[0], torch.ones(100, 1)], dim=1)  # the norm takes out one dimension
            solution = torch.linalg.pinv(basis.double()).float() @ says
            head.lines.weight.copy_(solution[:100].T)
            head.lines.bias.copy_(solution[100])
            _, right = head(features, targets, 10, 10)
            _, wrong = head(features, targets, 10, 10, order=places.flip(0))
        assert int(known.sum()) == 18 and max(right[name] for name in ("angle", "leads")) < 1e-2
        assert right["stroke"] < 0.5 and (wrong["leads"] > 0.05) is relative


def test_a_maze_is_asked_where_its_middles_and_passages_are() -> None:
    right, down = (1.0, *[0.0] * 15), (*[0.0] * 4, 1.0, *[0.0] * 11)
    passages = ((55.0, 25.0, 1.0), (25.0, 55.0, 0.0))
    maze = Facts(middles=((25.0, 25.0), (85.0, 25.0)), degrees=(1, 2), exits=(right, down), passages=passages)
    targets = targets_of(maze, SCALE, 10, 10, owns_centre=False)
    assert targets.middle[22].tolist() == [1.0, 0.0, 0.0]
    assert targets.exits[22].tolist() == list(right) and targets.exits[28].tolist() == list(down)
    assert int((targets.exits[:, 0] >= 0).sum()) == 2
    assert targets.degree[22] == 1 and targets.degree[28] == 2 and int((targets.degree != UNKNOWN).sum()) == 2
    assert (targets.passage >= 0).nonzero()[:, 0].tolist() == [25, 52]
    assert [float(targets.passage[place]) for place in (25, 52)] == [1.0, 0.0]
    assert (targets_of(ONE, SCALE, 10, 10, owns_centre=False).middle[:, 0] == -1).all()  # no maze, not asked


def test_a_patch_of_a_maze_is_asked_how_far_it_is_to_the_next_wall_in_each_direction() -> None:
    walls = Facts(walls=((55.0, 0.0, 55.0, 47.0), (0.0, 80.0, 100.0, 80.0)))
    rays = targets_of(walls, SCALE, 10, 10, owns_centre=False).rays * FAR_PATCHES
    corner = 2 * 2**0.5  # up to the right both see the first wall, down to the right none
    assert torch.allclose(rays[43, ::2], torch.tensor([2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, corner]), atol=1e-5)
    slant = 1.5 * 2**0.5
    assert torch.allclose(rays[63, ::2], torch.tensor([3.0, slant, 1.5, slant, 3.0, 3.0, 3.0, corner]), atol=1e-5)
    assert float(rays[46, 8]) == pytest.approx(1.0)  # from the other side
    assert float(rays[43, 15]) == pytest.approx(2 / math.cos(math.tau / 16))  # between right and up to the right
    assert (targets_of(walls, SCALE, 2, 4, owns_centre=True).rays == -1).all()  # cells are too coarse
    assert (targets_of(ONE, SCALE, 10, 10, owns_centre=False).rays == -1).all()
    head = DenseHead(8, relative=True)
    assert head.rays is not None
    with torch.no_grad():
        head.rays.weight.zero_()
        head.rays.bias.fill_(1.0)
        _, parts = head(torch.randn(1, 100, 8), DenseTargets.stack([targets_of(walls, SCALE, 10, 10, False)]), 10, 10)
    assert parts["rays"] == pytest.approx(float((1 - rays / FAR_PATCHES).mean()), abs=1e-5)


def test_a_head_that_says_the_truth_has_no_loss_and_one_class_off_costs() -> None:
    targets = DenseTargets.stack([targets_of(ONE, SCALE, 2, 4, owns_centre=True)])
    head = DenseHead(8, relative=False)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        head.out.bias[0] = -30.0  # nothing anywhere
        _, parts = head(torch.zeros(1, 8, 8), targets, 2, 4)
        assert parts["there"] > 3
        head.out.bias[0] = 30.0
        head.kinds.bias[5], head.kinds.bias[CLASSES[0] + 2] = 30.0, 30.0
        head.out.bias[1:5] = torch.tensor([0.1, 0.2, 0.3, 0.6])
        _, right = head(torch.zeros(1, 8, 8), targets, 2, 4)
        head.kinds.bias[6] = 60.0
        _, wrong = head(torch.zeros(1, 8, 8), targets, 2, 4)
    assert right["noun"] < 1e-3 and right["color"] < 1e-3 and right["box"] < 1e-6 and wrong["noun"] > 10


def test_a_relative_head_reads_boxes_from_the_middle_of_each_place() -> None:
    targets = DenseTargets.stack([targets_of(ONE, SCALE, 10, 10, owns_centre=False)])
    head = DenseHead(8, relative=True)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        _, parts = head(torch.zeros(1, 100, 8), targets, 10, 10)
    patches = [(0.15 + 0.1 * column, 0.25 + 0.1 * row) for row in range(4) for column in range(2)]
    off = [abs(edge - (x, y)[i % 2]) for x, y in patches for i, edge in enumerate((0.1, 0.2, 0.3, 0.6))]
    assert abs(parts["box"] - sum(off) / len(off)) < 1e-5


def test_where_nothing_is_known_a_tower_is_asked_nothing() -> None:
    targets = DenseTargets.stack([targets_of(None, SCALE, 2, 4, owns_centre=True)])
    loss, parts = DenseHead(8, relative=True)(torch.randn(1, 8, 8), targets, 2, 4)
    assert float(loss) == 0.0 and parts == {}


def test_every_cell_is_asked_how_far_the_image_goes() -> None:
    targets = DenseTargets.stack([targets_of(ONE, SCALE, 2, 4, owns_centre=True)])
    head = DenseHead(8, relative=False)
    extents = torch.tensor([[5, 11]])
    assert head.extent is not None
    with torch.no_grad():
        head.extent.weight.zero_()
        head.extent.bias.zero_()
        head.extent.bias[5], head.extent.bias[MOST_PATCHES + 11] = 30.0, 30.0
        _, right = head(torch.zeros(1, 8, 8), targets, 2, 4, extents_B2=extents)
        _, wrong = head(torch.zeros(1, 8, 8), targets, 2, 4, extents_B2=extents.flip(1))
    assert right["extent"] < 1e-3 and wrong["extent"] > 10


def test_a_cell_is_asked_what_each_of_its_patches_shows() -> None:
    tag = Fact((10.0, 0.0, 60.0, 10.0), 5, print=((0.3, 7), (0.6, 10), (0.95, 2)))
    facts = Facts((tag,), passages=((5.0, 45.0, 1.0),))
    patches = DenseTargets.stack([targets_of(facts, (0.01, 1 / 60), 6, 9, owns_centre=False)])
    order = torch.tensor([0, 3, 1, 4, 2, 5])  # pairs of rows, as the language model reads cells
    head = DetailHead(6, 3)
    says = torch.zeros(6, 9, 23)  # of a cell by its place in the order
    left, right_of, passages = (x.view(6, 9) for x in (*patches.classes[0, :, 3:].T, patches.passage[0]))
    for slot, cell in enumerate(order.tolist()):
        for patch in range(9):
            at = cell // 3 * 3 + patch // 3, cell % 3 * 3 + patch % 3
            for side, characters in enumerate((left, right_of)):
                says[slot, patch, 11 * side + max(int(characters[at]), 0)] = 30.0
            says[slot, patch, 22] = 30.0 if float(passages[at]) == 1 else -30.0
    assert int((left >= 0).sum()) > 3 and not torch.equal(left, right_of) and int((passages == 1).sum()) == 1
    with torch.no_grad():
        head.norm.weight.fill_(1.0)
        head.out.bias.zero_()
        # Each cell says its own: the features are one-hot by slot, the norm keeps them apart.
        features = torch.eye(6)[None]
        basis = head.norm(features)[0]
        head.out.weight.copy_(torch.linalg.lstsq(basis, says.flatten(1)).solution.T)
        _, right = head(features, patches, 2, 3, order)
        _, wrong = head(features, patches, 2, 3, torch.arange(6))
    assert right["print"] < 1 and right["way"] < 1
    assert wrong["print"] > 2 * max(right["print"], 1)


def test_a_cell_is_asked_over_which_of_its_patches_a_line_runs() -> None:
    patches = DenseTargets.stack([targets_of(CROSS, SCALE, 6, 9, owns_centre=False)])
    order = torch.tensor([0, 3, 1, 4, 2, 5])
    head = DetailHead(6, 3)
    rows = patches.stroke[0, :, 0].view(6, 9)
    says = torch.stack([rows[c // 3 * 3 :, c % 3 * 3 :][:3, :3].flatten() for c in order.tolist()]) * 60 - 30
    with torch.no_grad():
        head.strokes.bias.zero_()
        features = torch.eye(6)[None]
        head.strokes.weight.copy_(torch.linalg.lstsq(head.norm(features)[0], says).solution.T)
        _, right = head(features, patches, 2, 3, order)
        _, wrong = head(features, patches, 2, 3, torch.arange(6))
    assert 0 < int((rows == 1).sum()) < 20 and wrong["stroke"] > 2 * right["stroke"]


def test_a_cell_is_asked_for_the_ways_out_of_each_middle_on_its_patches() -> None:
    right, down = (1.0, *[0.0] * 15), (*[0.0] * 4, 1.0, *[0.0] * 11)
    # Two middles, on two patches of the upper left cell.
    maze = Facts(middles=((1.5, 0.5), (2.5, 1.5)), degrees=(1, 2), exits=(right, down))
    patches = DenseTargets.stack([targets_of(maze, (1 / 9, 1 / 6), 6, 9, owns_centre=False)])
    head = DetailHead(7, 3)
    says = torch.full((6, 9, 17), -30.0)
    for patch, ways in ((1, right), (5, down)):
        says[0, patch, 0] = 30.0
        says[0, patch, 1:] = torch.tensor(ways) * 60 - 30
    with torch.no_grad():
        head.exits.bias.zero_()
        features = torch.eye(7)[None, :6]
        numbers = torch.zeros(6, 9, 5)
        numbers[0, 1, 1], numbers[0, 5, 2] = 60.0, 60.0
        head.degree.weight.copy_(torch.linalg.lstsq(head.norm(features)[0], numbers.flatten(1)).solution.T)
        head.exits.weight.copy_(torch.linalg.lstsq(head.norm(features)[0], says.flatten(1)).solution.T)
        _, right_parts = head(features, patches, 2, 3, torch.tensor([0, 3, 1, 4, 2, 5]))
        _, wrong_parts = head(features, patches, 2, 3, torch.tensor([3, 0, 1, 4, 2, 5]))
    for part in ("centre", "leaves", "ways"):
        assert right_parts[part] < 0.01 and wrong_parts[part] > 1, part


def test_a_cell_is_asked_for_the_name_colour_and_box_of_each_thing_on_its_patches() -> None:
    # Two small things on the upper left cell, whose own answer could name one of them.
    things = (Fact((1.0, 1.0, 9.0, 9.0), 5, 2), Fact((11.0, 11.0, 19.0, 19.0), 7, 3))
    patches = DenseTargets.stack([targets_of(Facts(things), (1 / 90, 1 / 60), 6, 9, owns_centre=False)])
    head = DetailHead(7, 3)
    nouns, colors = CLASSES[:2]
    says = torch.zeros(6, 9, nouns + colors + 4)
    for patch, noun, color, box in ((0, 5, 2, (1, 1, 9, 9)), (4, 7, 3, (11, 11, 19, 19))):
        says[0, patch, noun] = says[0, patch, nouns + color] = 60.0
        says[0, patch, -4:] = torch.tensor(box) / torch.tensor([90, 60, 90, 60])
    with torch.no_grad():
        head.things.bias.zero_()
        features = torch.eye(7)[None, :6]
        head.things.weight.copy_(torch.linalg.lstsq(head.norm(features)[0], says.flatten(1)).solution.T)
        _, right = head(features, patches, 2, 3, torch.tensor([0, 3, 1, 4, 2, 5]))
        _, wrong = head(features, patches, 2, 3, torch.tensor([3, 0, 1, 4, 2, 5]))
    for part in ("thing", "thing_color", "thing_box"):
        assert right[part] < 0.01 and wrong[part] > 10 * right[part] + 0.05, part


def test_a_small_thing_is_worth_as_much_as_a_large_one() -> None:
    # One of 4 patches and one of 16; the head knows the small one's name only.
    things = Facts((Fact((0.0, 0.0, 20.0, 20.0), 5, 2), Fact((40.0, 40.0, 80.0, 80.0), 7, 2)))
    patches = DenseTargets.stack([targets_of(things, SCALE, 10, 10, owns_centre=False)])
    head = DenseHead(4, relative=True)
    with torch.no_grad():
        head.kinds.weight.zero_()
        head.kinds.bias.zero_()
        head.kinds.bias[5] = 10.0
        _, parts = head(torch.randn(1, 100, 4), patches, 10, 10)
    assert int((patches.share > 0).sum()) == 20 and parts["noun"] == pytest.approx(5.0, abs=0.1)
    # The same of the patches of 3 x 3 in cells: one thing is on 1 of them, the other on 9.
    things = Facts((Fact((0.0, 0.0, 10.0, 10.0), 5, 2), Fact((60.0, 30.0, 90.0, 60.0), 7, 2)))
    patches = DenseTargets.stack([targets_of(things, (1 / 90, 1 / 60), 6, 9, owns_centre=False)])
    detail = DetailHead(4, 3)
    with torch.no_grad():
        detail.things.weight.zero_()
        detail.things.bias.zero_()
        detail.things.bias.view(9, -1)[:, 5] = 10.0
        _, parts = detail(torch.randn(1, 6, 4), patches, 2, 3, torch.arange(6))
    assert int((patches.share > 0).sum()) == 10 and parts["thing"] == pytest.approx(5.0, abs=0.1)


def test_a_cell_of_which_nothing_is_known_is_asked_nothing() -> None:
    patches = DenseTargets.stack([targets_of(None, SCALE, 6, 9, owns_centre=False)])
    loss, parts = DetailHead(8, 3)(torch.randn(1, 6, 8), patches, 2, 3, torch.arange(6))
    assert float(loss) == 0.0 and parts == {}
