"""Headless Chromium for test drivers, by its DevTools protocol over two pipes: messages are JSON, each ended by a zero byte."""
import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

import harness

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find():
    """The browser's path; ends the driver, as skipped, where there is none."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    harness.skip("no browser here (as Debian's package: chromium)")


class Browser:
    """One page in a browser of its own, until the with-block ends; what goes wrong in its console is kept."""

    def __init__(self, width=1200, height=900, timeout=60):
        self.timeout, self.number, self.answers, self.troubles, self.loads = timeout, 0, {}, [], 0
        self.folder = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        to_browser, self.to_browser = os.pipe()
        self.from_browser, from_browser = os.pipe()
        # The browser reads descriptor 3 and writes 4; ours are moved out of the way first, where they may be just these.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100) for fd in (to_browser, from_browser)]
        command = [
            find(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio", "--disable-extensions",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
            f"--user-data-dir={self.folder.name}", f"--window-size={width},{height}", "about:blank",
        ]
        self.process = subprocess.Popen(
            command, pass_fds=(3, 4), preexec_fn=lambda: (os.dup2(high[0], 3), os.dup2(high[1], 4)), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )
        for fd in (to_browser, from_browser, *high):
            os.close(fd)
        self.unread, self.session = b"", None
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM", "Accessibility"):
            self.call(f"{domain}.enable")
        self.size(width, height)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.to_browser)
        os.close(self.from_browser)
        self.folder.cleanup()

    # ---- messages ----

    def take(self, message):
        if "id" in message:
            self.answers[message["id"]] = message
        elif message["method"] == "Runtime.exceptionThrown":
            self.troubles.append(json.dumps(message["params"]["exceptionDetails"])[:500])
        elif message["method"] == "Runtime.consoleAPICalled" and message["params"]["type"] in ("error", "warning", "assert"):
            self.troubles.append(json.dumps(message["params"]["args"])[:500])
        elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] in ("error", "warning"):
            self.troubles.append(message["params"]["entry"]["text"])
        elif message["method"] == "Page.loadEventFired":
            self.loads += 1

    def read(self, deadline):
        """Takes what comes; fails when nothing does."""
        left = deadline - time.time()
        if left <= 0 or not select.select([self.from_browser], [], [], left)[0]:
            raise harness.Failed(f"the browser says nothing for {self.timeout} s")
        data = os.read(self.from_browser, 1 << 20)
        if not data:
            raise harness.Failed("the browser has ended")
        *whole, self.unread = (self.unread + data).split(b"\0")
        for message in whole:
            self.take(json.loads(message))

    def call(self, method, **params):
        self.number += 1
        number, deadline = self.number, time.time() + self.timeout
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to_browser, data):]
        while number not in self.answers:
            self.read(deadline)
        answer = self.answers.pop(number)
        if "error" in answer:
            raise harness.Failed(f"{method}: {answer['error']}")
        return answer["result"]

    # ---- what a person does ----

    def size(self, width, height, mobile=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def open(self, url):
        loads, deadline = self.loads, time.time() + self.timeout
        answer = self.call("Page.navigate", url=url)
        if "errorText" in answer:
            raise harness.Failed(f"{url}: {answer['errorText']}")
        while self.loads == loads:
            self.read(deadline)

    def value(self, script):
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise harness.Failed(f"{script}: {json.dumps(answer['exceptionDetails'])[:500]}")
        return answer["result"].get("value")

    def wait(self, script, what):
        """Until an expression is true."""
        deadline = time.time() + self.timeout
        while not self.value(script):
            if time.time() > deadline:
                raise harness.Failed(f"{what}: not within {self.timeout} s")
            time.sleep(0.05)

    def key(self, key, code, number):
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code, windowsVirtualKeyCode=number)

    def tab(self):
        self.key("Tab", "Tab", 9)

    def screenshot(self):
        """A PNG's bytes."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
