"""The pages of /ui/ in a real browser: what they show, what their buttons do, and that no text of a job is ever run."""
import pytest
import requests
import yaml
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from lib.carillon import Agent
from lib.procs import SLACK, wait_until
from test_tokens import entry, secret

HOSTILE = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
QUICK = {"min_backoff": "100ms", "factor": 1, "max_backoff": "100ms", "jitter": 0, "max_attempts": 2}


class Browser:
    def __init__(self, folder):
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1300,900",
                     f"--user-data-dir={folder / 'browser'}"):
            options.add_argument(word)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        self.driver.set_page_load_timeout(30 * SLACK)
        self.base = None

    def open(self, agent, page=""):
        self.base = f"{agent.url}/ui/"
        self.driver.get(f"{self.base}#/{page}")

    def go(self, page):
        self.driver.execute_script("location.hash = arguments[0]", f"#/{page}")

    def text(self):
        try:
            return self.driver.find_element(By.ID, "page").text
        except StaleElementReferenceException:
            return ""

    def shows(self, *words):
        wait_until(lambda: all(w in self.text() for w in words), 30, f"{words} on the page", interval=0.1)

    def press(self, name):
        """The button appears anew with each refresh of the page."""
        def pressed():
            try:
                self.driver.find_element(By.XPATH, f"//button[normalize-space()='{name}']").click()
                return True
            except StaleElementReferenceException:
                return False
        wait_until(pressed, 10, f"button {name}")

    def say_yes(self):
        wait_until(self.asks, 20, "a question")
        question = self.driver.switch_to.alert.text
        self.driver.switch_to.alert.accept()
        return question

    def asks(self):
        try:
            return bool(self.driver.switch_to.alert.text)
        except Exception:  # pylint: disable=broad-except
            return False

    def complaints(self):
        """Errors of scripts and of the content policy; a refusal of the agent is none."""
        return [e["message"] for e in self.driver.get_log("browser")
                if e["level"] == "SEVERE" and "the server responded with a status" not in e["message"]]


@pytest.fixture
def browser(folder):
    one = Browser(folder)
    yield one
    one.driver.quit()


@pytest.fixture
def agent(folder, callee):
    endpoints = {"billing": {"endpoints": [f"127.0.0.1:{callee.port}"]}}
    one = Agent("shown", folder, {"services": endpoints}).start()
    yield one
    one.end()


def job(schedule="@every 1s", path="/ok", **more):
    return {"schedule": schedule, "callback": {"http": {"service": "billing", "path": path}}, **more}


def test_pages_show_jobs_fires_and_letters_and_their_buttons_act(browser, agent, callee):
    callee.behave({"path": "/down", "status": 503})
    agent.put("ticking", job(description=HOSTILE, labels={"team": "pay"}))
    agent.put("failing", job("@after 1s", "/down", retry=QUICK))
    agent.put("far", job("0 9 * * MON-FRI", timezone="Europe/Berlin"))
    wait_until(lambda: agent.get("failing")["status"]["counts"]["dead"] == 1, 30, "a dead letter")

    browser.open(agent)
    browser.shows("Cluster default", "4096 of 4096", "store raft", "shown", "passing", "failing", "Fires to come")
    browser.driver.find_element(By.LINK_TEXT, "Jobs").click()
    browser.shows("ticking", "failing", "far", "0 9 * * MON-FRI", "Europe/Berlin", "billing")
    Select(browser.driver.find_element(By.NAME, "state")).select_by_value("done")
    browser.press("Filter")
    wait_until(lambda: "failing" in browser.text() and "ticking" not in browser.text(), 30, "filtered")

    browser.go("jobs/ticking")
    browser.shows("ticking", HOSTILE, "succeeded", "create")
    browser.press("Pause")
    wait_until(lambda: agent.get("ticking")["status"]["state"] == "paused", 20, "paused by the page")
    before = agent.get("ticking")["status"]["counts"]["seq"]
    browser.shows("Resume")
    browser.press("Run now")
    wait_until(lambda: agent.get("ticking")["status"]["counts"]["succeeded"] > 0
               and agent.get("ticking")["status"]["counts"]["seq"] > before, 20, "run by the page")
    browser.press("Resume")
    wait_until(lambda: agent.get("ticking")["status"]["state"] == "active", 20, "resumed by the page")

    browser.go("deadletters")
    browser.shows("failing", "max_attempts", "status 503")
    callee.behave()
    browser.press("Send all once more")
    assert browser.say_yes() == "Send 1 once more?"
    wait_until(lambda: agent.get("failing")["status"]["counts"]["succeeded"] == 1, 30, "sent by the page")
    [fire] = agent.fires("failing")
    browser.go(f"fires/{fire['fire']}")
    browser.shows(fire["fire"], "succeeded", "503", "200", f"127.0.0.1:{callee.port}")

    browser.go("services?name=billing")
    browser.shows(f"127.0.0.1:{callee.port}", "policy p2c")
    browser.go("jobs/far")
    browser.shows("far", "09:00:00+01:00")
    browser.press("Delete")
    browser.say_yes()
    wait_until(lambda: agent.get("far") is None, 20, "deleted by the page")
    browser.go("jobs/none")
    wait_until(lambda: "404 not_found" in browser.driver.find_element(By.ID, "problem").text, 20, "the refusal is shown")
    assert browser.driver.title == "carillon"
    assert browser.complaints() == []


