"""A real browser without a screen, in a namespace of the lab."""

import base64
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from colo_compare.demo.namespace import Namespace

PATIENCE = 30.0  # seconds
COMMANDS = ("chromium", "chromedriver")
missing = [command for command in COMMANDS if shutil.which(command) is None]


class Browser:
    """Chromium, driven by its own driver. Tests run as root, for whom it has no sandbox."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self._call = namespace.call
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for argument in (
            "headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run",
            "disable-background-networking", "disable-component-update", f"user-data-dir={directory}",
        ):  # fmt: skip
            options.add_argument(f"--{argument}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        os.environ["SE_AVOID_STATS"] = "true"
        service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
        # In the namespace's thread, so that the driver and its browser belong to the namespace.
        self._driver = self._call(webdriver.Chrome, options=options, service=service)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *exc: object) -> None:
        self._call(self._driver.quit)

    def open(self, url: str) -> None:
        """Load a page."""
        self._call(self._driver.get, url)

    def text(self, selector: str) -> str:
        """Give what a person reads in an element, "" where there is none."""
        # In one step: the page may make an element anew between finding and reading it.
        script = "const found = document.querySelector(arguments[0]); return found ? found.innerText : ''"
        text: str = self._call(self._driver.execute_script, script, selector)
        return text

    def count(self, selector: str) -> int:
        """Give how many elements there are."""
        return self._call(lambda: len(self._driver.find_elements(By.CSS_SELECTOR, selector)))

    def wait(self, condition: Callable[[], Any]) -> None:
        """Wait until something is so. Raises TimeoutException."""
        WebDriverWait(self._driver, PATIENCE, 0.1).until(lambda _: condition())

    def click(self, selector: str) -> None:
        """Click on the first such element."""
        self._call(lambda: self._driver.find_element(By.CSS_SELECTOR, selector).click())

    def press(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        chain = webdriver.ActionChains(self._driver)
        self._call(chain.send_keys(*keys).perform)

    def script(self, text: str) -> Any:
        """Give what a script returns."""
        return self._call(self._driver.execute_script, text)

    def accessible(self) -> list[dict[str, Any]]:
        """Give what a screen reader is told: the nodes of the accessibility tree that it does not skip."""
        nodes = self._command("Accessibility.getFullAXTree")["nodes"]
        return [node for node in nodes if not node["ignored"]]

    def complaints(self) -> list[str]:
        """Give what the browser has put into its console since it was asked last: errors, refusals."""
        return [json.dumps(entry) for entry in self._call(self._driver.get_log, "browser")]

    def look(self, *, dark: bool = False, width: int = 1100, height: int = 900, phone: bool = False) -> None:
        """Be a screen of this size (CSS pixels), on a desk or in a hand, in the light or in the dark."""
        self._command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._command("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Write what is to be seen, the whole page or what fits on the screen, as PNG."""
        shot = self._command("Page.captureScreenshot", captureBeyondViewport=whole, format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def _command(self, name: str, **parameters: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._call(self._driver.execute_cdp_cmd, name, parameters)
        return answer


TAB, ENTER, ESCAPE = Keys.TAB, Keys.ENTER, Keys.ESCAPE
