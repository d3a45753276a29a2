"""Requests and responses that stand in the OpenAPI document. Plain data; a test keeps it true to the payloads."""

from __future__ import annotations

from pydantic.config import JsonDict

__all__ = [
    "ANSWER",
    "ASK",
    "DOCUMENTS",
    "FEEDBACK",
    "HITS",
    "JOB",
    "JOB_REQUEST",
    "PROBLEM",
    "REMOVED",
    "SEARCH",
    "STREAM",
    "UPLOADED",
]

_PLACE: JsonDict = {
    "document": "5f2d0c7a91e4b386",
    "source": "handbook/travel.pdf",
    "title": "Travel",
    "page": 3,
    "start": 1204,
    "end": 1260,
    "text": "Receipts over 25 euros must be handed in within 30 days.",
}
_HIT: JsonDict = {**_PLACE, "score": 0.93, "dense": 0.61, "keyword": 8.42, "reranked": None}

ASK: JsonDict = {
    "question": "Until when must I hand in receipts?",
    "filters": {"language": "en"},
    "history": [{"question": "Who pays for my train ticket?", "answer": "The company does."}],
    "stream": False,
}

SEARCH: JsonDict = {"query": "receipts deadline", "limit": 5, "filters": {"language": ["en", "de"]}, "mode": "fused"}

HITS: JsonDict = {"hits": [_HIT]}

ANSWER: JsonDict = {
    "answer": "Within 30 days, if they are over 25 euros.",
    "abstained": False,
    "reason": None,
    "quotes": [_PLACE],
    "hits": [_HIT],
    "release": "a41be5d2c9f07318",
    "timings": {"search": 0.0121, "read": 3.4077},
    "reasoning": "##begin_quote## Receipts over 25 euros must be handed in within 30 days. ##end_quote##",
    "notes": [],
    "query": "Until when must I hand in receipts?",
    "cached": False,
}

FEEDBACK: JsonDict = {
    "question": "Until when must I hand in receipts?",
    "verdict": "bad",
    "answer": "Within 30 days, if they are over 25 euros.",
    "release": "a41be5d2c9f07318",
    "quotes": [_PLACE],
    "hits": [_HIT],
    "comment": "That was the rule until last year.",
    "correction": {"source": "handbook/travel-2026.pdf", "text": "Receipts must be handed in within 14 days."},
}

JOB_REQUEST: JsonDict = {"kind": "index", "arguments": {"paths": ["handbook"], "prune": True}}

JOB: JsonDict = {
    "id": "index-20261121-153012-7c40",
    "kind": "index",
    "arguments": {"paths": ["/srv/documents/handbook"], "prune": True},
    "status": "running",
    "created": "2026-11-21T15:30:12Z",
    "started": "2026-11-21T15:30:13Z",
    "ended": None,
    "left_out": False,
    "progress": {
        "phase": "documents",
        "done": 310,
        "total": 1200,
        "documents": {"queued": 890, "done": 284, "skipped": 25, "failed": 1},
    },
    "result": None,
    "error": None,
}

DOCUMENTS: JsonDict = {
    "documents": [
        {
            "document": "5f2d0c7a91e4b386",
            "source": "/srv/documents/handbook/travel.pdf",
            "title": "Travel",
            "name": "travel.pdf",
            "folder": "handbook",
            "kind": "pdf",
            "language": "en",
            "date": "2026-03-02",
            "pages": 12,
            "chunks": 41,
            "characters": 30118,
            "uploaded": False,
        }
    ],
    "total": 1,
    "facets": {"kind": {"pdf": 5, "html": 2}, "language": {"en": 4, "de": 3}, "folder": {"handbook": 7}},
}

UPLOADED: JsonDict = {
    "name": "leave.pdf",
    "path": "hr/leave.pdf",
    "bytes": 48213,
    "replaced": False,
    "document": "91e4b3865f2d0c7a",
    "job": "index-20261121-153012-7c40",
}

REMOVED: JsonDict = {"document": "91e4b3865f2d0c7a", "job": "remove-20261121-160533-01c2", "file": "deleted"}

PROBLEM: JsonDict = {
    "type": "urn:beleg:index-missing",
    "title": "Nothing has been indexed",
    "status": 503,
    "detail": "Nothing has been indexed yet.",
    "way_out": "Run `beleg index FOLDER`.",
}

STREAM = (
    'event: hits\ndata: {"hits": […]}\n\n'
    'event: token\ndata: {"text": "Within"}\n\n'
    ": ping\n\n"
    'event: quote\ndata: {"document": "5f2d0c7a91e4b386", "source": "handbook/travel.pdf", …}\n\n'
    'event: answer\ndata: {"answer": "Within 30 days, if they are over 25 euros.", "abstained": false, …}\n\n'
    "event: done\ndata: {}\n\n"
)
