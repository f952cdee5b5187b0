"""What is known of a message while it is being sent."""

from __future__ import annotations

from airflow_provider_wassly.client.errors import WasslyError
from airflow_provider_wassly.client.models import SendReceipt


class SendObserver:
    """
    Is told what becomes of one message, and knows it from then on.

    The client tells at the moment when it is certain, before it does anything else: looks up why, waits, logs in, or
    writes a log line. It does so in the thread that called it.

    .. code-block:: python

        class Printing(SendObserver):
            def refused(self, error: WasslyError) -> None:
                super().refused(error)
                print("certainly not accepted:", error)


        client.send(message, observer=Printing())
    """

    #: Whether the message may have been accepted and no answer has told yet. To be read before the others by whoever
    #: reads them in another thread: it is the last that changes.
    in_doubt: bool = False
    #: Why it certainly was not accepted, the last time that it was tried.
    refusal: WasslyError | None = None
    #: What Wassly answered when it accepted the message.
    receipt: SendReceipt | None = None

    @property
    def may_be_accepted(self) -> bool:
        """Whether the message was accepted, or may have been."""
        return self.in_doubt or self.receipt is not None

    def departing(self) -> None:
        """
        Be told that the message leaves.

        All of the request has left then but its last part, without which it is no valid one: nothing can have been
        accepted before, and from now on it can. If this raises, the rest of the request does not leave, and the
        exception is passed on. Called once for each time that the message is tried.
        """
        self.refusal = None
        self.in_doubt = True

    def refused(self, error: WasslyError) -> None:
        """
        Be told that this try of the message certainly was not accepted. Another one can follow.

        :param error: why. The error that the client raises in the end may explain it better.
        """
        self.refusal = error
        self.in_doubt = False

    def accepted(self, receipt: SendReceipt) -> None:
        """Be told that Wassly accepted the message."""
        self.receipt = receipt
        self.in_doubt = False
