"""The pieces of networks, used as a person would: step to the end, open a number down to a pixel, change the pixel."""

import re

import pytest

from .conftest import soon, violations

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser layers")]
PIECES = ["dense", "convolution", "pooling", "normalisation", "residual", "inception", "recurrent", "attention"]


def opened(page, server, query):
    page.goto(server.url(f"/learning/layers{query}"))
    page.wait_for_selector(".parts figure")
    page.wait_for_selector(".checks")
    return page


def number(text):
    return float(text.replace("−", "-").replace("+", ""))


def click_cell(page, title, row, column):
    """A cell of the grid under that title, by keyboard."""
    grid = page.locator(f"figure:has(figcaption:text-is('{title}')) .surface").first
    grid.focus()
    home = [*["ArrowUp"] * 12, *["ArrowLeft"] * 12]  # wherever the last walk ended
    for key in [*home, *["ArrowDown"] * row, *["ArrowRight"] * column, "Enter"]:
        page.keyboard.press(key)


def terms(page):
    """Every term that the Inspector prints, exact; and the number it opens."""
    page.wait_for_selector(".inspector .terms")
    more = page.locator(".inspector .terms >> text=/and \\d+ smaller/")
    if more.count():
        more.click()
    rows = page.locator(".inspector .terms tr:not(.sum) .product").evaluate_all("all => all.map(one => one.title)")
    return [number(text) for text in rows], number(
        page.get_attribute(".inspector .value button", "title").removeprefix("Copy ")
    )


@pytest.mark.parametrize("piece", PIECES)
def test_every_piece_opens_and_steps_to_its_end(open_page, server, piece):
    page = opened(open_page(), server, f"?piece={piece}&o.tokens=rows" if piece == "attention" else f"?piece={piece}")
    soon(page.locator(".checks .holds").count, 2)  # forward and backward equal torch
    slider = page.get_by_role("slider", name="Sub-step")
    last = int(slider.get_attribute("max"))
    assert last > 8
    slider.fill(str(last - 1))
    page.locator("h1").evaluate("document.activeElement.blur()")
    page.keyboard.press("]")
    page.wait_for_selector(f"output:has-text('{last} of {last}')")
    page.wait_for_selector("figure.active")


def test_an_output_s_terms_add_up_to_it_and_open_down_to_a_pixel(open_page, server):
    page = opened(open_page(), server, "?piece=convolution&digit=7")
    click_cell(page, "Output", 2, 3)
    page.wait_for_selector(".inspector h2:has-text('row 2, column 3')")
    found, value = terms(page)
    assert sum(found) == pytest.approx(value, abs=1e-12)
    assert value != 0
    for _ in range(4):  # product, window, pixel
        if page.locator(".inspector .edit").count():
            break
        before = page.inner_text(".inspector h2")
        page.locator(".inspector .terms button.number").first.click()
        page.wait_for_function("before => document.querySelector('.inspector h2').innerText !== before", arg=before)
    page.wait_for_selector(".inspector >> text=read from the data")


def test_each_head_is_shown_and_its_score_reads_as_products(open_page, server):
    page = opened(open_page(), server, "?piece=attention&o.tokens=rows&o.heads=four")
    soon(page.locator("figcaption:has-text('Attention of head')").count, 4)
    page.get_by_label("head shown").select_option("2")
    page.wait_for_selector("h3:has-text('softmax over the keys: head 2')")
    names = page.locator("figure:has(figcaption:text-is('Attention of head 0')) .columns span")
    soon(names.all_inner_texts, [f"row {t}" for t in range(8)])
    click_cell(page, "Scores: sums ÷ √d", 2, 3)
    page.wait_for_selector(".inspector h2:has-text('head 2')")
    found, value = terms(page)
    assert len(found) == 3
    assert sum(found) == pytest.approx(value, abs=1e-12)
    soon(lambda: page.inner_text(".equation").count("×"), 6)  # 1/√3 × query × key, three times
    page.locator(".inspector .terms .name").first.click()  # the product itself
    page.wait_for_selector(".inspector h2:has-text('This query × this key')")


def test_a_changed_pixel_is_worked_through_and_can_be_taken_back(open_page, server):
    page = opened(open_page(), server, "?piece=convolution&digit=7")
    click_cell(page, "Output", 0, 0)
    page.wait_for_selector(".inspector h2:has-text('row 0, column 0')")
    before = terms(page)[1]
    click_cell(page, "Input", 1, 2)  # under the kernel's 2 of that output
    field = page.get_by_label("change it")
    field.wait_for()
    was = number(field.input_value())
    field.fill("0.9")
    field.press("Enter")
    page.wait_for_selector("text=1 number changed by you")
    soon(
        lambda: "within" in page.inner_text(".inspector").lower(), True
    )  # the central difference agrees with the slope
    click_cell(page, "Output", 0, 0)
    page.wait_for_selector(".inspector h2:has-text('row 0, column 0')")
    soon(lambda: terms(page)[1], pytest.approx(before + 2 * (0.9 - was), abs=1e-6))
    page.wait_for_url("**edits=*")
    again = opened(open_page(), server, "?" + page.url.split("?")[1])  # the link opens exactly this
    again.wait_for_selector("text=1 number changed by you")
    again.click("text=As it was")
    again.wait_for_selector("text=changed by you", state="detached")


