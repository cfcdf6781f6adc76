"""The page at `/`: over HTTP, and in a real browser as someone uses it.

The browser's part needs Debian's chromium and is skipped where there is none.
"""

import asyncio
import base64
import io
import re
import shutil
import threading
from pathlib import Path

import colour_model
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from served import ask, one_colour, serving, until

from pipelines.serving.admission import Call

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LONG_NAME = "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch" * 2
PHONE = {"viewport": {"width": 375, "height": 667}, "has_touch": True, "is_mobile": True}
PLACES = 8
# On a machine that is busy with other things.
PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    colour_model.write(folder / "colour" / "1")
    colour_model.write(folder / "farbe" / "2", ("rot", LONG_NAME, "blau"))
    with serving(folder, max_image_mpx=1, max_in_flight=PLACES, max_instances=1) as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("no chromium; apt-get install -y chromium --no-install-recommends")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, server):
    """Opens the page as a browser with some settings does; at the end nothing was amiss on it."""
    contexts, amiss = [], []

    def opened(**settings):
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: amiss.append(str(error)))
        page.on("console", lambda line: amiss.append(line.text) if "CSP" in line.text else None)
        page.on("request", lambda request: elsewhere(request.url))
        page.goto(server)
        expect(page.get_by_role("option")).to_have_count(2)
        return page

    def elsewhere(url):
        if not url.startswith((server, "data:", f"blob:{server}")):
            amiss.append(url)

    yield opened
    for context in contexts:
        context.close()
    assert not amiss


@pytest.fixture
def page(open_page):
    return open_page()


