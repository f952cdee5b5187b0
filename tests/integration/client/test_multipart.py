"""What other languages' multipart parsers read from a complete body and from a truncated one."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from airflow_provider_wassly.client import Attachment
from airflow_provider_wassly.client.transport.multipart import SendBody

from .servers import INSTANCE, NUMBER

CONTENT = bytes(range(256)) * 3
TEXT = 'Grüße,\r\n„Welt“ 🌍 \x00 -- "quoted"; name="instance_id"\r\n\r\nنص'


@dataclass
class Parsed:
    """A parser's result: text fields, and each file's name, type and SHA-256."""

    fields: dict[str, str]
    files: dict[str, tuple[str, str, str]]


#: Parses bodies, possibly truncated, with a content type and the announced length; ``None`` means refused.
Parse = Callable[[str, list[bytes], int], list[Parsed | None]]


def missing(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{what} is needed to test what other languages read")
    pytest.skip(f"{what} is not installed: what it reads is not tested here")


def tool(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        missing(f"{name} (Debian package {package})")
    assert path is not None
    return path


PHP = """<?php
$files = [];
foreach ($_FILES as $field => $file) {
    if ($file['error'] === UPLOAD_ERR_OK)
        $files[$field] = [$file['name'], $file['type'], hash_file('sha256', $file['tmp_name'])];
}
header('Content-Type: application/json');
echo json_encode(['fields' => (object)$_POST, 'files' => (object)$files], JSON_INVALID_UTF8_SUBSTITUTE);
"""


@pytest.fixture(scope="session")
def php(tmp_path_factory: pytest.TempPathFactory) -> Parse:
    interpreter = tool("php-cgi", "php-cgi")
    script = tmp_path_factory.mktemp("php") / "receive.php"
    script.write_text(PHP)

    def run(content_type: str, body: bytes, announced: int) -> Parsed:
        done = subprocess.run(
            [interpreter, "-n", "-d", "max_file_uploads=1000", "-d", "max_multipart_body_parts=2000"],
            input=body,
            env={
                "REDIRECT_STATUS": "200",
                "GATEWAY_INTERFACE": "CGI/1.1",
                "SCRIPT_FILENAME": str(script),
                "REQUEST_METHOD": "POST",
                "CONTENT_TYPE": content_type,
                "CONTENT_LENGTH": str(announced),
            },
            capture_output=True,
            check=True,
            timeout=30,
        )
        answer = json.loads(done.stdout.split(b"\r\n\r\n", 1)[1])
        return Parsed(answer["fields"], {field: tuple(file) for field, file in answer["files"].items()})

    def parse(content_type: str, bodies: list[bytes], announced: int) -> list[Parsed | None]:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda body: run(content_type, body, announced), bodies))

    return parse


NODE = """
const crypto = require('crypto');
const sha256 = (data) => crypto.createHash('sha256').update(data).digest('hex');

async function builtin(type, body) {
  const form = await new Response(body, {headers: {'content-type': type}}).formData();
  const fields = {}, files = {};
  for (const [name, value] of form) {
    if (typeof value === 'string') fields[name] = value;
    else files[name] = [value.name, value.type, sha256(Buffer.from(await value.arrayBuffer()))];
  }
  return {fields, files};
}

function busboy(type, body) {
  return new Promise((resolve, reject) => {
    const fields = {}, files = {};
    // Without this busboy reads names as Latin-1, those of browsers too.
    const parser = require('busboy')({headers: {'content-type': type}, defParamCharset: 'utf8',
                                      limits: {files: 2000, parts: 3000}});
    parser.on('field', (name, value) => { fields[name] = value; });
    parser.on('file', (name, stream, info) => {
      const hash = crypto.createHash('sha256');
      stream.on('data', (data) => hash.update(data));
      stream.on('end', () => { files[name] = [info.filename, info.mimeType, hash.digest('hex')]; });
      stream.on('error', reject);
    });
    parser.on('error', reject);
    parser.on('close', () => resolve({fields, files}));
    parser.end(body);
  });
}

