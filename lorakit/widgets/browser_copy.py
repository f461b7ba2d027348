"""A copy of the answers in the browser, for machines that are gone when the session ends.

It lies in the page's localStorage, an item an answer, and is found again by any kernel behind the
same address. Nothing is sent anywhere. Needs anywidget, which `keeping.py` imports only if it is
there.
"""

import json
from typing import Any

import anywidget

from lorakit.answers import Answers

# The page speaks first, with what it holds; what it is told then, it does.
PAGE = """
const ROOM = "lorakit-answers/";

function held() {
    const names = Object.keys(localStorage).filter(name => name.startsWith(ROOM));
    return Object.fromEntries(
        names.map(name => [name.slice(ROOM.length), localStorage.getItem(name)]));
}

function render({ model }) {
    const speak = act => {
        try { act(); } catch (error) { model.send({ blocked: String(error) }); }
    };
    const hear = ({ set, remove }) => speak(() => {
        for (const [key, text] of Object.entries(set)) localStorage.setItem(ROOM + key, text);
        for (const key of remove) localStorage.removeItem(ROOM + key);
    });
    model.on("msg:custom", hear);
    speak(() => model.send({ held: held() }));
    return () => model.off("msg:custom", hear);
}

export default { render };
"""


class BrowserCopy(anywidget.AnyWidget):
    """Brings what the browser holds to `answers`, and what changes there to the browser.

    What is here stays, as in `Answers.restore`. `told` is called with a line of words when the
    browser has spoken.
    """

    _esm = PAGE

    def __init__(self, answers: Answers, told: Any):
        self.answers, self.told = answers, told
        self._held: dict[str, str] | None = None  # by the browser, as JSON; None: not heard of it
        self._known: set[str] = set()  # whatever was here or there since
        super().__init__()
        self.on_msg(self._hear)
        answers.watch(self.bring)

    def _hear(self, widget: Any, content: dict[str, Any], buffers: Any) -> None:
        if "blocked" in content:
            self.told(f"this browser keeps nothing ({content['blocked']})")
            return
        held: dict[str, str] = content["held"]
        # What was forgotten here while no page was looking stays forgotten.
        gone = self._known - set(self.answers.keys())
        found = readable({key: text for key, text in held.items() if key not in gone})
        self._held = held
        came = self.answers.restore(found.export())
        self.bring()
        self.told(f"and in this browser, where more were found: {came}")

    def bring(self) -> None:
        """Tell the browser what has changed since."""
        if self._held is None:
            return
        now = {key: json.dumps(value) for key, value in json.loads(self.answers.export()).items()}
        new = {key: text for key, text in now.items() if self._held.get(key) != text}
        gone = sorted(self._held.keys() - now.keys())
        self._held = now
        self._known |= now.keys()
        if new or gone:
            self.send({"set": new, "remove": gone})

    def close(self) -> None:
        self.answers.unwatch(self.bring)
        super().close()


def readable(held: dict[str, str]) -> Answers:
    """What of it is an answer; anything else can be in a browser's storage too."""
    found = Answers()
    for key, text in held.items():
        try:
            found.set(key, json.loads(text))
        except (ValueError, RecursionError):
            continue
    return found
