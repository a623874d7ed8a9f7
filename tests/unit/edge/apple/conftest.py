import pytest

from tests.fakes.apple_service import AppleService


@pytest.fixture(scope="session")
def apple() -> AppleService:
    return AppleService()
