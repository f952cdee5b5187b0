"""What the notifier sends for its parameters and a callback's context. No network."""

from __future__ import annotations

import asyncio
import importlib
import json
import pickle
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import airflow
import jinja2
import pytest

from airflow_provider_wassly.airflow_compat import bases
from airflow_provider_wassly.client import (
    OutgoingMessage,
    SendObserver,
    SendReceipt,
    WasslyClient,
    WasslyConfigError,
    WasslyInvalidMessage,
    WasslyOutcomeUnknown,
    WasslyRejected,
    WasslyUnavailable,
)
from airflow_provider_wassly.notifications import delivery
from airflow_provider_wassly.notifications.delivery import WasslyNotificationError
from airflow_provider_wassly.notifications.wassly import WasslyNotifier, send_wassly_notification

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2.11
    from airflow.models.dag import DAG  # type: ignore[no-redef]

IS_AIRFLOW_2 = airflow.__version__.startswith("2.")
FIRST = "+447700900123"
SECOND = "+491701234567"
CONNECTION: dict[str, Any] = {
    "conn_type": "wassly",
    "extra": {"apikey": "the-api-key", "token": "the-token", "instance_id": "one", "default_region": "DE"},
}


class Sent(list[OutgoingMessage]):
    """The messages that would have been sent. ``failures`` are raised instead, by number."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: dict[str, Exception] = {}

    @property
    def texts(self) -> list[str | None]:
        return [message.texts.get("message") for message in self]

    @property
    def numbers(self) -> set[str]:
        return {message.contact_mobile_number for message in self}


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    messages = Sent()

    def send(client: WasslyClient, message: OutgoingMessage, *, observer: SendObserver) -> SendReceipt:
        if failure := messages.failures.get(message.contact_mobile_number):
            raise failure
        observer.departing()
        messages.append(message)
        return SendReceipt(message_type="text", conversation_id=1, remaining_conversations=None)

    monkeypatch.setattr(WasslyClient, "send", send)
    for name in ("WASSLY_DEFAULT", "OTHER_2026_11_24"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(CONNECTION))
    return messages


def dag(**options: Any) -> DAG:
    return DAG("reports", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), **options)


def context(**values: Any) -> Any:
    return {"dag": dag(), "ds": "2026-11-24", **values}


def test_every_documented_field_is_a_template(sent: Sent, tmp_path: Path) -> None:
    for name in ("2026-11-24.pdf", "2026-11-24.png"):
        (tmp_path / name).write_bytes(b"1")
    WasslyNotifier(
        contact_mobile_number="{{ params.to }}",
        message="Report of {{ ds }}",
        document=tmp_path / "{{ ds }}.pdf",
        document_content_type="application/x-of-{{ ds }}",
        media=f"{tmp_path}/{{{{ ds }}}}.png",
        media_content_type="image/x-of-{{ ds }}",
        instance_id="instance of {{ ds }}",
        wassly_conn_id="other_{{ ds | replace('-', '_') }}",
    )(context(params={"to": FIRST}))
    (message,) = sent
    assert (message.contact_mobile_number, message.instance_id) == (FIRST, "instance of 2026-11-24")
    assert message.texts["message"] == "Report of 2026-11-24"
    assert {name: (file.name, file.content_type) for name, file in message.files.items()} == {
        "document": ("2026-11-24.pdf", "application/x-of-2026-11-24"),
        "media": ("2026-11-24.png", "image/x-of-2026-11-24"),
    }


def test_without_a_message_it_tells_what_happened(sent: Sent) -> None:
    WasslyNotifier(contact_mobile_number=FIRST)(context(reason="task_failure"))
    assert str(sent.texts[0]).startswith("❌ *DAG failed*: `reports`")
    assert sent[0].instance_id == "one"


@pytest.mark.parametrize("native", [False, True])
def test_what_looks_like_a_number_stays_text(sent: Sent, native: bool) -> None:
    notifier = WasslyNotifier(
        contact_mobile_number=["{{ params.to }}"], message="{{ '[1, 2]' }}", instance_id="{{ params.instance }}"
    )
    params = {"to": FIRST, "instance": 12345678}
    notifier(context(dag=dag(render_template_as_native_obj=native), params=params))
    assert (sent.numbers, sent.texts, sent[0].instance_id) == ({FIRST}, ["[1, 2]"], "12345678")


@pytest.mark.parametrize("nobody", [None, 447700900123, 1.5])
def test_what_cannot_be_numbers_is_an_error_when_the_dag_is_parsed(nobody: Any) -> None:
    with pytest.raises(ValueError, match="contact_mobile_number: must be text or a list of texts, not "):
        WasslyNotifier(contact_mobile_number=nobody)


@pytest.mark.parametrize(
    "numbers",
    [
        f"{FIRST},{SECOND}",
        f" {FIRST} ; {SECOND};\n",
        f"{FIRST}\n{SECOND}\n",
        "{{ params.both }}",
        [FIRST, SECOND],
        (FIRST, SECOND),
        {FIRST, SECOND},
        ["{{ params.first }}", SECOND],
        ["{{ params.both }}"],
        [f"{FIRST}, {SECOND}", "{{ params.first }}"],
        [FIRST, SECOND, "0044 7700 900123", "0170 1234567", "+44 (7700) 900-123"],
        [FIRST, "tel:" + SECOND, "+44 07700 900123", "+49 (0)170 1234567"],
        # A template that renders to a list, such as an on-call list in a JSON Variable.
        "{{ params.on_call }}",
        "{{ params.on_call | tojson }}",
        "{{ params.on_call | list | string }}",
        "{{ (params.first, params.second) }}",
        "\n{{ params.written }} ",
        "{{ params.spread }}",
        ["{{ params.on_call }}", "{{ params.first }}"],
        # Callables, as in any template field.
        lambda context, jinja_env: [context["params"]["first"], SECOND],
        lambda context, jinja_env: (number for number in context["params"]["on_call"]),
        lambda context, jinja_env: {FIRST: "Amira", SECOND: "Björn"}.keys(),
        lambda context, jinja_env: context["params"]["both"],
        lambda context, jinja_env: jinja_env.from_string("{{ params.on_call }}").render(context),
        [lambda context, jinja_env: context["params"]["second"], "{{ params.first }}"],
    ],
)
def test_the_ways_to_write_two_numbers(sent: Sent, numbers: Any) -> None:
    params = {
        "first": FIRST,
        "second": SECOND,
        "both": f"{FIRST}, {SECOND}",
        "on_call": [FIRST, SECOND],
        "written": json.dumps([FIRST, SECOND], indent=1),
        "spread": [[FIRST], f"{SECOND}, {FIRST}"],
    }
    WasslyNotifier(contact_mobile_number=numbers, message="Hello")(context(params=params))
    assert (sent.numbers, sent.texts) == ({FIRST, SECOND}, ["Hello", "Hello"])


def test_a_national_number_that_begins_with_a_bracket_is_no_list(sent: Sent) -> None:
    WasslyNotifier(contact_mobile_number="(0170) 1234567", message="Hello")(context())
    assert sent.numbers == {SECOND}


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("[447700900123]", "must be text with country code, not int"),
        ("[null]", "empty"),
        (f"[{FIRST}", "contains '\\['"),
        ("[" * 5000, "contains '\\['"),
    ],
)
def test_what_a_list_holds_is_checked_as_any_number(sent: Sent, written: str, reason: str) -> None:
    with pytest.raises(WasslyInvalidMessage, match=f"contact_mobile_number: {reason}"):
        WasslyNotifier(contact_mobile_number=written, message="Hello").notify(context())
    assert sent == []


def test_every_field_can_be_called(sent: Sent, tmp_path: Path) -> None:
    (tmp_path / "report.pdf").write_bytes(b"1")

    def of(name: str, value: Any) -> Any:
        def call(context: Any, jinja_env: jinja2.Environment) -> Any:
            asked.append(name)
            assert context["ds"] == "2026-11-24"
            assert jinja_env.from_string("{{ 1 }}").render() == "1"
            return value

        return call

    asked: list[str] = []
    notifier = WasslyNotifier(
        contact_mobile_number=of("number", FIRST),
        message=of("message", "{{ not rendered again }}"),
        document=of("document", tmp_path / "report.pdf"),
        media=of("media", None),
        instance_id=of("instance", "two"),
        wassly_conn_id=of("connection", "wassly_default"),
    )
    for _ in range(2):
        notifier(context())
    assert sorted(asked) == sorted(2 * ["number", "message", "document", "media", "instance", "connection"])
    assert sent.texts == ["{{ not rendered again }}"] * 2
    assert [(message.instance_id, message.files["document"].name) for message in sent] == [("two", "report.pdf")] * 2


def test_what_a_field_takes_to_be_called_is_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[float] = []
    began: list[float] = []

    def number(context: Any, jinja_env: jinja2.Environment) -> str:
        called.append(time.monotonic())
        return FIRST

    async def alert() -> None:
        await notifier

    monkeypatch.setattr(
        delivery, "notify_everybody", lambda numbers, message, **options: began.append(options["began"])
    )
    notifier = WasslyNotifier(contact_mobile_number=number, context=context(reason="success"))
    notifier(context())
    if hasattr(bases.BaseNotifier, "__await__"):  # Airflow before 3.1 does not await notifiers
        asyncio.run(alert())
    assert len(began) == len(called) > 0
    assert all(before <= after for before, after in zip(began, called, strict=True))


def test_where_a_call_gives_no_text_the_default_one_is_sent(sent: Sent) -> None:
    WasslyNotifier(contact_mobile_number=FIRST, message=lambda context, jinja_env: None)(context(reason="success"))
    assert str(sent.texts[0]).startswith("✅ *DAG succeeded*: `reports`")


def test_the_output_of_a_task_can_be_a_field(sent: Sent) -> None:
    # Airflow 2 recognises it by its class, all other versions by its method.
    kind: Any = importlib.import_module("airflow.utils.mixins").ResolveMixin if IS_AIRFLOW_2 else object

    class Output(kind):  # type: ignore[misc]
        """Has the interface of a task's output in a DAG file: iterating over it only raises an error."""

        def resolve(self, context: Any, **options: Any) -> Any:
            return context["params"]["on_call"]

        def __iter__(self) -> Any:
            raise TypeError("not iterable")

        def iter_references(self) -> Any:
            return ()

    WasslyNotifier(contact_mobile_number=Output(), message="Hello")(context(params={"on_call": [FIRST, SECOND]}))
    assert sent.numbers == {FIRST, SECOND}


