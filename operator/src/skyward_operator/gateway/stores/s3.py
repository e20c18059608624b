"""A bucket of any S3 API as the store: an operator on another machine finds there what ended tasks left.

    s3://<bucket>/<prefix>/<installation>/<namespace>/<uid>/payload

An object of S3 appears whole or not at all. Each request is signed over the digest of its body, so that the
server refuses what was damaged on its way. Nothing is ever listed, or dropped, outside of the installation's
own prefix and the namespaces that this operator looks after.

boto3 blocks: all of it runs in threads of its own, so that a store that hangs holds up nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.handlers import add_expect_header
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from skyward_operator.gateway.stores.contract import Blob, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from skyward_operator.settings import Bucket

logger = logging.getLogger(__name__)

_MIB: Final = 1 << 20
_PIECE: Final = 1 << 18
_PART: Final = 8 * _MIB
_MOST_PARTS: Final = 10_000
_THREADS: Final = 8
_CONNECT_SECONDS: Final = 5.0
_SILENCE_SECONDS: Final = 30.0
_GONE: Final = frozenset({"404", "NoSuchKey", "NoSuchUpload", "NotFound"})
_FAILURES: Final = (BotoCoreError, Boto3Error, ClientError, ResponseParserError, HTTPError, KeyError)
"""KeyError: http.client takes a header that was cut off for a whole one, and boto3 misses what it needs."""


class S3Store:
    """Implements `Store`. `installation` names what nobody else puts into the bucket; it is asked once."""

    def __init__(
        self,
        bucket: Bucket,
        installation: Callable[[], Awaitable[str]],
        *,
        namespaces: Sequence[str] = (),
        part: int = _PART,
        client: Any = None,
    ) -> None:
        self._bucket = bucket
        self._installation = installation
        self._namespaces = namespaces
        self._part = part
        self._client = client or _client(bucket)
        self._threads: ThreadPoolExecutor | None = None
        self._root: str | None = None
        self._under_way: set[str] = set()
        """Keys that this process writes now."""
        self._tasks: set[tuple[str, str]] = set()
        """Of which tasks there is something: all of them once the bucket was listed."""
        self._is_listed = False

    async def keep(self, blob: Blob, path: Path, progressed: Callable[[int], object] | None = None) -> None:
        """Upload a file in parts, of which few are in memory at a time."""
        key, size = await self._key(blob), (await asyncio.to_thread(path.stat)).st_size
        loop = asyncio.get_running_loop()

        def moved(count: int) -> None:
            if progressed is not None:
                with suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(progressed, count)

        part = max(self._part, -(-size // _MOST_PARTS))
        transfer = TransferConfig(multipart_threshold=part, multipart_chunksize=part, max_concurrency=3)
        self._under_way.add(key)
        self._tasks.add((blob.namespace, blob.uid))
        try:
            await self._do(
                f"{blob} cannot be stored",
                lambda: self._client.upload_file(
                    str(path), self._bucket.name, key, Config=transfer, Callback=moved
                ),
            )
        finally:
            self._under_way.discard(key)
        if (kept := await self.size(blob)) != size:
            raise StoreError(f"{self._bucket} has {kept} of the {size} bytes of {blob} after their upload")

    async def size(self, blob: Blob) -> int | None:
        """Bytes of an object; None where there is none."""
        key = await self._key(blob)

        def head() -> int | None:
            try:
                return int(self._client.head_object(Bucket=self._bucket.name, Key=key)["ContentLength"])
            except ClientError as error:
                if _code(error) in _GONE:
                    return None
                raise

        return await self._do(f"{blob} cannot be looked for", head)

    async def read(self, blob: Blob, start: int = 0) -> AsyncIterator[bytes]:
        """An object from a byte on."""
        key, what = await self._key(blob), f"{blob} cannot be read"

        def begin() -> Any:
            try:
                range_ = {"Range": f"bytes={start}-"} if start else {}
                answer = self._client.get_object(Bucket=self._bucket.name, Key=key, **range_)
                answer["ContentLength"]  # which the body is compared with at its end
                return answer["Body"]
            except ClientError as error:
                if _code(error) in _GONE:
                    raise FileNotFoundError(str(blob)) from error
                raise

        body = await self._do(what, begin)
        try:
            while piece := await self._do(what, lambda: body.read(_PIECE)):
                yield piece
        finally:
            body.close()

    async def remove(self, namespace: str, uid: str) -> None:
        """Drop all objects of a task. Most tasks have none, which is known without a request."""
        if self._is_listed and (namespace, uid) not in self._tasks:
            return
        prefix = f"{await self._base()}/{namespace}/{uid}/"

        def drop() -> None:
            for key in self._keys(prefix):
                self._client.delete_object(Bucket=self._bucket.name, Key=key)

        await self._do(f"the files of {namespace}/{uid} cannot be dropped", drop)
        self._tasks.discard((namespace, uid))

    async def sweep(self) -> set[tuple[str, str]]:
        """Abort uploads that nobody goes on with, and tell whose objects there are."""
        base = await self._base()
        prefixes = [f"{base}/{namespace}/" for namespace in self._namespaces] or [f"{base}/"]

        def look() -> set[tuple[str, str]]:
            found: set[tuple[str, str]] = set()
            for prefix in prefixes:
                self._abort_uploads(prefix)
                for key in self._keys(prefix):
                    place = key.removeprefix(f"{base}/").split("/")
                    if len(place) == 3:
                        found.add((place[0], place[1]))
            return found

        found = await self._do("the bucket cannot be listed", look)
        self._tasks |= found
        self._is_listed = True
        return found

    def close(self) -> None:
        """Let go of connections; what is under way in a thread ends with its time-out."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None
        self._client.close()

    async def _base(self) -> str:
        if self._root is None:
            self._root = f"{self._bucket.prefix}{await self._installation()}"
        return self._root

    async def _key(self, blob: Blob) -> str:
        return f"{await self._base()}/{blob}"

    def _keys(self, prefix: str) -> Iterator[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket.name, Prefix=prefix
        )
        for page in pages:
            for each in page.get("Contents", ()):
                yield each["Key"]

    def _abort_uploads(self, prefix: str) -> None:
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._bucket.name, Prefix=prefix
        )
        for page in pages:
            for each in page.get("Uploads", ()):
                if each["Key"] in self._under_way:
                    continue
                logger.info("dropping an upload that was never finished: %s", each["Key"])
                with suppress(ClientError):
                    self._client.abort_multipart_upload(
                        Bucket=self._bucket.name, Key=each["Key"], UploadId=each["UploadId"]
                    )

    async def _do[T](self, what: str, call: Callable[[], T]) -> T:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="skyward-s3")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except _FAILURES as error:
            raise StoreError(f"{self._bucket}: {what}: {_words(error)}") from error


