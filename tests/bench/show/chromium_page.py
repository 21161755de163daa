"""A headless Chromium with one page open, for tests of what is drawn in it."""

import json
import time

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,900",
)
PATIENCE = 120.0  # seconds; a busy machine may show nothing for many


class Page:
    """A browser with the report open."""

    def __init__(self, driver):
        self.driver = driver

    @classmethod
    def launch(cls, chromium, chromedriver, profile):
        """Start a headless browser with a fresh profile; `driver.quit()` ends it."""
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(executable_path=chromedriver)
        return cls(webdriver.Chrome(options=options, service=service))

    def open(self, path):
        self.driver.get(path.as_uri())
        self.wait("document.readyState === 'complete'")
        return self

    def run(self, expression, *arguments):
        return self.driver.execute_script(f"return {expression}", *arguments)

    def wait(self, expression):
        """The value of an expression once it is true; fails where it never is."""
        end = time.monotonic() + PATIENCE
        while not (value := self.run(expression)):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.05)
        return value

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def text(self, selector):
        return self.find(selector).text

    def texts(self, selector):
        return [one.text for one in self.driver.find_elements("css selector", selector)]

    def click(self, selector):
        element = self.find(selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def press(self, *names):
        from selenium.webdriver import ActionChains, Keys

        for name in names:
            ActionChains(self.driver).send_keys(getattr(Keys, name)).perform()

    def pairs(self, selector):
        """A list of terms with their descriptions, as a dictionary."""
        names, values = self.texts(f"{selector} dt"), self.texts(f"{selector} dd")
        return dict(zip(names, values, strict=True))

    def requests(self):
        """Addresses asked for since the last call."""
        entries = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        sent = [e["params"] for e in entries if e["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]
