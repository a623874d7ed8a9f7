"""An image from the stock SDK to an engine with eyes and back; nobody else is shown anything."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from darkbloom_local import seeds
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED, place_scripted, scripted_build
from openai import AsyncOpenAI, BadRequestError, InternalServerError

from tests.media import data_url, jpeg, png, seen
from tests.mesh.harness import QUICK, Books, Consumer, Fleet, script

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="module")]

SEEING, BLIND = "dev/seeing", "dev/blind"
DESCRIBE = f"/script {json.dumps({'describe': True})}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """A machine with a text build, one with eyes, and one of which only the catalog says so."""
    environment = {
        **QUICK,
        "provider": {"DARKBLOOM_PROVIDER_MODELS": f"{SCRIPTED},{SEEING},{BLIND}"},
    }
    state = tmp_path_factory.mktemp("media")
    async with Mesh(state, engine=None, environment=environment, durable=False) as found:
        models = found.state.directory("models")
        builds = [scripted_build(place_scripted(models))]
        for name, sees in ((SEEING, True), (BLIND, False)):
            build = scripted_build(place_scripted(models, name, vision=sees))
            build.build.id = name
            build.build.capabilities.append("vision")
            builds.append(replace(build, alias=name.removeprefix("dev/")))
        await seeds.prices(found.channel("billing.grpc"), builds)
        await seeds.catalog(found.channel("registry.grpc"), builds)
        await found.start_provider("provider", engine="scripted")
        await Fleet(found).wait_routable(1)
        yield found


@pytest.mark.timeout(240)
async def test_an_image_goes_all_the_way_and_only_to_who_can_see(mesh: Mesh) -> None:
    consumer, books = Consumer(mesh), Books(mesh)
    before = await consumer.balance()
    async with AsyncOpenAI(
        api_key=mesh.api_key, base_url=f"{mesh.url}/v1", max_retries=0
    ) as client:
        answer = await client.chat.completions.create(
            model="seeing",
            messages=seen(data_url(png()), DESCRIBE),  # type: ignore[arg-type]
        )
        stream = await client.chat.completions.create(
            model="seeing",
            messages=seen(data_url(jpeg(metadata=900)), DESCRIBE),  # type: ignore[arg-type]
            stream=True,
        )
        words = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        # A text build answers 400; a build of the catalog that nobody can show anything is away.
        with pytest.raises(BadRequestError) as text_only:
            await client.chat.completions.create(
                model=SCRIPTED,
                messages=seen(data_url(png())),  # type: ignore[arg-type]
            )
        with pytest.raises(InternalServerError) as nobody:
            await client.chat.completions.create(
                model="blind",
                messages=seen(data_url(png())),  # type: ignore[arg-type]
            )

    assert answer.choices[0].message.content == f"image/png 3x2 {len(png())} bytes"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 303
    # Close to a megabyte, in parts of 64 KiB.
    assert "".join(words) == f"image/jpeg 5x4 {len(jpeg(metadata=900))} bytes"
    assert text_only.value.type == "invalid_request_error"
    assert (nobody.value.status_code, nobody.value.code) == (503, "model_capability_unsupported")
    report = await consumer.verify(
        answer.model_extra["receipt"] if answer.model_extra else {},
        answer=answer.choices[0].message.content,
    )
    assert report.ok
    assert await consumer.balance() < before
    # The same build without eyes takes text.
    assert (await consumer.post({"model": BLIND, "messages": script(text="yes")})).is_success
    await books.clean()
    assert png() not in await asyncio.to_thread(mesh.log("gateway").read_bytes)
