"""The unmodified ``openai`` client, and a question to ask with it."""

from __future__ import annotations

from typing import Any

import openai
from openai.types.chat import ChatCompletionMessageParam

from tests.api.live import Service

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Good or bad?\n\nProfit of firm 3"}]


def client_of(service: Service, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{service.url}/v1",
        api_key="any",
        http_client=openai.DefaultHttpxClient(trust_env=False, verify=False),
        **{"max_retries": 0, **options},
    )