def _client(bucket: Bucket) -> Any:
    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_SILENCE_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=2 * _THREADS,
        # What every S3 API understands: the signature covers the digest of the body.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={
            "payload_signing_enabled": True,
            "addressing_style": "path" if bucket.endpoint else "auto",
        },
    )
    session = boto3.session.Session()
    region = bucket.region or session.region_name or "us-east-1"
    client = session.client("s3", endpoint_url=bucket.endpoint, region_name=region, config=config)
    # botocore reads what follows "100 Continue" until an empty line: on a connection that ended there, for
    # ever (AWSConnection._consume_headers). Parts are small enough to be sent without asking first.
    client.meta.events.unregister("before-call.s3", add_expect_header)
    return client


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _words(error: Exception) -> str:
    """What went wrong and what to do; never with credentials, which errors of boto3 do not carry."""
    text = f"its answer has no {error}" if isinstance(error, KeyError) else str(error)
    text = _ADDRESS.sub(r"\1", _UPLOAD.sub("", text))
    for sign, remedy in _REMEDIES.items():
        if sign in text:
            return f"{text}; {remedy}"
    return text


_UPLOAD: Final = re.compile(r"^Failed to upload \S+ to \S+: ")
_ADDRESS: Final = re.compile(r"(https?://[^/\s\"]+)/[^\s\"]*")
"""Which request it was is said before; its whole address is long, and another one each time."""
_REMEDIES: Final = {
    "locate credentials": "give the operator a role, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "NoSuchBucket": "create the bucket, or correct --blob-store",
    "AccessDenied": "its credentials need s3:ListBucket, s3:ListBucketMultipartUploads, s3:GetObject, "
    "s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload there",
    "InvalidAccessKeyId": "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the operator",
    "SignatureDoesNotMatch": "correct AWS_SECRET_ACCESS_KEY of the operator",
    "Could not connect": "see whether it runs and whether --s3-endpoint is right",
}
