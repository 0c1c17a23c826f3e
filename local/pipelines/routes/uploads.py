"""Pipeline packages as multipart uploads."""

from __future__ import annotations

import asyncio

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from kubeloop.local.pipelines.rpc_errors import invalid
from kubeloop.local.pipelines.spec.documents import (
    MAX_PACKAGE_BYTES,
    PipelineDocument,
    read_package,
)
from kubeloop.local.pipelines.spec.parsing import parse_pipeline

_MULTIPART_OVERHEAD = 64 * 1024


async def read_upload(request: Request) -> PipelineDocument:
    """The pipeline in the field `uploadfile`, checked as far as it can be without running it.

    Raises:
        InputError: The package holds no pipeline, or one that cannot run.
        RpcError: The request is no upload, or too large.
    """
    declared = request.headers.get("content-length", "")
    if not declared.isdigit() or int(declared) > MAX_PACKAGE_BYTES + _MULTIPART_OVERHEAD:
        raise invalid(f"The upload is larger than {MAX_PACKAGE_BYTES} bytes, or does not say.")
    try:
        async with request.form(max_files=1, max_fields=8) as form:
            uploaded = form.get("uploadfile")
            if not isinstance(uploaded, UploadFile):
                raise invalid("The upload has no file in its field 'uploadfile'.")
            data = await uploaded.read()
            file_name = uploaded.filename or ""
    except MultiPartException as error:
        raise invalid(f"The upload is no multipart form: {error.message}.") from error
    document = await asyncio.to_thread(read_package, data, file_name=file_name)
    parse_pipeline(document)
    return document
