"""Follow one message while it is being sent."""

from __future__ import annotations

from airflow_provider_wassly.client.errors import WasslyError
from airflow_provider_wassly.client.models import SendReceipt


class SendObserver:
    """
    Follows one message and remembers what became of it.

    The client calls these methods as soon as something is known, before it does anything else, such as looking up the
    reason, waiting, logging in or writing a log line. It calls them in the thread that sends.

    .. code-block:: python

        class Printing(SendObserver):
            def refused(self, error: WasslyError) -> None:
                super().refused(error)
                print("not accepted:", error)


        client.send(message, observer=Printing())
    """

    #: Whether Wassly may have accepted the message but has not answered yet. Another thread must read this before the
    #: other attributes, because it changes last.
    in_doubt: bool = False
    #: Why Wassly definitely did not accept the message at the last attempt.
    refusal: WasslyError | None = None
    #: What Wassly answered when it accepted the message.
    receipt: SendReceipt | None = None

    @property
    def may_be_accepted(self) -> bool:
        """Whether Wassly accepted the message, or may have accepted it."""
        return self.in_doubt or self.receipt is not None

    def departing(self) -> None:
        """
        Called before the last part of the request is sent.

        Without that part the request is invalid, so until now Wassly cannot have accepted the message; from now on it
        can. If this raises, the rest is not sent, and the exception is passed on. Called once per attempt.
        """
        self.refusal = None
        self.in_doubt = True

    def refused(self, error: WasslyError) -> None:
        """
        Called when Wassly definitely did not accept the message at this attempt. Another attempt can follow.

        :param error: the reason. The error that the client finally raises may explain it better.
        """
        self.refusal = error
        self.in_doubt = False

    def accepted(self, receipt: SendReceipt) -> None:
        """
        Called when Wassly accepted the message.

        :param receipt: what Wassly answered.
        """
        self.receipt = receipt
        self.in_doubt = False