def test_the_numbers_can_come_out_of_a_generator_and_serve_many_calls(sent: Sent) -> None:
    notifier = WasslyNotifier(contact_mobile_number=(number for number in (FIRST, SECOND)), message="Hello")
    notifier(context())
    notifier(context())
    assert len(sent) == 4


@pytest.mark.parametrize(
    "numbers", ["", " , ", [], [""], [None], "{{ params.nobody }}", "[]", "{{ [] }}", lambda context, jinja_env: []]
)
def test_nobody_to_notify_is_an_error(sent: Sent, numbers: Any) -> None:
    notifier = WasslyNotifier(contact_mobile_number=numbers, message="Hello")
    told = context(params={"nobody": ""})
    notifier.render_template_fields(told)
    with pytest.raises(WasslyInvalidMessage, match="contact_mobile_number: empty"):
        notifier.notify(told)
    assert sent == []


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("\x1b[31mred\x1b[0m,\tas *ever*\n- one\r\n- two\x00", "red,\tas *ever*\n- one\n- two"),
        ("half a character: \ud83d", "half a character: ?"),
        ("👩‍💻 عربي\u200f", "👩‍💻 عربي\u200f"),
    ],
)
@pytest.mark.parametrize("is_called", [False, True])
def test_what_a_terminal_would_obey_is_no_part_of_a_text_of_ones_own(
    sent: Sent, written: str, read: str, is_called: bool
) -> None:
    message: Any = (lambda context, jinja_env: f"It said: {written}") if is_called else "It said: {{ exception }}"
    WasslyNotifier(contact_mobile_number=FIRST, message=message)(context(exception=ValueError(written)))
    assert sent.texts == [f"It said: {read}"]


