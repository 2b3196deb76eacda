"""What each user of the load test does, for locust: asks about what is everybody's, about their own document, and about a document of somebody else's.

tests/load.py starts it; LOAD_PEOPLE names its file of users, each with a key, a name and the code that only their own document tells, and LOAD_SEEN the file
for what went wrong.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import time
from pathlib import Path
from typing import Any

from locust import HttpUser, between, task

PEOPLE: list[dict[str, str]] = json.loads(Path(os.environ["LOAD_PEOPLE"]).read_text(encoding="utf-8"))
OWNERS = {person["code"]: person["name"] for person in PEOPLE}
CODE = re.compile(r"\d{6}-[0-9A-F]{6}")
SEEN = Path(os.environ["LOAD_SEEN"])
EVERYBODYS = (
    "Who made RynnBrain?",
    "How long can videos of Kling 3.0 be?",
    "Which company made Seedance 2.0?",
    "What does Zixuan Li say about open source?",
    "Who raised the price of a subscription for developers?",
)
NUMBERS = itertools.count()


class Person(HttpUser):
    """Somebody with an account and a document of their own."""

    abstract = True
    wait_time = between(1, 3)

    def on_start(self) -> None:
        """Called by locust for each user."""
        self.me = PEOPLE[next(NUMBERS) % len(PEOPLE)]
        # As a proxy in front would say it: https, each user from an address of their own.
        self.client.headers.update({"Authorization": f"Bearer {self.me['key']}", "X-Forwarded-Proto": "https", "X-Forwarded-For": self.me["address"]})
        self.client.hooks["response"].append(told)

    def count(self, name: str, began: float) -> None:
        self.environment.events.request.fire(
            request_type="SSE", name=name, response_time=1000 * (time.perf_counter() - began), response_length=0, exception=None, context={}
        )

    def nothing_of_others(self, text: str) -> None:
        for code in set(CODE.findall(text)) - {self.me["code"]}:
            if code in OWNERS:
                note("cross-talk", f"{self.me['name']} read of {OWNERS[code]}", text[:2_000])


class Program(Person):
    """Asks over HTTP, with events as they come."""

    weight = 3

    @task(6)
    def ask_about_what_is_everybodys(self) -> None:
        """A question that the seeds answer."""
        self.answer(random.choice(EVERYBODYS))

    @task(3)
    def ask_about_my_own(self) -> None:
        """A question that the user's own document answers."""
        said = self.answer(f"What is the locker code of {self.me['name']}?")
        if said is not None and self.me["code"] not in json.dumps(said):
            note("missed", self.me["name"], json.dumps(said)[:2_000])

    @task(1)
    def ask_about_somebody_elses(self) -> None:
        """A question that somebody else's document answers, which this user must not learn."""
        self.answer(f"What is the locker code of {random.choice(PEOPLE)['name']}?")

    @task(1)
    def look_at_the_documents(self) -> None:
        """The listing, which a page asks for too."""
        with self.client.get("/api/documents", name="documents", catch_response=True) as response:
            self.nothing_of_others(response.text)

    @task(1)
    def look_at_the_conversations(self) -> None:
        """The listing of conversations."""
        with self.client.get("/api/conversations", name="conversations", catch_response=True) as response:
            self.nothing_of_others(response.text)

    def answer(self, question: str) -> dict[str, Any] | None:
        """Asks as a page does, with events as they come; None where there is no answer. Times to the evidence and to the answer are counted apart."""
        began, answer, kind = time.perf_counter(), None, ""
        with self.client.post(
            "/api/ask", json={"question": question}, headers={"Accept": "text/event-stream"}, stream=True, name="ask", catch_response=True
        ) as response:
            if response.status_code == 429:
                response.success()  # a clear refusal is what a full server owes; it is counted as such
                self.count("full", began)
                return None
            if response.status_code != 200:
                return None
            for line in response.iter_lines(decode_unicode=True):
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    self.nothing_of_others(line)
                    if kind == "evidence":
                        self.count("evidence", began)
                    elif kind == "answer":
                        answer = json.loads(line.removeprefix("data: "))
                    elif kind == "error":
                        note("error", self.me["name"], line)
        if answer is None:
            note("no answer", question, kind)
            return None
        self.count("answer", began)
        self.environment.events.request.fire(
            request_type="SERVER",
            name="evidence by the server",
            response_time=answer["timings"]["evidence_ms"],
            response_length=0,
            exception=None,
            context={},
        )
        return answer


class PageReader(Person):
    """Asks as the chat page does: opens it, begins a session of Gradio's that says it is there until it is left, and follows its events."""

    weight = 1

    def on_start(self) -> None:
        """Called by locust for each user."""
        super().on_start()
        self.client.get("/", name="page")
        events = self.client.get("/config", name="page config").json()["dependencies"]
        self.load = next(event for event in events if [0, "load"] in event["targets"])
        self.ask = next(event for event in events if any(kind == "submit" for _, kind in event["targets"]))
        # What the page asks for once an answer has been put away: its buttons, and the newest documents. It does not wait for them.
        self.after = [event for event in events if event["trigger_after"] == self.ask["id"] and not event["trigger_only_on_failure"]]
        assert self.after
        self.asked = 0
        self.there: Any = None

    def on_stop(self) -> None:
        """Called by locust at the end."""
        if self.there is not None:
            self.there.close()

    @task
    def ask_on_the_page(self) -> None:
        """A question; after some of them a new conversation."""
        if self.asked % 4 == 0:
            self.on_stop()
            self.session = f"{random.getrandbits(60):x}"
            self.there = self.client.get(f"/gradio_api/heartbeat/{self.session}", name="page heartbeat", stream=True)
            self.follow(self.load, [], "page opened")
        self.asked += 1
        mine = self.asked % 3 == 0
        question = f"What is the locker code of {self.me['name']}?" if mine else random.choice(EVERYBODYS)
        said = self.follow(self.ask, [question, None, None], "page answer")
        if mine and said and self.me["code"] not in said:
            note("missed", self.me["name"], said[-2_000:])
        for event in self.after:
            self.follow(event, [None] * len(event["inputs"]), "page settled")

    def follow(self, event: dict[str, Any], given: list[Any], name: str) -> str:
        """Begins an event and reads what comes of it until its end."""
        began, seen, text = time.perf_counter(), False, ""
        target = event["targets"][0][0]
        body = {"data": given, "event_data": None, "fn_index": event["id"], "trigger_id": target, "session_hash": self.session}
        joined = self.client.post("/gradio_api/queue/join", json=body, name="page event")
        if joined.status_code != 200:
            return ""
        address = f"/gradio_api/queue/data?session_hash={self.session}"
        with self.client.get(address, name="page stream", stream=True, catch_response=True) as response:
            for line in response.iter_lines(decode_unicode=True):
                if not line.startswith("data: "):
                    continue
                self.nothing_of_others(line)
                text += line
                told = json.loads(line.removeprefix("data: "))
                if not seen and "show-evidence" in line:
                    seen = True
                    self.count("page evidence", began)
                if told["msg"] == "process_completed":
                    if not told["success"]:
                        note("error", self.me["name"], line[:500])
                    break
            response.success()
        self.count(name, began)
        return text


def told(response: Any, *_: Any, **__: Any) -> None:
    """Writes down every status that says no, whatever was asked for."""
    if response.status_code >= 400:
        note("status", str(response.status_code), f"{response.request.method} {response.url}")


def note(what: str, *more: str) -> None:
    """Writes down what should not have been."""
    with SEEN.open("a", encoding="utf-8") as file:
        file.write(json.dumps([what, *more]) + "\n")