def test_what_happens_is_shown_as_it_happens(browser, agent):
    browser.open(agent, "live")
    wait_until(lambda: "hello" in browser.text(), 30, "listening", interval=0.1)
    agent.put("ticking", job())
    browser.shows("job=ticking", "outcome=succeeded")
    assert browser.complaints() == []


def test_lists_go_on_page_after_page(browser, agent):
    agent.bulk([{"op": "create", "id": f"many-{n:03}", "job": job("@daily")} for n in range(250)])
    browser.open(agent, "jobs")
    browser.shows("many-000", "many-099", "More")
    browser.press("More")
    browser.shows("many-199", "More")
    browser.press("More")
    browser.shows("many-249")
    wait_until(lambda: "More" not in browser.text(), 10, "the last page")
    box = browser.driver.find_element(By.ID, "namespace")
    box.clear()
    box.send_keys("other", Keys.ENTER)
    browser.shows("no job that matches")
    assert browser.complaints() == []


def test_fires_that_succeeded_at_once_are_listed_though_the_first_page_is_empty(browser, agent):
    """They follow the booked ones, of which there are none, so that page holds nothing but where to go on."""
    agent.put("once", job("@after 1s"))
    wait_until(lambda: agent.get("once")["status"]["counts"]["succeeded"] == 1, 30, "fired")
    first = agent.ask("GET", "/v1/fires", 200)
    assert first["fires"] == [] and first["next_cursor"]
    browser.open(agent, "fires")
    browser.shows("once", "succeeded")
    assert browser.complaints() == []


def test_a_token_is_asked_for_and_kept_for_the_tab(browser, agent, folder):
    agent.put("a", job("@daily"))
    agent.end()
    tokens = folder / "tokens.yaml"
    tokens.write_text(yaml.safe_dump([entry("all")]))
    agent.config["api"]["tokens_file"] = str(tokens)
    agent.start(wait=False)
    wait_until(agent.ready, 20, "ready again")
    browser.open(agent, "jobs")
    box = browser.driver.find_element(By.ID, "token")
    wait_until(box.is_displayed, 20, "the token is asked for")
    assert "many" not in browser.text()
    box.send_keys(secret("all"), Keys.ENTER)
    browser.shows("@daily")
    browser.go("deadletters")
    browser.shows("none")
    assert not box.is_displayed()
    assert browser.complaints() == []


def test_the_pages_are_safe_to_serve_and_can_be_turned_off(agent):
    answer = requests.get(f"{agent.url}/ui", timeout=10 * SLACK)
    assert answer.url == f"{agent.url}/ui/" and answer.headers["Content-Type"] == "text/html; charset=utf-8"
    for path in ("", "ui.js", "ui.css"):
        answer = requests.get(f"{agent.url}/ui/{path}", timeout=10 * SLACK)
        assert answer.status_code == 200 and answer.content
        policy = dict(p.strip().split(" ", 1) for p in answer.headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'" and policy["frame-ancestors"] == "'none'"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert requests.get(f"{agent.url}/ui/other", timeout=10 * SLACK).status_code == 404
    agent.end()
    agent.config["api"]["ui"] = False
    agent.start()
    for path in ("", "/", "/ui.js", "/ui.css"):
        answer = requests.get(f"{agent.url}/ui{path}", timeout=10 * SLACK)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
