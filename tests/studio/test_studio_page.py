"""The page in a browser without a window: clicks, keys, and what they come to."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vaeaug
from tests.shards.example_run import make_run
from vaeaug.studio import Collection, Studio


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens a page; an error or a blocked resource in it fails the test."""
    pages, problems = [], []

    def open_page(url: str, *, width: int = 1000, height: int = 700, scheme: str = "light") -> Any:
        page = browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            reduced_motion="reduce",
        )
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        pages.append(page)
        page.goto(url)
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert problems == []


def cell(page: Any, number: int) -> Any:
    return page.get_by_role("gridcell", name=re.compile(rf"sample {number},"))


def saved(page: Any, n: int) -> None:
    page.get_by_text(f"list of {n} saved").wait_for()


def focused(page: Any) -> str:
    return str(page.evaluate("document.activeElement.getAttribute('aria-label')"))


def test_one_key_throws_a_sample_out_of_what_merge_returns(
    opened: Any, studio: Studio, run: Path, data: vaeaug.LabelledImages
) -> None:
    whole = vaeaug.ShardDataset(run)
    page = opened(studio.url)
    assert focused(page).startswith(f"class {whole.class_names[0]}, sample 0, p(label) ")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    assert focused(page).endswith("thrown out")
    cell(page, 3).click()
    page.get_by_role("button", name="Throw out").click()
    saved(page, 2)
    assert page.inner_text("#count").endswith("2 thrown out (not published)")

    # The same list is there when the page is opened again.
    assert cell(opened(studio.url), 3).get_attribute("aria-label").endswith("thrown out")
    manifest = vaeaug.exclude(run, run / "excluded.json")
    assert manifest.excluded == {whole.manifest.shards[0].path: [1, 3]}
    assert opened(studio.url).inner_text("#count").endswith("2 thrown out")
    assert vaeaug.verify(run).ok
    merged = vaeaug.merge(data, run, share="all").synthetic
    kept = np.delete(np.arange(len(whole)), [1, 3])
    np.testing.assert_array_equal(merged.images_at(range(len(merged))), whole.images_at(kept))


def test_keys_move_choose_throw_out_and_undo(opened: Any, studio: Studio) -> None:
    page = opened(studio.url)
    columns = int(page.get_attribute("#grid", "aria-colcount"))
    page.keyboard.press("ArrowDown")
    assert f"sample {columns}," in focused(page)
    page.keyboard.press("End")
    assert f"sample {2 * columns - 1}," in focused(page)
    page.keyboard.press("Control+Home")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert page.locator("[role=gridcell][aria-selected=true]").count() == 3
    page.keyboard.press("x")
    saved(page, 3)
    page.keyboard.press("u")
    saved(page, 0)
    page.keyboard.press("Control+End")
    n = page.evaluate("document.querySelector('#n-all').textContent")
    assert f"sample {int(n) - 1}," in focused(page)
    # One cell alone is in the order of Tab.
    assert page.locator("[role=gridcell][tabindex='0']").count() == 1
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("#7")
    page.keyboard.press("Enter")
    assert "sample 7," in focused(page)


def test_a_sample_is_looked_at_beside_its_source_and_nearest_real_image(
    opened: Any, studio: Studio, collection: Collection, data: vaeaug.LabelledImages
) -> None:
    page = opened(studio.url)
    page.keyboard.press("Enter")
    page.locator("figure[data-kind=nearest] canvas").wait_for()
    nearest = int(collection.samples.nn_index[0])
    assert f"row {nearest}," in page.inner_text("figure[data-kind=nearest] figcaption")
    shown = page.evaluate(
        "Array.from(document.querySelector('figure[data-kind=nearest] canvas').getContext('2d')"
        ".getImageData(0, 0, 8, 8).data)"
    )
    pixels = np.array(shown).reshape(8, 8, 4)[..., 0]
    np.testing.assert_array_equal(pixels, data.images[nearest, ..., 0])
    before = page.locator("#scale").text_content()
    page.keyboard.press("-")
    assert page.locator("#scale").text_content() != before
    page.keyboard.press("ArrowRight")
    page.get_by_role("heading", name="#1", exact=False).wait_for()
    page.keyboard.press("x")
    page.get_by_role("button", name="Bring back (x)").wait_for()
    page.keyboard.press("Escape")
    page.locator("dialog#detail").wait_for(state="hidden")
    page.wait_for_selector("[role=gridcell]:focus")
    assert "sample 1," in focused(page)
    assert focused(page).endswith("thrown out")
    saved(page, 1)


