"""The page of playbooks/report.yml as people see it: in a browser, on a phone, in the dark, with a screen reader."""

import json
import re
import shutil

import lab_play
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from ansible_collections.gpuhosts.inference.plugins.filter.benchmark_plot import benchmark_plot
from ansible_collections.gpuhosts.inference.plugins.filter.rollout_report import rollout_report
from ansible_collections.gpuhosts.inference.tests.unit.plugins.plugin_utils import test_benchmark, test_rollout_report
from ansible_collections.gpuhosts.inference.tests.unit.plugins.plugin_utils.test_fleet_report import ALERT, WANTED, look, report, unreached

SCREENSHOTS = lab_play.CHECKOUT / ".cache" / "report" / "screenshots"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = {"desktop": 1280, "phone": 375}
HOSTILE = "<script>document.title = 'taken'</script><img src=x onerror=alert(1)>"


def fleet(directory):
    """A fleet with something of everything that a page can show."""
    record = test_benchmark.record(baseline=test_benchmark.record())
    kept = directory / "kept" / "gpu01" / "coder" / "short"
    kept.mkdir(parents=True)
    (kept / "20261128T080000Z.json").write_text(json.dumps(record), encoding="utf-8")
    (kept / "20261128T080000Z.svg").write_text(benchmark_plot(record), encoding="utf-8")
    looks = {
        "gpu01": look(),
        "gpu02": look({"state": {"rung": 1}}),
        "gpu03": unreached(f"ssh: {HOSTILE}"),
        "gpu04": look(problem="coder does not fit.", plans={}),
    }
    looks |= {f"gpu{number:02}": look() for number in range(5, 13)}
    wanted = {name: {**WANTED, "driver": "570.172.08"} if name == "gpu02" else WANTED for name in looks}
    unsafe = {**ALERT, "annotations": {"summary": HOSTILE, "runbook_url": "javascript:alert(1)"}}
    prometheus = {"alerts": [ALERT, unsafe], "speeds": [{"metric": {"host": "gpu01", "name": "coder"}, "value": [0, "57.25"]}]}
    return report(looks, wanted, benchmarks=str(directory / "kept"), prometheus=prometheus, title="Lab & more")


def draw(directory, document, name="index"):
    """The page's path, drawn by the playbook."""
    (directory / "document.json").write_text(json.dumps(document), encoding="utf-8")
    (directory / "hosts.yml").write_text("gpu_hosts: {hosts: {gpu01: {ansible_host: 192.0.2.1}, gpu02: {ansible_host: 192.0.2.2}}}\n", encoding="utf-8")
    page = directory / f"{name}.html"
    code, output = lab_play.play(
        "playbooks/report.yml", f"-e report_document={directory}/document.json", f"-e report_path={page}", inventories=(directory / "hosts.yml",)
    )
    assert code == 0, output
    assert f"{page}: {document['summary'][0]['value']} {document['summary'][0]['label']}" in output
    assert json.loads((directory / f"{name}.json").read_text(encoding="utf-8")) == document
    return page


@pytest.fixture(scope="module")
def browser():
    """A real browser, without a window."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert program, f"the page is tested in a real browser: install one of {', '.join(BROWSERS)}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def fleet_page(tmp_path_factory):
    directory = tmp_path_factory.mktemp("report")
    return draw(directory, fleet(directory))


@pytest.fixture
def show(browser, fleet_page):
    """Returns show(scheme, width, page) -> the page, shown. It may ask nobody for anything."""
    contexts = []

    def show(scheme="light", width=1280, page=fleet_page):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        shown, asked, said = context.new_page(), [], []
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("console", lambda message: said.append(message.text))
        shown.on("pageerror", lambda error: said.append(str(error)))
        shown.goto(page.as_uri())
        assert [url for url in asked if not url.startswith(("data:", page.as_uri()))] == []
        assert said == []
        return shown

    yield show
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", WIDTHS)
def test_it_is_accessible_and_fits_the_screen(show, scheme, device):
    page = show(scheme, WIDTHS[device])
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{device}-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page itself does not scroll sideways"
    violations = Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in violations] == []


def test_dark_is_dark(show):
    def lightness(scheme):
        return sum(map(int, re.findall(r"\d+", show(scheme).evaluate("getComputedStyle(document.body).backgroundColor"))[:3]))

    assert lightness("dark") < 150 < 600 < lightness("light")


def test_it_shows_what_is_wrong_first_and_then_every_host(show):
    page = show()
    assert page.title().startswith("Lab & more, 20")
    assert page.locator("section > h2").all_inner_texts()[:4] == ["Alerts", "Out of date", "Hosts", "gpu03 not reached"]
    assert page.locator("#hosts + div tbody tr").count() == 12
    assert page.locator("#host-gpu02 .findings li").first.inner_text().startswith("coder: it runs on step 1 of its ladder")
    tiles = page.locator(".tiles li").all_inner_texts()
    assert tiles[0].split() == ["12", "hosts"]


def test_planned_and_measured_memory_are_bars_of_the_same_scale(show):
    page = show()
    bars = page.locator("#host-gpu01 .bar")
    assert [bars.nth(index).get_attribute("aria-label").partition(":")[0] for index in range(bars.count())] == ["planned", "measured"]
    for index in range(2):
        width = bars.nth(index).bounding_box()["width"]
        parts = bars.nth(index).locator("span")
        assert parts.count() >= 4
        assert 0.5 * width < sum(parts.nth(part).bounding_box()["width"] for part in range(parts.count())) <= width


def test_a_benchmark_is_a_table_with_its_plot(show):
    page = show()
    assert "generation throughput" in page.locator("#host-gpu01 article table").last.inner_text()
    plot = page.locator("#host-gpu01 img.plot")
    assert plot.evaluate("image => image.complete && image.naturalWidth > 300")


def test_what_hosts_say_is_text_and_nothing_else(show):
    page = show()
    assert page.locator("#host-gpu03 > p").inner_text() == f"ssh: {HOSTILE}"
    assert page.locator("script, img[src=x]").count() == 0
    assert page.locator("a[href^='javascript:']").count() == 0


def test_the_report_of_a_rollout_is_a_page_too(show, tmp_path):
    looks = [test_rollout_report.look("gpu01"), test_rollout_report.look("gpu02", silence="no route")]
    document = rollout_report(looks, [test_rollout_report.done("gpu01")], [], {})["document"]
    page = show(page=draw(tmp_path, document))
    assert page.locator("h1").inner_text() == "Rollout to 2 hosts"
    assert page.locator("#host-gpu02 > p").inner_text() == "no route"
    assert "50.0" in page.locator("#host-gpu01 dl").inner_text()
    assert Axe().run(page).violations_count == 0
