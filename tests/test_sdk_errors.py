import json
from collections.abc import Callable

import pytest
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import ProtocolError

from kubeloop.errors import InputError, KubeloopError, PermanentError, TransientError
from kubeloop.sdk_errors import (
    ApiFailureError,
    MissingObjectError,
    ObjectConflictError,
    RefusedError,
    read_message,
    translate_errors,
)


def build_failure(status: int, message: str = "told so", reason: str = "Reason") -> ApiException:
    error = ApiException(status=status, reason=reason)
    error.body = json.dumps({"kind": "Status", "message": message})
    return error


def fail(error: Exception) -> None:
    raise error


def fail_flattened(error: Exception) -> None:
    """Fail as KServe's, Katib's and the Training Operator's clients do."""
    try:
        raise error
    except Exception:
        raise RuntimeError("Exception when calling the API") from None


@pytest.mark.parametrize("raise_it", [fail, fail_flattened])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RefusedError),
        (401, ApiFailureError),
        (403, ApiFailureError),
        (404, MissingObjectError),
        (409, ObjectConflictError),
        (422, RefusedError),
    ],
)
def test_a_refusal_is_permanent_and_of_the_kind_of_its_status(
    status: int, kind: type[ApiFailureError], raise_it: Callable[[Exception], None]
) -> None:
    with (
        pytest.raises(PermanentError, match=r"^Failed to read Pod a/b: told so$") as e,
        translate_errors("read Pod a/b"),
    ):
        raise_it(build_failure(status))

    assert type(e.value) is kind
    assert e.value.status == status
    assert isinstance(e.value, InputError) == (status in (400, 422))


@pytest.mark.parametrize("raise_it", [fail, fail_flattened])
@pytest.mark.parametrize("status", [0, 408, 429, 500, 502, 503, 504])
def test_an_overloaded_api_is_worth_another_try(
    status: int, raise_it: Callable[[Exception], None]
) -> None:
    with pytest.raises(TransientError, match="told so"), translate_errors("read Pod a/b"):
        raise_it(build_failure(status))


@pytest.mark.parametrize("raise_it", [fail, fail_flattened])
@pytest.mark.parametrize("error", [ProtocolError("connection reset"), TimeoutError("too late")])
def test_an_api_that_does_not_answer_is_worth_another_try(
    error: Exception, raise_it: Callable[[Exception], None]
) -> None:
    with (
        pytest.raises(TransientError, match="the Kubernetes API does not answer") as e,
        translate_errors("read Pod a/b"),
    ):
        raise_it(error)

    assert str(error) in str(e.value)


def test_a_webhook_that_denies_with_403_refuses_the_object() -> None:
    failure = build_failure(403, 'admission webhook "validator" denied the request: no')

    with pytest.raises(RefusedError, match="denied the request: no"), translate_errors("write"):
        raise failure


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), ValueError("no such field"), InputError("ours")]
)
def test_other_errors_pass_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as e, translate_errors("read Pod a/b"):
        raise error

    assert e.value is error


def test_an_error_of_ours_from_within_is_not_translated_again() -> None:
    def read() -> None:
        with translate_errors("read Pod a/b"):
            raise build_failure(404)

    with (
        pytest.raises(KubeloopError, match=r"^Failed to read Pod a/b: told so$"),
        translate_errors("deploy"),
    ):
        read()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"message": "told so", "code": 3}', "told so"),
        ("RBAC: access denied\n", "RBAC: access denied"),
        ("<html><body>Bad gateway</body></html>", "Reason"),
        ('["no object"]', '["no object"]'),
        ("", "Reason"),
        (None, "Reason"),
    ],
)
def test_the_message_is_the_servers_own_where_it_has_one(body: str | None, message: str) -> None:
    error = ApiException(status=400, reason="Reason")
    error.body = body

    assert read_message(error) == message


def test_a_message_is_found_for_an_error_with_nothing_to_say() -> None:
    assert "(7)" in read_message(ApiException(status=7))