@pytest.mark.parametrize("field", ["document", "media"])
def test_the_default_text_fits_the_caption_of_a_file(
    sent: Sent, tmp_path: Path, field: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "report.pdf").write_bytes(b"1")
    told = context(reason="x" * 5000)
    files: dict[str, Any] = {field: tmp_path / "report.pdf"}
    WasslyNotifier(contact_mobile_number=FIRST, **files)(told)
    WasslyNotifier(contact_mobile_number=FIRST)(told)
    lengths = [len(text or "") for text in sent.texts]
    assert 900 < lengths[0] <= 1024
    assert 4000 < lengths[1] <= 4096
    assert "may be cut" not in caplog.text


def test_a_message_ending_in_j2_is_read_from_its_file(sent: Sent, tmp_path: Path) -> None:
    (tmp_path / "base.j2").write_text("*{% block title %}{% endblock %}*")
    (tmp_path / "report.j2").write_text("{% extends 'base.j2' %}{% block title %}Report of {{ ds }}{% endblock %}")
    told = context(dag=dag(template_searchpath=str(tmp_path)))
    WasslyNotifier(contact_mobile_number=FIRST, message="report.j2")(told)
    WasslyNotifier(contact_mobile_number=FIRST, message="see report.j2 or {{ 'report.j2' }}")(told)
    assert sent.texts == ["*Report of 2026-11-24*", "see report.j2 or report.j2"]


