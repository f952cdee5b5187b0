"""The type of a file, derived from its name."""

from __future__ import annotations

import mimetypes
import os
import re
from functools import lru_cache

#: Types that some Python versions do not know, or know by a name that phones do not.
_TABLE = """
application/gzip gz tgz taz svgz
application/jsonl jsonl ndjson
application/msword doc dot
application/pdf pdf
application/rtf rtf
application/sql sql
application/vnd.android.package-archive apk
application/vnd.apache.avro avro
application/vnd.apache.parquet parquet
application/vnd.apple.numbers numbers
application/vnd.apple.pages pages
application/vnd.google-earth.kml+xml kml
application/vnd.google-earth.kmz kmz
application/vnd.ms-excel xls xlt xlb
application/vnd.ms-excel.sheet.binary.macroEnabled.12 xlsb
application/vnd.ms-excel.sheet.macroEnabled.12 xlsm
application/vnd.ms-excel.template.macroEnabled.12 xltm
application/vnd.ms-outlook msg
application/vnd.ms-powerpoint ppt pps pot
application/vnd.ms-powerpoint.presentation.macroEnabled.12 pptm
application/vnd.ms-powerpoint.slideshow.macroEnabled.12 ppsm
application/vnd.ms-project mpp
application/vnd.ms-word.document.macroEnabled.12 docm
application/vnd.ms-word.template.macroEnabled.12 dotm
application/vnd.ms-xpsdocument xps
application/vnd.oasis.opendocument.chart odc
application/vnd.oasis.opendocument.formula odf
application/vnd.oasis.opendocument.graphics odg
application/vnd.oasis.opendocument.presentation odp
application/vnd.oasis.opendocument.presentation-template otp
application/vnd.oasis.opendocument.spreadsheet ods
application/vnd.oasis.opendocument.spreadsheet-template ots
application/vnd.oasis.opendocument.text odt
application/vnd.oasis.opendocument.text-template ott
application/vnd.openxmlformats-officedocument.presentationml.presentation pptx
application/vnd.openxmlformats-officedocument.presentationml.slideshow ppsx
application/vnd.openxmlformats-officedocument.presentationml.template potx
application/vnd.openxmlformats-officedocument.spreadsheetml.sheet xlsx
application/vnd.openxmlformats-officedocument.spreadsheetml.template xltx
application/vnd.openxmlformats-officedocument.wordprocessingml.document docx
application/vnd.openxmlformats-officedocument.wordprocessingml.template dotx
application/vnd.rar rar
application/vnd.visio vsd vsdx
application/epub+zip epub
application/geo+json geojson
application/java-archive jar
application/x-7z-compressed 7z
application/x-bzip2 bz2 tbz2
application/x-compress z
application/x-iso9660-image iso
application/x-mobipocket-ebook mobi
application/x-mspublisher pub
application/x-tar tar
application/x-xz xz txz
application/yaml yaml yml
application/zip zip
application/zstd zst
audio/aac aac
audio/amr amr
audio/flac flac
audio/mp4 m4a m4b
audio/mpeg mp3
audio/ogg ogg oga opus
audio/webm weba
audio/x-aiff aif aiff aifc
audio/x-caf caf
audio/x-matroska mka
audio/x-ms-wma wma
audio/x-wav wav
image/avif avif
image/bmp bmp
image/gif gif
image/heic heic
image/heif heif
image/jpeg jpg jpeg jpe jfif
image/jxl jxl
image/png png
image/svg+xml svg
image/tiff tif tiff
image/vnd.adobe.photoshop psd
image/vnd.microsoft.icon ico
image/webp webp
text/calendar ics
text/csv csv
text/javascript js mjs
text/markdown md markdown
text/plain txt log srt
text/vcard vcf
text/vtt vtt
video/3gpp 3gp 3gpp
video/3gpp2 3g2 3gpp2
video/mp2t ts mts m2ts
video/mp4 mp4 m4v
video/mpeg mpeg mpg mpe
video/ogg ogv
video/quicktime mov qt
video/webm webm
video/x-flv flv
video/x-matroska mkv
video/x-ms-wmv wmv
video/x-msvideo avi
"""
_TYPES = {f".{ending}": kind for kind, *endings in map(str.split, _TABLE.split("\n")[1:-1]) for ending in endings}

#: After one of these, the extension in front belongs to the name too: .csv.gz, .tar.xz.
_COMPRESSED = (".bz2", ".gz", ".xz", ".z", ".zst")


def type_of(name: str) -> str | None:
    """Return the MIME type for a file name, the same on every machine; ``None`` if unknown."""
    ending = os.path.splitext(name)[1].lower()
    return _TYPES.get(ending) or _others().get(ending)


def ending_of(path: str) -> str:
    """Return a path's file extension with the dot, such as ``.pdf`` or ``.tar.gz``; empty if it has none."""
    stem, ending = os.path.splitext(path)
    # A version or a sentence does not end in an extension: "export 1.2", "Dr. No".
    if not re.fullmatch(r"\.[0-9]*[A-Za-z][A-Za-z0-9]{,9}", ending):
        return ""
    return os.path.splitext(stem)[1] + ending if ending.lower() in _COMPRESSED and type_of(stem) else ending


@lru_cache(maxsize=1)
def _others() -> dict[str, str]:
    """Return Python's own types by extension, without the machine's files such as ``/etc/mime.types``."""
    common, official = mimetypes.MimeTypes(filenames=()).types_map
    return {**common, **official}
