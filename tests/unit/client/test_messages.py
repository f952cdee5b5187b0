from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_wassly.client import (
    Attachment,
    MessageParameters,
    OutgoingMessage,
    WasslyClient,
    WasslyInvalidMessage,
)

NUMBER = "+491701234567"


@pytest.fixture(scope="module")
def client() -> WasslyClient:
    return WasslyClient(apikey="k", token="t")


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.pdf"
    path.write_bytes(b"%PDF")
    return path


def prepare(client: WasslyClient, **values: Any) -> OutgoingMessage:
    return client.prepare(MessageParameters(**{"contact_mobile_number": NUMBER, "instance_id": "i", **values}))


def test_only_what_is_given_is_sent_and_the_required_fields_come_last(client: WasslyClient, report: Path) -> None:
    message = prepare(client, message=" hi\n", contact_name="Zoë", document=report)
    assert list(message.texts.items()) == [
        ("message", " hi\n"),
        ("contact_name", "Zoë"),
        ("contact_mobile_number", NUMBER),
        ("instance_id", "i"),
    ]
    assert list(message.files) == ["document"]
    assert list(prepare(client, message="hi").texts) == ["message", "contact_mobile_number", "instance_id"]


@pytest.mark.parametrize("name", [None, "", " \n"])
def test_an_empty_contact_name_is_left_out(client: WasslyClient, name: str | None) -> None:
    assert "contact_name" not in prepare(client, message="hi", contact_name=name).texts


def test_document_and_media_go_together(client: WasslyClient, report: Path) -> None:
    message = prepare(client, document=report, media=str(report))
    assert list(message.files) == ["document", "media"]
    assert message.kind == "document and media"


@pytest.mark.parametrize("text", [None, "", " ", "\t\r\n\u00a0\u2003"])
def test_nothing_to_send(client: WasslyClient, text: str | None) -> None:
    with pytest.raises(WasslyInvalidMessage, match="nothing to send") as caught:
        prepare(client, message=text)
    assert caught.value.field == "message"


def test_white_space_is_not_sent_as_a_caption(client: WasslyClient, report: Path) -> None:
    assert "message" not in prepare(client, message=" \n", media=report).texts


@pytest.mark.parametrize(("length", "with_file", "warns"), [(4096, 0, 0), (4097, 0, 1), (1024, 1, 0), (1025, 1, 1)])
def test_a_long_text_is_a_warning_and_never_cut(
    client: WasslyClient,
    report: Path,
    caplog: pytest.LogCaptureFixture,
    length: int,
    with_file: bool,
    warns: bool,
) -> None:
    message = prepare(client, message="ä" * length, document=report if with_file else None)
    assert message.texts["message"] == "ä" * length
    assert bool(caplog.records) == warns
    if warns:
        assert str(length) in caplog.text
        assert "ä" not in caplog.text


@pytest.mark.parametrize("value", ["", "  ", None])
def test_an_instance_id_is_required(client: WasslyClient, value: str | None) -> None:
    with pytest.raises(WasslyInvalidMessage, match="instance_id: empty"):
        prepare(client, message="hi", instance_id=value)


@pytest.mark.parametrize("parameter", ["message", "contact_name", "instance_id"])
@pytest.mark.parametrize("value", [5, b"hi", ["hi"], {"a": 1}, object()])
def test_a_text_of_another_type_is_refused(client: WasslyClient, parameter: str, value: object) -> None:
    with pytest.raises(WasslyInvalidMessage, match="must be text") as caught:
        prepare(client, **{"message": "hi", parameter: value})
    assert caught.value.field == parameter


@pytest.mark.parametrize("parameter", ["document", "media"])
@pytest.mark.parametrize("value", [5, b"/tmp/x", ["report.pdf"], {"a": 1}, object(), True])
def test_a_file_of_another_type_is_refused(client: WasslyClient, parameter: str, value: object) -> None:
    with pytest.raises(WasslyInvalidMessage, match="must be a path") as caught:
        prepare(client, **{parameter: value})
    assert caught.value.field == parameter


def test_half_a_character_is_refused(client: WasslyClient) -> None:
    with pytest.raises(WasslyInvalidMessage, match="message: contains half a character"):
        prepare(client, message="hi \ud83d")


def test_an_empty_file_is_refused(client: WasslyClient, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    with pytest.raises(WasslyInvalidMessage, match=r"document: empty\.csv is empty"):
        prepare(client, document=tmp_path / "empty.csv")


def test_who_is_not_allowed_is_refused_however_the_number_is_written() -> None:
    client = WasslyClient(
        apikey="k", token="t", default_region="DE", allowed_recipients=["0170 1234567", "+49 (170) 7654321"]
    )
    for number in ("+491701234567", "00491701234567", "0170-1234567", "+491707654321"):
        prepare(client, contact_mobile_number=number, message="hi")
    for number in ("+49 0170 1234567", "+49 (0)170 1234567", "tel:+491701234567"):
        prepare(client, contact_mobile_number=number, message="hi")
    with pytest.raises(WasslyInvalidMessage, match="allowed_recipients"):
        prepare(client, contact_mobile_number="+49 0170 1234568", message="hi")
    with pytest.raises(WasslyInvalidMessage, match="allowed_recipients") as caught:
        prepare(client, contact_mobile_number="+491701234568", message="hi")
    assert "+49…4568" in str(caught.value)
    assert "491701234568" not in str(caught.value)


def test_the_list_of_who_is_allowed_can_hold_trunk_prefixes_too() -> None:
    client = WasslyClient(apikey="k", token="t", allowed_recipients=["+44 07700 900123", "whatsapp:+49 (0)170 1234567"])
    for number in ("+447700900123", "+44 (0)7700 900123", "+491701234567"):
        prepare(client, contact_mobile_number=number, message="hi")


def test_a_doubtful_number_comes_with_a_warning(client: WasslyClient) -> None:
    message = prepare(client, contact_mobile_number="+49 (0)170 1234567", message="hi")
    assert message.texts["contact_mobile_number"] == message.contact_mobile_number == NUMBER
    assert "+49…4567" in message.warning
    assert NUMBER[1:] not in message.warning
    assert prepare(client, message="hi").warning == ""


def test_with_an_empty_list_nobody_is_allowed() -> None:
    client = WasslyClient(apikey="k", token="t", allowed_recipients=[])
    with pytest.raises(WasslyInvalidMessage, match="allowed_recipients"):
        prepare(client, message="hi")


def test_a_prepared_message_shows_neither_number_nor_text(client: WasslyClient, report: Path) -> None:
    shown = repr(prepare(client, message="private", contact_name="name", document=report))
    for hidden in ("private", "name", "1701234567", "report"):
        assert hidden not in shown


ANYTHING = st.one_of(st.none(), st.text(), st.integers(), st.binary(), st.lists(st.text()), st.just(object()))


@given(
    number=st.one_of(st.just(NUMBER), ANYTHING),
    instance=ANYTHING,
    message=ANYTHING,
    name=ANYTHING,
    file=st.one_of(st.none(), st.text(), st.just(Attachment(name="a", size=1, opener=io.BytesIO))),
)
def test_whatever_is_given_it_is_a_message_or_refused(
    client: WasslyClient, number: object, instance: object, message: object, name: object, file: Any
) -> None:
    try:
        made = prepare(
            client,
            contact_mobile_number=number,
            instance_id=instance,
            message=message,
            contact_name=name,
            document=file,
        )
    except WasslyInvalidMessage:
        return
    assert list(made.texts)[-2:] == ["contact_mobile_number", "instance_id"]
    assert all(made.texts.values())
    assert made.files or made.texts["message"].strip()