def test_a_stroke_is_painted_erased_undone_and_redone(open_page, server):
    page = opened(open_page(), server, "?piece=pooling&digit=7")
    grid = page.locator("figure:has(figcaption:text-is('Input')) .surface").first
    box = grid.bounding_box()

    def stroke(row, first, last):
        middle = [
            (box["x"] + (c + 0.5) * box["width"] / 8, box["y"] + (row + 0.5) * box["height"] / 8) for c in (first, last)
        ]
        page.mouse.move(*middle[0])
        page.mouse.down()
        page.mouse.move(*middle[1], steps=8)
        page.mouse.up()

    def output():
        click_cell(page, "Output", 3, 0)
        page.wait_for_selector(".inspector h2:has-text('row 3, column 0')")
        return terms(page)[1]

    before = output()
    assert before < 1
    page.keyboard.press("Escape")
    stroke(7, 0, 3)
    page.wait_for_selector("text=4 numbers changed by you")
    soon(output, 1)  # the largest of its window is ink now
    page.keyboard.press("Escape")
    page.keyboard.down("Shift")
    stroke(7, 0, 1)
    page.keyboard.up("Shift")
    click_cell(page, "Input", 7, 1)
    page.wait_for_selector(".inspector h2:has-text('row 7, column 1')")
    soon(lambda: number(page.get_by_label("change it").input_value()), 0)
    grid.focus()
    click_cell(page, "Input", 6, 0)
    page.keyboard.press("9")  # by keyboard: the walked pixel is ink
    page.wait_for_selector("text=5 numbers changed by you")
    page.keyboard.press("Control+z")
    page.wait_for_selector("text=4 numbers changed by you")
    page.keyboard.press("Control+Shift+z")
    page.wait_for_selector("text=5 numbers changed by you")
    for _ in range(3):
        page.keyboard.press("Control+z")
    page.wait_for_selector("text=changed by you", state="detached")
    soon(output, before)


def test_the_examples_parts_add_up_to_the_loss(open_page, server):
    page = opened(open_page(), server, "?piece=dense&o.weights=seeded")
    click_cell(page, "Loss", 0, 0)
    page.wait_for_selector(".inspector h2:has-text('Loss')")
    found, value = terms(page)
    assert len(found) == 3
    assert sum(found) == pytest.approx(value, abs=1e-12)


def test_running_statistics_of_maps_are_stepped_to_and_serve_in_eval(open_page, server):
    page = opened(open_page(), server, "?piece=normalisation&o.kind=maps")
    page.get_by_label("map shown").select_option("1")
    click_cell(page, "After this batch", 0, 1)
    page.wait_for_selector(".inspector h2:has-text('map 1')")
    found, value = terms(page)
    assert len(found) == 2  # nine tenths of what it was, and a tenth of this batch's mean
    assert sum(found) == pytest.approx(value, abs=1e-12)
    page.get_by_label("mode").select_option("eval")
    page.wait_for_selector("figcaption:text-is('Running mean: used here')")
    soon(page.locator("figcaption:has-text('By the variance')").count, 0)


def test_slow_motion_plays_names_its_steps_and_stops(open_page, server):
    page = opened(open_page(), server, "?piece=pooling&step=3")
    page.locator("select:near(:text('speed'))").last.select_option("fast")
    page.locator("h1").evaluate("document.activeElement.blur()")
    page.keyboard.press(" ")
    slider = page.get_by_role("slider", name="Sub-step")
    soon(lambda: int(slider.input_value()) >= 6, True)
    page.keyboard.press(" ")
    stopped = slider.input_value()
    page.wait_for_timeout(500)
    assert slider.input_value() == stopped
    slider.fill("6")
    page.wait_for_selector("output:has-text('Slide, 6 of')")
    soon(lambda: bool(re.match(r"[−\d.]+ = the largest of", page.inner_text(".equation"))), True)
    slider.evaluate("node => node.blur()")
    page.keyboard.press("a")
    page.wait_for_selector("output:has-text('All at once')")


def test_on_a_narrow_screen_settings_fold_and_the_opened_number_stays_in_sight(open_page, server):
    page = opened(open_page(width=390), server, "?piece=convolution")
    assert not page.get_by_label("stride").is_visible()
    page.click("summary:text-is('Settings')")
    page.get_by_label("stride").fill("2")
    page.get_by_label("stride").press("Enter")
    page.click("summary:text-is('Settings')")
    page.wait_for_url("**o.stride=2**")
    click_cell(page, "Slope of the input", 6, 3)
    page.wait_for_selector(".inspector h2:has-text('row 6, column 3')")
    page.wait_for_function(
        """() => {
          const figure = [...document.querySelectorAll('figure.spot')].find((one) => one.contains(document.activeElement));
          const middle = figure.querySelector('canvas').getBoundingClientRect().top + Number(figure.dataset.middle);
          const main = document.querySelector('main').getBoundingClientRect();
          return middle > main.top && middle < main.bottom;
        }"""
    )


def test_what_cannot_be_worked_is_said(open_page, server):
    page = open_page(strict=False)
    page.goto(server.url("/learning/layers?piece=pooling&o.size=2&o.padding=2"))
    page.wait_for_selector("[role=alert] >> text=half the size")
    page.click("[role=alert] button")
    page.wait_for_selector(".parts figure")


@pytest.mark.parametrize(("query", "scheme", "width"), [("", "light", 1440), ("?piece=dense&step=2", "dark", 390)])
def test_axe_finds_nothing(open_page, server, query, scheme, width):
    page = opened(open_page(width=width, scheme=scheme), server, query)
    page.wait_for_timeout(300)
    assert violations(page) == []
