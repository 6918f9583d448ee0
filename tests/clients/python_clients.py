"""Packages built on OpenAI's, called as their users call them; each prints its answers as one line of JSON.

They run as programs of their own, so that what they import and warn about stays out of the tests' process.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

URL, SPEECH = os.environ["SERVICE_URL"], os.environ["SPEECH_FILE"]
MODEL = "sottovoce"


def call_litellm() -> dict[str, Any]:
    """Call LiteLLM's SDK, which its proxy calls, too."""
    import litellm
    import openai

    def ask(**fields: Any) -> Any:
        with Path(SPEECH).open("rb") as file:
            return litellm.transcription(
                model=f"openai/{MODEL}", file=file, api_base=URL, api_key="none", max_retries=0, **fields
            )

    verbose = ask(response_format="verbose_json", timestamp_granularities=["word", "segment"])
    try:
        ask(temperature=2)
        refusal = ""
    except openai.BadRequestError as error:  # LiteLLM passes it on as it is
        refusal = str(error)
    return {
        "text": ask().text,
        "words": [word["word"] for word in verbose.model_dump()["words"]],
        "duration_s": verbose.model_dump()["duration"],
        "refusal": refusal,
    }


def call_langchain() -> dict[str, Any]:
    """Load a document with LangChain's parser, which cuts long audio and sends mp3."""
    from langchain_community.document_loaders.parsers.audio import OpenAIWhisperParser
    from langchain_core.documents.base import Blob
    from pydub import AudioSegment

    AudioSegment.converter = os.environ["FFMPEG"]
    parser = OpenAIWhisperParser(api_key="none", base_url=URL, model=MODEL, language="en", temperature=0.0)
    documents = parser.parse(Blob.from_path(SPEECH))
    return {
        "text": " ".join(document.page_content for document in documents),
        "metadata": [document.metadata for document in documents],
    }


CALLS = {"litellm": call_litellm, "langchain": call_langchain}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(CALLS[sys.argv[1]]()))
