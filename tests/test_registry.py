import pytest

from kubeloop.errors import InputError
from kubeloop.registry import Registry


def test_unknown_name_lists_the_known_ones() -> None:
    registry: Registry[int] = Registry("colour")
    registry.register("red", 1)

    with pytest.raises(InputError, match="Unknown colour 'blue'; known are: red"):
        registry["blue"]


def test_a_name_is_taken_once() -> None:
    registry: Registry[int] = Registry("colour")
    registry.register("red", 1)

    with pytest.raises(InputError, match="registered already"):
        registry.register("red", 2)
    assert dict(registry) == {"red": 1}