def test_filters_sort_and_map_choose_what_is_shown(
    opened: Any, studio: Studio, collection: Collection
) -> None:
    page = opened(studio.url)

    def shown() -> int:
        return int(page.inner_text("#count").split(" of ")[0].replace(",", ""))

    labels, p_label = collection.samples.labels, collection.samples.p_label
    page.get_by_role("button", name="None of the classes").click()
    assert shown() == 0
    page.get_by_text("No sample passes these filters").wait_for()
    page.locator("#classes input").nth(1).check()
    assert shown() == (labels == 1).sum()
    page.locator("#order").select_option("p_label")
    first = page.get_by_role("gridcell").first.get_attribute("aria-label")
    lowest = int(np.flatnonzero(labels == 1)[p_label[labels == 1].argmin()])
    assert f"sample {lowest}," in first
    page.get_by_role("button", name="Reset filters").first.click()
    assert shown() == collection.n

    page.locator("#range-p_label .high").fill("500")
    assert shown() == (p_label <= 0.5).sum()
    page.get_by_role("button", name="Reset filters").first.click()
    page.get_by_text("Rejected", exact=False).first.click()
    assert shown() == collection.n_rejected
    assert "rejected:" in page.get_by_role("gridcell").first.get_attribute("aria-label")
    page.get_by_role("button", name="Reset filters").first.click()

    page.get_by_role("button", name="Map").click()
    box = page.locator("#map").bounding_box()
    page.wait_for_timeout(100)
    page.mouse.move(box["x"] + 9, box["y"] + 9)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 9)
    page.mouse.up()
    x = collection.columns["x"][: collection.n]
    # The left half of the map.
    assert shown() == (x <= (x.min() + x.max()) / 2).sum()
    page.locator("#map").press("Escape")
    assert shown() == collection.n
    page.locator("#map").press("ArrowLeft")
    assert 0 < shown() < collection.n


def test_of_a_hundred_thousand_samples_only_those_in_sight_are_in_the_page(
    opened: Any, tmp_path: Path
) -> None:
    make_run(tmp_path, counts=[40_000, 40_000, 20_000], shape=(8, 8, 1))
    with Studio(Collection(tmp_path)) as studio:
        page = opened(studio.url)
        page.keyboard.press("Control+End")
        assert "sample 99999," in focused(page)
        page.wait_for_selector("[role=gridcell]:focus canvas[data-of='99999']")
        assert page.locator("[role=gridcell]").count() < 500
        page.keyboard.press("Control+a")
        page.keyboard.press("x")
        page.get_by_text("list of 100,000 saved").wait_for()


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (3840, "light")])
def test_every_width_shows_all_of_the_page(
    opened: Any, studio: Studio, width: int, scheme: str
) -> None:
    page = opened(studio.url, width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for name in ("Filters", "Map", "Keys", "Throw out"):
        box = page.get_by_role("button", name=name).first.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    page.get_by_role("button", name="Look closer").click()
    page.locator("figure[data-kind=sample] canvas").wait_for()
    box = page.locator("dialog#detail").bounding_box()
    assert box["width"] <= width
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == ("rgb(20, 23, 26)" if scheme == "dark" else "rgb(255, 255, 255)")


def test_sounds_have_curves_and_players_and_volumes_slices(opened: Any, tmp_path: Path) -> None:
    sounds = make_run(tmp_path / "a", layout="NLC", dtype="float32", shape=(600, 1))
    replace(sounds, extra={"sample_rate": 8000}).save(tmp_path / "a")
    with Studio(Collection(tmp_path / "a")) as studio:
        page = opened(studio.url)
        page.keyboard.press("Enter")
        page.locator("figure[data-kind=sample] svg").wait_for()
        points = page.get_attribute("figure[data-kind=sample] polyline", "points")
        assert len(points.split()) == 600
        # The player can play it: the browser knows how long it is.
        page.evaluate("document.querySelector('audio').load()")
        page.evaluate(
            "new Promise((done) => { const a = document.querySelector('audio');"
            "a.preload = 'metadata'; a.onloadedmetadata = done; a.load(); })"
        )
        assert page.evaluate("document.querySelector('audio').duration") == pytest.approx(0.075)
        assert "was not found" in page.inner_text("figure[data-kind=nearest]")
    make_run(tmp_path / "b", layout="NDHWC", shape=(3, 5, 4, 1))
    with Studio(Collection(tmp_path / "b")) as studio:
        page = opened(studio.url)
        page.keyboard.press("Enter")
        page.get_by_text("2 of 3").wait_for()
        page.keyboard.press("ArrowUp")
        page.get_by_text("3 of 3").wait_for()
        page.wait_for_timeout(200)
        shown = page.evaluate(
            "Array.from(document.querySelector('figure[data-kind=sample] canvas').getContext('2d')"
            ".getImageData(0, 0, 4, 5).data)"
        )
        volume = vaeaug.ShardDataset(tmp_path / "b").image_at(0)
        np.testing.assert_array_equal(np.array(shown).reshape(5, 4, 4)[..., 0], volume[2, ..., 0])


def faults(page: Any) -> list[str]:
    """What axe finds on what the page shows now."""
    audit = pytest.importorskip("axe_playwright_python.sync_playwright")
    # Not its experimental rules: one wants the small print of a picture in the picture's name.
    rules = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
    options = {"resultTypes": ["violations"], "runOnly": rules}
    found = audit.Axe().run(page, options=options).response["violations"]
    return [f"{each['id']}: {node['html']}" for each in found for node in each["nodes"]]


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1200, "light")])
def test_axe_finds_no_fault(
    opened: Any, studio: Studio, run: Path, width: int, scheme: str
) -> None:
    page = opened(studio.url, width=width, scheme=scheme)
    shown = {"grid": faults(page)}
    for name, key in {"detail": "Enter", "map": "m", "keys": "?"}.items():
        page.keyboard.press(key)
        page.locator({"detail": "#detail", "map": "#map-panel", "keys": "#help"}[name]).wait_for()
        shown[name] = faults(page)
        if name != "map":
            page.keyboard.press("Escape")
    page.goto((run / "report.html").as_uri())
    shown["report"] = faults(page)
    assert {name: found for name, found in shown.items() if found} == {}
