"""`GET /v1/suggestions`."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from reader.pipeline import MOST_SUGGESTIONS
from reader.suggestions import Suggestion
from serving.routes.suggestions import suggestions_router


class Suggesting:
    """Suggests the same two questions, and notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, int]] = []

    def suggestions(self, *, language: str | None, limit: int) -> list[Suggestion]:
        self.asked.append((language, limit))
        return [Suggestion("Wer zahlt?", "d1", "Reisen"), Suggestion("Wo ist das?", "d2", "Haus_\udcfc")][:limit]


@pytest.fixture
def served() -> tuple[Suggesting, TestClient]:
    fake: Any = Suggesting()
    app = FastAPI()
    app.include_router(suggestions_router(fake))
    return fake, TestClient(app)


def test_questions_with_their_documents(served: tuple[Suggesting, TestClient]) -> None:
    fake, client = served
    assert client.get("/v1/suggestions").json() == {
        "questions": [
            {"question": "Wer zahlt?", "document": "d1", "title": "Reisen"},
            # What UTF-8 cannot carry is replaced.
            {"question": "Wo ist das?", "document": "d2", "title": "Haus_\ufffd"},
        ]
    }
    assert len(client.get("/v1/suggestions?language=de&limit=1").json()["questions"]) == 1
    assert fake.asked == [(None, 6), ("de", 1)]


@pytest.mark.parametrize("query", ["limit=0", f"limit={MOST_SUGGESTIONS + 1}", "limit=many", f"language={'x' * 21}"])
def test_what_cannot_be_asked_for(served: tuple[Suggesting, TestClient], query: str) -> None:
    fake, client = served
    assert client.get(f"/v1/suggestions?{query}").status_code == 422
    assert fake.asked == []