(async () => {
  const {parser, type, bodies} = JSON.parse(require('fs').readFileSync(0, 'utf8'));
  const parsed = [];
  for (const body of bodies)
    parsed.push(await (parser === 'busboy' ? busboy : builtin)(type, Buffer.from(body, 'base64')).catch(() => null));
  process.stdout.write(JSON.stringify(parsed));
})();
"""


def node_parser(parser: str, folder: Path) -> Parse:
    interpreter = tool("node", "nodejs")
    script = folder / "receive.js"
    script.write_text(NODE)

    def parse(content_type: str, bodies: list[bytes], announced: int) -> list[Parsed | None]:
        asked = {
            "parser": parser,
            "type": content_type,
            "bodies": [base64.b64encode(body).decode() for body in bodies],
        }
        done = subprocess.run(
            [interpreter, str(script)], input=json.dumps(asked).encode(), capture_output=True, check=True, timeout=120
        )
        return [
            answer and Parsed(answer["fields"], {field: tuple(file) for field, file in answer["files"].items()})
            for answer in json.loads(done.stdout)
        ]

    return parse


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Parse:
    return node_parser("builtin", tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="session")
def busboy(tmp_path_factory: pytest.TempPathFactory) -> Parse:
    folder = tmp_path_factory.mktemp("busboy")
    done = subprocess.run(
        [tool("npm", "npm"), "install", "--no-audit", "--no-fund", "--ignore-scripts", "busboy@1"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode:
        missing(f"the npm package busboy ({done.stderr.strip().splitlines()[-1:]})")
    return node_parser("busboy", folder)


@pytest.fixture(scope="session")
def starlette() -> Parse:
    async def read(content_type: str, body: bytes) -> Parsed | None:
        pieces = [body[:100], body[100:]]

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        scope = {
            "type": "http",
            "method": "POST",
            "headers": [(b"content-type", content_type.encode())],
        }
        try:
            form = await Request(scope, receive).form(max_files=2000, max_fields=2000)
        except HTTPException:
            return None
        parsed = Parsed({}, {})
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                digest = hashlib.sha256(await value.read()).hexdigest()
                parsed.files[name] = (value.filename or "", value.content_type or "", digest)
            else:
                parsed.fields[name] = value
        return parsed

    def parse(content_type: str, bodies: list[bytes], announced: int) -> list[Parsed | None]:
        return [asyncio.run(read(content_type, body)) for body in bodies]

    return parse


@pytest.fixture
def parse(request: pytest.FixtureRequest) -> Parse:
    parse: Parse = request.getfixturevalue(request.param)
    return parse


#: Node's built-in parser accepts a quote in a name only as browsers write it, ``%22``; all others read that literally.
without_built_in_node = pytest.mark.parametrize("parse", ["php", "starlette", "busboy"], indirect=True)
by_every_parser = pytest.mark.parametrize("parse", ["php", "starlette", "busboy", "node"], indirect=True)


def attachment(name: str, content: bytes = CONTENT) -> Attachment:
    return Attachment(name=name, size=len(content), opener=lambda: io.BytesIO(content))


def texts(message: str = TEXT) -> dict[str, str]:
    return {
        "message": message,
        "contact_name": "محمد",
        "contact_mobile_number": NUMBER,
        "instance_id": INSTANCE,
    }


def body_of(fields: dict[str, str], files: dict[str, Attachment]) -> tuple[str, bytes, int]:
    """Return the content type, the body, and how much of it counts as harmless."""
    with SendBody(fields, files) as body:
        return body.content_type, body.stream.read(), body.harmless


NAMES = {
    "تقرير ٢٠٢٦.pdf": None,
    "Büro – 北京 🌍.pdf": None,
    'say "hello".pdf': None,
    '"': None,
    "it's.pdf": None,
    "a; filename=b.pdf": None,
    'a"; filename="b.pdf': None,
    "100%25 %22 50%.pdf": None,
    "a=b&c+d,e.pdf": None,
    "=?utf-8?q?x?=.pdf": None,
    "filename*=utf-8''x.pdf": None,
    "(a) <b> [c] {d} @ # $ ^ ` ~ |.pdf": None,
    "..": "file",
    "..pdf": None,
    "no extension": None,
    "line\r\nbreak.pdf": "line__break.pdf",
    "nul\x00.pdf": "nul_.pdf",
    "tab\t.pdf": "tab_.pdf",
    "C:\\reports\\a.pdf": "C:_reports_a.pdf",
    'back\\"slash.pdf': 'back_"slash.pdf',
    "../../etc/passwd": ".._.._etc_passwd",
    "\u2028separator\x85.pdf": "_separator_.pdf",
    "  outer spaces  ": "outer spaces",
    "\ud800.pdf": "_.pdf",
    "": "file",
}


@without_built_in_node
def test_names_and_contents_arrive_as_meant(parse: Parse) -> None:
    files = {f"file{number}": attachment(name) for number, name in enumerate(NAMES)}
    content_type, body, _ = body_of(texts(), files)
    [parsed] = parse(content_type, [body], len(body))
    assert parsed is not None
    assert parsed.fields == texts()
    digest = hashlib.sha256(CONTENT).hexdigest()
    for (field, file), (given_name, other) in zip(files.items(), NAMES.items(), strict=True):
        assert parsed.files[field] == (other or given_name, file.content_type, digest)


@without_built_in_node
@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(names=st.lists(st.text(min_size=1, max_size=30), min_size=40, max_size=40), message=st.text(min_size=1))
def test_any_name_and_any_text_arrive_as_meant(parse: Parse, names: list[str], message: str) -> None:
    message = message.encode(errors="replace").decode()
    files = {f"file{number}": attachment(name, b"x") for number, name in enumerate(names)}
    content_type, body, _ = body_of(texts(message), files)
    [parsed] = parse(content_type, [body], len(body))
    assert parsed is not None
    assert parsed.fields["message"] == message
    assert [parsed.files[field][0] for field in files] == [file.name for file in files.values()]


def cuts(length: int) -> list[int]:
    """All of the last 300 bytes, and some of the rest."""
    return sorted({*random.Random(1).sample(range(length - 300), 40), *range(length - 300, length)})


@by_every_parser
@pytest.mark.parametrize("with_file", [True, False], ids=["file", "text"])
def test_what_is_called_harmless_is_no_valid_request(parse: Parse, with_file: bool) -> None:
    content_type, body, harmless = body_of(texts("hi" * 99), {"document": attachment("a.pdf")} if with_file else {})
    harmless_cuts = [cut for cut in cuts(len(body)) if cut <= harmless]
    assert harmless in harmless_cuts
    results = parse(content_type, [body[:cut] for cut in harmless_cuts], len(body))
    for cut, parsed in zip(harmless_cuts, results, strict=True):
        assert parsed is None or "instance_id" not in parsed.fields, f"cut at {cut} of {len(body)}"


def test_php_takes_a_request_without_its_closing_delimiter(php: Parse) -> None:
    """So once the last value has begun to leave, the outcome must count as unknown."""
    content_type, body, harmless = body_of(texts(), {"document": attachment("a.pdf")})
    assert body[harmless:].startswith(b"--" + content_type.partition("boundary=")[2].encode())
    value = body.rindex(INSTANCE.encode())
    last = [value + 10, value + len(INSTANCE), len(body)]
    partial, unclosed, whole = php(content_type, [body[:cut] for cut in last], len(body))
    assert partial is not None
    assert partial.fields["instance_id"] == INSTANCE[:10]
    assert unclosed is not None
    assert unclosed.fields == texts()
    assert whole is not None
    assert whole.fields == texts()
