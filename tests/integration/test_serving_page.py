"""The page, clicked through in headless Chromium."""

import os
import shutil
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys as Press
from selenium.webdriver.support.ui import Select, WebDriverWait
from servers import WRITE, fill, serving, vector_of

import tpv

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Chromium and its driver")
SHOTS = os.environ.get("TPV_SCREENSHOTS")  # a folder for pictures of the page


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def server(backbone, tmp_path):
    with serving(backbone, fill(tmp_path / "library", backbone)) as running:
        running.folder = tmp_path / "library"
        yield running


class Page:
    def __init__(self, browser, url, size=(1200, 1500)):
        self.browser = browser
        browser.set_window_size(*size)
        browser.get(url)

    def __getitem__(self, name):
        return self.browser.find_element(By.ID, name)

    def type(self, name, text):
        self[name].send_keys(Press.CONTROL, "a")
        self[name].send_keys(text)

    def until(self, condition):
        return WebDriverWait(self.browser, 20, 0.05).until(lambda _: condition())

    def bars(self, side="left"):
        """The probability of each label of the first text, as it is shown."""
        script = """return [...document.querySelectorAll("#" + arguments[0] + "-answers .text:first-child .bar")]
            .map(bar => [bar.firstChild.textContent, parseFloat(bar.lastChild.textContent)])"""
        return dict(self.browser.execute_script(script, side))

    def options(self):
        return [option.get_attribute("value") for option in Select(self["left-choice"]).options]

    def shot(self, name):
        if SHOTS:
            self.browser.save_screenshot(str(Path(SHOTS) / f"{name}.png"))

    def complaints(self):
        return [line["message"] for line in self.browser.get_log("browser") if line["level"] == "SEVERE"]


def entered(browser, server, **more):
    page = Page(browser, server.url, **more)
    page.until(lambda: page["entry"].is_displayed())
    page["key"].send_keys(WRITE, Press.ENTER)
    page.until(lambda: len(page.options()) == 5)
    return page


def shown(client, expression, text, task="mini/sst2"):
    field = "sentence"
    body = {"expression": expression, "task": task, "rows": [{field: text}]}
    (prediction,) = client._json("POST", "/v1/predict", json=body)["results"][0]["predictions"]
    return {word: round(sure, 3) for word, sure in prediction["probabilities"].items()}


def test_play_with_vectors(browser, server):
    page = entered(browser, server)
    Select(page["left-choice"]).select_by_value("sst2")
    assert page["left-expression"].get_attribute("value") == "init:0 + 1.0*sst2"
    page.until(lambda: page["fields"].text == "sentence")
    page.type("field0", "the plot is never dull")
    first = page.until(page.bars)
    assert first == shown(server.client, "init:0 + 1.0*sst2", "the plot is never dull")
    # a slider changes the expression and the bars
    page["left-slider0"].send_keys(*[Press.ARROW_LEFT] * 12)
    assert page["left-expression"].get_attribute("value") == "init:0 + 0.4*sst2"
    expected = shown(server.client, "init:0 + 0.4*sst2", "the plot is never dull")
    assert expected != first
    page.until(lambda: page.bars() == expected)
    # two expressions side by side
    page["compare"].click()
    assert page["right"].is_displayed()
    page.type("right-expression", "init:0 + 0.8*(sst2 + yelp) - 0.3*mnli")
    expected = shown(server.client, "init:0 + 0.8*(sst2 + yelp) - 0.3*mnli", "the plot is never dull")
    page.until(lambda: page.bars("right") == expected)
    assert len(page["right-sliders"].find_elements(By.CSS_SELECTOR, "input")) == 2
    page.shot("desktop")
    # a mistake is told, and what was asked before goes
    page.type("right-expression", "init:0 + nothing")
    page.until(lambda: "no prompt 'nothing'" in page["right-error"].text)
    assert page.bars("right") == {}
    assert [line for line in page.complaints() if "401" not in line and "422" not in line] == []