def two_halves(left, right, side=64):
    image = Image.new("RGB", (side, side), left)
    image.paste(right, (side // 2, 0, side, side))
    return image


def encoded(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def decoded(address):
    """The pixels of a PNG in a `data:` address."""
    head, _, data = address.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def image_file(content, name="image.png", media_type="image/png"):
    return {"name": name, "mimeType": media_type, "buffer": content}


def choose(page, content, **named):
    page.get_by_label("Choose image").set_input_files(image_file(content, **named))


def classes(page):
    """Names and percentages, as they stand on the page."""
    rows = page.get_by_role("list").filter(has=page.get_by_role("radio")).get_by_role("listitem")
    return [tuple(text.split("\n")) for text in rows.all_inner_texts()]


def assert_answered(page, rgb, names=colour_model.COLOURS):
    """The two most probable colours are there, the first one is chosen, and explained."""
    probabilities = colour_model.probabilities(rgb)
    first, second = np.argsort(-probabilities, kind="stable")[:2]
    expect(page.get_by_role("radio", checked=True)).to_have_accessible_name(
        re.compile(f"^{names[first]} ")
    )
    shown = dict(classes(page))
    assert list(shown) == [names[first], names[second]]
    for index in (first, second):
        percent = 100 * probabilities[index]
        assert shown[names[index]] == ("< 0.1%" if percent < 0.1 else f"{percent:.1f}%")
    expect(page.get_by_alt_text(f"Where the network found {names[first]}")).to_be_visible()


# Over HTTP


def test_the_crop_is_what_the_network_saw_and_the_heat_what_spoke_for_the_class(server):
    picture = encoded(two_halves(RED, BLUE))
    answer = ask(f"{server}/explain/colour?class_id=2", picture)
    assert answer.status == 200
    assert (answer.body["class"], answer.body["class_id"]) == ("blue", 2)
    heat, crop = np.array(answer.body["heat"]), decoded(answer.body["crop"])
    assert crop.shape == (8, 8, 3)
    np.testing.assert_array_equal(crop[:, [0, -1]], [[RED, BLUE]] * 8)
    np.testing.assert_allclose(heat, crop[..., 2] / 255, atol=1e-6)


def test_the_overlay_is_as_large_as_the_crop_and_brightest_where_the_heat_is(server):
    picture = encoded(two_halves(RED, BLUE))
    overlay = decoded(ask(f"{server}/explain/colour?class_id=0", picture).body["overlay"])
    assert overlay.shape == (8, 8, 3)
    brightness = overlay.astype(int).sum(axis=2)
    assert (brightness[:, 0] == brightness.max()).all()
    assert (brightness[:, -1] == brightness.min()).all()


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("colour?class_id=3", 400, "class_id is 3; colour has the classes 0 to 2"),
        ("colour?class_id=-1", 400, "class_id is -1; colour has the classes 0 to 2"),
        ("colour?class_id=red", 400, "valid integer"),
        ("colour", 400, "Field required"),
        ("nothing?class_id=0", 404, "unknown model 'nothing'"),
    ],
)
def test_a_question_that_cannot_be_answered_is_told_why(server, path, status, told):
    answer = ask(f"{server}/explain/{path}", one_colour(RED))
    assert answer.status == status
    assert told in answer.body["error"]


def test_explaining_has_the_limits_of_classifying(server):
    explain, classify = f"{server}/explain/colour?class_id=0", f"{server}/classify/colour"
    for refused in (b"no image", one_colour(RED, size=(1001, 1000))):
        answer = ask(explain, refused)
        assert answer.status == 400
        assert answer.body == ask(classify, refused).body


def test_explaining_takes_its_place_among_the_others(server, monkeypatch):
    free, pixels = threading.Event(), Call.pixels
    url, answers = f"{server}/explain/colour?class_id=0", []

    async def held(self, signature, items, called):
        while not free.is_set():
            await asyncio.sleep(0.01)
        return await pixels(self, signature, items, called)

    monkeypatch.setattr(Call, "pixels", held)
    clients = [
        threading.Thread(target=lambda: answers.append(ask(url, one_colour(RED)).status))
        for _ in range(PLACES)
    ]
    for client in clients:
        client.start()
    until(lambda: in_flight(server) == PLACES)
    answer = ask(url, one_colour(RED))
    assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
    free.set()
    for client in clients:
        client.join()
    assert answers == [200] * PLACES
    until(lambda: in_flight(server) == 0)


def in_flight(server):
    return float(
        re.search("^serving_images_in_flight (.*)", ask(f"{server}/metrics").body, re.M)[1]
    )


def test_the_pages_files_forbid_all_that_is_not_the_servers_own(server):
    index = ask(f"{server}/")
    for path in re.findall(r'(?:href|src)="([^"]+)"', index.body):
        answer = ask(server + path)
        assert answer.status == 200, path
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert ask(f"{server}/page/routes.py").status == 404
    assert ask(f"{server}/page/../app.py").status == 404


# In a browser


def test_a_chosen_file_is_answered(page):
    with page.expect_file_chooser() as chooser:
        page.get_by_text("Choose image").click()
    chooser.value.set_files(image_file(one_colour((250, 200, 0))))
    assert_answered(page, (250, 200, 0))
    times = page.get_by_role("term").all_inner_texts()
    assert times == ["round trip", "decode", "queue", "network"]


@pytest.mark.parametrize("way", ["paste", "drop"])
def test_an_image_may_be_pasted_or_dropped(page, way):
    give = """([way, base64]) => {
        const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], "image.png", { type: "image/png" }));
        const stage = document.getElementById("stage");
        const given = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
        stage.dispatchEvent(
            way === "paste" ? new ClipboardEvent(way, given) : new DragEvent(way, given),
        );
    }"""
    page.evaluate(give, [way, base64.b64encode(one_colour(GREEN)).decode()])
    assert_answered(page, GREEN)


def test_what_is_dragged_over_the_page_shows_where_it_would_fall(page):
    page.locator("body").dispatch_event("dragover")
    expect(page.locator("body")).to_have_class("dropping")
    page.locator("body").dispatch_event("dragleave")
    expect(page.locator("body")).to_have_class("")


def test_the_keyboard_alone_is_enough(page):
    def reach(role, name):
        for _ in range(12):
            page.keyboard.press("Tab")
            found = page.get_by_role(role, name=name)
            if found.count() and found.evaluate("(node) => node === document.activeElement"):
                assert found.evaluate(SHOWS_FOCUS), name
                return found
        raise AssertionError(f"no {role} {name!r} on the way")

    reach("combobox", "Model")
    reach("button", "Choose image")
    reach("button", "Clock")
    reach("button", "Tennis ball")
    page.keyboard.press("Enter")
    first = page.get_by_role("radio", checked=True)
    expect(first).to_have_accessible_name(re.compile("^green "))
    slider = reach("slider", "Heat map")
    page.keyboard.press("End")
    expect(slider).to_have_value("100")
    heat = page.get_by_alt_text("Where the network found green")
    expect(heat).to_have_css("opacity", "1")
    page.keyboard.press("Tab")
    assert first.evaluate("(node) => node === document.activeElement")
    assert first.evaluate(SHOWS_FOCUS)
    page.keyboard.press("ArrowDown")
    expect(page.get_by_alt_text("Where the network found red")).to_be_visible()
    expect(page.get_by_text("Bright is where the network found “red”")).to_be_visible()


# The ring around what has the focus, or around the label that stands for it.
SHOWS_FOCUS = """(node) => [node, node.nextElementSibling].some(
    (shown) => shown && getComputedStyle(shown).outlineStyle === "solid")"""


def test_every_sample_is_answered(page):
    samples = page.get_by_role("list", name="Samples").get_by_role("button")
    assert samples.count() == 4
    for sample in samples.all():
        sample.click()
        expect(page.get_by_role("status")).to_have_text(re.compile(r"^\w+: [\d.]+%, \w+: "))
        expect(page.get_by_alt_text("The part of the image that the network saw")).to_be_visible()
        page.reload()


def test_another_model_is_asked_about_the_same_image(page):
    choose(page, one_colour(RED))
    assert_answered(page, RED)
    page.get_by_role("combobox", name="Model").select_option("farbe")
    assert_answered(page, RED, ("rot", LONG_NAME, "blau"))
    expect(page.get_by_role("group", name="Most probable to farbe, version 2")).to_be_visible()


def test_an_error_is_shown_in_the_servers_words_and_leaves_nothing_old_behind(page, server):
    choose(page, one_colour(RED))
    assert_answered(page, RED)
    broken = b"this is no image"
    choose(page, broken, name="notes.txt", media_type="text/plain")
    expected = "the file is not an image (JPEG, PNG, GIF, BMP, WEBP)"
    assert ask(f"{server}/classify/colour", broken).body == {"error": expected}
    expect(page.get_by_role("alert")).to_have_text(expected)
    expect(page.get_by_role("radio")).to_have_count(0)
    expect(page.get_by_role("img")).to_have_count(4)
    choose(page, one_colour(BLUE))
    assert_answered(page, BLUE)
    expect(page.get_by_role("alert")).to_be_empty()


def test_a_server_that_is_gone_is_told(page):
    page.route("**/classify/*", lambda route: route.abort())
    choose(page, one_colour(RED))
    expect(page.get_by_role("alert")).to_have_text("The server cannot be reached.")


def test_the_answer_to_the_newest_image_stays(page):
    held = []
    page.route("**/classify/*", lambda route: held.append(route), times=1)
    with page.expect_request("**/classify/*"):
        choose(page, one_colour(RED))
    with page.expect_event("requestfailed", lambda request: request == held[0].request):
        choose(page, one_colour(BLUE))
    assert_answered(page, BLUE)
    expect(page.get_by_role("alert")).to_be_empty()


def test_a_photograph_is_turned_as_its_camera_says(page):
    image = two_halves(RED, BLUE, 128).rotate(90)
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned clockwise by a quarter.
    choose(page, encoded(image, "JPEG", exif=exif, quality=95, subsampling=0), name="photo.jpg")
    crop = page.get_by_alt_text("The part of the image that the network saw")
    expect(crop).to_be_visible()
    corners = decoded(crop.get_attribute("src"))[[0, 0, -1, -1], [0, -1, 0, -1]]
    np.testing.assert_allclose(corners, [RED, BLUE, RED, BLUE], atol=12)


def test_on_a_phone_all_fits_its_width_and_can_be_touched(open_page):
    page = open_page(**PHONE)
    expect(page.get_by_text("Take photo")).to_be_visible()
    page.get_by_role("combobox", name="Model").select_option("farbe")
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        targets = page.locator("select, button, .button, .classes label")
        for box in (target.bounding_box() for target in targets.all()):
            assert min(box["width"], box["height"]) >= 44
            assert 0 <= box["x"] < box["x"] + box["width"] <= 375
        choose(page, one_colour(GREEN))
        expect(page.get_by_role("radio", name=LONG_NAME)).to_be_checked()


def test_a_mouse_needs_no_camera(page):
    expect(page.get_by_text("Take photo")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(open_page, scheme):
    """WCAG 2.2, 1.4.3: a contrast of at least 4.5 to what is behind it."""
    page = open_page(color_scheme=scheme)
    choose(page, one_colour(RED))
    assert_answered(page, RED)
    colours = page.evaluate(TEXT_COLOURS)
    grounds = {ground for _, _, ground in colours}
    assert len(grounds) >= 3
    for text, ink, ground in colours:
        light, dark = sorted((luminance(ink), luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ink, ground)
    body = page.locator("body").evaluate("(node) => getComputedStyle(node).backgroundColor")
    assert (luminance(body) > 0.5) == (scheme == "light")


# Each text with its colour, and the nearest colour behind it.
TEXT_COLOURS = """() => [...document.querySelectorAll("h1, select, .button, label, legend, p, dt,"
    + " dd, code, .name, .percent, #opacity-value")].filter(
        (node) => node.checkVisibility() && node.textContent.trim()
    ).map((node) => {
        let behind = node;
        while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") {
            behind = behind.parentElement;
        }
        return [node.textContent, getComputedStyle(node).color,
            getComputedStyle(behind).backgroundColor];
    })"""


def luminance(colour):
    """Relative luminance (WCAG 2.2) of `rgb(r, g, b)`."""
    channels = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_who_wants_no_motion_gets_none(open_page):
    page = open_page(reduced_motion="reduce")
    choose(page, one_colour(RED))
    assert_answered(page, RED)
    moving = """() => [...document.querySelectorAll("*")].filter((node) => {
        const style = getComputedStyle(node);
        return style.transitionDuration !== "0s" || style.animationName !== "none"
            || style.scrollBehavior !== "auto";
    }).length"""
    assert page.evaluate(moving) == 0


def test_what_is_listened_to_says_what_is_seen(page):
    choose(page, one_colour(RED))
    assert_answered(page, RED)
    expect(page.get_by_role("main")).to_match_aria_snapshot(
        """
        - main:
          - region "Picture":
            - button "Choose image"
            - list "Samples":
              - listitem:
                - button "Clock"
              - listitem:
                - button "Tennis ball"
              - listitem:
                - button "Traffic light"
              - listitem:
                - button "Handwritten seven"
            - img "The part of the image that the network saw"
            - img "Where the network found red"
            - slider "Heat map"
          - region "Answer":
            - alert
            - status: "/red: [\\\\d.]+%, green: < 0.1%/"
            - group "Most probable to colour, version 1":
              - list:
                - listitem:
                  - radio /red/ [checked]
                - listitem:
                  - radio /green/
        """
    )


def test_the_package_carries_the_pages_files():
    folder = Path(__file__).parents[1] / "pipelines" / "serving" / "page"
    patterns = re.search(r"^pipelines =\n((?:    .+\n)+)", SETUP.read_text(), re.MULTILINE)[1]
    carried = {
        file for pattern in patterns.split() for file in (SETUP.parent / "pipelines").glob(pattern)
    }
    files = {file for file in folder.rglob("*.*") if file.suffix not in {".py", ".pyc"}}
    assert files <= carried


SETUP = Path(__file__).parents[1] / "setup.cfg"