def test_no_other_field_is_read_from_a_file(sent: Sent, tmp_path: Path) -> None:
    file = tmp_path / "order.j2"
    file.write_text("{{ no_template }}")
    told = context(dag=dag(template_searchpath=str(tmp_path)))
    WasslyNotifier(contact_mobile_number=FIRST, document=str(file), message="Hello", instance_id="order.j2")(told)
    (message,) = sent
    assert (message.files["document"].name, message.files["document"].size) == ("order.j2", 17)
    assert message.instance_id == "order.j2"


@pytest.mark.parametrize("message", ["no-such.j2", "{{ no_such }}", "{{ no_such"])
def test_a_message_that_cannot_be_rendered_is_an_error_and_nothing_is_sent(sent: Sent, message: str) -> None:
    with pytest.raises(jinja2.TemplateError):
        WasslyNotifier(contact_mobile_number=FIRST, message=message)(context())
    assert sent == []


@pytest.mark.parametrize(
    ("field", "error"),
    [
        ("message", "message: nothing to send"),
        ("document", "document: an empty path"),
        ("media", "media: an empty path"),
        ("wassly_conn_id", "There is no connection ''"),
    ],
)
def test_a_template_that_gives_nothing_is_not_sent_itself(sent: Sent, field: str, error: str) -> None:
    arguments: dict[str, Any] = {"message": "Hello", field: "{% if ds == 'never' %}text{% endif %}"}
    notifier = WasslyNotifier(contact_mobile_number=FIRST, **arguments)
    told = context()
    notifier.render_template_fields(told)
    with pytest.raises((WasslyInvalidMessage, WasslyConfigError), match=error):
        notifier.notify(told)
    WasslyNotifier(contact_mobile_number=FIRST, message="Hello", instance_id="{{ '' }}")(told)
    assert [message.instance_id for message in sent] == ["one"]


def test_a_deadline_alert_has_no_dag_and_is_rendered_all_the_same(sent: Sent) -> None:
    told: Any = {"dag_run": {"dag_id": "late", "conf": {"to": FIRST}}, "deadline": {"id": "1"}}
    notifier = WasslyNotifier(
        contact_mobile_number=["{{ dag_run.conf.to }}"], message="{{ dag_run.dag_id }} is late", context=told
    )
    notifier(told)
    assert (sent.numbers, sent.texts) == ({FIRST}, ["late is late"])


