"""What explorables of kept answers share: they follow them, as long as they are on the page."""

from lorakit.answers import Answers, kept
from lorakit.widgets.explorable import Explorable


class Answering(Explorable):
    """Its `refresh` shows what is kept; `follow` calls that now and after each change."""

    _followed: Answers | None = None

    def follow(self) -> None:
        self._followed = self.answers
        self._followed.watch(self.refresh)
        self.refresh()

    @property
    def answers(self) -> Answers:
        """The lesson's, as they were when it began to follow them."""
        return self._followed or kept()

    def refresh(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        if self._followed is not None:
            self._followed.unwatch(self.refresh)
        super().close()
