"""What is drawn is what was built, and a person can tell the families apart."""

import keras
import pytest
from matplotlib.image import imread
from matplotlib.patches import PathPatch
from matplotlib.text import Text

from keras_zoo import build, card, charts, drawing
from keras_zoo.registry import CARDS
from keras_zoo.structure import Box, Fork, chain


def _chain(name):
    with keras.StatelessScope(initialize_variables=False):
        return chain(build(name))


def _kinds(elements):
    return [element.kind if isinstance(element, Box) else element.merge for element in elements]


def _kernels(elements):
    return [element.kernel_px[0] for element in elements if isinstance(element, Box)]


def test_vgg16_is_thirteen_convolutions_five_poolings_and_three_dense_layers():
    stages = [kind for depth in (2, 2, 3, 3, 3) for kind in ["conv"] * depth + ["pool"]]
    assert _kinds(_chain("vgg16")) == [*stages, "dense", "dense", "dense"]


def test_alexnet_has_two_groups_in_the_second_fourth_and_fifth_convolution():
    convolutions = [box for box in _chain("alexnet") if box.kind == "conv"]
    assert [box.groups for box in convolutions] == [1, 2, 1, 2, 2]
    assert [box.kernel_px for box in convolutions][:2] == [(11, 11), (5, 5)]


def test_googlenet_has_nine_modules_of_four_branches_in_the_order_of_the_paper():
    modules = [element for element in _chain("googlenet") if isinstance(element, Fork)]
    assert [module.merge for module in modules] == ["concatenate"] * 9
    assert [module.channels for module in modules][:3] == [256, 480, 512]
    for module in modules:
        direct, three, five, pooled = module.branches
        assert (_kernels(direct), _kernels(three), _kernels(five)) == ([1], [1, 3], [1, 5])
        assert _kinds(pooled) == ["pool", "conv"]


def test_inception_v3_forks_within_the_branches_of_its_last_modules():
    *_, last = [element for element in _chain("inception_v3") if isinstance(element, Fork)]
    inner = [element for branch in last.branches for element in branch if isinstance(element, Fork)]
    assert [sorted(box.kernel_px for (box,) in fork.branches) for fork in inner] == [
        [(1, 3), (3, 1)]
    ] * 2


@pytest.mark.parametrize(
    ("name", "blocks", "depth"), [("resnet18", 8, 2), ("resnet50", 16, 3), ("resnet50_v2", 16, 3)]
)
def test_a_resnet_has_a_shortcut_over_every_block(name, blocks, depth):
    forks = [element for element in _chain(name) if isinstance(element, Fork)]
    assert [fork.merge for fork in forks] == ["add"] * blocks
    for fork in forks:
        lengths = sorted(map(len, fork.branches))
        assert lengths in ([0, depth], [1, depth])


def test_a_gate_multiplies_within_each_block_of_a_squeeze_and_excitation_network():
    block = next(element for element in _chain("seresnet50") if isinstance(element, Fork))
    main = max(block.branches, key=len)
    assert _kinds(main) == ["conv", "conv", "conv", "multiply"]
    assert sorted(map(_kinds, main[-1].branches)) == [[], ["pool", "conv", "conv"]]


@pytest.mark.parametrize("name", {row.family: name for name, row in CARDS.items()}.values())
def test_a_network_of_every_family_is_drawn_with_all_its_layers(name, tmp_path):
    elements = _chain(name)
    figure = drawing.architecture(elements, card(name))
    path = tmp_path / f"{name}.png"
    charts.save(figure, path)
    height, width, _ = imread(path).shape
    assert width > 2 * height > 1000
    arcs = [patch for patch in figure.axes[0].patches if isinstance(patch, PathPatch)]
    assert len(arcs) == _kinds(elements).count("add")
    words = {text.get_text() for text in figure.axes[0].texts}
    assert name in words
    assert {f"{element.size_px}x{element.size_px}" for element in elements} <= words


def test_a_chart_names_each_network_once_and_overlaps_no_two_names():
    rows = [row for row in CARDS.values() if row.published]
    for chart in (charts.timeline, charts.quadrant):
        figure = chart(list(CARDS.values()))
        figure.draw_without_rendering()
        names = [text for text in figure.axes[0].texts if text.get_text()]
        assert sorted(text.get_text() for text in names) == sorted(row.name for row in rows)
        boxes = [Text.get_window_extent(name) for name in names]
        overlaps = [
            (one, other)
            for one in range(len(boxes))
            for other in range(one)
            if boxes[one].shrunk(0.9, 0.7).overlaps(boxes[other].shrunk(0.9, 0.7))
        ]
        assert overlaps == []


def test_the_area_of_a_bubble_is_in_proportion_to_the_parameters():
    figure = charts.quadrant([card("googlenet"), card("vgg16")])
    areas = [collection.get_sizes()[0] for collection in figure.axes[0].collections]
    parameters = [card("vgg16").parameters, card("googlenet").parameters]
    assert areas[0] / areas[1] == pytest.approx(parameters[0] / parameters[1])


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_same_chart_is_the_same_file(tmp_path, suffix):
    files = [tmp_path / f"{number}{suffix}" for number in (1, 2)]
    for path in files:
        charts.save(charts.quadrant([card("alexnet"), card("vgg16")]), path)
    first, second = (path.read_bytes() for path in files)
    assert first == second
    assert sorted(tmp_path.iterdir()) == files


def test_a_chart_without_a_published_accuracy_says_so():
    with pytest.raises(ValueError, match="no published accuracy"):
        charts.quadrant([card("simple_cnn")])
