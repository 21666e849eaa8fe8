"""A client that counts on a guest's counter, over one connection, and knows what must come back."""

import threading
from http.client import HTTPException
from typing import Final, Self

from colo_compare.demo.client import Connection
from colo_compare.demo.lab import GUEST4
from colo_compare.demo.namespace import Namespace

PATH: Final = "/counters/visits"
PATIENCE: Final = 5.0  # seconds for the last answer
PAUSE: Final = 0.02  # seconds between an answer and the next request


class Visits:
    """Counts when it is told to, and from `go_on` to the end of a ``with`` statement by itself."""

    def __init__(self, client: Namespace) -> None:
        self.connection: Final = Connection(client, GUEST4)
        self.counted = 0  # as the last answer said
        self.failure = ""  # the first answer that was wrong
        self._over: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run)

    def count(self) -> str:
        """Count one, and give the random number in the answer's head, "" if there is none.

        Raises ConnectionError when the sum is not the one before and one.
        """
        response = self.connection.request(PATH, "POST")
        said = int(response.read())
        if said != self.counted + 1:
            raise ConnectionError(f"the counter said {said} after {self.counted}")
        self.counted = said
        return response.headers["X-Random"] or ""

    def _run(self) -> None:
        try:
            while not self._over.wait(PAUSE):
                self.count()
        except (OSError, HTTPException, ValueError) as error:
            self.failure = f"{type(error).__name__}: {error}"

    def go_on(self) -> None:
        """Count by itself from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Count no more: with the answer that is on its way, if it comes at all."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self.connection.close()  # wakes the thread up, where it still waits for an answer
        if self._thread.is_alive():
            self._thread.join()