def test_heatmap(browser, server):
    page = entered(browser, server)
    cells = page.until(lambda: page["heat"].find_elements(By.CSS_SELECTOR, "td"))
    assert len(cells) == 16
    library = tpv.Library(server.folder)
    names = sorted(library)
    expected = tpv.cosine_matrix([library[name] for name in names]).flatten().tolist()
    assert [cell.text for cell in cells] == [f"{value:.2f}".replace("-0.00", "-0.00") for value in expected]
    assert [head.text for head in page["heat"].find_elements(By.CSS_SELECTOR, "tbody th")] == names


def test_put_an_expression_and_a_file(browser, server, backbone, tmp_path):
    page = entered(browser, server)
    page.type("left-expression", "init:3 + 0.5*yelp")
    page.type("left-task", "mini/yelp")
    page.type("name", "folder/mine")
    page["put"].submit()
    page.until(lambda: "is in the library" in page["puterror"].text)
    assert (server.folder / "folder" / "mine.safetensors").is_file()
    assert server.client.prompt("folder/mine")["expression"] == "init:3 + 0.5*yelp"
    page.until(lambda: "folder/mine" in page.options())
    vector_of(backbone, "mini/qnli", seed=7).save(tmp_path / "qnli.safetensors")
    Select(page["what"]).select_by_value("file")
    page["file"].send_keys(str(tmp_path / "qnli.safetensors"))
    page.type("name", "qnli")
    page["put"].submit()
    page.until(lambda: "qnli" in page.options())
    page.until(lambda: len(page["heat"].find_elements(By.CSS_SELECTOR, "td")) == 25)
    page.type("name", "../outside")
    page["put"].submit()
    page.until(lambda: page["puterror"].get_attribute("className") == "error" and page["puterror"].text)
    assert not list(tmp_path.glob("outside*"))


def test_a_phone(browser, server):
    page = entered(browser, server, size=(390, 844))
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        Select(page["left-choice"]).select_by_value("mnli")
        page.until(lambda: page["fields"].text.split() == ["premise", "hypothesis"])
        page.type("field0", "a man is eating an apple in the garden")
        page.type("field1", "he eats")
        assert list(page.until(page.bars)) == ["entailment", "neutral", "contradiction"]
        page["compare"].click()
        page.until(lambda: page.bars("right"))
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        page.shot("phone")
        browser.execute_script("window.scrollTo(0, document.body.scrollHeight)")
        page.shot("phone-end")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_names_are_no_markup(browser, server, backbone):
    """What is in the library is shown as text, whoever wrote it."""
    vector = vector_of(backbone, "<img src=x onerror=document.title='owned'>", seed=3)
    vector.save(server.folder / "a<b>c.safetensors")
    server.catalog.refresh()
    page = Page(browser, server.url)
    page["key"].send_keys(WRITE, Press.ENTER)
    page.until(lambda: "a<b>c" in page.options())
    page.until(lambda: len(page["heat"].find_elements(By.CSS_SELECTOR, "td")) == 25)
    assert browser.title == "tpv"
    assert browser.find_elements(By.CSS_SELECTOR, "img, b") == []


def test_a_page_of_another_origin_cannot_write(browser, server, tmp_path):
    """The browser asks first, and the server does not permit it."""
    script = """const done = arguments[1];
        fetch(arguments[0], {method: "PUT", body: '{"expression": "init:1 + sst2"}',
            headers: {"Content-Type": "application/json", "Authorization": "Bearer " + arguments[2]}})
        .then(answer => done("answered " + answer.status), problem => done("refused"))"""
    (tmp_path / "other.html").write_text("<title>other</title>")
    browser.get(f"file://{tmp_path / 'other.html'}")
    said = browser.execute_async_script(
        script.replace("arguments[1]", "arguments[2]").replace("+ arguments[2]}", "+ arguments[1]}"),
        f"{server.url}/v1/prompts/theirs",
        WRITE,
    )
    assert said == "refused"
    assert "theirs" not in server.catalog.names
