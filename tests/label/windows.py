"""Windows of a real browser in which robots label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PHONE = {"width": 360, "height": 640}


class Robot:
    """A page in a window of its own; what its console complains of fails the test."""

    def __init__(self, browser: Browser, url: str, **context: Any):
        self.context = browser.new_context(viewport=PHONE, **context)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on(
            "console", lambda message: message.type == "error" and self.complaints.append(message.text)
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(url)

    def begin(self) -> Page:
        """Close the instructions and wait for the first item."""
        self.page.wait_for_selector("#help[open]")
        self.page.click("#close-help")
        self.page.wait_for_selector("#foot:not([hidden])")
        return self.page

    def submit(self) -> None:
        """Submit by the button and wait until the next item, or the end, is there."""
        before = self.page.inner_text("#progress")
        self.page.click("#submit")
        self.page.wait_for_function(
            "(text) => document.querySelector('#progress').innerText !== text", arg=before
        )