def test_a_template_file_where_there_is_no_dag_is_an_error_that_says_so(sent: Sent) -> None:
    notifier = WasslyNotifier(contact_mobile_number=FIRST, message="late.j2")
    with pytest.raises(ValueError, match=r"message: cannot find the template file late\.j2, because there is no DAG"):
        notifier({"deadline": {"id": "1"}})
    assert sent == []


class PartOfDag:
    """What ``airflow dags test`` passes to DAG callbacks from Airflow 3.1 on."""

    def __init__(self, file: Path) -> None:
        self.dag_id = "reports"
        self.fileloc = str(file)
        self.template_searchpath = None


def test_a_template_file_lies_beside_the_dag_also_where_airflow_has_only_a_part_of_it(
    sent: Sent, tmp_path: Path
) -> None:
    (tmp_path / "text.j2").write_text("{{ dag.dag_id }} of {{ ds }}")
    WasslyNotifier(contact_mobile_number=FIRST, message="text.j2")(context(dag=PartOfDag(tmp_path / "dag.py")))
    assert sent.texts == ["reports of 2026-11-24"]


def test_the_filters_of_the_dag_are_known(sent: Sent) -> None:
    told = context(dag=dag(user_defined_filters={"shout": str.upper}))
    WasslyNotifier(contact_mobile_number=FIRST, message="{{ 'hello' | shout }}")(told)
    assert sent.texts == ["HELLO"]


def test_templates_cannot_reach_into_python(sent: Sent) -> None:
    with pytest.raises(jinja2.exceptions.SecurityError):
        WasslyNotifier(contact_mobile_number=FIRST, message="{{ ds.__class__.__mro__ }}")(context())
    assert sent == []


def test_a_shared_notifier_tells_each_task_its_own(sent: Sent) -> None:
    numbers = ["{{ params.to }}"]
    shared = WasslyNotifier(contact_mobile_number=numbers, message="{{ task_id }} failed")
    for name, number in (("first", FIRST), ("second", SECOND)):
        shared(context(task_id=name, params={"to": number}))
    assert sent.texts == ["first failed", "second failed"]
    assert [message.contact_mobile_number for message in sent] == [FIRST, SECOND]
    assert (shared.contact_mobile_number, shared.message) == (["{{ params.to }}"], "{{ task_id }} failed")
    assert numbers == ["{{ params.to }}"]


def test_a_shared_notifier_in_many_threads(sent: Sent) -> None:
    shared = WasslyNotifier(contact_mobile_number=FIRST, message="{{ task_id }} failed")
    barrier = threading.Barrier(10)

    def call(number: int) -> None:
        barrier.wait()
        shared(context(task_id=f"task {number}"))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, sent.texts)) == [f"task {number} failed" for number in range(10)]


def test_two_notifiers_of_one_callback_do_not_mix(sent: Sent) -> None:
    # Airflow adds a notifier's fields to the context, and passes that to the next notifier.
    told = context()
    WasslyNotifier(contact_mobile_number=FIRST, message="one {{ ds }}", instance_id="two")(told)
    WasslyNotifier(contact_mobile_number=SECOND)(told)
    assert sent.texts[0] == "one 2026-11-24"
    assert str(sent.texts[1]).startswith("ℹ️ *DAG*: `reports`")
    assert [message.instance_id for message in sent] == ["two", "one"]


@pytest.mark.skipif(not IS_AIRFLOW_2, reason="only Airflow 2 has SLAs")
def test_an_sla_callback(sent: Sent) -> None:
    notifier = WasslyNotifier(contact_mobile_number=FIRST)
    notifier(dag(), "a on 2026-01-01", "", [object()], [])
    WasslyNotifier(contact_mobile_number=FIRST, message="late: {{ task_list }}")(
        dag(), "a on 2026-01-01", "", [object()], []
    )
    assert sent.texts == ["⏰ *SLA missed*: `reports`", "late: a on 2026-01-01"]


