"""What a build may promise with the template it has, tried by the real fixtures."""

import pytest
from darkbloom_edge.chat_template.fixtures import examine
from darkbloom_edge.chat_template.template import ChatTemplate
from darkbloom_mesh.errors import InvalidArgumentError
from darkbloom_registry.model import BuildFacts, BuildStatus, Rendering
from darkbloom_registry.templates import check_rendering

WORDS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n'"
    " + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
)
"""As SmolLM2 has it: it knows no tools, and wants text in every message."""
CARELESS = "{% if tools %}{{ tools[0].no.such }}{% endif %}" + WORDS


def facts(*capabilities: str) -> BuildFacts:
    return BuildFacts(
        id="org/model",
        display_name="model",
        family="family",
        architecture="llama",
        quantization="8bit",
        max_context_length=4096,
        max_output_length=1024,
        min_ram_gb=8,
        capabilities=("chat", *capabilities),
        required_provider_capabilities=(),
        status=BuildStatus.BETA,
        description="",
        model_type="text",
        hugging_face_id="",
        deprecation_date="",
        runtime_parameters_json="",
    )


def tried(source: str, *, vision: bool = False) -> Rendering:
    report = examine(ChatTemplate(source), vision=vision)
    return Rendering(template_sha256=report.sha256, fixtures=report.fixtures)


def test_a_template_that_knows_no_tools_may_serve_them_in_words() -> None:
    check_rendering(facts("tools"), tried(WORDS))


def test_a_template_that_tries_and_fails_may_not_promise_tools() -> None:
    with pytest.raises(InvalidArgumentError, match="tools"):
        check_rendering(facts("tools"), tried(CARELESS))
    check_rendering(facts(), tried(CARELESS))


def test_images_that_were_never_tried_are_not_promised() -> None:
    with pytest.raises(InvalidArgumentError, match="images"):
        check_rendering(facts("vision"), tried("{{ messages[0]['role'] }}"))
    check_rendering(facts("vision"), tried("{{ messages[0]['role'] }}", vision=True))
