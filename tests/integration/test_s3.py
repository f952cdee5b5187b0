"""The rights that an account needs in a real S3: only to read what it sends, and to write its reports."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

import pytest

from airflow_provider_wassly.broadcast.recipients import NUMBER, RecipientList, Row
from airflow_provider_wassly.broadcast.report import Line, Report, Unsent
from airflow_provider_wassly.client import WasslyInvalidMessage
from airflow_provider_wassly.files.attachments import resolve_attachment
from airflow_provider_wassly.hooks.wassly import WasslyHook
from airflow_provider_wassly.sandbox import Sandbox
from tests.support.storages import attach

if version("urllib3") == "2.2.0":  # the lowest version of the package, which every botocore excludes
    pytest.skip("no S3 client runs with urllib3 2.2.0", allow_module_level=True)

import boto3
import requests
import s3fs
from moto.server import ThreadedMotoServer

TO = "+447700900123"
FILES = {
    "list.csv": f"{NUMBER}\n{TO}\n".encode(),
    "فواتير/مارس 100%20.xlsx": b"a workbook",
    "out/old.csv": b"the report before",
}
RIGHTS = {
    "reader": ["s3:GetObject", "arn:aws:s3:::bucket/*"],
    "writer": ["s3:PutObject", "arn:aws:s3:::bucket/out/*"],
    "nobody": ["s3:GetObject", "arn:aws:s3:::bucket/nothing"],
    "owner": ["s3:*", "*"],
}


@pytest.fixture(scope="module")
def accounts() -> Iterator[Mapping[str, Any]]:
    """Return each account's view of one bucket; the account's name is the Airflow connection's id."""
    with pytest.MonkeyPatch.context() as patch:
        # Use none of the user's settings, and do not ask the cloud's metadata service for credentials.
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        try:
            host, port = server.get_host_and_port()
            yield _fill(f"http://{host}:{port}")
        finally:
            server.stop()


def _fill(url: str) -> dict[str, Any]:
    options: Any = {
        "endpoint_url": url,
        "region_name": "us-east-1",
        "aws_access_key_id": "before-rights-are-checked",
        "aws_secret_access_key": "any",
    }
    s3, iam = boto3.client("s3", **options), boto3.client("iam", **options)
    s3.create_bucket(Bucket="bucket")
    for key, content in FILES.items():
        s3.put_object(Bucket="bucket", Key=key, Body=content)
    accounts = {}
    for name, (action, resource) in RIGHTS.items():
        iam.create_user(UserName=name)
        policy = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": action, "Resource": resource}],
        }
        iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        accounts[name] = s3fs.S3FileSystem(
            key=key["AccessKeyId"],
            secret=key["SecretAccessKey"],
            endpoint_url=url,
            client_kwargs={"region_name": "us-east-1"},
            skip_instance_cache=True,
        )
        attach("s3", name, accounts[name])
    # From here on, every call is limited to its account's rights.
    requests.post(f"{url}/moto-api/reset-auth", data="0", timeout=30).raise_for_status()
    return accounts


def report(location: str, account: str, kind: type[Report] | type[Unsent] = Report) -> None:
    output = kind(location, account)
    output.add(Line(Row(1, {NUMBER: TO}), "failed"))
    output.save()
    output.close()


def test_the_rights_are_what_they_are_taken_for(accounts: Mapping[str, Any]) -> None:
    with pytest.raises(PermissionError):
        accounts["reader"].ls("bucket")
    with pytest.raises(PermissionError):
        accounts["reader"].isdir("bucket/list.csv")
    with pytest.raises(PermissionError):
        accounts["writer"].exists("bucket/out/old.csv")
    assert accounts["owner"].exists("bucket/out/old.csv")


@pytest.mark.usefixtures("wassly_default")
def test_a_file_is_sent_with_the_right_to_read_it(accounts: Mapping[str, Any], box: Sandbox) -> None:
    WasslyHook().send_message(TO, document="s3://bucket/فواتير/مارس 100%20.xlsx", attachment_conn_id="reader")
    WasslyHook().send_message(TO, media="s3://reader@bucket/فواتير/مارس 100%20.xlsx", media_name="مارس")
    first, second = box.messages
    assert first.document is not None
    assert second.media is not None
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    for file, name in ((first.document, "مارس 100%20.xlsx"), (second.media, "مارس.xlsx")):
        assert (file.name, file.content_type, file.bytes) == (name, kind, b"a workbook")


@pytest.mark.usefixtures("wassly_default")
@pytest.mark.parametrize(("key", "account"), [("missing.pdf", "reader"), ("فواتير", "reader"), ("list.csv", "nobody")])
def test_what_cannot_be_read_is_an_error_before_anything_is_sent(
    accounts: Mapping[str, Any], box: Sandbox, key: str, account: str
) -> None:
    with pytest.raises(WasslyInvalidMessage) as raised:
        WasslyHook().send_message(TO, document=f"s3://bucket/{key}", attachment_conn_id=account)
    assert f"document: s3://bucket/{key} cannot be read: PermissionError: " in str(raised.value)
    assert "(some storages also answer this when the file is missing)" in str(raised.value)
    assert box.messages == []


def test_a_file_that_is_missing_or_a_folder_is_named_so_to_whom_may_list(accounts: Mapping[str, Any]) -> None:
    for key, reason in (("missing.pdf", "no such file: "), ("فواتير", "is a folder, not a file")):
        with pytest.raises(WasslyInvalidMessage, match=reason):
            resolve_attachment(f"s3://bucket/{key}", parameter="document", conn_id="owner")


def test_a_list_is_read_with_the_right_to_read_it(accounts: Mapping[str, Any]) -> None:
    (rows,) = RecipientList("s3://bucket/list.csv", "reader").chunks()
    assert [row.number for row in rows] == [TO]
    with pytest.raises(WasslyInvalidMessage, match="cannot be read: PermissionError"):
        list(RecipientList("s3://bucket/list.csv", "nobody").chunks())


@pytest.mark.parametrize("kind", [Report, Unsent])
@pytest.mark.parametrize("name", ["new.csv", "old.csv"])
def test_a_report_is_written_with_the_right_to_write_it(accounts: Mapping[str, Any], kind: Any, name: str) -> None:
    report(f"s3://bucket/out/{name}", "writer", kind)
    accounts["owner"].invalidate_cache()
    assert accounts["owner"].cat(f"bucket/out/{name}").decode().splitlines()[1].startswith(("1,", TO))


@pytest.mark.parametrize(("key", "account"), [("out/new.csv", "nobody"), ("elsewhere.csv", "writer")])
def test_a_report_that_cannot_be_written_is_found_out_before(
    accounts: Mapping[str, Any], key: str, account: str
) -> None:
    with pytest.raises(WasslyInvalidMessage, match=r"report: .* cannot be written: Access Denied"):
        Report(f"s3://bucket/{key}", account)