def test_the_error_of_the_only_recipient_is_raised_as_it_is(sent: Sent) -> None:
    for failure in (WasslyRejected("no quota", status=200), WasslyOutcomeUnknown("no answer")):
        sent.failures[FIRST] = failure
        for numbers in (FIRST, [FIRST, "0044 7700 900123"]):
            with pytest.raises(type(failure)) as raised:
                WasslyNotifier(contact_mobile_number=numbers, message="Hello").notify(context())
            assert raised.value is failure


def test_one_bad_recipient_does_not_stop_the_others(sent: Sent, caplog: pytest.LogCaptureFixture) -> None:
    sent.failures = {
        "+447700900125": WasslyOutcomeUnknown("the complete request was sent, but no answer came back"),
        "+447700900126": RuntimeError("a defect"),
    }
    notifier = WasslyNotifier(
        contact_mobile_number=[FIRST, "nonsense", "+447700900125", SECOND, "+447700900126"], message="Hello"
    )
    with pytest.raises(WasslyNotificationError) as raised:
        notifier.notify(context())
    assert sent.numbers == {FIRST, SECOND}
    error = raised.value
    assert {who: type(failure) for who, failure in error.failures.items()} == {
        "recipient 2 (no…se)": WasslyInvalidMessage,
        "recipient 3 (+44…0125)": WasslyOutcomeUnknown,
        "recipient 5 (+44…0126)": WasslyUnavailable,
    }
    assert str(error) == (
        "3 of 5 recipients: "
        "NOT notified: recipient 2 (no…se): contact_mobile_number: "
        "contains letters; remove any name or extension; "
        "UNKNOWN whether notified: recipient 3 (+44…0125): the complete request was sent, but no answer came back; "
        "NOT notified: recipient 5 (+44…0126): RuntimeError: a defect"
    )
    # Airflow logs the exception.
    assert "otified" not in caplog.text
    assert "900125" not in caplog.text


def test_a_defect_after_the_request_has_left_is_an_unknown_outcome(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    def send(client: WasslyClient, message: OutgoingMessage, *, observer: SendObserver) -> SendReceipt:
        observer.departing()
        raise KeyError("a defect")

    monkeypatch.setattr(WasslyClient, "send", send)
    with pytest.raises(WasslyOutcomeUnknown, match="KeyError"):
        WasslyNotifier(contact_mobile_number=FIRST, message="Hello").notify(context())


def test_the_error_survives_the_way_to_another_process(sent: Sent) -> None:
    sent.failures[FIRST] = WasslyRejected("no quota", status=200)
    with pytest.raises(WasslyNotificationError) as raised:
        WasslyNotifier(contact_mobile_number=[FIRST, SECOND], message="Hello").notify(context())
    copied = pickle.loads(pickle.dumps(raised.value))
    assert (str(copied), copied.summary) == (str(raised.value), raised.value.summary)
    assert list(copied.failures) == ["recipient 1 (+44…0123)"]


@pytest.mark.parametrize("numbers", [FIRST, [FIRST, SECOND]])
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"wassly_conn_id": "no_such"}, "There is no connection 'no_such'"),
        ({"document": "/no/such/file"}, "document: no such file"),
        ({"message": " \n"}, "message: nothing to send"),
    ],
)
def test_what_is_wrong_for_everybody(sent: Sent, numbers: Any, arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(Exception, match=error):
        WasslyNotifier(contact_mobile_number=numbers, **{"message": "Hello", **arguments}).notify(context())
    assert sent == []


def test_it_goes_by_the_name_that_other_providers_use() -> None:
    assert send_wassly_notification(contact_mobile_number=FIRST).contact_mobile_number == FIRST


def test_what_is_known_of_all_who_were_not_reached_is_known_of_the_whole() -> None:
    no, unknown = WasslyUnavailable("no"), WasslyOutcomeUnknown("perhaps")
    assert WasslyNotificationError({"a": no, "b": no}, 3).accepted is False
    assert WasslyNotificationError({"a": no, "b": unknown}, 3).accepted is None
